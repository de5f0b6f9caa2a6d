"""The command `seval`: which script a word calls, with which words, and how messages spell it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import main
from repro import submit
from seval import __main__ as command
from seval.places import ROOT, called, found, spelled


@pytest.mark.parametrize(
    ("words", "passed"),
    [
        ("train a.yaml SEED 1", "a.yaml SEED 1"),
        ("predict photos x.png --run 3f", "--predict photos x.png --run 3f"),
        ("predict --run 3f photos x.png --top 3", "--run 3f --predict photos x.png --top 3"),
        ("predict --run=3f photos", "--run=3f --predict photos"),
        ("predict --help", "--help"),
        ("predict", "--predict"),
        ("export model.pt2 --run 3f", "--export model.pt2 --run 3f"),
        ("methods --json", "--json --list-methods"),
        ("methods", "--list-methods"),
    ],
)
def test_words_are_passed_to_main(words, passed, monkeypatch):
    monkeypatch.setattr(main, "main", lambda given: given)
    assert command.main(words.split()) == passed.split()


def test_words_are_passed_to_a_script(monkeypatch):
    monkeypatch.setattr("repro.tables.interrupts.end_at_once", lambda: None)
    monkeypatch.setattr(submit, "main", lambda given: given)
    assert command.main(["submit", "--table", "2"]) == ["--table", "2"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["trian"], 2, "unknown command 'trian'; did you mean train?"),
        (["configs/tiny/fixmatch.yaml"], 2, "write `seval train` before it"),
        (["--version"], 0, "seval "),
        (["--help"], 0, "seval aggregate --table demo"),
        ([], 2, "usage: seval COMMAND"),
    ],
)
def test_words_that_call_nothing(words, code, said, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/pytest"])
    assert command.main(words) == code
    out, err = capsys.readouterr()
    assert said in (err if code else out) and not (out if code else err)


def test_every_command_has_a_script_and_an_example():
    for module, _, about, _ in command.COMMANDS.values():
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file() and about


def test_messages_and_help_texts_name_the_command_that_was_called(monkeypatch):
    text = "python main.py SEED 1, repro/status.py and `python repro/aggregate.py --table 2`"
    assert spelled(text) == text
    for argv, name in (
        ("/env/bin/seval", ["/env/bin/seval"]),
        ("/x/seval/__main__.py", [sys.orig_argv[0], "-m", "seval"]),
    ):
        monkeypatch.setattr(sys, "argv", [argv])
        assert called("main.py") == [*name, "train"] and called("repro/submit.py") == [*name, "submit"]
        first = " ".join(name)
        assert spelled(text) == f"{first} train SEED 1, {first} status and `{first} aggregate --table 2`"


def test_a_relative_name_is_found_here_first_and_then_in_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "configs/tiny/fixmatch.yaml"
    assert found(name) == ROOT / name
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).touch()
    assert found(name) == Path(name)
    for other in ("no/such.yaml", "/no/such.yaml", f"../{ROOT.name}/{name}", "a\0b", "x" * 5000):
        assert found(other) == Path(other)


@pytest.mark.parametrize(
    "script", ["main.py", *(f"repro/{name}.py" for name in ("submit", "status", "aggregate", "report"))]
)
@pytest.mark.parametrize("word", ["--help", "--no-such-option"])
def test_words_are_read_before_anything_slow_is_imported(script, word):
    code = (
        f"import runpy, sys; sys.argv = [{script!r}, {word!r}]\n"
        f"try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "except SystemExit as end: code = end.code or 0\n"
        "print(code, [name for name in ('torch', 'numpy', 'h5py', 'scipy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == f"{0 if word == '--help' else 2} []", done.stderr


def test_a_first_word_that_is_a_file_is_the_table_or_the_configuration():
    table, config = "paper_tables/demo.yaml", "configs/tiny/fixmatch.yaml"
    for words, names in (([table], [table]), (["demo", "2"], ["demo", "2"]), (["--table", "demo"], ["demo"])):
        args = submit.parse([*words, "--dry-run"])
        assert (args.table, args.config, args.overrides) == (names, None, [])
    args = submit.parse([config, "SEED=1", "--dry-run"])
    assert (args.table, args.config, args.overrides) == (None, config, ["SEED=1"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--tabel 2", "did you mean --table?"),
        ("--config configs/tiny/fixmatch.yaml --base_lr=0.1", "write SOLVER.BASE_LR 0.1"),
        ("configs/tiny/fixmatch.yml", "did you mean fixmatch.yaml?"),
        ("fixmatch.yaml", "did you mean configs/cifar10/fixmatch.yaml"),
    ],
)
def test_a_word_that_is_not_understood_has_a_hint(words, said, capsys):
    assert submit.main(words.split()) == 2
    assert said in (err := capsys.readouterr().err) and err.count("\n") == 1
