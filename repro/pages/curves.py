"""Figures over training: accuracy, losses, and what becomes of the pseudo-labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from repro.pages.drawing import Drawing, axes, legend
from repro.pages.history import Group, Pick, read

OFFSETS = {
    "none": "no offset",
    "logit_adjusted": "logit adjustment",
    "seval": "SEVAL's offset, last fit",
    "seval_smoothed": "SEVAL's offset, smoothed",
    "cdmad": "logits of a blank image",
    "bias": "the classifier's bias",
}
STEP = "training step"
_BAND = "Line: mean over seeds; band: ± one standard deviation."


def curves(group: Group) -> Iterator[Drawing]:
    """All that the evaluations of these runs can show."""
    for name, key, words, unit in (
        ("accuracy", "top1", "Test accuracy", "test accuracy [%]"),
        ("few", "few", "Test recall of the few-shot classes", "few-shot recall [%]"),
    ):
        picks = {OFFSETS[offset]: _measured(offset, key) for offset in group.offsets()}
        yield from _drawn(group, name, f"{words} at each offset, by the averaged network.", unit, picks, 100)
    names = {key for lines in group.lines.values() for line in lines for key in read(line, lambda it: it["loss"]) or ()}
    picks = {name.replace("_", " "): _at("loss", name) for name in sorted(names)}
    yield from _drawn(group, "loss", "Losses of the training batches.", "loss [nats]", picks)
    picks = {
        "share kept": _at("quality", "kept"),
        "accuracy, kept": _at("quality", "accuracy_kept"),
        "accuracy, before": _at("quality", "accuracy_before"),
        "accuracy, after": _at("quality", "accuracy_after"),
    }
    caption = "Pseudo-labels: share kept; share that is right before and after the refinement, and of the kept."
    yield from _drawn(group, "kept", caption, "share [%]", picks, 100)
    picks = {key: _mean_over_classes(key) for key in ("precision", "recall")}
    caption = "Kept pseudo-labels: precision and recall, averaged over the classes."
    yield from _drawn(group, "pseudo-labels", caption, "class average [%]", picks, 100)
    picks = {key: _at("quality", key) for key in ("gain", "correctness")}
    caption = "Gain of the refinement and correctness of the kept pseudo-labels, as the paper defines them."
    yield from _drawn(group, "gain", caption, "gain, correctness [1]", picks)


def _measured(offset: str, key: str) -> Pick:
    return lambda line: line["test"]["ema"][offset][key]


def _at(part: str, key: str) -> Pick:
    return lambda line: line[part][key]


def _mean_over_classes(key: str) -> Pick:
    """A class without kept pseudo-labels has no precision, and is left out of its mean."""

    def pick(line: dict) -> float | None:
        known = [value for value in line["quality"][key] if value is not None]
        return float(np.mean(known)) if known else None

    return pick


def _drawn(
    group: Group, name: str, caption: str, unit: str, picks: Mapping[str, Pick], scale: float = 1
) -> Iterator[Drawing]:
    """One figure with a line for each of `picks` that is found; none if nothing is."""
    every = {label: series for label, pick in picks.items() if (series := group.series(pick))}
    if not every:
        return
    figure, ax = axes(STEP, unit)
    for label, series in every.items():
        mean, std = scale * series.mean, scale * series.std
        (line,) = ax.plot(series.steps, mean, label=label, marker="o" if len(mean) == 1 else None)
        if std.any():
            ax.fill_between(series.steps, mean - std, mean + std, color=line.get_color(), alpha=0.18, lw=0)
    _room(ax, scale)
    thousands(ax)
    legend(ax)
    seeds = len(group.lines)
    yield Drawing(name, f"{caption} {_BAND}" if seeds > 1 else caption, figure)


def _room(ax: Any, scale: float) -> None:
    """Of values that hardly differ, no more is shown than they mean: a tenth of the scale, from 0 on."""
    low, high = ax.get_ylim()
    if high - low < 0.12 * scale:
        middle = (low + high) / 2
        low = max(middle - 0.05 * scale, -0.005 * scale)
        ax.set_ylim(low, low + 0.1 * scale)


def thousands(ax: Any) -> None:
    """Few ticks of steps, large ones as 50k."""
    ax.xaxis.set_major_locator(_ticks())
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}")


def _ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5, integer=True)
