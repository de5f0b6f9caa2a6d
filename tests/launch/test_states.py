"""The state of a run, by its files, by SLURM and by who holds its claim: the latest information counts."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from repro.launch import failures, states
from repro.launch.ledger import Submission
from repro.launch.queue import UNREAD, Job, Queue, SlurmError
from seval.claim import claim
from seval.run import Run
from tests.launch.conftest import with_metrics, with_record
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
    ("", {"state": "LAUNCH_FAILED"}, "resumable", "LAUNCH_FAILED"),
    ("", {"state": "RECONFIG_FAIL"}, "resumable", "RECONFIG_FAIL"),
    ("", {"state": "", "reason": "sacct still calls job 12 RUNNING"}, "canceled", "^sacct still calls job 12 RUNNING$"),
    ("checkpoint", {"state": "", "reason": "sacct still calls job 12 RUNNING"}, "resumable", "checkpoint"),
    ("", {"state": UNREAD, "reason": "`sacct` says '?'"}, "unknown", "^`sacct` says '\\?', .*move seval-new.json out"),
    ("checkpoint own", {"state": UNREAD}, "unknown", "squeue --name=seval-new"),
    ("claimed", {"state": UNREAD}, "running", "^process"),
    ("record", {"state": UNREAD}, "done", "^$"),
    ("checkpoint", {"state": "FAILED", "exit_code": 75}, "resumable", "stopped"),
    ("checkpoint", {"state": "FAILED", "exit_code": 0, "signal": 15}, "resumable", "stopped"),
    ("checkpoint", {"state": "FAILED", "exit_code": 1}, "crashed", "exit code 1, without a message"),
    ("checkpoint", {"state": "FAILED", "exit_code": 137}, "crashed", "killed by signal 9, .*without a message"),
    ("checkpoint", {"state": "FAILED", "exit_code": 9}, "crashed", "killed by signal 9"),
    ("checkpoint", {"state": "FAILED", "exit_code": 143}, "resumable", "stopped"),
    ("", {"state": "FAILED", "exit_code": 139}, "crashed", "exit code 139: killed by signal 11, SIGSEGV, a crash"),
    ("", {"state": "FAILED", "exit_code": 134}, "crashed", "exit code 134: killed by signal 6, SIGABRT, a crash"),
    ("", {"state": "FAILED", "exit_code": 11}, "crashed", "exit code 11: killed by signal 11, SIGSEGV"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 11}, "crashed", "FAILED, killed by signal 11, SIGSEGV, a crash"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 6}, "crashed", "killed by signal 6, SIGABRT"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 25}, "crashed", "SIGXFSZ, a limit on the size of files"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 62}, "crashed", "killed by signal 62, without a message"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 53}, "crashed", "could not open the log.* OUTPUT/slurm/logs"),
    ("", {"state": "FAILED", "exit_code": 53}, "crashed", "could not open the log.* OUTPUT/slurm/logs"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 125}, "oom", "for memory"),
    ("", {"state": "FAILED", "exit_code": 126}, "crashed", "exit code 126: the command of `slurm_python` could not"),
    ("", {"state": "FAILED", "exit_code": 127}, "crashed", "exit code 127: the command of `slurm_python` could not"),
    ("", {"state": "FAILED", "exit_code": 255}, "crashed", "exit code 255: the command of `slurm_python` could not"),
    ("", {"state": "FAILED", "exit_code": 200}, "crashed", "exit code 200, without a message"),
    ("checkpoint", {"state": "FAILED", "exit_code": 4}, "crashed", "exit code 4"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 9}, "crashed", "killed by signal 9"),
    ("", {"state": "COMPLETED", "exit_code": 0}, "crashed", "COMPLETED"),
    (
        "",
        {"state": "FAILED", "reason": "RaisedSignal:53"},
        "crashed",
        "\\(RaisedSignal:53\\), without a message",
    ),
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
            failures.fail(run.folder, "oom", "it was too much", "", of)
        if name == "earlier":
            stamp = ledger.stat().st_mtime - 60
            os.utime(run.folder / "failure.json", (stamp, stamp))
    (run.folder / "metrics.jsonl").touch()
    if "metrics" in files:
        with_metrics(run.folder, step=6, progress=0.5, seconds=1)
    if "checkpoint" in files:
        (run.folder / "checkpoint.pt").touch()
        with_metrics(run.folder, step=6, progress=0.5, seconds=1)
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
    message = message.replace("PREREQUISITE", before.id).replace("OUTPUT", str(tmp_path))
    assert found.kind == kind and re.search(message, found.detail), found
    if kind == "done":
        assert found.progress == 1.0
    elif "checkpoint" in files or "metrics" in files:
        assert found.progress == 0.5
        assert str(found) == states.STATES[kind] + (" 50%" if kind in ("running", "resumable") else "")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[]", b"5", b"\xff", b"[" * 100_000, b'{"kind": "oom"}', b'{"kind": "oom", "error": null}'),
        *(b'{"kind": [], "error": "x"}', b'{"kind": "done", "error": "x"}', b'{"kind": "running", "error": "x"}'),
        *(b'{"kind": "odd", "error": "x"}', b'{"kind": {"oom": 1}, "error": "x"}', b'{"kind": "oom", "error": "x"'),
    ],
)
def test_a_reason_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "failure.json").write_bytes(content)
    assert states.failure(tmp_path) is None


def test_a_reason_is_shown_without_its_control_characters(tmp_path: Path) -> None:
    failures.fail(tmp_path, "crashed", "ValueError: \x1b[2J\n", "Traceback ...")
    assert states.failure(tmp_path)["error"] == "ValueError: \\x1b[2J\\n"


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


@pytest.mark.parametrize("content", ["{", "[]", '{"id": "another run", "results": {}}', '{"id": 1, "results": 3}'])
def test_a_record_that_is_damaged_or_of_another_run_is_no_result(content, tmp_path):
    run = Run(small("supervised", tmp_path))
    run.folder.mkdir()
    (run.folder / "record.json").write_text(content, encoding="utf-8")
    state = states.states([run], tmp_path / "slurm", None)[run.id]
    assert state.kind == "crashed" and "record.json" in state.detail and "move" in state.detail


def test_a_record_that_cannot_be_read_now_is_unknown(tmp_path, monkeypatch):
    run = Run(small("supervised", tmp_path))
    run.folder.mkdir()
    (run.folder / "record.json").mkdir()
    state = states.states([run], tmp_path / "slurm", None)[run.id]
    assert state.kind == "unknown" and "cannot read" in state.detail and "record.json" in state.detail
