"""Accuracy and loss over steps, several runs in one picture. Matplotlib is imported only to draw."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro.listing.differences import few, shortest, words
from repro.listing.found import Found, inside, look, number
from repro.tables.reading import NETWORKS, SPLITS, Reading
from seval.errors import ConfigError
from seval.files import read_bytes, replace
from seval.record import read_lines

ENDINGS = (".png", ".svg", ".pdf")
#: Of Okabe and Ito, for every kind of color vision; further runs get other strokes.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STROKES = ("-", "--", ":", "-.")


@dataclass
class Curve:
    """What a run has measured after each of `steps`: accuracy in percent, and the sum of its losses."""

    label: str
    steps: list[int] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def draw(folders: Sequence[Path], reading: Reading, out: Path) -> list[str]:
    """Write the picture; returns what is to be said. Raises `ConfigError`, `OSError`."""
    if out.suffix.lower() not in ENDINGS:
        raise ConfigError(f"--out {out} must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    runs = [look(folder, reading) for folder in folders]
    curves, notes = [], []
    for run, label in zip(runs, labels(runs), strict=True):
        path = run.folder / "metrics.jsonl"
        lines = read_lines(path)
        curve = curve_of(lines, reading, label)
        written = read_bytes(path).count(b"\n") if path.exists() else 0
        if written > len(lines):
            notes.append(f"{run.id}: line {len(lines) + 1} of {path} is damaged; the curve ends there")
        if curve.steps:
            curves.append(curve)
        else:
            notes.append(f"{run.id}: no evaluations with {reading.split}/{reading.network}/{reading.offset} yet")
    if not curves:
        raise ConfigError("nothing to draw: " + "; ".join(notes))
    ending = out.suffix.lower().removeprefix(".")
    replace(out, _picture(curves, reading, ending))
    return [*notes, f"{len(curves)} run{'' if len(curves) == 1 else 's'}: {out}"]


def labels(runs: Sequence[Found]) -> list[str]:
    """A name for each run, with the settings in which they differ, and ids where that is not enough."""
    keys = few(runs)
    names = shortest(keys)
    texts = [" ".join(filter(None, (run.name, words(run, keys, names)))) for run in runs]
    return [f"{text} ({run.id})" if texts.count(text) > 1 else text for run, text in zip(runs, texts, strict=True)]


def curve_of(lines: Iterable[Mapping[str, Any]], reading: Reading, label: str) -> Curve:
    """The evaluations that have this reading; a loss that is missing is not a number."""
    curve = Curve(label)
    for line in lines:
        value = number(inside(line, reading.split, reading.network, reading.offset, reading.metric))
        step, loss = line.get("step"), line.get("loss")
        parts = [number(part) for part in loss.values()] if isinstance(loss, Mapping) else []
        if type(step) is int and number(step) is not None and value is not None:
            curve.steps.append(step)
            curve.accuracy.append(100 * value)
            known = [part for part in parts if part is not None]
            curve.losses.append(sum(known) if known and len(known) == len(parts) else float("nan"))
    return curve


def _picture(curves: Sequence[Curve], reading: Reading, ending: str) -> bytes:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("curves are drawn by Matplotlib, which is missing; pip install matplotlib") from None
    fixed: Any = {"svg.hashsalt": "seval", "axes.spines.top": False, "axes.spines.right": False, "font.size": 9}
    with rc_context({**fixed, "text.usetex": False, "text.parse_math": False}):
        figure = Figure(figsize=(9, 3.6 + 0.18 * len(curves)), layout="constrained")
        left, right = figure.subplots(1, 2)
        for number, curve in enumerate(curves):
            style: dict[str, Any] = {"color": _COLORS[number % len(_COLORS)], "linewidth": 1.4}
            style["linestyle"] = _STROKES[number // len(_COLORS) % len(_STROKES)]
            style |= {"marker": "o", "markersize": 3} if len(curve.steps) < 30 else {}
            left.plot(curve.steps, curve.accuracy, label=curve.label, **style)
            right.plot(curve.steps, curve.losses, **style)
        offset = "" if reading.offset == "none" else f", offset {reading.offset}"
        left.set(xlabel="step", ylabel="top-1 accuracy (%)")
        left.set_title(f"{SPLITS[reading.split]}, {NETWORKS[reading.network]}{offset}", fontsize=9)
        right.set(xlabel="step", ylabel="loss")
        right.set_title("mean loss since the evaluation before", fontsize=9)
        for axes in (left, right):
            axes.grid(alpha=0.25)
        figure.legend(loc="outside lower left", frameon=False, ncols=1)
        out, dated = io.BytesIO(), {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        figure.savefig(out, format=ending, dpi=160, metadata=dated[ending])
    return out.getvalue()
