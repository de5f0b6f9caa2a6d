"""What the tables of the paper say is assumed, in every form of the page."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from repro import aggregate
from repro.tables import page
from repro.tables import table as tables
from seval.errors import ConfigError
from tests.tables.paper import RESULTS, cells_of


def test_marks_and_reasons_agree_in_every_form() -> None:
    for name in [*RESULTS, "10", "11"]:
        table, cells = tables.find_table(name), list(cells_of(name).values())
        text, latex, lines = (form(table, cells) for form in (page.markdown, page.latex, page.comma_separated))
        given = re.findall(r"^\[\^(\d+)\]: (.+)$", text, re.MULTILINE)
        marks = re.findall(r"\[\^(\d+)\](?!:)", text)
        assert [number for number, _ in given] == [str(i + 1) for i in range(len(given))] == list(dict.fromkeys(marks))
        assert {n for group in re.findall(r"\^\{([\d,]+)\}", latex) for n in group.split(",")} == set(marks)
        assert latex.isascii() and latex.count("{") == latex.count("}")
        texts = " ".join(line["assumed"] for line in csv.DictReader(lines.splitlines()))
        assert all(reason in texts for _, reason in given)


def test_a_reason_stands_where_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("""\
{folder: cifar10, config: fixmatch, assumed: of all, columns: {a: {assumed: "of a_b"}, b: {}},
 rows: {r: {assumed: [first, of all]}, s: {cells: {b: {assumed: first}}}}}""")
    assert aggregate.main(["--table", str(tmp_path / "small.yaml"), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "small.md").read_text()
    rows = [[text.strip() for text in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    assert rows[0] == ["Method[^1]", "a[^2]", "b"]
    assert rows[2:] == [["r[^3][^1]", "—", "—"], ["s", "—", "—[^3]"]]
    assert page.endswith("[^1]: of all\n[^2]: of a_b\n[^3]: first\n")
    latex = (tmp_path / "small.tex").read_text()
    assert "r$^{3,1}$" in latex and r"$^{2}$~of a\_b" in latex
    lines = list(csv.DictReader((tmp_path / "small.csv").read_text().splitlines()))
    assert [line["assumed"] for line in lines] == [
        "of all of a_b first",
        "of all first",
        "of all of a_b",
        "of all first",
    ]


@pytest.mark.parametrize("bad", ["3", "[]", '""', "[a, 3]"])
def test_a_reason_must_be_text(tmp_path: Path, bad: str) -> None:
    (tmp_path / "bad.yaml").write_text(f"{{assumed: {bad}, columns: {{a: }}, rows: {{r: }}}}")
    with pytest.raises(ConfigError, match="assumed in .* must be a text or a list of texts"):
        tables.find_table(str(tmp_path / "bad.yaml"))


def test_seeds_are_marked_and_seval_without_settings_of_its_own() -> None:
    for name in RESULTS:
        assert any("seed" in text.lower() for text in tables.find_table(name).assumed())
    for name, columns in (("4", ()), ("5", ("gamma_l=1 n1=4",)), ("9", ())):
        table = tables.find_table(name)
        rows = [row for row in table.rows if "SEVAL" in row]
        assert all(table.assumed(row) for row in rows)
        assert all(table.assumed(row, column) for row in rows for column in columns)
