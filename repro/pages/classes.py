"""Figures by class: recall, images, pseudo-labels, and the curriculum that SEVAL learned for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from repro.pages.curves import OFFSETS, STEP, thousands
from repro.pages.drawing import Drawing, axes, legend, shades
from repro.pages.history import POINTS, Group

DOTS = 24  # fits of a class that a figure of this size can show
CURRICULUM = ("curriculum-", "published-")  # how the names of figures begin of which two are beside one another
MARKS = ("o", "s", "^", "D")
CLASS = "class, most labels first"
_LEARNED = {
    "pi": ("π", "offset π [1]", "Offset π by class; below 1 it favors the class."),
    "tau": ("τ", "threshold τ [1]", "Threshold τ by class: the confidence that a pseudo-label needs."),
}


def classes(group: Group) -> Iterator[Drawing]:
    """All that the records of these runs can show by class."""
    counts = group.average(lambda record: record["splits"]["labeled"]["class_counts"])
    if counts is None:
        return
    order = np.argsort(-counts, kind="stable")
    recall = {
        OFFSETS[name]: group.average(lambda record, name=name: record["per_class"][name]["recall"])
        for name in group.offsets()
        if name != "seval_smoothed"
    }
    yield from _drawn("recall", "Test recall of each class before and after the offset.", "recall [%]", recall, order)
    caption = "Images of each class; of the unlabeled ones also how many are predicted to be of it."
    yield from _drawn("images", caption, "images", _images(group, counts), order, scale=1, log=True)
    quality = {
        key: group.average(lambda record, key=key: record["pseudo_labels"][key]) for key in ("precision", "recall")
    }
    caption = "Kept pseudo-labels of each class, at the last evaluation."
    yield from _drawn("quality", caption, "precision, recall [%]", quality, order)
    yield from _curriculum(group, order)


def _images(group: Group, counts: np.ndarray) -> dict[str, np.ndarray | None]:
    """Labels, unlabeled images, and how many of these are predicted to be of the class."""

    def predicted(record: dict) -> np.ndarray:
        share, split = record["pseudo_labels"]["share_predicted"], record["splits"]["unlabeled"]
        return np.array(share, float) * sum(split["class_counts"])

    return {
        "labels": counts,
        "unlabeled": group.average(lambda record: record["splits"]["unlabeled"]["class_counts"]),
        "pseudo-labels": group.average(predicted),
    }


def _drawn(
    name: str,
    caption: str,
    unit: str,
    values: Mapping[str, np.ndarray | None],
    order: np.ndarray,
    scale: float = 100,
    log: bool = False,
) -> Iterator[Drawing]:
    """One mark for each class and each of `values` that is known; none if nothing is."""
    every = {label: scale * row[order] for label, row in values.items() if row is not None and len(row) == len(order)}
    if not any(np.isfinite(row).any() and (row > 0).any() for row in every.values()):
        return
    figure, ax = axes(CLASS, unit)
    places = np.arange(1, len(order) + 1)
    few = len(order) <= 30
    for mark, (label, row) in zip(MARKS, every.items(), strict=False):
        shown = np.where(row > 0, row, np.nan) if log else row
        ax.plot(places, shown, label=label, marker=mark, ms=4 if few else 2, lw=0.9 if few else 0.5)
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.minorticks_off()
    _class_ticks(ax, order)
    legend(ax)
    yield Drawing(name, caption, figure)


def _class_ticks(ax: Any, order: np.ndarray) -> None:
    """The numbers of the classes where they fit, else only the order."""
    if len(order) <= 12:
        ax.set_xticks(range(1, len(order) + 1), [str(number + 1) for number in order])


def _curriculum(group: Group, order: np.ndarray) -> Iterator[Drawing]:
    learned = group.curriculum
    if learned is None:
        return
    (seed, arrays), theirs = learned, group.published() or {}
    last = group.runs[seed].cfg.SOLVER.MAX_ITER
    for key, (sign, unit, caption) in _LEARNED.items():
        rows = arrays.get(f"{key}_smoothed")
        if rows is None or rows.ndim != 2 or rows.shape[1] != len(order):
            continue
        other = theirs.get(f"{key}_smoothed")
        other = other if other is not None and other.shape[1:] == rows.shape[1:] else None
        dots, rare = arrays.get(f"{key}_fitted"), arrays.get(f"{key}_rare")
        top = 1.05 * max(float(each.max()) for each in (rows, other, dots) if each is not None and each.size)
        where = f"Seed {seed}" + (f", one of {len(group.runs)}" if len(group.runs) > 1 else "")
        shown = "Lines: moving averages, which training uses; dots: the fits themselves; ×: too few held-out images."
        draw = _panel(unit, order, last, top)
        yield Drawing(f"curriculum-{key}", f"{caption} {where}. {shown}", draw(rows, dots, rare))
        if other is not None:
            yield Drawing(f"published-{key}", f"The same {sign} as the authors published it (seed 79).", draw(other))


def _panel(unit: str, order: np.ndarray, last: int, top: float) -> Callable[..., Any]:
    """Draws a curriculum (L, C) over the steps of the run, from blue for the most frequent class to red."""
    colors = shades(len(order))
    named = {0: "frequent", len(order) - 1: "rare"}

    def draw(rows: np.ndarray, dots: np.ndarray | None = None, rare: np.ndarray | None = None) -> Any:
        figure, ax = axes(STEP, unit)
        steps = last * np.arange(1, len(rows) + 1) / len(rows)
        some, dotted, crossed = (_some(len(rows), most) for most in (POINTS, DOTS, DOTS // 2))
        thin = 1.4 if len(order) <= 30 else 0.5
        for place, (number, color) in enumerate(zip(order, colors, strict=True)):
            label = f"class {number + 1}, {named[place]}" if place in named else None
            ax.plot(steps[some], rows[some, number], color=color, ls="-", lw=thin, label=label)
            if dots is not None and dots.shape == rows.shape and len(order) <= 30:
                ax.plot(steps[dotted], dots[dotted, number], color=color, ls="", marker=".", ms=2.5, alpha=0.6)
            if rare is not None and rare.shape == rows.shape and (few := crossed[rare[crossed, number] > 0]).size:
                ax.plot(steps[few], rows[few, number], color=color, ls="", marker="x", ms=3.5, mew=0.8)
        ax.set_ylim(-0.03 * min(top, 3.2), min(top, 3.2))
        thousands(ax)
        legend(ax)
        return figure

    return draw


def _some(number: int, most: int) -> np.ndarray:
    """The indices of at most `most` of `number` rows, evenly spread, the last among them."""
    return np.unique(np.linspace(0, number - 1, min(number, most)).round().astype(int))
