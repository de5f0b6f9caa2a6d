"""Reported numbers of another protocol: they carry a mark, which every page explains, and have no verdict."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from repro import aggregate, report
from repro.tables import marks
from repro.tables import table as tables
from seval.errors import ConfigError
from tests.tables.conftest import TABLE, cells_of, write_sweep

MARKS = """\
marks: {‡: best on the test images, §A: "of 50% more steps", SE: never used}
"""
MARKED = TABLE.replace("γ=100: [81.5, 0.41], γ=10: 70.25", "γ=100: [81.5, 0.41, ‡], γ=10: [70.25, §A]") + MARKS


@pytest.fixture
def marked(folder: Path) -> Path:
    (folder / "paper_tables/sweep.yaml").write_text(MARKED)
    write_sweep()
    return folder


def test_a_marked_number_stays_a_number_and_has_no_verdict(marked: Path) -> None:
    cells = cells_of()
    assert cells["Plain", "γ=100"].reported == (81.5, 0.41) and cells["Plain", "γ=100"].mark == "‡"
    assert cells["Plain", "γ=10"].reported == (70.25, None) and cells["Plain", "γ=10"].mark == "§A"
    assert cells["Replay & Co", "γ=100"].mark == ""
    assert [marks.word(cell) for cell in cells.values()] == ["", "", "", "", "too few seeds", "", "", ""]
    assert marks.compared(cells["Plain", "γ=100"]) is None and marks.correlations(list(cells.values())) == {}


def test_every_form_shows_the_mark_and_explains_it_once(marked: Path) -> None:
    assert aggregate.main(["--table", "sweep", "--out", "out"]) == 0
    page, latex = Path("out/sweep.md").read_text(), Path("out/sweep.tex").read_text()
    assert "81.5 ± 0.41 ‡ |" in page and "70.25 §A |" in page and "−0.50" in page
    assert page.count("‡: best on the test images") == page.count("§A: of 50% more steps") == 1
    assert page.count("with a mark is of another protocol") == 1 and "never used" not in page
    assert latex.isascii() and r"81.5 $\pm$ 0.41 \ddag{}" in latex and r"\S{}A: of 50\% more steps" in latex
    lines = list(csv.DictReader(Path("out/sweep.csv").read_text().splitlines()))
    assert [line["reported_mark"] for line in lines[:3]] == [
        "‡: best on the test images",
        "§A: of 50% more steps",
        "",
    ]
    assert report.main(["--table", "sweep"]) == 0
    html = Path("report/index.html").read_text()
    assert "81.5 ± 0.41 ‡" in html and html.count("‡: best on the test images") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("[81.5, 0.41, †]", "unknown mark in reported of 'Plain', 'γ=100' .*'†'; did you mean"),
        ("[‡]", r"must be \[mean, std\], but is \['‡'\]"),
        ("‡", r"must be \[mean, std\]"),
        ("[81.5, ‡, ‡]", r"must be \[mean, std\]"),
        ("[81.5, 0.41, 3]", r"must be \[mean, std\]"),
    ],
)
def test_a_wrong_mark_is_named(folder: Path, given: str, message: str) -> None:
    (folder / "t.yaml").write_text(MARKED.replace("[81.5, 0.41, ‡]", given))
    with pytest.raises(ConfigError, match=message):
        tables.find_table("t.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{a|b: text}", "a mark is †, ‡ or §"),
        ("{3: text}", "a mark is †, ‡ or §"),
        ("{‡: 3}", "‡ in marks in .* must be text"),
        ("[‡]", "marks in .* must be a mapping"),
    ],
)
def test_what_is_no_mark_is_named(folder: Path, given: str, message: str) -> None:
    (folder / "t.yaml").write_text(TABLE + f"marks: {given}\n")
    with pytest.raises(ConfigError, match=message):
        tables.find_table("t.yaml")


def test_marks_are_laid_over_those_of_the_base(marked: Path) -> None:
    (marked / "over.yaml").write_text("_BASE_: paper_tables/sweep.yaml\nmarks: {‡: another text}\n")
    table = tables.find_table("over.yaml")
    assert table.marks["‡"] == "another text" and table.marks["§A"] == "of 50% more steps"
