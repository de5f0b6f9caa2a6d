"""The state of every run, by its files, by SLURM and by who holds its claim: the latest information counts."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from repro.launch.failures import failure
from repro.launch.queue import UNREAD, Job, Queue, latest
from seval.claim import holder
from seval.errors import RecordError
from seval.run import Run

#: The states of a run, with the words that are shown, in the order of counting.
STATES = {
    "done": "done",
    "running": "running",
    "queued": "queued",
    "waiting": "waiting",
    "resumable": "resumable",
    "timeout": "timed out",
    "canceled": "canceled",
    "oom": "out of memory",
    "crashed": "crashed",
    "unknown": "unknown",
    "new": "never submitted",
}
_QUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
LIVE = ("running", "queued", "waiting")
FAILED = ("timeout", "oom", "crashed")
#: Not submitted again unless asked for: the run would end the same way.
HELD = ("oom", "crashed")
_ENDED = {
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "OUT_OF_MEMORY": "oom",
    "CANCELLED": "canceled",
    "PENDING": "canceled",
    "PREEMPTED": "resumable",
    "NODE_FAIL": "resumable",
    "BOOT_FAIL": "resumable",
    "LAUNCH_FAILED": "resumable",
    "RECONFIG_FAIL": "resumable",
    "REVOKED": "resumable",
}
_STOPPING = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGBUS)  # of a bus error: slurm/requeue.sh
RESUMABLE, BUSY = 75, 76  # exit codes: stopped with a checkpoint (EX_TEMPFAIL); another process trains the run
NO_LOG = 53  # SLURM's own exit code or signal
_NO_MEMORY = (125, 253)  # SLURM's own signals, of which sacct prints seven bits
_NO_START = (125, 126, 127, 255)  # of a shell, a container engine, or ssh
#: srun passes on that its task was killed by one of these signals N as exit code N, a shell as 128 + N.
_PASSED_ON = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGKILL, signal.SIGSEGV, *_STOPPING)
_WHY: dict[int, str] = {
    signal.SIGKILL: "perhaps for memory",
    signal.SIGSEGV: "a crash in a library",
    signal.SIGABRT: "a crash in a library",
    signal.SIGILL: "a library made for another processor",
    signal.SIGXCPU: "a limit on processor time (ulimit -t)",
    signal.SIGXFSZ: "a limit on the size of files (ulimit -f)",
}


@dataclass(frozen=True)
class State:
    """One of `STATES`, why, and how far the run is."""

    kind: str
    detail: str = ""
    progress: float | None = None  # share of the steps; None where nothing was started
    job: Job | None = None

    def __str__(self) -> str:
        share = f" {self.progress:.0%}" if self.progress is not None and self.kind in ("running", "resumable") else ""
        return STATES[self.kind] + share


def states(
    runs: Iterable[Run], folder: Path, queue: Queue | None, tell: Callable[[str], object] | None = None
) -> dict[str, State]:
    """By id, the state of each run. Raises `SlurmError` where SLURM is asked and does not answer.

    A ledger that cannot be read is an error too; with `tell`, which gets the message, it is left out.
    """
    by_id = {run.id: run for run in runs}
    known = {id: state for id, run in by_id.items() if (state := _by_record(run))}
    undone = {id: run for id, run in by_id.items() if id not in known}
    jobs = latest(folder, queue, undone, tell) if queue else {}
    return {id: known.get(id) or _state(run, jobs.get(id)) for id, run in by_id.items()}


def _by_record(run: Run) -> State | None:
    """Done, if the run has a record; its detail tells of other code. A damaged record is no result."""
    try:
        done = run.record()
        return State("done", run.made_by_other_code(done), progress=1.0) if done else None
    except RecordError as error:
        return State("crashed", str(error))
    except OSError as error:  # of one run; the others can be told
        return State("unknown", str(error))


def _state(run: Run, job: Job | None) -> State:
    progress, failed = run.progress(), failure(run.folder)
    if job and job.live:
        if job.state not in _QUEUED:
            return State("running", f"job {job.id}", progress, job)
        if needs := job.submission.needs.get(run.id) if job.reason == "Dependency" else None:
            return State("waiting", f"job {job.id} waits for {needs}", progress, job)
        return State("queued", f"job {job.id}: {job.reason}", progress, job)
    if held := holder(run.folder):
        return State("running", f"process {held.get('pid')} on {held.get('host')}", progress, job)
    if job and job.state == UNREAD:
        return State("unknown", _unknown(job), progress, job)
    if failed and (not job or _latest(run, failed, job.submission.name)):
        return State(failed["kind"], failed["error"], progress, job)
    if job and job.state:
        return _ended(run, job, progress)
    if (run.folder / "checkpoint.pt").exists():
        return State("resumable", "it has a checkpoint", progress, job)
    if job:  # of an element that is canceled before it began, SLURM keeps nothing
        words = job.reason or f"SLURM no longer knows its element of {job.submission.name}"
        return State("canceled", words, progress, job)
    return State("new", "", progress, job)


def _latest(run: Run, failed: dict, submission: str) -> bool:
    """Whether a failure is of this submission or later. Both files are dated by the same clock."""
    if failed.get("submission"):
        return failed["submission"] == submission
    ledger = run.folder.parent / "slurm" / f"{submission}.json"
    with suppress(OSError):
        return (run.folder / "failure.json").stat().st_mtime >= ledger.stat().st_mtime
    return True


def _ended(run: Run, job: Job, progress: float | None) -> State:
    """What SLURM says of a run that left neither a record nor a reason."""
    words = f"job {job.id}: {job.state}"
    needs = job.submission.needs.get(run.id)
    if job.state in _ENDED:
        kind = _ENDED[job.state]
        if kind == "canceled" and needs and not (run.folder.parent / needs / "record.json").exists():
            words = f"job {job.id} never started: it depends on {needs}, which is not done"
        return State(kind, words, progress, job)
    if job.exit_code is None:  # a site without accounting
        if (run.folder / "checkpoint.pt").exists():
            return State("resumable", f"{words}, it has a checkpoint", progress, job)
        return State("crashed", f"{words}{_reason(job)}, without a message", progress, job)
    code, killed = job.exit_code, _killed(job)
    if code == RESUMABLE or killed in _STOPPING:
        return State("resumable", f"{words}, stopped", progress, job)
    if code == BUSY:
        return State("resumable", f"{words}, another process trains it", progress, job)
    if job.signal in _NO_MEMORY:
        return State("oom", f"{words}, killed by SLURM for memory", progress, job)
    return State("crashed", f"{words}, {_how(run, code, killed)}, without a message", progress, job)


def _reason(job: Job) -> str:
    return "" if job.reason in ("", "None") else f" ({job.reason})"


def _killed(job: Job) -> int:
    """The signal that ended the worker; 0 if none did."""
    if job.signal:
        return job.signal
    code = job.exit_code or 0
    return code - 128 if 128 < code <= 128 + 64 else code if code in (*_PASSED_ON, NO_LOG) else 0


def _how(run: Run, code: int, killed: int) -> str:
    """How the worker ended, in words, and what to look at."""
    if killed == NO_LOG:
        logs = run.folder.parent.resolve() / "slurm" / "logs"
        return f"{killed} is SLURM's: it could not open the log; see that every node can write to {logs}"
    if killed:
        name = next((each.name for each in signal.Signals if each == killed), "")
        words = ", ".join(filter(None, [f"killed by signal {killed}", name, _WHY.get(killed)]))
        return f"exit code {code}: {words}" if code else words
    if code in _NO_START:
        return f"exit code {code}: the command of `slurm_python` could not start on that node"
    return f"exit code {code}"


def _unknown(job: Job) -> str:
    name = job.submission.name
    return (
        f"{job.reason}, which cannot be read; once `squeue --name={name}` and its accounting show that it ended, "
        f"move {name}.json out of the folder slurm, and it counts as never submitted"
    )


def counts(found: Mapping[str, State]) -> str:
    """`3 done (1 of them by other code), 2 running, 1 never submitted`."""
    kinds = [state.kind for state in found.values()]
    words = dict(STATES)
    if other := by_other_code(found):
        words["done"] += f" ({len(other)} of them by other code)"
    return ", ".join(f"{kinds.count(kind)} {word}" for kind, word in words.items() if kind in kinds) or "none"


def by_other_code(found: Mapping[str, State]) -> list[str]:
    """The ids of the runs whose record other code made than what is here."""
    return [id for id, state in found.items() if state.kind == "done" and state.detail]
