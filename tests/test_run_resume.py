"""Runs that are killed, interrupted or overtaken, and then resumed."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import time

import pytest
import torch

import seval.run
from seval import files, record, train
from seval.errors import Interrupted, RunBusy
from seval.run import Run
from tests.settings import ROOT, SMALL, result, small


@pytest.mark.parametrize("method", ["fixmatch_seval", "supervised"])
def test_killed_in_any_write_and_resumed_gives_the_same_record(method, tmp_path):
    """Writes of a run: lines kept, config.yaml, per evaluation a line, checkpoints, artifacts, record."""
    whole = Run(small(method, tmp_path / "whole")).execute()
    moments = [4, 2, 1, 3, 5, 6, 4, 3, 2, 1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.victim", str(tmp_path / "killed"), method, *map(str, moments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5, "the test must really kill"
    assert result(Run(small(method, tmp_path / "killed")).record()) == result(whole)


def test_killed_at_random_times_and_resumed_gives_the_same_record(tmp_path):
    overrides = ["SOLVER.MAX_ITER", 30, "PERIODS.EVAL", 3, "PERIODS.CHECKPOINT", 3]
    whole = Run(small("fixmatch_seval", tmp_path / "whole", *overrides))
    expected = result(whole.execute())
    cfg = small("fixmatch_seval", tmp_path / "killed", *overrides)
    command = [
        sys.executable,
        "main.py",
        "--config-file",
        "configs/tiny/fixmatch_seval.yaml",
        *map(str, [*SMALL, "OUTPUT_DIR", cfg.OUTPUT_DIR, *overrides, "RUNTIME.THREADS", 1]),
    ]
    rng, lines = random.Random(0), Run(cfg).folder / "metrics.jsonl"
    kills = 0
    for _ in range(2):
        before = len(record.read_lines(lines))
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while child.poll() is None and len(record.read_lines(lines)) <= before:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        kills += child.poll() is None
        child.kill()
        child.wait()
    assert kills == 2
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    assert result(Run(cfg).record()) == expected


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    run = Run(small("fixmatch", tmp_path))
    real, count = os.fsync, 0

    def full(fd):
        nonlocal count
        count += stat.S_ISREG(os.fstat(fd).st_mode)
        if count == 8:  # lines kept, config, two lines, first checkpoint, two lines: the second checkpoint
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run.execute()
    monkeypatch.undo()
    assert record.load_checkpoint(run.folder / "checkpoint.pt")["step"] == 6
    assert not list(run.folder.glob(".*")), "nothing half-written stays"
    assert result(run.execute()) == result(Run(small("fixmatch", tmp_path / "whole")).execute())


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    run = Run(small("supervised", tmp_path))
    run.folder.mkdir()
    (run.folder / ".checkpoint.pt.123").write_bytes(b"half")
    run.execute()
    assert not list(run.folder.glob(".*"))


INTERRUPTED = ["fixmatch", "fixmatch_seval_estim", "daso", "mixmatch", "acr", "crest"]


@pytest.mark.parametrize("method", INTERRUPTED)
def test_interrupted_after_any_step_and_resumed_gives_the_same_record(method, tmp_path):
    """Before the first step, between evaluations, at a checkpoint."""
    whole, broken = (Run(small(method, tmp_path / name)) for name in ("whole", "broken"))
    for run in (*broken.chain()[:-1], *whole.chain()):
        expected = run.execute()
    done = 0
    for step in (0, 5, 6, 10):
        torch.manual_seed(99)  # what another process would begin with
        polls = iter(range(done, 12))
        with pytest.raises(Interrupted, match=f"after {step} of 12 steps") as error:
            Run(broken.cfg).execute(lambda polls=polls, step=step: next(polls) == step)
        assert (error.value.step, error.value.begun) == (step, done)
        assert broken.state() == ("resumable" if step else "new")
        done = step
    assert result(Run(broken.cfg).execute()) == result(expected)
    lines = [record.read_lines(run.folder / "metrics.jsonl") for run in (whole, broken)]
    assert all(line.pop("seconds") > 0 for line in lines[0] + lines[1]) and lines[0] == lines[1]


def test_what_was_just_saved_is_not_saved_again_and_older_checkpoints_still_load(tmp_path, monkeypatch):
    run, saved = Run(small("fixmatch", tmp_path)), []
    real = record.save_checkpoint
    monkeypatch.setattr(record, "save_checkpoint", lambda path, state: (saved.append(state["step"]), real(path, state)))
    polls = iter(range(13))
    with pytest.raises(Interrupted):
        run.execute(lambda: next(polls) == 6)
    assert saved == [6]
    with pytest.raises(Interrupted):
        run.execute(lambda: True)
    assert saved == [6]
    state = record.load_checkpoint(run.folder / "checkpoint.pt")
    assert state.pop("totals") == {} and state.pop("spent") >= 0
    real(run.folder / "checkpoint.pt", state)
    assert result(run.execute()) == result(Run(small("fixmatch", tmp_path / "whole")).execute())


def test_a_diverged_network_is_not_saved_on_interruption_either(tmp_path):
    run = Run(small("fixmatch_seval", tmp_path, "SOLVER.BASE_LR", 1e30, "PERIODS.EVAL", 6))
    polls = iter(range(13))
    with pytest.raises(Interrupted):
        run.execute(lambda: next(polls) == 5)
    assert run.state() == "new"


@pytest.mark.parametrize("moment", ["append_line", "save_checkpoint", "save_artifacts", "write_json"])
def test_who_lost_its_claim_writes_nothing_any_more(moment, tmp_path, monkeypatch):
    """Another host takes over while this process, suspended, is about to write."""
    run, before = Run(small("supervised", tmp_path)), {}

    def taken(*_):
        raise AssertionError("written")

    place = {
        "append_line": (train, "evaluate"),
        "save_checkpoint": (record, "append_line"),
        "save_artifacts": (seval.run, "train"),
        "write_json": (record, "save_artifacts"),
    }[moment]
    real = getattr(*place)

    def then_lose(*arguments, **more):
        value = real(*arguments, **more)
        if moment != "save_checkpoint" or arguments[1]["step"] == 6:
            monkeypatch.setattr(files if moment == "write_json" else record, moment, taken)
            (run.folder / "claim.1").unlink()
            (run.folder / "claim.2").write_text('{"pid": 7, "host": "other"}')
            before.update((path, path.read_bytes()) for path in run.folder.iterdir())
        return value

    monkeypatch.setattr(*place, then_lose)
    with pytest.raises(RunBusy, match="was taken over by process 7 on other"):
        run.execute()
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before
