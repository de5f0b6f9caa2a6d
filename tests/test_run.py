from __future__ import annotations

import errno
import json
import math
import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import seval.run
from seval import record, train
from seval.claim import claim
from seval.errors import ConfigError, Interrupted, MissingPrerequisite, RecordError, RunBusy
from seval.evaluate import predict
from seval.run import Run
from tests.settings import ROOT, SMALL, result, small

METHODS = ["supervised", "supervised_la", "fixmatch", "fixmatch_la", "fixmatch_seval_estim", "fixmatch_seval"]


@pytest.mark.parametrize("method", METHODS)
def test_same_id_same_record(method, tmp_path):
    first, second = (Run(small(method, tmp_path / name)) for name in "ab")
    assert first.id == second.id
    assert result(first.execute()) == result(second.execute())
    lines = record.read_lines(first.folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert all(math.isfinite(value) for line in lines for value in line["loss"].values())


def test_another_seed_is_another_record(tmp_path):
    a, b = (Run(small("fixmatch", tmp_path, "SEED", seed)) for seed in (0, 1))
    assert a.id != b.id and result(a.execute())["splits"] != result(b.execute())["splits"]


def test_a_record_holds_what_a_reader_needs(tmp_path):
    done = Run(small("fixmatch_seval", tmp_path)).execute()
    top1 = done["results"]["test"]["ema"]["seval"]["top1"]
    assert top1.keys() == {"last", "median20", "mean20", "best_on_valid", "best_on_test"}
    assert done["results"]["test"].keys() == {"ema", "raw"}
    assert done["results"]["test"]["ema"].keys() == {"none", "logit_adjusted", "seval", "seval_smoothed"}
    assert done["per_class"]["seval"].keys() == {"recall", "precision"}
    assert sum(done["splits"]["labeled"]["class_counts"]) == 240 and len(done["splits"]["labeled"]["sha256"]) == 64
    assert {"kept", "gain", "correctness", "precision", "recall"} <= done["pseudo_labels"].keys()
    assert done["provenance"]["packages"]["torch"] and done["provenance"]["device"].startswith("cpu")
    assert json.loads((tmp_path / done["id"] / "record.json").read_text()) == done


def test_one_seval_run_reports_the_last_unsmoothed_offset(tmp_path):
    run = Run(small("fixmatch_seval", tmp_path))
    run.execute()
    arrays = record.load_artifacts(run.folder / "artifacts.h5")["linear"]
    training = run.build({})
    training.load_state_dict(record.load_checkpoint(run.folder / "checkpoint.pt"))
    logits = predict(training.ema.network, training.data["test"], training.mean, training.std, 64)
    logits = logits["linear"].numpy()
    right = (logits - np.log(arrays["pi_fitted"][-1])).argmax(1) == training.data["test"].labels.numpy()
    assert run.record()["results"]["test"]["ema"]["seval"]["top1"]["last"] == pytest.approx(right.mean())


def test_two_phases(tmp_path):
    replay = Run(small("fixmatch_seval_load", tmp_path))
    with pytest.raises(MissingPrerequisite) as error:
        replay.execute()
    estimate = error.value.run
    assert estimate.id == Run(small("fixmatch_seval_estim", tmp_path)).id == replay.chain()[0].id
    assert not (replay.folder / "record.json").exists()
    for run in replay.chain():
        run.execute()
    assert replay.record()["prerequisites"] == [estimate.id]
    learned, replayed = (record.load_artifacts(run.folder / "artifacts.h5")["linear"] for run in (estimate, replay))
    assert learned["pi_fitted"].shape == (4, 10) and all(np.array_equal(learned[k], replayed[k]) for k in learned)
    halves = estimate.record()["splits"]
    whole = replay.record()["splits"]["labeled"]["class_counts"]
    assert halves["held_out"]["class_counts"] == [n // 2 for n in whole]
    assert np.add(halves["labeled"]["class_counts"], halves["held_out"]["class_counts"]).tolist() == whole
    assert halves["unlabeled"] == replay.record()["splits"]["unlabeled"]


def test_a_second_execution_trains_nothing(tmp_path, monkeypatch):
    run = Run(small("supervised", tmp_path))
    done = run.execute()
    monkeypatch.setattr("seval.run.train", None)
    assert Run(run.cfg).execute() == done


def test_seval_without_refinement_equals_fixmatch_bit_for_bit(tmp_path, monkeypatch):
    """pi = 1 and tau = 0.95 for ever: the two networks have the same weights."""
    monkeypatch.setattr("seval.policy.seval.fit_offsets", lambda z, y, **_: np.ones(10))
    monkeypatch.setattr(
        "seval.policy.seval.SevalThreshold.fit", lambda self, held_out: self.curriculum.append(np.full(10, 0.95))
    )
    runs = [Run(small(m, tmp_path, "DATASET.HELD_OUT", "valid")) for m in ("fixmatch", "fixmatch_seval")]
    nets = []
    for run in runs:
        run.execute()
        nets.append(record.load_checkpoint(run.folder / "checkpoint.pt")["net"])
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


def test_the_loss_falls(tmp_path):
    run = Run(small("fixmatch", tmp_path, "SOLVER.MAX_ITER", 60, "PERIODS.EVAL", 20))
    run.execute()
    losses = [line["loss"]["linear/labeled"] for line in record.read_lines(run.folder / "metrics.jsonl")]
    assert losses[0] > 1.2 * losses[-1]


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
        count += 1
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


def test_a_loss_that_is_not_finite_stops_with_the_interval(tmp_path, monkeypatch):
    real = train.update

    def update(training, step):
        losses = real(training, step)
        return losses | {"linear/labeled": torch.tensor(float("nan"))} if step == 7 else losses

    monkeypatch.setattr(train, "update", update)
    run = Run(small("fixmatch", tmp_path))
    with pytest.raises(train.TrainingError, match="nan between steps 6 and 9"):
        run.execute()
    assert record.load_checkpoint(run.folder / "checkpoint.pt")["step"] == 6
    monkeypatch.undo()
    assert run.execute()["steps"] == 12


def test_a_checkpoint_of_another_configuration_or_data_is_refused(tmp_path):
    one, two = (Run(small("supervised", tmp_path, "SEED", seed)) for seed in (0, 1))
    one.execute()
    two.folder.mkdir()
    (one.folder / "checkpoint.pt").rename(two.folder / "checkpoint.pt")
    with pytest.raises(RecordError, match="belongs to another configuration"):
        two.execute()
    (two.folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RecordError, match="cannot be loaded"):
        two.execute()


def test_a_damaged_record_is_named(tmp_path):
    run = Run(small("supervised", tmp_path))
    run.folder.mkdir(parents=True)
    (run.folder / "record.json").write_text("{")
    with pytest.raises(RecordError, match="record.json is damaged"):
        run.execute()


def test_two_processes_never_train_one_run(tmp_path):
    run = Run(small("supervised", tmp_path))
    with claim(run.folder), pytest.raises(RunBusy, match=f"process {os.getpid()}"):
        run.execute()
    assert run.execute()["id"] == run.id


def test_checkpoints_hold_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"meta": Bomb()}, tmp_path / "checkpoint.pt")
    with pytest.raises(RecordError, match="cannot be loaded"):
        record.load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "exploded").exists()


def test_hold_out_that_leaves_a_class_without_labels(tmp_path):
    with pytest.raises(ConfigError, match="every class must keep labels"):
        small("fixmatch_seval_estim", tmp_path, "DATASET.HELD_OUT_PORTION", 1.0)
    with pytest.raises(ConfigError, match="class 9 gets no labels"):
        Run(small("fixmatch_seval_estim", tmp_path, "DATASET.TINY.NUM_LABELED_HEAD", 9)).execute()


def test_learning_rates_by_hand():
    solver = small("supervised", ROOT, "SOLVER.BASE_LR", 0.1, "SOLVER.MAX_ITER", 300, "SOLVER.WARMUP_ITERS", 10).SOLVER
    assert (
        train.rate(0, solver) == 0 and train.rate(5, solver) == pytest.approx(0.05) and train.rate(200, solver) == 0.1
    )
    cosine = small("supervised", ROOT, "SOLVER.SCHEDULE", "cosine", "SOLVER.MAX_ITER", 300).SOLVER
    assert train.rate(150, cosine) == pytest.approx(0.03 * math.cos(7 * math.pi / 32))
    steps = small("supervised", ROOT, "SOLVER.SCHEDULE", "multi_step", "SOLVER.STEPS", [100, 200]).SOLVER
    assert [train.rate(t, steps) for t in (99, 100, 200)] == pytest.approx([0.03, 0.003, 0.0003])


def test_what_a_kill_left_half_written_is_removed(tmp_path):
    run = Run(small("supervised", tmp_path))
    run.folder.mkdir()
    (run.folder / ".checkpoint.pt.123").write_bytes(b"half")
    run.execute()
    assert not list(run.folder.glob(".*"))


def test_a_diverged_network_is_neither_recorded_nor_saved(tmp_path):
    run = Run(small("fixmatch_seval", tmp_path, "SOLVER.BASE_LR", 1e30))
    with pytest.raises(train.TrainingError):
        run.execute()
    assert run.state() == "new" and not record.read_lines(run.folder / "metrics.jsonl")


def test_a_redundant_pair_in_the_prerequisite_is_the_same_run(tmp_path):
    cfg = small("fixmatch_seval_load", tmp_path)
    pairs = [*cfg.PREREQUISITE, "SEED", 0, "OUTPUT_DIR", "elsewhere"]
    assert Run(small("fixmatch_seval_load", tmp_path, "PREREQUISITE", pairs)).id == Run(cfg).id


def test_progress_is_read_from_disk(tmp_path):
    run = Run(small("supervised", tmp_path))
    assert run.progress() is None
    run.execute()
    assert run.progress() == 1.0
    (run.folder / "record.json").unlink()
    assert run.progress() == 1.0 and not run.record()
    (run.folder / "metrics.jsonl").unlink()
    assert run.progress() == 0.0
    for file in run.folder.glob("claim.*"):
        file.unlink()
    assert run.progress() is None


def test_the_last_line_is_that_of_all_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert record.last_line(path) is None
    for length in (10, 50_000, 65_536, 200_000):
        lines = [{"step": step, "progress": step / 3, "recall": "x" * length} for step in range(3)]
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        for cut in (0, 1, 2, 5, length, length + 60, len(text) - 3, len(text)):
            path.write_bytes(text[: len(text) - cut])
            assert [record.last_line(path)] == (record.read_lines(path)[-1:] or [None])
    path.write_bytes(text + b"\xff\n[1]\n{}\n")
    assert record.last_line(path) == lines[-1]


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
            monkeypatch.setattr(record, moment, taken)
            (run.folder / "claim.1").unlink()
            (run.folder / "claim.2").write_text('{"pid": 7, "host": "other"}')
            before.update((path, path.read_bytes()) for path in run.folder.iterdir())
        return value

    monkeypatch.setattr(*place, then_lose)
    with pytest.raises(RunBusy, match="was taken over by process 7 on other"):
        run.execute()
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before
