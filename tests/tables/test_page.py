"""Back from records to numbers: Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import re
import statistics
from pathlib import Path

import pytest

from repro import aggregate
from tests.settings import ROOT
from tests.tables.conftest import TABLE, cells_of, write_record, write_sweep

GOLDEN = ROOT / "tests" / "golden"


def summarize(*more: str) -> int:
    return aggregate.main(["--table", "sweep", "--out", "out", *more])


def test_page_equals_the_golden_one(folder: Path) -> None:
    """After a wanted change delete the golden file: the test then writes it anew, and fails once."""
    write_sweep()
    assert summarize() == 0
    page, golden = Path("out/sweep.md").read_text(), GOLDEN / "sweep.md"
    if not golden.exists():
        golden.write_text(page)
        pytest.fail(f"wrote {golden}; look at it and run again")
    assert page == golden.read_text()


def test_page_means_what_it_says(folder: Path) -> None:
    given = write_sweep()
    summarize()
    lines = [
        [text.strip() for text in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in Path("out/sweep.md").read_text().splitlines()
        if line.startswith("|")
    ]
    header, rows = lines[0], {line[0]: line[1:] for line in lines[2:]}
    beside = ["reported", "ours − reported", "verdict"]
    assert header == ["Method", "γ=100", *beside, "γ=10", *beside]
    for (row, column), values in given.items():
        percent = [100 * value for value in values]
        at = header.index(column) - 1
        text = rows[row][at]
        assert text.lstrip("*").startswith(f"{statistics.fmean(percent):.2f}")
        if len(values) > 1:
            assert f" ± {statistics.pstdev(percent):.2f}" in text
        assert text.endswith(f"[{len(values)}/3]") == (len(values) < 3)
        reported, difference = rows[row][at + 1 : at + 3]
        if reported:
            expected = statistics.fmean(percent) - float(reported.split()[0])
            assert float(difference.replace("−", "-")) == pytest.approx(expected, abs=0.0051)
    assert rows["Plain"][1] == "81.5 ± 0.41" and rows["Plain"][5] == "70.25"
    assert rows["Plain"][0] == "*81.00 ± 0.82* ≈", "second, and not separable from the best"
    assert rows["Plain, LA"][0] == "**82.00 ± 0.82**"
    assert rows["Deep"][0] == "60.00 [1/3]" and rows["Deep"][4] == "—" and rows["Replay & Co"][4] == ""
    assert [rows[name][3] for name in rows] == ["agrees", "", "too few seeds", ""]
    assert rows["Plain"][7] == "", "a reported number without its spread has no verdict"


def test_comma_separated_numbers_agree(folder: Path) -> None:
    given = write_sweep()
    summarize()
    text = Path("out/sweep.csv").read_text()
    lines = {(line["row"], line["column"]): line for line in csv.DictReader(text.splitlines())}
    assert len(lines) == 8
    for key, values in given.items():
        line, percent = lines[key], [100 * value for value in values]
        assert [float(value) for value in line["values"].split()] == pytest.approx(percent)
        assert float(line["mean"]) == pytest.approx(statistics.fmean(percent), abs=1e-4)
        assert float(line["std"]) == pytest.approx(statistics.pstdev(percent), abs=1e-4)
        assert line["ids"].split() == [cells_of()[key].runs[int(seed)].id for seed in line["seeds"].split()]
        assert (int(line["n"]), line["protocol"]) == (len(values), "median20")
    assert lines["Deep", "γ=10"]["mean"] == "" and lines["Plain", "γ=10"]["reported_mean"] == "70.25"


def test_latex_is_balanced_and_escaped(folder: Path) -> None:
    write_sweep()
    summarize()
    text = Path("out/sweep.tex").read_text()
    body = re.sub(r"\\.", "", text)
    assert body.count("{") == body.count("}") and body.count("$") % 2 == 0
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5 and {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {8}
    assert r"Replay \& Co" in text and r"$\pm$" in text and text.isascii()
    assert (
        r"\textbf{82.00 $\pm$ 0.82}" in text and r"\underline{81.00 $\pm$ 0.82} $\approx$" in text and "*" not in text
    )


def test_strict_and_other_protocol(folder: Path, capsys) -> None:
    write_sweep()
    assert summarize("--strict") == 1
    does_them = "python repro/submit.py --table sweep"
    assert capsys.readouterr().err == f"runs of 3 of 8 cells are missing; this does them:\n  {does_them}\n"
    assert summarize("--protocol", "last") == 0
    page = Path("out/sweep.md").read_text()
    assert "80.00 ± 0.82" in page and "the last evaluation (`last`)" in page
    assert not [path for path in Path("out").iterdir() if path.suffix not in (".md", ".csv", ".tex")]


def test_empty_table_is_printed(folder: Path, capsys) -> None:
    assert summarize() == 0
    assert capsys.readouterr().out.count("—") >= 5


def test_null_is_missing_but_an_unknown_offset_is_an_error(folder: Path, capsys) -> None:
    cell = cells_of()["Plain", "γ=100"]
    write_record(cell.runs[0].folder, cell.runs[0].id, None)
    write_record(cell.runs[1].folder, cell.runs[1].id, 0.5)
    assert cell.values() == {1: 50.0}
    (folder / "paper_tables/sweep.yaml").write_text(TABLE.replace("logit_adjusted", "seval"))
    assert summarize() == 2
    assert "recorded no 'seval' there, only none, logit_adjusted" in capsys.readouterr().err
