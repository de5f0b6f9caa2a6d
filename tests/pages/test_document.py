"""The page: well formed, complete without a network, and true to the records."""

from __future__ import annotations

import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

from repro import aggregate, report, submit
from repro.tables.table import Table
from tests.pages.conftest import HOSTILE

VOID = {"meta", "link", "br"}


class Page(HTMLParser):
    """Fails where elements are not closed in order; keeps what links and what has an id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name == "id" and value:
                self.ids.append(value)
            if name in ("href", "src") and value:
                self.addresses.append(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def written(table: Table, out: Path, *more: str) -> str:
    """The page of the real runs."""
    words = ["--table", str(table.path), "--output-dir", str(table.path.parent / "runs"), "--out", str(out), *more]
    assert report.main(words) == 0
    return (out / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(real: Table, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(real, real.path.parent / "report")


def test_the_page_is_well_formed_and_every_link_leads_somewhere(real: Table, text: str) -> None:
    page, folder = Page(text), real.path.parent / "report"
    assert len(page.ids) == len(set(page.ids))
    assert text.startswith("<!DOCTYPE html>\n<html")
    for address in page.addresses:
        if address.startswith("#"):
            assert address[1:] in page.ids, address
        elif address != "data:,":
            assert (folder / address).is_file(), address
    assert sum(address.endswith("/record.json") for address in page.addresses) == 7, "one run has no record"


def test_it_asks_for_nothing_from_elsewhere(text: str) -> None:
    assert "http://" not in text and "https://" not in text and "@import" not in text and " src=" not in text
    assert text.count("<script") == 1 and "url(" not in text.replace("url(#", "")


def test_the_same_records_give_the_same_page(real: Table, text: str) -> None:
    assert written(real, real.path.parent / "report") == text


def test_names_and_notes_look_as_they_were_written(text: str) -> None:
    page = Page(text)
    assert HOSTILE in page.text and "Real runs & few steps" in page.text and "<i>no HTML</i>" in page.text
    assert "<i>" not in text and "<b>x" not in text and "<em>emphasis</em>" in text and "<code>code</code>" in text


def test_numbers_and_words_are_those_of_the_table(real: Table, text: str, capsys: pytest.CaptureFixture) -> None:
    page = Page(text)
    runs = str(real.path.parent / "runs")
    assert aggregate.main(["--table", str(real.path), "--output-dir", runs, "--out", str(real.path.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in lines:
        if line.startswith("| "):
            numbers = [part.strip(" *≈") for part in line.split("|")[2:-1]]
            assert all(number.split("[^")[0] in page.text for number in numbers if number[:1].isdecimal())
    assert "too few seeds" in page.text and "A choice that the paper leaves." in page.text


def test_what_is_missing_is_named_with_a_command_that_does_it(
    real: Table, text: str, capsys: pytest.CaptureFixture
) -> None:
    page = Page(text)
    assert "3 of 10 numbers are missing" in page.text
    assert "Supervised · Fashion-MNIST-LT: seed 0" in page.text and "50% done" in page.text
    line = next(words for words in page.words if "submit.py" in words)
    python, script, *words = shlex.split(line)
    assert script.endswith("repro/submit.py") and "Supervised" in words and HOSTILE in words and "SEVAL" not in words
    assert submit.main([*words, "--dry-run"]) == 0
    assert "3 runs" in capsys.readouterr().out


def test_splits_provenance_and_cards(real: Table, text: str) -> None:
    page = Page(text)
    record = next(iter(real.cells(["OUTPUT_DIR", str(real.path.parent / "runs")]))).runs[1].record()
    assert record is not None
    for split in ("labeled", "unlabeled", "test"):
        if split in record["splits"]:
            assert record["splits"][split]["sha256"][:12] in page.text
    assert record["provenance"]["device"] in page.text and "CPU-hours" in page.text
    assert "SOLVER.MAX_ITER 16" in page.text and "16 in 8 evaluations" in page.text and "median of 8" in page.text
    assert "fixmatch · tiny · seed 1" in page.text and "· tiny · seed 0 (prerequisite)" in page.text
    assert "unlike the code here" not in page.text and record["provenance"]["code"][:10] in page.text
