"""Every command that a script prints can be pasted, and is about what the caller's command was about."""

from __future__ import annotations

import argparse
import itertools
import random
import shlex
import sys
from pathlib import Path

import pytest

from repro import aggregate, runs, status, submit
from repro.tables.command_line import command, repeated
from seval.errors import ConfigError
from seval.places import ROOT
from seval.run import Run
from tests.tables.conftest import TABLE, write_record, write_sweep
from tests.tables.hints import MAINS, hints, parsed

SCRIPTS = ROOT / "repro"
NAMES = ["a", "b c", "it's", '"q"', "$HOME", "-x", "--y", "γ", "a=b", "`ls`", "*", "1", "-1"]


@pytest.mark.parametrize("seed", range(200))
def test_a_command_means_what_the_caller_asked_for(seed: int) -> None:
    """Random options, with names that a shell or argparse could take for something else."""
    draw = random.Random(seed)
    about = draw.choice(["table", "all", "config"])
    names = [name for name in NAMES if not name.startswith("-")]
    args = argparse.Namespace(
        table=draw.sample(names, draw.randint(1, 3)) if about == "table" else None,
        all=about == "all",
        config=draw.choice(NAMES) if about == "config" else None,
        overrides=draw.choices(NAMES, k=2 * draw.randint(0, 2)) if about == "config" else [],
        rows=draw.choice([(), draw.sample(names, 2), [draw.choice(NAMES)]]),
        columns=draw.choice([(), draw.sample(names, 2), [draw.choice(NAMES)]]),
        seeds=draw.choice([(), [3], [0, 1, 2]]),
        output_dir=draw.choice([None, *NAMES]),
        site=draw.choice([None, *NAMES]),
        cluster=draw.choice([None, "slurm"]),
    )
    for script, more in (("submit", ["--dry-run"]), ("status", ["--failed"]), ("aggregate", ["--strict"])):
        ((given, found),) = parsed(command(script, args, *more))
        assert given == script
        for name in ("table", "all", "config", "overrides", "output_dir"):
            assert getattr(found, name) == getattr(args, name), name
        if script != "aggregate":
            assert all(getattr(found, name) == getattr(args, name) for name in ("rows", "columns", "seeds", "site"))
        elif args.config:
            assert found.seeds == args.seeds
        if script == "submit":
            assert found.cluster == args.cluster and found.dry_run


def test_a_command_names_python_and_the_scripts_as_the_caller_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert repeated("status", ["--all"]) == "python repro/status.py --all"
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "-u", "x"])
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / "submit.py")])
    assert repeated("status", ["--all"]) == f".venv/bin/python {SCRIPTS}/status.py --all"
    monkeypatch.chdir(SCRIPTS)
    monkeypatch.setattr(sys, "argv", ["submit.py"])
    assert repeated("status", ["--all"]) == ".venv/bin/python status.py --all"


@pytest.fixture
def outside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options: a table that is not in paper_tables/, another folder of runs; both have names that need quotes."""
    (folder / "my tables").mkdir()
    (folder / "my tables/it's one.yaml").write_text(TABLE)
    monkeypatch.setattr(Run, "execute", lambda run, stop=None: write_record(run.folder, run.id, 0.5))
    return ["--table", "my tables/it's one.yaml", "--output-dir", "all runs"]


def follow(text: str, table: str, output: str | None) -> list[str]:
    """Check what the commands in a text are about, call them, and return the names of their scripts."""
    for _, args in parsed(text):
        assert (args.table, args.output_dir) == ([table], output)
    for script, words in hints(text):
        assert MAINS[script]([*words, *(["--dry-run"] if script == "submit" else [])]) != 2, words
    return [script for script, _ in hints(text)]


def test_commands_about_a_table_elsewhere(outside: list[str], capsys: pytest.CaptureFixture) -> None:
    table, output = outside[1], outside[3]
    assert aggregate.main(outside) == 0
    out, err = capsys.readouterr()
    assert follow(out, table, output) == ["submit", "aggregate"] and follow(err, table, output) == ["submit"]
    assert {file.name for file in Path("my tables").iterdir()} == {
        f"it's one.{end}" for end in ("yaml", "md", "csv", "tex")
    }
    assert not list(Path("paper_tables").glob("it*"))
    local = [*outside, "--cluster", "debug"]
    capsys.readouterr()
    assert submit.main(local) == 0 and submit.main(local) == 0
    assert follow(capsys.readouterr().out, table, output) == ["aggregate"]
    page = Path("my tables/it's one.md").read_text(encoding="utf-8")
    assert shlex.join(outside) in page


def test_a_footer_names_a_table_of_the_project_by_its_name(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for given in ("sweep", "paper_tables/sweep.yaml", str(folder / "paper_tables/sweep.yaml")):
        assert aggregate.main(["--table", given, "--protocol", "last"]) == 0
        (does, args), (_, writes) = parsed(capsys.readouterr().out)
        assert does == "submit" and args.table == writes.table == ["sweep"] and writes.protocol == "last"
    assert Path("paper_tables/sweep.md").exists()


def test_what_failed_here_is_tried_again_by_the_same_command(
    folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "execute", lambda run, stop=None: 1 / 0)
    given = [
        "--table",
        "sweep",
        "--rows",
        "Plain",
        "--columns",
        "γ=10",
        "--cluster",
        "debug",
        "--output-dir",
        "all runs",
    ]
    assert submit.main(given) == 1
    ((script, words),) = hints(capsys.readouterr().err)
    assert (script, words) == ("submit", given)
    assert status.main(["--table", "sweep", "--output-dir", "all runs", "--failed"]) == 0
    ((script, args),) = parsed(capsys.readouterr().out)
    assert (script, args.table, args.output_dir) == ("submit", ["sweep"], "all runs")


def test_a_table_that_is_done_is_written_by_the_command_that_is_named(folder: Path, capsys) -> None:
    write_sweep()
    assert submit.main(["--table", "sweep", "--rows", "Plain", "--cluster", "debug"]) == 0
    assert follow(capsys.readouterr().out, "sweep", None) == ["aggregate"]


def test_an_option_that_is_given_again_counts_too() -> None:
    words = ["--table", "a", "--seeds", "1", "--rows", "r", "--table", "b", "--seeds", "2", "3", "--rows", "s", "t"]
    found = submit.parse([*words, "--output-dir", "R", "--output-dir", "R", "--jobs", "2", "--cluster", "local"])
    assert (found.table, found.seeds, found.rows) == (["a", "b"], [1, 2, 3], ["r", "s", "t"])
    for option in ("--output-dir", "--site", "--config"):
        about = [] if option == "--config" else ["--table", "a"]
        with pytest.raises(ConfigError, match=f"{option} is given twice, as 'a' and as 'b'"):
            status.parse([*about, option, "a", option, "b"])


@pytest.mark.parametrize("number", ["", "1_000", "\u0663", "1.5", "0x1", "01", "9" * 5_000, "nan", " 1", "1\n"])
def test_numbers_of_options_are_plain(number: str, capsys: pytest.CaptureFixture) -> None:
    for option in ("--seeds", "--jobs", "--array-parallelism"):
        assert submit.main(["--table", "demo", option, number]) == 2
        said = capsys.readouterr().err
        assert f"argument {option}: " in said and "is no whole number" in said
        assert said.count("\n") == 1 and len(said) < 1_000


@pytest.mark.parametrize("option", ["--table", "--config", "--site"])
def test_an_empty_name_is_refused(option: str) -> None:
    """As of `--config "$FILE"` where no such variable is set."""
    about = ["--table", "a"] if option == "--site" else []
    for script in (submit, status):
        with pytest.raises(ConfigError, match=f"{option}: it is empty"):
            script.parse([*about, option, ""])


@pytest.mark.parametrize("name", ["x" * 300, "x" * 100_000, "a\nb", "\x1b[31m", "\u202e", "\udcff"])
def test_any_name_is_told_in_one_bounded_line(folder: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    for main, option in itertools.product(
        (submit.main, status.main, aggregate.main), ("--table", "--config", "--output-dir", "--protocol", "--x")
    ):
        about = [] if option in ("--table", "--config") else ["--table", "sweep"]
        about += ["--dry-run"] if main is submit.main else []  # where there is no SLURM, it would train here
        for word in (name, f"{name}.yaml"):
            code, (_, err) = main([*about, option, word]), capsys.readouterr()
            first, *more = err.removesuffix("\n").split("\n")
            assert code in (0, 1, 2) and len(first) <= 1_000 and first.isprintable()
            assert all(line.startswith("  python ") for line in more)


def test_the_commands_of_the_help_texts_are_ones() -> None:
    for script in (submit, status, aggregate, runs):
        for line in script.EXAMPLES.splitlines():
            if line.startswith("  python "):
                words = shlex.split(line.partition("   ")[0] if line.count("   ") else line.strip())
                script.parse(words[2:]) if "--retry" not in line and "--cancel" not in line else None
