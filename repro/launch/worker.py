"""What an element of an array does: its runs, each until there is a record, or a checkpoint and another attempt."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from repro.launch import failures, states
from repro.launch.data import data_file, stage
from repro.launch.ledger import Submission
from seval.config import load
from seval.errors import Interrupted, MissingPrerequisite, RunBusy, memory_short, one_line, says
from seval.run import Run
from seval.signals import listening
from seval.text import short
from seval.versions import versions

PATIENCE = 600  # seconds where another process trains the run
_NODE = (  # in lower case
    "no cuda-capable device",
    "busy or unavailable",
    "ecc error",
    "gpu is lost",
    "fallen off the bus",
)


class WorkerError(RuntimeError):
    """This process cannot do the run that it was given."""


class NoGpu(WorkerError):
    """The run was to have a GPU, and this node has none that works."""


def work(ledger: str, index: int) -> None:
    """Do the run of this task of element `index`: the entry point of a job."""
    submission, restarts, rank = Submission.read(Path(ledger)), _number("SLURM_RESTART_COUNT"), _number("SLURM_PROCID")
    if not 0 <= index < len(submission.elements):
        raise WorkerError(f"{ledger} has {len(submission.elements)} elements, and none with index {index}")
    element = submission.elements[index]
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
            need_gpu(submission.settings[id])
            staged = stage(run, submission.scratch)
            same_data(staged, submission.data.get(id), data_file(run))
            attempt(staged, stop, PATIENCE)
        except Interrupted as stopped:
            print(f"stopped with a checkpoint at step {stopped.step}", flush=True)
            if stopped.step > stopped.begun or restarts < 3:
                _ask_again(Path(ledger), index)
            sys.exit(states.RESUMABLE)
        except RunBusy as busy:
            print(busy, flush=True)
            sys.exit(states.BUSY)
        except NoGpu:
            if restarts < 3:  # perhaps on another node
                _ask_again(Path(ledger), index)
            raise


def _number(name: str) -> int:
    """A number that SLURM sets; 0 outside SLURM."""
    text = os.environ.get(name, "0")
    if not re.fullmatch("[0-9]{1,9}", text):
        raise WorkerError(f"{name} is {short(text)}, but SLURM sets it to a number")
    return int(text)


def again(ledger: Path, index: int | str) -> Path:
    """The file that asks for another attempt of an element."""
    return ledger.with_name(f"{ledger.stem}.again.{index}")


def _ask_again(ledger: Path, index: int) -> None:
    """The batch script requeues the element: most images have no scontrol."""
    with suppress(OSError):  # a full disk; then the next submit sends it again
        again(ledger, index).touch()


@contextmanager
def explained(folder: Path, submission: str = "") -> Iterator[None]:
    """Keep in the run's folder why it failed, until it is started again."""
    with suppress(OSError):  # the run itself will say what is wrong with the folder
        (folder / "failure.json").unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        failures.fail(folder, kind_of(error), words, traceback.format_exc(), submission)
        raise


def attempt(run: Run, stop: Callable[[], bool] = lambda: False, patience: float = math.inf) -> None:
    """Do a run to its end. Where another process trains it, wait for that process, at most `patience` seconds."""
    begun, said = time.monotonic(), ""
    while True:
        try:
            run.execute(stop)
            return
        except RunBusy as busy:  # its record will be the same
            if stop() or time.monotonic() > begun + patience:
                raise
            if said != str(busy):
                said = str(busy)
                print(f"{said}; waiting for it", flush=True)
            time.sleep(2)


def kind_of(error: BaseException) -> str:
    """oom or crashed; canceled where the prerequisite is missing, resumable where the node is to blame."""
    if isinstance(error, MissingPrerequisite):
        return "canceled"
    if any(memory_short(cause) for cause in _causes(error)):
        return "oom"
    return "resumable" if isinstance(error, NoGpu) or says(error, _NODE) else "crashed"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised for, which may be told in other words."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def need_gpu(settings: Sequence[object]) -> None:
    """Raise `NoGpu` if these KEY VALUE pairs ask for a GPU and none works here. GPU_ID -1 asks for the CPU."""
    asked = dict(zip(settings[::2], settings[1::2], strict=True)).get("GPU_ID", -1)
    if not isinstance(asked, int) or asked < 0 or torch.cuda.is_available():
        return
    try:
        torch.cuda.init()
        why = "torch.cuda.is_available() is false"
    except Exception as error:  # depends on the driver and on how PyTorch was built
        why = one_line(error)
    raise NoGpu(
        f"no GPU here: the site asks for one, and none works on {platform.node()} ({why}); submit again, if need be "
        "with `sbatch: {exclude: NODE}` in the site file"
    )


def same_data(run: Run, submitted: str | None, source: Path) -> None:
    """Raise `WorkerError` if the data set, from `source`, is not the one that was `submitted`, where that is known."""
    if submitted is not None and run.fingerprint != submitted:
        raise WorkerError(
            f"{source} on {platform.node()} is another data set than when this was submitted: its fingerprint "
            f"is {run.fingerprint[:12]}, then it was {submitted[:12]}; prepare that one again, or submit with "
            "`--retry crashed` to use this one"
        )


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
