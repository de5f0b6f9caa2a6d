"""main.py where something is wrong: one clear line and exit code 2."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from typing import Any

import h5py
import pytest

from seval.config import load
from seval.data.hdf5 import read, write
from seval.record import load_checkpoint, save_checkpoint
from seval.run import Run
from tests.command_line import command, run
from tests.settings import ROOT, SMALL
from tests.standins import TINY

pytestmark = pytest.mark.usefixtures("in_root")


def test_resume_needs_something_to_resume(tmp_path, capsys):
    code, _, err = run(capsys, *command("supervised", "--resume", *SMALL, "OUTPUT_DIR", tmp_path))
    assert code == 2 and "nothing to resume" in err


@pytest.mark.parametrize(
    "policy",
    ["threshold(2)", "seval_refine(groups=7)", "seval_refine|seval_refine", "darp_estimate", "template_label"],
)
def test_dry_run_finds_a_policy_that_cannot_be_built(policy, capsys):
    code, out, err = run(capsys, *command("fixmatch", "--dry-run", *SMALL, "HEADS.LINEAR.POLICY", policy))
    assert code == 2 and not out and err.startswith("error: ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["SOLVER.BASE_LRR", "1"], ["unknown key", "did you mean 'SOLVER.BASE_LR'"]),
        (["SEED", "one"], ["SEED is 'one'", "int"]),
        (["HEADS.LINEAR.POLICY", "treshold(0.9)"], ["unknown rule 'treshold'", "threshold"]),
        (["DATASET.TINY.IMB_FACTOR_L", "0.5"], ["at least 1"]),
        (["DATASET.HELD_OUT", "labeled", "DATASET.HELD_OUT_PORTION", "1.0"], ["every class must keep labels"]),
        (["DATASET.TINY.NUM_LABELED_HEAD", "4"], ["class 6 gets no labels"]),
        (["DATASET.ROOT", "/nowhere"], ["/nowhere/tiny.h5", "python repro/prepare.py"]),
        (["DATASET.NAME", "cifar10", "DATASET.ROOT", "/nowhere"], ["cifar-10", "python repro/prepare.py cifar10"]),
        (["CURRICULUM", "/nowhere/x"], ["/nowhere/x_estim_pi.npy"]),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(change, words, tmp_path, capsys):
    code, out, err = run(capsys, *command("fixmatch", *SMALL, "OUTPUT_DIR", tmp_path, *change))
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and not out
    assert all(word in lines[0] for word in words), lines


@pytest.mark.parametrize(
    "results", [{}, {"test": []}, {"test": None}, {"test": {"ema": {}}}, {"test": {"ema": {"none": {"top1": 5}}}}]
)
def test_results_that_are_none_are_one_clear_line(results, tmp_path, capsys):
    arguments = command("fixmatch", *SMALL, "OUTPUT_DIR", tmp_path)
    folder = Run(load(arguments[1], [str(word) for word in arguments[2:]])).folder
    folder.mkdir()
    (folder / "record.json").write_text(json.dumps({"id": folder.name, "results": results}))
    code, _, err = run(capsys, *arguments)
    assert code == 2 and err.startswith(f"error: {folder}/record.json is damaged") and err.count("\n") == 1


def test_damaged_data_is_one_clear_line_and_exit_code_2(tmp_path, capsys):
    whole = (ROOT / "data/tiny.h5").read_bytes()
    (tmp_path / "tiny.h5").write_bytes(whole[: len(whole) // 2])
    arguments = command("fixmatch", *SMALL, "OUTPUT_DIR", tmp_path, "DATASET.ROOT", tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "tiny.h5" in err and "repro/prepare.py" in err
    shutil.copy(ROOT / "data/tiny.h5", tmp_path / "tiny.h5")
    with h5py.File(tmp_path / "tiny.h5") as file:
        chunk = file["train/images"].id.get_chunk_info(0)
    altered = bytearray(whole)
    altered[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    (tmp_path / "tiny.h5").write_bytes(altered)
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "tiny.h5" in err and len([line for line in err.splitlines() if line.startswith("error")]) == 1


def test_a_disk_that_is_full_while_writing_a_checkpoint(tmp_path, capsys):
    arguments = command("fixmatch", *SMALL, "OUTPUT_DIR", tmp_path, "PERIODS.CHECKPOINT", 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond 100 kB
    try:
        code, _, err = run(capsys, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and "cannot write" in err and "checkpoint.pt" in err and "the same command resumes" in err
    assert len(err.strip().splitlines()) == 1
    assert run(capsys, *arguments)[0] == 0


def test_a_run_is_not_confused_with_that_of_other_data(tmp_path, capsys):
    """Same name, same settings, other images: record, checkpoint and curriculum are not taken for its own."""
    image_set = read(TINY)
    inverted = image_set._replace(train=image_set.train._replace(images=255 - image_set.train.images))
    write(tmp_path / "tiny.h5", inverted)
    few = [*SMALL, "OUTPUT_DIR", tmp_path / "runs"]
    assert run(capsys, *command("fixmatch_seval_load", "--with-prerequisites", *few))[0] == 0
    for options in ([], ["--eval-only"]):
        code, _, err = run(capsys, *command("fixmatch_seval_load", *options, *few, "DATASET.ROOT", tmp_path))
        assert code == 2 and "belongs to another data" in err
    records = [path for path in (tmp_path / "runs").glob("*/record.json")]
    done = next(path for path in records if json.loads(path.read_text())["prerequisites"])
    shutil.rmtree(done.parent)
    code, _, err = run(capsys, *command("fixmatch_seval_load", *few, "DATASET.ROOT", tmp_path))
    assert code == 2 and "belongs to another data" in err and not done.parent.exists()


DAMAGES = [("checkpoint.pt", b""), ("checkpoint.pt", "list"), ("checkpoint.pt", "strange"), ("record.json", b"5"),
           ("record.json", b"[]"), ("record.json", b"[" * 100_000)]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), DAMAGES)
def test_damaged_files_of_a_run_are_named(name, content, tmp_path, capsys):
    arguments = command("supervised", *SMALL, "OUTPUT_DIR", tmp_path)
    assert run(capsys, *arguments)[0] == 0
    folder = next(tmp_path.glob("*/record.json")).parent
    (folder / "record.json").unlink()
    if isinstance(content, str):
        state = load_checkpoint(folder / name)
        save_checkpoint(folder / name, [1] if content == "list" else state | {"net": {"x": 1}})
    else:
        (folder / name).write_bytes(content)
    code, _, err = run(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and name in lines[0] and "move" in lines[0]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory")])  # fmt: skip
def test_short_memory_is_one_line(error, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("seval.train.update", lambda *_: (_ for _ in ()).throw(error))
    code, _, err = run(capsys, *command("supervised", *SMALL, "OUTPUT_DIR", tmp_path))
    assert code == 2 and err.splitlines()[-1].startswith("error: memory is short (") and "Traceback" not in err


def called(*words: object, **options: Any) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "import sys, main; sys.exit(main.main())", *map(str, words)]
    return subprocess.run(command, encoding="utf-8", stderr=subprocess.PIPE, timeout=240, **options)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
def test_output_that_is_not_taken_is_one_line_and_exit_code_2():
    with open("/dev/full", "wb") as full:
        done = called("--list-methods", stdout=full)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "No space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_variables_of_the_progress_bar_do_not_end_a_training(tmp_path):
    odd = {"BAR_FORMAT": "{nope}", "MININTERVAL": "soon", "NCOLS": "x", "FILE": "x", "TOTAL": "x", "POSITION": "x"}
    environment = os.environ | {f"TQDM_{name}": value for name, value in odd.items()} | {"TQDM_MAXINTERVAL": "5"}
    words = command("supervised", *SMALL, "OUTPUT_DIR", tmp_path, "RUNTIME.PROGRESS", True)
    done = called(*words, env=environment, stdout=subprocess.PIPE)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "step" in done.stderr


def test_the_run_to_do_first_is_named_as_main_was_called(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["../over there/main.py"])
    monkeypatch.setattr(sys, "orig_argv", [".venv/bin/python", "../over there/main.py"])
    code, _, err = run(capsys, *command("fixmatch_seval_load", *SMALL, "OUTPUT_DIR", tmp_path))
    assert code == 2 and "\n  .venv/bin/python '../over there/main.py' --config-file configs/tiny/" in err
