"""Where runs are done: one after another in this process, or several at once in processes of this machine."""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import submitit
from submitit.core.utils import environment_variables

from repro.plan import Task
from repro.tables import ROOT
from repro.worker import attempt, explained
from seval.config import defaults, flatten, load
from seval.run import Run


def words(run: Run, **runtime: object) -> list[object]:
    """The run as KEY VALUE pairs over the defaults, so that it starts as planned even if a file is edited meanwhile."""
    standard = flatten(defaults())
    settings = {key: value for key, value in flatten(run.cfg).items() if value != standard[key]} | runtime
    return [word for pair in settings.items() for word in pair]


def work(settings: Sequence[object]) -> None:
    """Do one run."""
    run = Run(load((), settings))
    with explained(run.folder):
        attempt(run)


def work_under(lock: str, devices: str | None, settings: Sequence[object]) -> None:
    """The same in a process that submitit started: it ends with the submitter, and sees the devices that one sees."""
    end_with(lock)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # submitit hides them all from a job that asks for none
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    work(settings)


def end_with(lock: str) -> None:
    """End this process once the submitter no longer holds `lock`, however that came about, `kill -9` included."""

    def wait() -> None:
        try:
            with open(lock) as file:
                fcntl.flock(file, fcntl.LOCK_SH)
        except FileNotFoundError:
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Debug:
    """One run after another, in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, 1

    def __str__(self) -> str:
        return "one after another in this process"

    def __enter__(self) -> Debug:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def start(self, task: Task, slot: int) -> SimpleNamespace:
        log = self.folder / task.run.id / "debug.err"
        try:
            work(words(task.run))
        except Exception:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(traceback.format_exc())
        return SimpleNamespace(done=lambda: True, paths=SimpleNamespace(stderr=log))


class Local:
    """Several runs at once on this machine, each with one thread, in processes that end with this one."""

    def __init__(self, folder: Path, jobs: int, gpus: int) -> None:
        self.folder, self.gpus, self.jobs = folder, gpus, jobs or gpus or cores()
        self.started: list[submitit.Job] = []

    def __str__(self) -> str:
        return f"{self.jobs} at once, {f'on {self.gpus} GPUs' if self.gpus else 'one core each'}"

    def __enter__(self) -> Local:
        self.lock = tempfile.NamedTemporaryFile(prefix="seval-")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *exception: object) -> None:
        self.lock.close()
        deadline = time.monotonic() + 20  # a process that is still importing sees the lock only then
        while not all(job.done() for job in self.started) and time.monotonic() < deadline:
            time.sleep(0.1)

    def start(self, task: Task, slot: int) -> submitit.Job:
        executor = submitit.LocalExecutor(self.folder / task.run.id)
        executor.update_parameters(timeout_min=60 * 24 * 365)
        runtime = {"RUNTIME.THREADS": 1, "RUNTIME.PROGRESS": False}
        if self.gpus and task.run.cfg.GPU_ID >= 0:
            runtime["GPU_ID"] = slot % self.gpus
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        # Ctrl-C reaches every process of a terminal; only this one is to answer, and the others end with it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with environment_variables(OMP_NUM_THREADS=1, PYTHONPATH=path):
                job = executor.submit(
                    work_under, self.lock.name, os.environ.get("CUDA_VISIBLE_DEVICES"), words(task.run, **runtime)
                )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self.started.append(job)
        return job


def cores() -> int:
    """Those this process may use; a container's share counts where it has one."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
    except (OSError, ValueError):  # no such limit
        return usable
    return max(1, min(usable, quota // period))
