"""Submitting a table: each run once, each level after the level before, and again only if it may end otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from repro.launch.ledger import Submission
from repro.launch.slurm import Launcher
from seval.claim import claim
from tests.launch.conftest import ONE, PAIR, Lab, table


def test_the_plan_is_submitted_once_and_each_level_hangs_on_the_one_before(lab: Lab) -> None:
    plan = lab.submit("--dry-run")
    assert "15 runs in 3 levels" in plan and not lab.fake.calls("sbatch") and not lab.ledgers()
    lab.submit()
    assert set(lab.times().values()) == {1} and len(lab.times()) == 15
    for name, run in lab.names().items():
        options = lab.fake.options(lab.element(name).partition("_")[0])
        assert options["array"] == "0-2%3" and options["kill-on-invalid-dep"] == "yes"
        before = run.prerequisite()
        assert ("dependency" in options) == bool(before)
        if before:  # the same index of the array that it names
            (own,) = [each for each, other in lab.names().items() if other.id == before.id]
            job, _, index = lab.element(own).partition("_")
            assert options["dependency"] == f"aftercorr:{job}" and lab.element(name).endswith(f"_{index}")
    assert lab.kinds() == {name: "waiting" if run.prerequisite() else "queued" for name, run in lab.names().items()}
    said = lab.submit()
    assert "nothing to submit" in said and "status.py" in said and len(lab.fake.jobs()) == len(lab.ledgers()) == 5


ENDINGS = {  # how an element ends: (state, exit code, whether the next submit takes it on, what it is called)
    "vanished": ("", "", True, "canceled"),
    "canceled": ("CANCELLED by 1000", "0:15", True, "canceled"),
    "never started": ("PENDING", "0:0", True, "canceled"),
    "timeout": ("TIMEOUT", "0:0", True, "timeout"),
    "deadline": ("DEADLINE", "0:0", True, "timeout"),
    "oom": ("OUT_OF_MEMORY", "0:125", False, "oom"),
    "failed": ("FAILED", "1:0", False, "crashed"),
    "stopped": ("FAILED", "75:0", True, "resumable"),
    "killed": ("FAILED", "0:9", False, "crashed"),
    "terminated": ("FAILED", "0:15", True, "resumable"),
    "node": ("NODE_FAIL", "1:0", True, "resumable"),
    "preempted": ("PREEMPTED", "0:15", True, "resumable"),
    "empty": ("COMPLETED", "0:0", False, "crashed"),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_only_what_may_end_otherwise_is_submitted_again(lab: Lab, how: str) -> None:
    state, code, again, kind = ENDINGS[how]
    lab.table(table(PAIR, seeds=[0, 1]))
    lab.submit()
    lab.done("Replay 1/1")
    lab.fake.end(lab.element("Replay 0/1"), state, code)
    lab.fake.end(lab.element("Replay 0"))  # it is killed with the one that it waits for, and SLURM forgets it
    assert lab.kinds() == {"Replay 0": "canceled", "Replay 0/1": kind, "Replay 1": "waiting", "Replay 1/1": "done"}
    said = lab.submit()
    if again:
        assert lab.times() == {"Replay 0": 2, "Replay 0/1": 2, "Replay 1": 1, "Replay 1/1": 1}
        options = lab.fake.options(lab.element("Replay 0"))
        assert options["dependency"] == f"afterok:{lab.element('Replay 0/1')}" and "array" not in options
    else:
        assert set(lab.times().values()) == {1} and "left alone: 2" in said
        assert f"--retry {kind}" in said and "which is not submitted" in said
    assert "nothing to submit" in lab.submit()


def test_retry_asks_for_more_of_what_was_lacking(lab: Lab) -> None:
    lab.table(table(ONE, seeds=[0, 1, 2, 3]))
    lab.submit()
    lab.failed("Plain 0", "oom", "MemoryError: ")
    lab.fake.end(lab.element("Plain 1"), "TIMEOUT")
    lab.failed("Plain 2", "crashed", "ValueError: no")
    assert lab.kinds() == {"Plain 0": "oom", "Plain 1": "timeout", "Plain 2": "crashed", "Plain 3": "queued"}
    lab.submit("--retry", "oom", "timeout")
    assert lab.times() == {"Plain 0": 2, "Plain 1": 2, "Plain 2": 1, "Plain 3": 1}
    memory, minutes = (lab.fake.options(lab.element(name)) for name in ("Plain 0", "Plain 1"))
    assert (memory["mem"], memory["time"], minutes["mem"], minutes["time"]) == ("8192M", "60", "4096M", "120")
    lab.failed("Plain 0", "oom", "MemoryError: ")
    lab.submit("--retry", "oom")
    assert lab.fake.options(lab.element("Plain 0"))["mem"] == "16384M"
    assert lab.times() == {"Plain 0": 3, "Plain 1": 2, "Plain 2": 1, "Plain 3": 1}
    lab.submit("--retry", "crashed")
    assert lab.times()["Plain 2"] == 2


def test_retry_takes_only_what_it_names_and_what_stands_on_it(lab: Lab) -> None:
    lab.table(table(PAIR, rows={"Plain": {"config": "plain"}, "Replay": {"config": "replay"}}))
    lab.submit("--rows", "Replay")
    lab.failed("Replay 0/1", "oom", "CUDA out of memory")
    lab.fake.end(lab.element("Replay 0"))
    lab.submit("--retry", "oom")
    assert lab.times() == {"Replay 0": 2, "Replay 0/1": 2}
    assert lab.fake.options(lab.element("Replay 0/1"))["mem"] == "8192M"
    assert lab.fake.options(lab.element("Replay 0"))["mem"] == "4096M"


def test_what_stands_on_a_live_job_hangs_on_its_element(lab: Lab) -> None:
    lab.table(table(PAIR, seeds=[0, 1]))
    lab.submit()
    lab.fake.become(lab.element("Replay 0/1"), "RUNNING")
    lab.fake.end(lab.element("Replay 0"), "CANCELLED by 7")
    assert f"after job {lab.element('Replay 0/1')}" in lab.submit("--dry-run")
    lab.submit()
    assert lab.times() == {"Replay 0": 2, "Replay 0/1": 1, "Replay 1": 1, "Replay 1/1": 1}
    assert lab.fake.options(lab.element("Replay 0"))["dependency"] == f"afterok:{lab.element('Replay 0/1')}"
    assert lab.kinds()["Replay 0"] == "waiting"


def test_a_run_of_another_process_is_waited_for_and_what_stands_on_it_left_alone(lab: Lab) -> None:
    lab.table(table(PAIR))
    first = lab.names()["Replay 0/1"]
    with claim(first.folder):
        said = lab.submit()
        assert "left alone: 1" in said and "runs outside SLURM" in said and not lab.ledgers()
    assert "submitting" in lab.submit()


@pytest.mark.parametrize(
    "error",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "sbatch: error: Unable to contact slurm controller (connect failure)",
    ],
)
@pytest.mark.parametrize("how", ["fail", "lost"])
def test_an_unsure_submission_is_taken_back_before_the_next_try(lab: Lab, error: str, how: str) -> None:
    lab.table(table(ONE, seeds=[0, 1]))
    lab.fake.plan("sbatch", f"{how} {error}")
    said = lab.submit()
    assert lab.times() == {"Plain 0": 1, "Plain 1": 1}
    (made,) = lab.ledgers()
    assert {name for name, *_ in lab.fake.queue().values()} == {made.name} and len(lab.fake.queue()) == 2
    (taken_back,) = lab.fake.calls("scancel")
    assert "--name=seval-" in taken_back and made.name not in taken_back
    assert f"job {lab.element('Plain 0').partition('_')[0]}: " in said
    assert "nothing to submit" in lab.submit()


def test_a_refusal_ends_it_but_what_went_before_stays(lab: Lab) -> None:
    lab.fake.plan("sbatch", "ok", "fail sbatch: error: Invalid account or account/partition combination specified")
    said = lab.submit(code=1)
    assert "sbatch failed for 3 elements: " in said and "Invalid account" in said and said.count("\n") == 2
    assert said.startswith("error: ") and "Traceback" not in said
    assert len(lab.ledgers()) == 1 and len(lab.fake.queue()) == 3 and len(lab.fake.calls("sbatch")) == 2
    lab.submit()
    assert len(lab.times()) == 15 and set(lab.times().values()) == {1}
    levels = {lab.fake.options(job).get("dependency") for job in lab.fake.jobs()}
    assert {"afterok:101_0", "afterok:101_1", "afterok:101_2"} <= levels  # on the live elements of the first call


def test_an_unsure_submission_that_cannot_be_taken_back_is_kept_in_mind(lab: Lab) -> None:
    lab.table(table(ONE))
    lab.fake.plan("sbatch", "lost sbatch: error: Socket timed out on send/recv operation")
    lab.fake.plan("scancel", "always scancel: error: Unable to contact slurm controller")
    assert "`scancel` failed 3 times" in lab.submit(code=1)
    assert len(lab.ledgers()) == 1 and "nothing to submit" in lab.submit()
    lab.fake.end(lab.element("Plain 0"))
    lab.submit()
    assert lab.times() == {"Plain 0": 2}


@pytest.mark.parametrize(
    "break_it, message",
    [
        (
            lambda fake: fake.plan("squeue", "always squeue: error: down"),
            "`squeue` failed 3 times: squeue: error: down",
        ),
        (lambda fake: fake.remove("squeue"), "there is no squeue on PATH"),
        (lambda fake: (fake.bin / "squeue").write_text("#!/bin/bash\necho a banner\n"), "squeue"),
    ],
)
def test_without_an_answer_of_squeue_nothing_is_submitted(lab: Lab, break_it: Callable, message: str) -> None:
    lab.submit()
    before = len(lab.fake.calls("sbatch"))
    lab.fake.end(lab.element("Plain 0"), "CANCELLED by 1")
    break_it(lab.fake)
    for more in ([], ["--dry-run"], ["--retry", "oom"], ["--cancel"]):
        said = lab.submit(*more, code=1)
        assert said.startswith("error: ") and message in said and said.count("\n") == 2
    assert len(lab.fake.calls("sbatch")) == before and not lab.fake.calls("scancel")


def test_an_interrupted_submitter_leaves_nothing_that_goes_out_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over = Launcher._sbatch

    def interrupted(*given: object) -> str:
        hand_over(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Launcher, "_sbatch", interrupted)
    assert "interrupted; jobs in the queue stay there" in lab.submit(code=130)
    monkeypatch.setattr(Launcher, "_sbatch", hand_over)
    lab.submit()
    assert len(lab.times()) == 15 and set(lab.times().values()) == {1} and len(lab.fake.queue()) == 15


def test_a_data_set_that_is_not_there_is_told_before_anything_is_submitted(lab: Lab) -> None:
    (lab.folder / "cifar10.h5").unlink()
    assert "there is no " in lab.submit("--dry-run")
    assert "cifar10.h5" in lab.submit(code=2) and not lab.ledgers() and not lab.fake.calls("sbatch")


def test_a_submission_carries_the_fingerprint_of_its_data(lab: Lab) -> None:
    lab.table(table(PAIR))
    lab.submit()
    expected = lab.names()["Replay 0"].fingerprint
    assert {id: sha for made in lab.ledgers() for id, sha in made.data.items()} == {
        run.id: expected for run in lab.names().values()
    }
    (lab.folder / "cifar10.h5").unlink()  # an image may have what this host has not
    lab.site(slurm_python="no-such-python", probe=False)
    lab.table(table(ONE))
    lab.submit()
    assert lab.ledgers()[-1].data == {}


def test_a_damaged_data_set_is_told_before_anything_is_submitted(lab: Lab) -> None:
    (lab.folder / "cifar10.h5").write_bytes(b"not HDF5")
    said = lab.submit(code=2)
    assert "cifar10.h5" in said and said.count("\n") == 1 and not lab.ledgers() and not lab.fake.calls("sbatch")


@pytest.mark.parametrize("missing", ["sbatch", "srun"])
def test_without_slurm_there_is_one_message_and_no_ledger(lab: Lab, missing: str) -> None:
    lab.fake.remove(missing)
    said = lab.submit(code=1)
    assert f"there is no {missing} on PATH" in said and not lab.ledgers()


def test_a_full_or_read_only_folder_is_a_message(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError("cannot write it: No space left on device")

    monkeypatch.setattr(Submission, "write", full)
    assert "No space left" in lab.submit(code=1) and not lab.fake.calls("sbatch")
