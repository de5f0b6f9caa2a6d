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
from tests.claimants import foreign
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
        timeout=1800,
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


INTERRUPTED = ["fixmatch", "fixmatch_seval_estim", "daso", "mixmatch", "acr", "ccl", "crest"]


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
    monkeypatch.setattr(
        record, "save_checkpoint", lambda path, state, *check: (saved.append(state["step"]), real(path, state, *check))
    )
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
    run = Run(small("fixmatch_seval", tmp_path, "SOLVER.BASE_LR", 1e29, "PERIODS.EVAL", 6))
    polls = iter(range(13))
    with pytest.raises(Interrupted):
        run.execute(lambda: next(polls) == 5)
    assert run.state() == "new"


PLACES = {
    "metrics.jsonl": (train, "evaluate"),
    "checkpoint.pt": (record.Metrics, "append"),
    "artifacts.h5": (seval.run, "train"),
    "record.json": (record, "save_artifacts"),
}


@pytest.mark.parametrize("name", PLACES)
def test_who_lost_its_claim_writes_nothing_any_more(name, tmp_path, monkeypatch):
    """Another host takes over while this process, suspended, is about to write."""
    run, before = Run(small("supervised", tmp_path)), {}
    real = getattr(*PLACES[name])

    def then_lose(*arguments, **more):
        value = real(*arguments, **more)
        if name != "checkpoint.pt" or arguments[1]["step"] == 6:
            (run.folder / "claim.1").unlink()
            foreign(run.folder, number=2, pid=7)
            before.update((path, path.read_bytes()) for path in run.folder.iterdir() if path.is_file())
        return value

    monkeypatch.setattr(*PLACES[name], then_lose)
    with pytest.raises(RunBusy, match="was taken over by process 7 on other"):
        run.execute()
    assert {path: path.read_bytes() for path in run.folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_who_is_suspended_within_a_write_writes_nothing_any_more(call, tmp_path, monkeypatch):
    """Another host takes over, deletes what is half-written and writes its own; then this write goes on."""
    run, real, calls = Run(small("supervised", tmp_path)), getattr(os, call), iter(range(99))

    def suspended(*arguments):
        if next(calls) == 2:
            monkeypatch.setattr(os, call, real)
            (run.folder / "claim.1").unlink()
            foreign(run.folder, number=2, pid=7)
            for aside in run.folder.glob(".*.*"):
                aside.unlink()
            files.replace(run.folder / "metrics.jsonl", b"its own")
        return real(*arguments)

    monkeypatch.setattr(os, call, suspended)
    with pytest.raises(RunBusy, match="was taken over by process 7 on other"):
        run.execute()
    assert (run.folder / "metrics.jsonl").read_bytes() == b"its own"
    assert not (run.folder / "record.json").exists() and not list(run.folder.glob(".*"))


def test_metrics_are_a_copy_that_is_written_again(tmp_path, monkeypatch):
    """Whatever happens to metrics.jsonl, the history is in the checkpoint."""
    whole, broken = (Run(small("fixmatch", tmp_path / name)) for name in ("whole", "broken"))
    expected = result(whole.execute())
    for content in (b"", b"\xff\n5\n", (whole.folder / "metrics.jsonl").read_bytes()[:1000], None):
        polls = iter(range(13))
        with pytest.raises(Interrupted):
            broken.execute(lambda polls=polls: next(polls) == 7)
        lines = broken.folder / "metrics.jsonl"
        lines.unlink() if content is None else lines.write_bytes(content)
        assert result(broken.execute()) == expected
        found = [[line for line in record.read_lines(run.folder / "metrics.jsonl")] for run in (whole, broken)]
        assert all(line.pop("seconds") > 0 for line in found[0] + found[1]) and found[0] == found[1]
        for name in ("record.json", "checkpoint.pt"):
            (broken.folder / name).unlink()
    real = record.Metrics.append

    def disturbed(self: record.Metrics, line: dict) -> None:
        real(self, line)
        with (broken.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write("of a process that woke up\n")

    monkeypatch.setattr(record.Metrics, "append", disturbed)
    broken.execute()
    assert len(record.read_lines(broken.folder / "metrics.jsonl")) == len(found[0])


def test_a_folder_that_vanishes_is_not_called_taken_over(tmp_path, monkeypatch):
    run = Run(small("supervised", tmp_path))
    real = train.evaluate
    monkeypatch.setattr(train, "evaluate", lambda *a, **k: (real(*a, **k), run.folder.rename(tmp_path / "moved"))[0])
    with pytest.raises(FileNotFoundError, match=f"{run.folder} was deleted or renamed"):
        run.execute()
