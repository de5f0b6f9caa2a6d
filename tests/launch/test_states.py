"""The state of a run, by its files, by SLURM and by who holds its claim: the latest information counts."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from repro.launch import states
from repro.launch.ledger import Submission
from repro.launch.queue import Job, Queue, SlurmError
from seval.claim import claim
from seval.run import Run
from tests.launch.conftest import with_record
from tests.launch.fake_slurm import Fake, submission
from tests.settings import small


class Told:
    """In place of `Queue`: every run's element is in this state."""

    def __init__(self, **facts: object) -> None:
        self.facts = facts

    def jobs(self, made: list[Submission]) -> dict[tuple[str, int], Job]:
        return {(each.name, 0): Job(**({"id": "12", "submission": each} | self.facts)) for each in made if self.facts}


CASES = [  # (files, what SLURM says, kind, words); `own`, `older`, `local`: a failure of that submission
    ("", None, "new", "^$"),
    ("metrics", None, "new", "^$"),
    ("checkpoint", None, "resumable", "checkpoint"),
    ("local", None, "oom", "^it was too much$"),
    ("record checkpoint own", {"state": "RUNNING"}, "done", "^$"),
    ("", {}, "canceled", "no longer knows its element of seval-new"),
    ("checkpoint", {}, "resumable", "checkpoint"),
    ("own", {}, "oom", "^it was too much$"),
    ("older", {}, "canceled", "no longer knows"),
    ("own", {"state": "RUNNING"}, "running", "^job 12$"),
    ("own checkpoint", {"state": "PENDING", "reason": "Priority"}, "queued", "^job 12: Priority$"),
    ("", {"state": "PENDING", "reason": "Dependency"}, "waiting", "^job 12 waits for PREREQUISITE$"),
    ("", {"state": "PENDING", "reason": "DependencyNeverSatisfied"}, "canceled", "depends on PREREQUISITE"),
    ("", {"state": "REQUEUED"}, "queued", "job 12"),
    ("", {"state": "REQUEUE_HOLD", "reason": "launch failed requeued held"}, "queued", "held"),
    ("", {"state": "COMPLETING"}, "running", "job 12"),
    ("", {"state": "CANCELLED"}, "canceled", "never started: it depends on PREREQUISITE, which is not done"),
    ("prerequisite", {"state": "CANCELLED"}, "canceled", "^job 12: CANCELLED$"),
    ("checkpoint", {"state": "TIMEOUT"}, "timeout", "TIMEOUT"),
    ("", {"state": "DEADLINE"}, "timeout", "DEADLINE"),
    ("", {"state": "OUT_OF_MEMORY"}, "oom", "OUT_OF_MEMORY"),
    ("", {"state": "NODE_FAIL"}, "resumable", "NODE_FAIL"),
    ("", {"state": "PREEMPTED"}, "resumable", "PREEMPTED"),
    ("", {"state": "BOOT_FAIL"}, "resumable", "BOOT_FAIL"),
    ("checkpoint", {"state": "FAILED", "exit_code": 75}, "resumable", "stopped"),
    ("checkpoint", {"state": "FAILED", "exit_code": 0, "signal": 15}, "resumable", "stopped"),
    ("checkpoint", {"state": "FAILED", "exit_code": 1}, "crashed", "exit code 1, without a message"),
    ("checkpoint", {"state": "FAILED", "exit_code": 137}, "crashed", "killed by signal 9, .*without a message"),
    ("checkpoint", {"state": "FAILED", "exit_code": 9}, "crashed", "killed by signal 9"),
    ("checkpoint", {"state": "FAILED", "exit_code": 143}, "resumable", "stopped"),
    ("checkpoint", {"state": "FAILED", "exit_code": 139}, "crashed", "exit code 139"),
    ("checkpoint", {"state": "FAILED", "exit_code": 4}, "crashed", "exit code 4"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 9}, "crashed", "killed by signal 9"),
    ("", {"state": "COMPLETED", "exit_code": 0}, "crashed", "COMPLETED"),
    ("", {"state": "FAILED"}, "crashed", "FAILED"),  # where there is no accounting, nobody knows the exit code
    ("checkpoint", {"state": "FAILED"}, "resumable", "checkpoint"),
    ("", {"state": "FAILED", "exit_code": states.BUSY}, "resumable", "another process"),
    ("own", {"state": "FAILED", "exit_code": 1}, "oom", "^it was too much$"),
    ("older", {"state": "FAILED", "exit_code": 1}, "crashed", "exit code 1"),
    ("older checkpoint", {"state": "NODE_FAIL"}, "resumable", "NODE_FAIL"),
    ("older prerequisite", {"state": "CANCELLED"}, "canceled", "CANCELLED"),
    ("local", {"state": "CANCELLED"}, "oom", "^it was too much$"),  # a later attempt on another machine
    ("earlier", {"state": "CANCELLED"}, "canceled", "never started"),  # one from before the submission
    ("claimed", {"state": "CANCELLED"}, "running", "^process \\d+ on "),
    ("claimed local", None, "running", "^process \\d+ on "),
    ("damaged", None, "new", "^$"),
]


@pytest.mark.parametrize("files, told, kind, message", CASES)
def test_the_latest_word_on_a_run_counts(
    tmp_path: Path, files: str, told: dict | None, kind: str, message: str
) -> None:
    run = Run(small("fixmatch_seval_load", tmp_path))
    before, folder = run.prerequisite(), tmp_path / "slurm"
    run.folder.mkdir()
    ledger = None
    if told is not None:
        submission("seval-old", [run.id], created=1.0).write(folder)
        ledger = submission("seval-new", [run.id], needs={run.id: before.id}, created=2.0).write(folder)
    for name in files.split():
        if name in ("own", "older", "local", "earlier"):
            of = {"own": "seval-new", "older": "seval-old"}.get(name, "")
            states.fail(run.folder, "oom", "it was too much", "", of)
        if name == "earlier":
            stamp = ledger.stat().st_mtime - 60
            os.utime(run.folder / "failure.json", (stamp, stamp))
    (run.folder / "metrics.jsonl").write_text(
        '{"step": 6, "progress": 0.5, "seconds": 1}\n' if "metrics" in files else ""
    )
    if "checkpoint" in files:
        (run.folder / "checkpoint.pt").touch()
        (run.folder / "metrics.jsonl").write_text('{"step": 6, "progress": 0.5, "seconds": 1}\n')
    if "record" in files:
        with_record(run)
    if "prerequisite" in files:
        with_record(before)
    if "damaged" in files:
        (run.folder / "failure.json").write_text('{"kind": "odd"')
    slurm = None if told is None else Told(**told)
    if "claimed" in files:
        with claim(run.folder):
            found = states.states([run], folder, slurm)[run.id]
    else:
        found = states.states([run], folder, slurm)[run.id]
    assert found.kind == kind and re.search(message.replace("PREREQUISITE", before.id), found.detail), found
    if kind == "done":
        assert found.progress == 1.0
    elif "checkpoint" in files or "metrics" in files:
        assert found.progress == 0.5
        assert str(found) == states.STATES[kind] + (" 50%" if kind in ("running", "resumable") else "")


def test_silence_of_slurm_is_not_taken_for_an_empty_queue(tmp_path: Path, fake: Fake) -> None:
    run = Run(small("fixmatch", tmp_path))
    submission("seval-a", [run.id]).write(tmp_path / "slurm")
    fake.plan("squeue", "always down")
    with pytest.raises(SlurmError):
        states.states([run], tmp_path / "slurm", Queue(2, 5))
    with_record(run)
    assert states.states([run], tmp_path / "slurm", Queue(2, 5))[run.id].kind == "done"


def test_counts_are_in_the_order_of_the_states() -> None:
    found = {str(k): states.State(kind) for k, kind in enumerate(["new", "done", "oom", "done"])}
    assert states.counts(found) == "2 done, 1 out of memory, 1 never submitted" and states.counts({}) == "none"
