"""The command: what it writes, and what it says of bad input and of damage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro import report
from repro.pages.drawing import FORMATS
from repro.tables.table import Table
from tests.tables.conftest import cells_of, folder, write_sweep  # noqa: F401 (a fixture)


def test_a_table_without_runs_is_all_missing(folder: Path, capsys: pytest.CaptureFixture) -> None:  # noqa: F811
    assert report.main(["--table", "sweep"]) == 0
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "21 of 21 numbers are missing" in page and "<svg" not in page and "No record yet" in page
    assert capsys.readouterr().out.startswith("report/index.html: sweep; ")


def test_without_a_table_it_is_about_all_that_have_a_run(folder: Path, capsys: pytest.CaptureFixture) -> None:  # noqa: F811
    assert report.main([]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "no table in paper_tables/ has a run in runs" in err and "submit.py" in err
    other = (folder / "paper_tables/sweep.yaml").read_text().replace("[0, 1, 2]", "[7]")
    (folder / "paper_tables/other.yaml").write_text(other)
    write_sweep()
    assert report.main([]) == 0
    assert capsys.readouterr().out.startswith("report/index.html: sweep; ")
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "agrees" in page and "too few seeds" in page
    assert "82.00 ± 0.82</a></b>" in page and "81.00 ± 0.82</a></em>" in page


def test_a_damaged_record_costs_its_run_only(folder: Path, capsys: pytest.CaptureFixture) -> None:  # noqa: F811
    write_sweep()
    run = cells_of()["Plain", "γ=10"].runs[1]
    (run.folder / "record.json").write_text("{", encoding="utf-8")
    assert report.main(["--table", "sweep"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("error: sweep: Plain, γ=10, seed 1: ") and "record.json" in err
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "1 (damaged)" in page and ">damaged<" in page and "70.25 ± 0.25" in page


@pytest.mark.parametrize(
    "words", [["--table", "no such"], ["--tabel", "sweep"], ["--out", "file/x", "--table", "sweep"], ["more"]]
)
def test_bad_input_is_one_line(folder: Path, capsys: pytest.CaptureFixture, words: list[str]) -> None:  # noqa: F811
    Path("file").write_text("", encoding="utf-8")
    assert report.main(words) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1


def test_figures_are_written_as_files(real: Table, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs, text = str(real.path.parent / "runs"), real.path.read_text(encoding="utf-8")
    only = real.path.with_name("seval.yaml")  # drawing all of them in three formats takes long
    only.write_text(re.sub(r"^  (FixMatch|Supervised|').*\n", "", text, flags=re.MULTILINE), encoding="utf-8")
    words = ["--table", str(only), "--output-dir", runs, "--out", str(tmp_path / "page")]
    assert report.main([*words, "--figures", str(tmp_path / "figures")]) == 0
    files = [path.name for path in (tmp_path / "figures").iterdir()]
    assert files and f"{len(files)} files" in capsys.readouterr().out
    stems = {name.rpartition(".")[0] for name in files}
    assert set(files) == {f"{stem}.{kind}" for stem in stems for kind in FORMATS}
    assert any(stem.startswith("seval-fashion-mnist-lt-") and stem.endswith("-curriculum-pi") for stem in stems)
