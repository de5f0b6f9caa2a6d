"""Does the runs of a plan on this machine, each after the one it stands on, and shows how far they are."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import submitit
from tqdm import tqdm

from repro.clusters import Debug, Local
from repro.plan import Task, by_urgency


def carry_out(tasks: dict[str, Task], cluster: Debug | Local) -> dict[str, str]:
    """Do all tasks, whatever becomes of the others; returns by id why one was not done."""
    waiting, failed, free = by_urgency(tasks), {}, list(range(cluster.jobs))
    running: dict[int, tuple[Task, submitit.Job | SimpleNamespace]] = {}
    with Overview(tasks) as overview:
        while waiting or running:
            for task in [task for task in waiting if task.needs in failed]:
                waiting.remove(task)
                failed[task.run.id] = f"not started, it stands on {task.needs}"
                overview.failure(task, failed[task.run.id])
            unmet = {task.run.id for task in waiting} | {task.run.id for task, _ in running.values()} | set(failed)
            ready = [task for task in waiting if task.needs not in unmet]
            while ready and free:
                task, slot = ready.pop(0), free.pop(0)
                waiting.remove(task)
                running[slot] = task, cluster.start(task, slot)
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
    """One bar over the steps of all tasks, and a line for each that has ended."""

    def __init__(self, tasks: dict[str, Task]) -> None:
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
        accuracy = record["results"]["test"]["ema"]["none"]["top1"][task.protocol]
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
        self.bar.write(f"{task.run.id}  {task.label}: {text}")
        sys.stdout.flush()


def last_words(log: Path) -> str:
    """The error at the end of a job's log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback ")]
    for line in lines[starts[-1] + 1 :] if starts else ():
        if line.strip() and not line.startswith(" "):
            return line
    return "it ended without a message; was it killed for memory?"
