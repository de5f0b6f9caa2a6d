"""What an element of an array does: its runs, each until there is a record, or a checkpoint and another attempt."""

from __future__ import annotations

import math
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from repro.launch import states
from repro.launch.ledger import Submission
from seval.config import load, with_overrides
from seval.data import hdf5
from seval.errors import Interrupted, MissingPrerequisite, RunBusy
from seval.run import Run
from seval.signals import listening
from seval.versions import versions

PATIENCE = 600  # seconds where another process trains the run
_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


class WorkerError(RuntimeError):
    """This process cannot do the run that it was given."""


def work(ledger: str, index: int) -> None:
    """Do the run of this task of element `index`: the entry point of a job."""
    submission, restarts = Submission.read(Path(ledger)), int(os.environ.get("SLURM_RESTART_COUNT", 0))
    element, rank = submission.elements[index], int(os.environ.get("SLURM_PROCID", 0))
    if rank >= len(element):  # the last element may have fewer runs than the others
        return
    id = element[rank]
    print(f"{submission.labels[id]}: run {id}, job {os.environ.get('SLURM_JOB_ID')}, restart {restarts}", flush=True)
    with listening() as stop, explained(Path(ledger).parents[1] / id, submission.name):
        try:
            same_versions(submission.versions)
            run = Run(load((), submission.settings[id]))
            if run.id != id:
                raise WorkerError(f"the worker's code takes run {id} for {run.id}: it is another version of seval")
            attempt(stage(run, submission.scratch), stop, PATIENCE)
        except Interrupted as stopped:
            print(f"stopped with a checkpoint at step {stopped.step}", flush=True)
            if stopped.step > stopped.begun or restarts < 3:
                again(Path(ledger), index).touch()  # the batch script requeues it: most images have no scontrol
            sys.exit(states.RESUMABLE)
        except RunBusy as busy:
            print(busy, flush=True)
            sys.exit(states.BUSY)


def again(ledger: Path, index: int | str) -> Path:
    """The file that asks for another attempt of an element."""
    return ledger.with_name(f"{ledger.stem}.again.{index}")


@contextmanager
def explained(folder: Path, submission: str = "") -> Iterator[None]:
    """Keep in the run's folder why it failed, until it is started again."""
    (folder / "failure.json").unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        states.fail(folder, kind_of(error), words, traceback.format_exc(), submission)
        raise


def attempt(run: Run, stop: Callable[[], bool] = lambda: False, patience: float = math.inf) -> None:
    """Do a run to its end. Where another process trains it, wait for that process, at most `patience` seconds."""
    begun = time.monotonic()
    while True:
        try:
            run.execute(stop)
            return
        except RunBusy as busy:  # its record will be the same
            if stop() or time.monotonic() > begun + patience:
                raise
            print(f"{busy}; waiting for it", flush=True)
            time.sleep(2)


def kind_of(error: BaseException) -> str:
    """oom or crashed; a run whose prerequisite is missing counts as canceled."""
    if isinstance(error, MissingPrerequisite):
        return "canceled"
    text = f"{type(error).__name__}: {error}".lower()
    return "oom" if isinstance(error, MemoryError) or any(word in text for word in _MEMORY) else "crashed"


def same_versions(expected: Mapping[str, str | None]) -> None:
    """Raise `WorkerError` with every difference between the packages here and those the submission was made for."""
    here = versions()
    if other := [
        f"{name} {here.get(name)} (expected {version})"
        for name, version in expected.items()
        if here.get(name) != version
    ]:
        raise WorkerError(
            f"{platform.node()} has other versions than the submission was made for: {', '.join(other)}; "
            "fix `slurm_python` of the site, or submit again from this environment"
        )


def stage(run: Run, scratch: str) -> Run:
    """The run with its data set on the node's own disk, copied there unless it is; a failed copy is no error."""
    folder = Path(os.path.expandvars(scratch)) if scratch else None
    source = hdf5.data_file(run.cfg.DATASET.NAME, run.cfg.DATASET.ROOT)
    if folder is None or not source.is_file():
        return run
    target = folder / source.name
    try:
        if "$" in str(folder):
            raise OSError("that variable is not set")
        if not target.is_file() or target.stat().st_size != source.stat().st_size:
            folder.mkdir(parents=True, exist_ok=True)
            aside = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                shutil.copyfile(source, aside)
                os.replace(aside, target)
            finally:
                aside.unlink(missing_ok=True)
    except OSError as error:
        print(f"{source} was not copied to {folder} ({error}); it is read where it is", flush=True)
        return run
    return Run(with_overrides(run.cfg, ["DATASET.ROOT", str(folder)]))
