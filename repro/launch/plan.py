"""Which runs a table still lacks, and in what order: each after its prerequisite, and the longest chain first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from repro.launch.states import HELD, LIVE, State
from repro.tables.table import Cell
from seval.config import defaults, flatten
from seval.run import Run


@dataclass
class Task:
    """A run that is still to be done."""

    run: Run
    label: str
    needs: str | None  # id of the task it must wait for
    protocol: str  # under which its accuracy is told

    @property
    def steps(self) -> int:
        return self.run.cfg.SOLVER.MAX_ITER

    @property
    def steps_done(self) -> float:
        return self.steps * (self.run.progress() or 0.0)


def plan(cells: Iterable[Cell]) -> dict[str, Task]:
    """By id, the runs the cells lack and the prerequisites those lack in turn."""
    tasks: dict[str, Task] = {}
    for cell in cells:
        for seed, run in cell.runs.items():
            while run is not None and run.id not in tasks and not run.done():
                before = run.prerequisite()
                if before is not None and before.done():
                    before = None
                tasks[run.id] = Task(run, cell.label(seed, run), before.id if before else None, cell.path[-1])
                run = before
    return tasks


def levels(tasks: dict[str, Task]) -> list[list[Task]]:
    """The tasks by how many of them come before; within a level those first that most tasks wait for."""
    dependants = Counter(task.needs for task in tasks.values())
    found: list[list[Task]] = []
    for task in tasks.values():
        depth, before = 0, task.needs
        while before in tasks:  # or it is at work already
            depth, before = depth + 1, tasks[before].needs
        found += [[] for _ in range(depth + 1 - len(found))]
        found[depth].append(task)
    return [sorted(level, key=lambda task: -dependants[task.run.id]) for level in found]


def by_urgency(tasks: dict[str, Task]) -> list[Task]:
    """Longest remaining chain first, so that no core waits at the end for a chain that began late."""
    ahead = {name: task.steps - task.steps_done for name, task in tasks.items()}
    for level in reversed(levels(tasks)):
        for task in level:
            if task.needs in tasks:
                own = tasks[task.needs]
                ahead[task.needs] = max(ahead[task.needs], own.steps - own.steps_done + ahead[task.run.id])
    return sorted(tasks.values(), key=lambda task: -ahead[task.run.id])


def missing(tasks: Mapping[str, Task], found: Mapping[str, State], retry: Sequence[str]) -> tuple[dict, list[str]]:
    """(the tasks to submit, why others are not): no live one, and one that failed only where `retry` names its way."""
    chosen: dict[str, Task] = {}
    left = []
    for task in (task for level in levels(dict(tasks)) for task in level):
        id, state, before = task.run.id, found[task.run.id], found.get(task.needs)
        live = before is not None and before.kind in LIVE
        if state.kind in LIVE:
            continue
        if state.kind in HELD and state.kind not in retry:
            why = f"{state}; `--retry {state.kind}` submits it again, `python repro/status.py --failed` says more"
        elif live and not (before.job and before.job.live):
            why = f"it stands on {task.needs}, which runs outside SLURM now; submit it later"
        elif before is not None and task.needs not in chosen and not live:
            why = f"it stands on {task.needs}, which is not submitted"
        elif retry and state.kind not in retry and task.needs not in chosen:
            continue
        else:
            chosen[id] = task
            continue
        left.append(f"  {id}  {task.label}: {why}")
    return chosen, left


def words(run: Run, **runtime: object) -> list[object]:
    """The run as KEY VALUE pairs over the defaults, so that it starts as planned even if a file is edited meanwhile."""
    standard = flatten(defaults())
    settings = {key: value for key, value in flatten(run.cfg).items() if value != standard[key]} | runtime
    return [word for pair in settings.items() for word in pair]
