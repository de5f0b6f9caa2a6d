"""How a table's numbers compare: with the reported ones, and with one another within a column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from repro.tables.reading import CASES, mean_std
from repro.tables.statistics import (
    FEWEST,
    LEVEL,
    REPORTED_SEEDS,
    Ranks,
    Sample,
    Welch,
    bootstrapped,
    kendall,
    ranks,
    verdict,
    welch,
)
from repro.tables.table import Cell, Table
from repro.tables.texts import in_markdown, signed


def ours(cell: Cell) -> Sample | None:
    """The cell's values as a sample; None where there are none."""
    values = list(cell.values().values())
    return Sample(*mean_std(values), len(values)) if values else None


def reported(cell: Cell) -> Sample | None:
    """The reported number as a sample; None where none, or no deviation, is reported, and for other protocols."""
    mean, std = (None, None) if cell.mark else cell.reported or (None, None)
    return None if mean is None or std is None else Sample(mean, std, REPORTED_SEEDS)


def compared(cell: Cell) -> Welch | None:
    """Welch's test of ours against the reported number; None where it cannot be done."""
    one, other = ours(cell), reported(cell)
    return welch(one, other) if one and other else None


def word(cell: Cell) -> str:
    """The verdict; empty where there is nothing to compare."""
    one, other = ours(cell), reported(cell)
    return verdict(one, other) if one and other else ""


def by_column(cells: Iterable[Cell]) -> dict[str, Ranks]:
    """The best of each column. Numbers of classes have none: more of them is not better."""
    samples: dict[str, dict[str, Sample]] = {}
    for cell in cells:
        column = samples.setdefault(cell.column, {})
        if cell.reading and cell.reading.metric not in CASES and (sample := ours(cell)):
            column[cell.row] = sample
    return {column: ranks(found) for column, found in samples.items()}


def marked(text: str, row: str, found: Ranks) -> str:
    """A number in Markdown: bold if it is the best, in italics if second, ≈ if it cannot be told from the best."""
    sign = " ≈" if row in found.tied - found.best else ""
    return f"**{text}**" if row in found.best else f"*{text}*{sign}" if row in found.second else text + sign


def correlations(cells: Sequence[Cell]) -> dict[str, tuple[float, tuple[float, float], int]]:
    """Kendall's tau of ours with reported means, its interval, rows; by column, and by mark where numbers have one.

    Numbers of one mark were read alike, so their order can be compared even where their size cannot. Fewer than three
    rows have none.
    """
    pairs: dict[str, list[tuple[list[float], float]]] = {}
    for cell in cells:
        if cell.reported and (values := list(cell.values().values())):
            pairs.setdefault(f"{cell.column} {cell.mark}".rstrip(), []).append((values, cell.reported[0]))
    found = {}
    for name, both in pairs.items():
        tau = kendall([mean_std(values)[0] for values, _ in both], [other for _, other in both])
        if len(both) > 2 and tau is not None and (interval := bootstrapped(both)):
            found[name] = (tau, interval, len(both))
    return found


def explained(cells: Sequence[Cell]) -> list[str]:
    """What the marks and the words mean, in Markdown, as far as these cells have any."""
    lines = []
    if any(found.best for found in by_column(cells).values()):
        lines.append(
            f"**Bold** is the best of its column, *italic* the second; ≈: not separable from the best by Welch's test "
            f"(p ≥ {LEVEL}). Cells of fewer than {FEWEST} seeds take no part."
        )
    if any(map(word, cells)):
        lines.append(
            f"Verdict: Welch's test of both means at {LEVEL:.0%}, taking the reported ones as means of "
            f"{REPORTED_SEEDS} seeds with population standard deviations; *agrees* says only that the seeds show no "
            "difference, and of twenty equal means one *differs* by chance."
        )
    if taus := correlations(cells):
        each = [
            f"{in_markdown(name)} {signed(tau)} ({signed(low)} to {signed(high)}, {rows} rows)"
            for name, (tau, (low, high), rows) in taus.items()
        ]
        lines.append(
            "Rank correlation with the reported means (Kendall's τ, its 95 % interval by bootstrap over our seeds): "
            f"{', '.join(each)}."
        )
    return lines


def legend(table: Table, cells: Iterable[Cell]) -> list[str]:
    """What the marks of reported numbers mean, a plain line each, as far as these cells have any."""
    used = {cell.mark for cell in cells}
    lines = [f"{mark}: {' '.join(text.split())}" for mark, text in table.marks.items() if mark in used]
    return ["A reported number with a mark is of another protocol, and has no verdict.", *lines] if lines else []
