"""Marks within a column and verdicts beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repro.tables import marks
from repro.tables.statistics import Ranks, kendall
from tests.tables.conftest import TABLE, cells_of, write_record, write_sweep


def test_marks_and_words_of_the_sweep(folder: Path) -> None:
    write_sweep()
    cells = cells_of()
    found = marks.by_column(cells.values())
    assert found["γ=100"] == ({"Plain, LA"}, {"Plain"}, {"Plain, LA", "Plain"})
    assert found["γ=10"] == ({"Plain, LA"}, {"Plain"}, {"Plain, LA"})
    assert [marks.word(cell) for cell in cells.values()] == ["agrees", "", "", "", "too few seeds", "", "", ""]
    test = marks.compared(cells["Plain", "γ=100"])
    assert test is not None and test.difference == pytest.approx(-0.5) and test.low < -0.5 < test.high
    text = "\n".join(marks.explained(list(cells.values())))
    assert "**Bold**" in text and "Welch" in text and "3 seeds" in text and "Kendall" not in text


def test_correlation_needs_three_rows(folder: Path) -> None:
    more = TABLE + "  Plain, LA:   {γ=100: [85.0, 1.0]}\n"
    (folder / "paper_tables/sweep.yaml").write_text(more)
    write_sweep()
    cells = list(cells_of().values())
    tau, (low, high), rows = marks.correlations(cells)["γ=100"]
    assert (tau, rows) == (kendall([81, 82, 56.5], [81.5, 85, 60]), 3) and -1 <= low <= high <= 1
    assert marks.explained(cells)[-1].endswith(f"γ=100 +1.00 ({marks.signed(low)} to {marks.signed(high)}, 3 rows).")


def test_numbers_of_one_mark_are_ordered_among_themselves(folder: Path) -> None:
    write_sweep()
    every = [replace(cell, reported=(float(place), None), mark="‡") for place, cell in enumerate(cells_of().values())]
    some = [cell for cell in every if cell.column == "γ=100" and cell.values()]
    assert len(some) == 4 and marks.correlations(some).keys() == {"γ=100 ‡"}
    assert marks.correlations([*some[:2], *(replace(cell, mark="§A") for cell in some[2:])]) == {}
    mixed = [*some[:3], replace(some[3], mark="")]
    assert marks.correlations(mixed)["γ=100 ‡"] == marks.correlations(some[:3])["γ=100 ‡"]
    assert not any(map(marks.word, some)), "their sizes are not compared"


def test_numbers_of_classes_have_no_best(folder: Path) -> None:
    path = folder / "paper_tables/sweep.yaml"
    path.write_text("metric: classes\nprotocol: last\n" + TABLE)
    cells = cells_of()
    for cell in cells.values():
        for run in cell.runs.values():
            write_record(run.folder, run.id, 0.5)
    assert not any(found.best for found in marks.by_column(cells.values()).values())


def test_marked() -> None:
    found = Ranks({"a"}, {"b"}, {"a", "b", "c"})
    texts = {row: marks.marked("1.00", row, found) for row in "abcd"}
    assert texts == {"a": "**1.00**", "b": "*1.00* ≈", "c": "1.00 ≈", "d": "1.00"}
