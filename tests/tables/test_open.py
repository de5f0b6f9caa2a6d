"""The scripts without a table: status.py and aggregate.py are about every table of which something is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro import aggregate, status, submit
from repro.tables.selection import select
from tests.tables.conftest import TABLE, cells_of, write_record, write_sweep
from tests.tables.hints import MAINS, hints, parsed


@pytest.fixture
def two(folder: Path) -> Path:
    """Of the tables `sweep`, `other` and `table4`, only `sweep` and `table4` share runs."""
    (folder / "paper_tables/table4.yaml").write_text(TABLE)
    other = TABLE.replace("seeds: [0, 1, 2]", "seeds: [7, 8]")
    (folder / "paper_tables/other.yaml").write_text(other)
    return folder


def test_status_shows_every_table_that_has_a_run(two, capsys):
    write_sweep()
    assert status.main([]) == 0
    out, err = capsys.readouterr()
    assert out.index("table4: ") < out.index("sweep: ") and "other: " not in out and not err
    ((script, args),) = parsed(out)
    assert (script, args.command, args.words, args.output_dir) == ("runs", "list", [], None)
    runs = {id for table in ("sweep",) for id in select(status.parse(["--table", table])).runs()}
    assert status.main(["--json"]) == 0
    assert {each["id"] for each in json.loads(capsys.readouterr().out)} == runs


def test_a_run_that_has_begun_counts(two, capsys):
    (run, *_) = cells_of("other")["Plain", "γ=100"].runs.values()
    (run.folder).mkdir(parents=True)
    assert status.main([]) == 0 and "no table has a run" in capsys.readouterr().out
    (run.folder / "metrics.jsonl").touch()
    assert status.main(["--failed"]) == 0 and capsys.readouterr().out == "nothing failed\n"
    assert status.main([]) == 0
    out = capsys.readouterr().out
    assert "other: " in out and "sweep: " not in out


def test_what_failed_names_the_tables(two, capsys):
    (run, *_) = cells_of("other")["Plain", "γ=100"].runs.values()
    run.folder.mkdir(parents=True)
    (run.folder / "failure.json").write_text('{"kind": "crashed", "error": "ValueError"}')
    assert status.main(["--failed"]) == 0
    ((script, args),) = parsed(capsys.readouterr().out)
    assert (script, args.table) == ("submit", ["other"])


def test_aggregate_writes_every_table_that_has_a_record_and_says_which(two, capsys):
    for run in cells_of("other")["Plain", "γ=100"].runs.values():
        write_record(run.folder, run.id, 0.5)
    assert aggregate.main([]) == 0
    out, err = capsys.readouterr()
    assert out == f"{two / 'paper_tables/other'}.md, .csv, .tex\n"
    assert sorted(path.name for path in Path("paper_tables").glob("*.md")) == ["other.md"]
    ((script, args),) = parsed(err)
    assert (script, args.table) == ("submit", ["other"]) and aggregate.main(["--strict"]) == 1
    write_sweep()
    assert aggregate.main(["--out", "pages"]) == 0
    assert {path.name for path in Path("pages").glob("*.csv")} == {"other.csv", "sweep.csv", "table4.csv"}


@pytest.mark.parametrize("main", [status.main, aggregate.main])
def test_where_nothing_is_there_the_next_command_is_named(two, capsys, main):
    write_sweep()
    assert main(["--output-dir", "it's empty"]) == 0
    out, err = capsys.readouterr()
    text = out + err
    found = hints(text)
    assert "in it's empty" in text and ("submit", []) in found
    assert all(MAINS[script](words) == 0 for script, words in found if script == "submit")
    assert [words for script, words in found if script == "runs"] in ([], [["--output-dir", "it's empty"]])


def test_submit_lists_the_tables(two, capsys):
    (two / "paper_tables/bad.yaml").write_text("rows: [\x1b]")
    for words in ([], ["--dry-run"]):
        assert submit.main(words) == 0
        out, err = capsys.readouterr()
        lines = [line.split() for line in out.splitlines()]
        assert not err and "\x1b" not in out and len(lines) < 20
        assert [line[0] for line in lines if line[:1] and line[0] in ("table4", "sweep", "other", "bad")] == [
            "table4",
            "bad",
            "other",
            "sweep",
        ]
        assert "Two methods | and a chain" in out and "cannot be used" in out
        assert [script for script, args in parsed(out)] == ["submit"] * 3


@pytest.mark.parametrize("main", [status.main, aggregate.main, submit.main])
@pytest.mark.parametrize("words", [["SEED", "1"], ["--seeds", "1", "--", "SEED", "1"]])
def test_settings_without_a_configuration_are_an_error(two, capsys, main, words):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith("error: ") and err.count("\n") == 1 and "--config" in err or "--seeds" in err


def test_options_alone_submit_nothing(two, capsys):
    assert submit.main(["--cluster", "local"]) == 2
    assert "one of --table, --all and --config is needed" in capsys.readouterr().err
