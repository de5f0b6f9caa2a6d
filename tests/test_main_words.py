"""main.py as people call it: words in any of the usual forms, wrong Pythons, other locales, an early Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import main
from seval.config import load
from seval.run import Run
from tests.command_line import command, run
from tests.settings import ROOT, SMALL, small

pytestmark = pytest.mark.usefixtures("in_root")
TINY = "configs/tiny/fixmatch.yaml"
FORMS = [
    ["--config-file", TINY, "SEED", "1", "SOLVER.BASE_LR", "0.1", "--dry-run", "--json"],
    ["--config", TINY, "--dry-run", "--json", "SEED=1", "SOLVER.BASE_LR=0.1"],
    ["--dry-run", "--json", TINY, "--seed", "1", "--solver.base_lr=0.1"],
    [TINY, "seed", "1", "--dry-run", "solver.base_lr", "1e-1", "--json"],
    ["--dry-run", "--json", "SEED", "1", "--config-file", TINY, "SOLVER.BASE_LR", ".1"],
    ["--json", "--config-file", TINY, "--dry-run", "--", "SEED", "1", "SOLVER.BASE_LR", "0.1"],
]


@pytest.mark.parametrize("words", FORMS, ids=range(len(FORMS)))
def test_all_forms_of_a_command_mean_the_same_run(words, capsys):
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert json.loads(out)["id"] == Run(load(TINY, ["SEED", 1, "SOLVER.BASE_LR", 0.1])).id


@pytest.mark.parametrize(
    ("words", "say"),
    [
        ("", "error: choose a --config-file"),
        ("--json", "error: choose a --config-file"),
        ("SEED 1", "no data set is chosen; choose a --config-file"),
        ("configs/methods/fixmatch.yaml", "a method without a data set; a data set is added to it by configs/cifar10/"),
        ("configs/methods/seval.yaml SEED 1", "is a method without a data set"),
        ("configs/tiny/fixmatch.yml", "no configuration file configs/tiny/fixmatch.yml; did you mean fixmatch.yaml?"),
        (f"{TINY} --dryrun", "unknown option '--dryrun'"),
        (f"{TINY} SEED", "'SEED' has no value; keys are set by KEY VALUE pairs, such as SEED 1"),
        (f"{TINY} --config-file {TINY}", "one --config-file is read, not 2"),
        (f"{TINY} SEED 1 {TINY}", "write --config-file before the name of a file"),
        (f"{TINY} --dry-run=1", "ignored explicit argument"),
        ("--config-file", "expected one argument"),
        (f"{TINY} SEED 010", "SEED is '010' in the command line, but must be an int in plain decimal digits"),
    ],
)  # fmt: skip
def test_a_command_that_means_nothing_says_what_to_write(words, say, capsys):
    try:
        code, out, err = run(capsys, *words.split())
    except SystemExit as stopped:  # from the parser
        code, (out, err) = stopped.code, capsys.readouterr()
    *usage, line = err.splitlines()
    assert code == 2 and not out and line.startswith("error: ") and say in line
    assert usage == ([] if "choose a --config-file" not in say or "SEED" in words else [USAGE])


USAGE = "usage: main.py --config-file FILE [OPTION ...] [KEY VALUE ...]"


def test_a_data_set_may_be_chosen_by_its_key(capsys):
    code, out, _ = run(capsys, "configs/methods/fixmatch.yaml", "--dry-run", "--json", *SMALL, "DATASET.NAME", "tiny")
    assert code == 0 and json.loads(out)["delta"]["DATASET.NAME"] == "tiny"


def test_the_plan_counts_the_images_of_every_split(tmp_path, capsys):
    words = command("fixmatch", *SMALL, "OUTPUT_DIR", tmp_path, "--dry-run")
    splits = json.loads(run(capsys, *words, "--json")[1])["splits"]
    assert list(splits) == ["labeled", "unlabeled", "held_out", "valid", "test"]
    assert splits["test"]["class_counts"] == [10] * 10
    (line,) = [line for line in run(capsys, *words)[1].splitlines() if line.startswith("test ")]
    assert line.split() == ["test", "100", *["10"] * 10, splits["test"]["sha256"][:12]]
    whole = json.loads(run(capsys, *words, "--json", "DATASET.NUM_TEST", 0)[1])["splits"]["test"]
    assert whole["class_counts"] == [300] * 10


@pytest.mark.parametrize("change", [["DATASET.PADDING", 16], ["DATASET.NUM_TEST", 301], ["DATASET.NUM_VALID", 7]])
@pytest.mark.parametrize("option", ["--dry-run", "--with-prerequisites"])
def test_what_cannot_be_made_is_found_before_training(change, option, tmp_path, capsys):
    code, out, err = run(capsys, *command("fixmatch", option, *SMALL, "OUTPUT_DIR", tmp_path, *change))
    assert code == 2 and not out and f"error: {change[0]} is {change[1]}, but" in err
    assert not list(tmp_path.glob("*/metrics.jsonl"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_told_where_it_was_asked_for(tmp_path, capsys):
    words = [*SMALL, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 2, "PERIODS.EVAL", 2]
    (tmp_path / "asks.yaml").write_text(f"_BASE_: {ROOT / TINY}\nGPU_ID: 0\nMEMO: file\n", encoding="utf-8")
    for file, given, told in (
        (TINY, ["MEMO", "asked", "GPU_ID", 0], "warning: GPU_ID is 0, but no GPU was found: running on the CPU\n"),
        (tmp_path / "asks.yaml", [], "warning: GPU_ID is 0, but no GPU was found: running on the CPU\n"),
        (TINY, [], ""),  # it is done
        (TINY, ["MEMO", "cpu", "GPU_ID", -1], ""),
    ):
        assert run(capsys, "--config-file", file, *words, *given)[::2] == (0, told)


@pytest.fixture
def latin(tmp_path) -> dict[str, str]:
    """An environment whose locale is ISO-8859-1."""
    if not shutil.which("localedef"):
        pytest.skip("needs localedef")
    made = subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", tmp_path / "en_US"], capture_output=True)
    if not (tmp_path / "en_US").exists():
        pytest.skip(f"localedef made no locale: {made.stderr.decode(errors='replace')}")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    return clean | {"LOCPATH": str(tmp_path), "LC_ALL": "en_US", "PYTHONPATH": str(ROOT)}


def test_the_locale_changes_neither_the_id_nor_whether_it_works(latin, tmp_path):
    folder = tmp_path / "é"
    folder.mkdir()
    (folder / "été.yaml").write_text(f'_BASE_: {ROOT / TINY}\nMEMO: "été ✓"\n', encoding="utf-8")
    words = [*SMALL, "OUTPUT_DIR", folder / "runs", "METHOD.SOURCE", "ici ✓"]
    wanted = Run(small("fixmatch", folder / "runs", "MEMO", "été ✓"))
    for given in (["--config-file", folder / "été.yaml"], ["--config-file", TINY, "MEMO", "été ✓"]):
        args = [sys.executable, "main.py", "--dry-run", *map(str, [*given, *words])]
        done = subprocess.run(args, env=latin, capture_output=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        assert done.stdout.decode("latin-1").split()[1] == wanted.id


def test_output_that_cannot_be_written_in_ascii_is_replaced():
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    words = ["--dry-run", "--config-file", TINY, "MEMO", "été ✓\x1b[31m"]
    done = subprocess.run([sys.executable, "main.py", *words], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr and "?t? ?\\x1b[31m" in done.stdout


def test_a_python_without_the_packages_is_one_line():
    bare = subprocess.run([sys.executable, "-E", "-S", "main.py", TINY], capture_output=True, text=True)
    assert bare.returncode == 2 and not bare.stdout and len(bare.stderr.splitlines()) == 1
    assert "No module named" in bare.stderr and ".venv/bin/python" in bare.stderr


def test_a_python_that_is_too_old_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    assert main.main([TINY]) == 2
    err = capsys.readouterr().err
    assert "not 3.11 or newer; write .venv/bin/python" in err and len(err.splitlines()) == 1


def test_ctrl_c_during_the_imports_is_one_line():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "main.py", TINY], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    maps = Path(f"/proc/{child.pid}/maps")
    while "libtorch" not in maps.read_text(encoding="utf-8"):
        assert child.poll() is None
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert (child.returncode, out, err) == (130, "", "error: interrupted before the run began\n")
