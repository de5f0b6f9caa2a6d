"""Does the runs of a plan on this machine, each after its prerequisite, and shows how far they are.

Runs are done one after another in this process, or several at once in processes that end with it.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import submitit
from submitit.core.utils import environment_variables
from tqdm import tqdm

from repro.launch.plan import Task, by_urgency, words
from repro.launch.worker import attempt, explained
from seval.config import load
from seval.places import ROOT
from seval.run import Run
from seval.text import printable


def carry_out(tasks: Mapping[str, Task], machine: Debug | Local) -> dict[str, str]:
    """Do all tasks, even if some fail; returns by id why a run is missing."""
    waiting, failed, free = by_urgency(tasks), {}, list(range(min(machine.jobs, len(tasks))))
    running: dict[int, tuple[Task, submitit.Job | SimpleNamespace]] = {}
    with Overview(tasks) as overview:
        while waiting or running:
            for task in [task for task in waiting if task.needs in failed]:
                waiting.remove(task)
                failed[task.run.id] = f"not started, it depends on {task.needs}"
                overview.failure(task, failed[task.run.id])
            unmet = {task.run.id for task in waiting} | {task.run.id for task, _ in running.values()} | set(failed)
            ready = [task for task in waiting if task.needs not in unmet]
            while ready and free:
                task, slot = ready.pop(0), free.pop(0)
                waiting.remove(task)
                running[slot] = task, machine.start(task, slot)
            for slot in [slot for slot, (_, job) in running.items() if job.done()]:
                task, job = running.pop(slot)
                free.append(slot)
                if task.run.record() is None:
                    failed[task.run.id] = f"{last_words(job.paths.stderr)} (log: {job.paths.stderr})"
                    overview.failure(task, failed[task.run.id])
                else:
                    overview.success(task)
            overview.update(task for task, _ in running.values())
            if running:
                time.sleep(0.2)
    return failed


class Overview:
    """A progress bar over the steps of all tasks, and a line for each task that has ended."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks, self.failed, self.drawn = tasks, 0, 0.0
        self.steps = {name: task.steps_done for name, task in tasks.items()}
        self.ended: set[str] = set()
        self.bar = tqdm(
            total=sum(task.steps for task in tasks.values()),
            initial=int(sum(self.steps.values())),
            unit=" steps",
            unit_scale=True,
            smoothing=0,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Overview:
        return self

    def __exit__(self, *exception: object) -> None:
        self.update([], now=True)
        self.bar.close()

    def update(self, running: Iterable[Task], now: bool = False) -> None:
        if not now and time.monotonic() < self.drawn + (1 if sys.stderr.isatty() else 30):
            return
        running = list(running)
        self.drawn = time.monotonic()
        self.steps |= {task.run.id: task.steps_done for task in running}
        self.bar.n = int(sum(self.steps.values()))
        self.bar.set_postfix_str(
            f"{len(self.ended) - self.failed}/{len(self.tasks)} runs done, {len(running)} running"
            + (f", {self.failed} failed" if self.failed else "")
        )

    def success(self, task: Task) -> None:
        self.ended.add(task.run.id)
        self.steps[task.run.id] = task.steps
        record = task.run.record()
        assert record and task.use.cell.reading  # a task that succeeded has a record, and its cell a number to read
        accuracy = record["results"]["test"]["ema"]["none"]["top1"][task.use.cell.reading.protocol]
        self._say(
            task,
            f"{record['seconds']:.0f} s, "
            + ("no test accuracy" if accuracy is None else f"test accuracy {100 * accuracy:.2f} %"),
        )

    def failure(self, task: Task, reason: str) -> None:
        self.ended.add(task.run.id)
        self.failed += 1
        self._say(task, f"FAILED, {reason}")

    def _say(self, task: Task, text: str) -> None:
        self.bar.write(f"{task.run.id}  {task.use}: {printable(text)}")
        sys.stdout.flush()


def last_words(log: Path) -> str:
    """The error at the end of a job's log."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback ")]
    for line in lines[starts[-1] + 1 :] if starts else ():
        if line.strip() and not line.startswith(" "):
            return line
    return "it ended without a message; was it killed for memory?"


def work(settings: Sequence[object]) -> None:
    """Do a run in this process."""
    run = Run(load((), settings))
    with explained(run.folder):
        attempt(run)


def work_under(lock: str, devices: str | None, settings: Sequence[object]) -> None:
    """The same in a process that submitit started: it ends with the submitter and sees the same devices."""
    end_with(lock)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # submitit hides them all from a job that asks for none
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    work(settings)


def end_with(lock: str) -> None:
    """End this process once the submitter no longer holds `lock`, for whatever reason, even `kill -9`."""

    def wait() -> None:
        try:
            with open(lock, "rb") as file:
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
            log.write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")
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
        runtime = {"RUNTIME.THREADS": task.run.cfg.RUNTIME.THREADS or 1, "RUNTIME.PROGRESS": "lines"}
        if self.gpus and task.run.cfg.GPU_ID >= 0:
            runtime["GPU_ID"] = slot % self.gpus
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        # Ctrl-C reaches every process of a terminal; only this process shall react, and the others end with it.
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
    """The cores that this process may use, limited by the share of a container."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split())
    except (OSError, ValueError):  # no such limit
        return usable
    return max(1, min(usable, quota // period))
