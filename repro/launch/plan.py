"""Which runs are still missing, and in what order: each after its prerequisite, and the longest chain first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repro.launch.states import HELD, LIVE, State
from repro.tables.selection import Selection, Use
from seval.config import defaults, flatten
from seval.run import Run


@dataclass
class Task:
    """A run that is still to be done: what it is for, and the id of the task or live job that it must wait for."""

    use: Use
    needs: str | None = None

    @property
    def run(self) -> Run:
        return self.use.run

    @property
    def steps(self) -> int:
        return self.run.cfg.SOLVER.MAX_ITER

    @property
    def steps_done(self) -> float:
        return self.steps * (self.run.progress() or 0.0)


def plan(asked: Selection) -> dict[str, Task]:
    """By id, the runs that the cells still need, and the prerequisites that these still need in turn."""
    tasks: dict[str, Task] = {}
    needed: set[str | None] = set()
    for id, use in reversed(asked.runs().items()):  # so that each comes before its prerequisite
        if use.run.done() or (use.is_prerequisite and id not in needed):
            continue
        before = use.run.prerequisite()
        needs = before.id if before is not None and not before.done() else None
        needed.add(needs)
        tasks[id] = Task(use, needs)
    return dict(reversed(tasks.items()))


def levels(tasks: Mapping[str, Task]) -> list[list[Task]]:
    """The tasks by how many of them come before; within a level those first that most tasks wait for."""
    dependants = Counter(task.needs for task in tasks.values())
    found: list[list[Task]] = []
    for task in tasks.values():
        depth, before = 0, task.needs
        while before is not None and before in tasks:  # or it is running already
            depth, before = depth + 1, tasks[before].needs
        found += [[] for _ in range(depth + 1 - len(found))]
        found[depth].append(task)
    return [sorted(level, key=lambda task: -dependants[task.run.id]) for level in found]


def by_urgency(tasks: Mapping[str, Task]) -> list[Task]:
    """Longest remaining chain first, so that no core waits at the end for a chain that began late."""
    ahead = {name: task.steps - task.steps_done for name, task in tasks.items()}
    for level in reversed(levels(tasks)):
        for task in level:
            if task.needs is not None and task.needs in tasks:
                own = tasks[task.needs]
                ahead[task.needs] = max(ahead[task.needs], own.steps - own.steps_done + ahead[task.run.id])
    return sorted(tasks.values(), key=lambda task: -ahead[task.run.id])


def choose(
    tasks: Mapping[str, Task], found: Mapping[str, State], retry: Sequence[str]
) -> tuple[dict[str, Task], list[tuple[Task, str]]]:
    """(the tasks to submit, those that are not and why).

    A task with a live job is neither; one that failed is submitted only where `retry` names how it failed.
    """
    chosen: dict[str, Task] = {}
    left = []
    for task in (task for level in levels(tasks) for task in level):
        state, before = found[task.run.id], found.get(task.needs or "")
        live = before is not None and before.kind in LIVE
        if state.kind in LIVE:
            continue
        if state.kind in HELD and state.kind not in retry:
            why = str(state)
        elif state.kind == "unknown":
            why = f"{state}: {state.detail}"
        elif live and not (before and before.job and before.job.live):
            why = f"it depends on {task.needs}, which runs outside SLURM now; submit it later"
        elif before is not None and task.needs not in chosen and not live:
            why = f"it depends on {task.needs}, which is not submitted"
        elif retry and state.kind not in retry and task.needs not in chosen:
            continue
        else:
            chosen[task.run.id] = task
            continue
        left.append((task, why))
    return chosen, left


def words(run: Run, **runtime: object) -> list[object]:
    """The run as KEY VALUE pairs over the defaults, so that it starts as planned even if a file is edited meanwhile."""
    standard = flatten(defaults())
    settings = {key: value for key, value in flatten(run.cfg).items() if value != standard[key]} | runtime
    return [word for pair in settings.items() for word in pair]
