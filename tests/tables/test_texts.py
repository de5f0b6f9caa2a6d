"""Names and texts of a table or a record do nothing in a spreadsheet, a page or a terminal."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from repro import aggregate, status, submit
from repro.tables import texts
from tests.tables.conftest import cells_of, write_record

EVIL = [
    '=HYPERLINK("http://x.y","a")',
    "+1+1",
    "-1",
    "@SUM(A1)",
    " =1",
    "\t=1",
    "\r=1",
    "＝1",
    "a | b",
    "a \\| b",
    "a\nb",
    "a\r\nb",
    "a\u2028b",
    "<img src=x onerror=alert(1)>",
    "<!-- a",
    "&lt;b&gt;",
    "[a](javascript:alert(1))",
    "![a](http://x.y/z.png)",
    "[^1]: a",
    "https://x.y",
    "www.x.y",
    "`a` | `",
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x00\x08\x7f",
    "\u202eright to left",
    "$x$ & 100 % _ # { } ~ ^ \\",
]


@pytest.fixture
def evil(folder: Path) -> Path:
    """A table whose every text does something somewhere."""
    content = {
        "folder": "small",
        "config": "plain",
        "title": " ".join(EVIL),
        "note": "\n".join(EVIL),
        "seeds": [0],
        "assumed": EVIL,
        "columns": {f"c{name}": {} for name in EVIL[:3]} | {"c": {}},
        "rows": {name: {"assumed": name} for name in EVIL},
    }
    path = folder / "evil.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def test_no_cell_of_a_spreadsheet_is_a_formula(evil: Path) -> None:
    assert aggregate.main(["--table", str(evil)]) == 0
    text = evil.with_suffix(".csv").read_bytes().decode()
    header, *lines = csv.reader(text.splitlines())
    assert len(lines) == 4 * len(EVIL) and {len(line) for line in lines} == {len(header)}
    for line in lines:
        for name, cell in zip(header, line, strict=True):
            is_number = re.fullmatch(r"-?[0-9.]+", cell) and name not in ("row", "column", "assumed")
            assert is_number or not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "＝")), cell
    assert [line[0] for line in lines[::4]][:3] == ['\'=HYPERLINK("http://x.y","a")', "'+1+1", "'-1"]


def test_a_page_has_no_html_no_links_and_whole_rows(evil: Path) -> None:
    assert aggregate.main(["--table", str(evil)]) == 0
    page = evil.with_suffix(".md").read_text(encoding="utf-8")
    lines = page.split("\n")
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(EVIL) and lines.count("") > 3
    for row in rows:
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 6, row
    plain = re.sub(r"\\[\\`|\[\]:.]", "", page)
    assert "<" not in plain and "](" not in plain and "://" not in plain and "www." not in plain
    assert all(sign.isprintable() or sign == "\n" for sign in page)
    footnotes = [line for line in lines if re.match(r"\[\^\d+\]: ", line)]
    assert len(footnotes) == len(set(EVIL)) and all(line.startswith(("[^", "")) for line in footnotes)


def test_latex_has_no_line_that_was_not_meant(evil: Path) -> None:
    assert aggregate.main(["--table", str(evil)]) == 0
    text = evil.with_suffix(".tex").read_text(encoding="utf-8")
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert text.startswith("% =HYPERLINK") and text.count(r"\\" + "\n") == 1 + len(EVIL)


def test_no_escape_sequence_reaches_the_terminal(evil: Path, capsys: pytest.CaptureFixture) -> None:
    given = ["--table", str(evil)]
    for call in (
        lambda: aggregate.main(given),
        lambda: status.main(given),
        lambda: status.main([*given, "--failed"]),
        lambda: submit.main([*given, "--cluster", "debug", "--dry-run"]),
        lambda: submit.main([*given, "--rows", "\x1b[31mred", "\x1b[2J", "--cluster", "debug"]),
        lambda: aggregate.main(["--table", "\x1b[2J.yaml"]),
    ):
        call()
        out, err = capsys.readouterr()
        assert out or err
        assert all(sign.isprintable() or sign == "\n" for sign in out + err)


def test_what_a_record_says_is_text_as_well(folder: Path, capsys: pytest.CaptureFixture) -> None:
    run = cells_of()["Plain", "γ=100"].runs[0]
    write_record(run.folder, run.id, 0.5)
    record = json.loads((run.folder / "record.json").read_text(encoding="utf-8"))
    record["provenance"] = {
        "device": "<b>\x1b[31m|\nGPU</b>",
        "commit": "[a](b)\x1b" + 20 * "c",
        "packages": {"seval": "<i>1"},
    }
    (run.folder / "record.json").write_text(json.dumps(record), encoding="utf-8")
    assert aggregate.main(["--table", "sweep"]) == 0
    page = capsys.readouterr().out
    assert "&lt;b>" in page and "\\[a\\](b)" in page and "<" not in page and "\x1b" not in page
    for provenance in (3, [], {"packages": [], "commit": {}, "device": None}):
        (run.folder / "record.json").write_text(json.dumps(record | {"provenance": provenance}), encoding="utf-8")
        assert aggregate.main(["--table", "sweep"]) in (0, 2)


def test_code_is_fenced_by_more_backticks_than_it_has() -> None:
    assert texts.in_code("a") == "`a`" and texts.in_code("a`b``c") == "``` a`b``c ```"


def test_ordinary_names_stay_as_they_are() -> None:
    for name in ("w/ SEVAL", "CIFAR10-LT n1=500", "gamma_l=1 n1=4", "γ=100", "FixMatch + LA", "Replay & Co", "2 * 3"):
        assert texts.in_markdown(name) == texts.in_csv(name) == texts.prose(name) == name


@pytest.mark.parametrize("fence", ["```", "~~~", "  ````", "```python"])
def test_no_text_makes_code_of_what_follows(fence: str) -> None:
    shown = texts.prose(f"{fence}\nx `y` z")
    assert not re.search(r"^\s*(```|~~~)", shown, re.MULTILINE) and shown.replace("\\", "") == f"{fence}\nx `y` z"
