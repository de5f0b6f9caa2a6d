"""From runs to job arrays: runs of a class share an array, and their dependants form arrays that follow it by element.

A dependency between arrays goes by index. So only runs of the same *shape* share an array; the shape of a run is
its class and the shapes of the runs that depend on it. Then each set of k-th dependants lines up, at every level.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from repro.launch.plan import Task
from repro.launch.site import Resources


@dataclass
class Array:
    """Elements of one class, each a list of runs that share a GPU, and what they wait for."""

    resources: Resources
    elements: list[list[Task]]
    level: int = 1
    after: Array | None = None  # element i waits for its element i
    after_job: str = ""  # or its only element waits for this job of an earlier submission

    @property
    def tasks(self) -> list[Task]:
        return [task for element in self.elements for task in element]


def arrays(
    tasks: Mapping[str, Task],
    resources: Callable[[Task], Resources],
    jobs: Mapping[str, str],
    largest: int,
) -> Iterator[Array]:
    """The arrays that do `tasks`, each after the array it waits for; those with the longest chains first.

    A task may depend on another one, or on a run that `jobs` (id of the run to job) names. No array has more than
    `largest` elements.
    """
    shapes = _Shapes(tasks, resources)
    groups = defaultdict(list)
    for task in shapes.dependants[None]:
        groups[jobs[task.needs] if task.needs else "", shapes.of(task)].append(task)
    for (job, (_, needed, _)), group in sorted(groups.items(), key=lambda each: (-each[0][1][0], repr(each[0]))):
        share, largest_here = (1, 1) if job else (needed.runs_per_gpu, largest)
        elements = [group[start : start + share] for start in range(0, len(group), share)]
        for start in range(0, len(elements), largest_here):
            yield from shapes.chain(Array(needed, elements[start : start + largest_here], after_job=job))


class _Shapes:
    """Of each task its dependants, by id, and its shape: (length of the longest chain, class, shapes of dependants)."""

    def __init__(self, tasks: Mapping[str, Task], resources: Callable[[Task], Resources]) -> None:
        self.resources, self.known = resources, {}
        self.dependants: defaultdict[str | None, list[Task]] = defaultdict(list)
        for task in tasks.values():
            self.dependants[task.needs if task.needs in tasks else None].append(task)

    def of(self, task: Task) -> tuple:
        id = task.run.id
        if id not in self.known:
            behind = sorted(map(self.of, self.dependants[id]), key=repr, reverse=True)
            longest = max((each[0] for each in behind), default=0)
            self.known[id] = (longest + 1, self.resources(task), tuple(behind))
        return self.known[id]

    def chain(self, first: Array) -> Iterator[Array]:
        """An array and those that follow it, element by element."""
        yield first
        behind = [
            [sorted(self.dependants[task.run.id], key=lambda each: repr(self.of(each)), reverse=True) for task in each]
            for each in first.elements
        ]
        for k in range(len(behind[0][0])):
            elements = [[each[k] for each in element] for element in behind]
            needed, width = self.resources(elements[0][0]), max(map(len, elements))
            if width > needed.runs_per_gpu:  # they depend on runs that share a GPU
                needed = replace(needed, runs_per_gpu=width)
            yield from self.chain(Array(needed, elements, first.level + 1, first))
