"""Which runs a table still lacks, and in what order: each after its prerequisite, and the longest chain first."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from repro.tables import Cell
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
            label = f"{cell.row}, {cell.column}, seed {seed}"
            while run is not None and run.id not in tasks and not run.done():
                before = run.prerequisite()
                if before is not None and before.done():
                    before = None
                tasks[run.id] = Task(run, label, before.id if before else None, cell.path[-1])
                run, label = before, f"{cell.row} (prerequisite), {cell.column}, seed {seed}"
    return tasks


def levels(tasks: dict[str, Task]) -> list[list[Task]]:
    """The tasks by their number of predecessors; within a level those first that most tasks wait for."""
    dependants = Counter(task.needs for task in tasks.values())
    found: list[list[Task]] = []
    for task in tasks.values():
        depth, before = 0, task.needs
        while before is not None:
            depth, before = depth + 1, tasks[before].needs
        found += [[] for _ in range(depth + 1 - len(found))]
        found[depth].append(task)
    return [sorted(level, key=lambda task: -dependants[task.run.id]) for level in found]


def by_urgency(tasks: dict[str, Task]) -> list[Task]:
    """Longest remaining chain first, so that no core waits at the end for a chain that began late."""
    ahead = {name: task.steps - task.steps_done for name, task in tasks.items()}
    for level in reversed(levels(tasks)):
        for task in level:
            if task.needs:
                own = tasks[task.needs]
                ahead[task.needs] = max(ahead[task.needs], own.steps - own.steps_done + ahead[task.run.id])
    return sorted(tasks.values(), key=lambda task: -ahead[task.run.id])
