"""From runs to job arrays: runs of one class share an array, and what stands on them hangs on it element by element.

A dependency between arrays goes by index. So only runs of the same *shape* share an array; the shape of a run is
its class and the shapes of the runs that stand on it. Then each set of k-th dependants lines up, at every level.
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
    """The arrays that do `tasks`, each behind the one it waits for; those with the longest chains first.

    A task may stand on another one, or on a run that `jobs` (id of the run to job) names. No array has more than
    `largest` elements.
    """
    dependants = defaultdict(list)
    for task in tasks.values():
        dependants[task.needs if task.needs in tasks else None].append(task)
    shapes: dict[str, tuple] = {}

    def shape(task: Task) -> tuple:
        id = task.run.id
        if id not in shapes:
            behind = sorted((shape(each) for each in dependants[id]), key=repr, reverse=True)
            shapes[id] = (max((each[0] for each in behind), default=0) + 1, resources(task), tuple(behind))
        return shapes[id]

    def hang(after: Array) -> Iterator[Array]:
        yield after
        behind = [
            [sorted(dependants[task.run.id], key=lambda each: repr(shape(each)), reverse=True) for task in element]
            for element in after.elements
        ]
        for k in range(len(behind[0][0])):
            elements = [[each[k] for each in element] for element in behind]
            needed, width = resources(elements[0][0]), max(map(len, elements))
            if width > needed.runs_per_gpu:  # they stand on runs that share a GPU
                needed = replace(needed, runs_per_gpu=width)
            yield from hang(Array(needed, elements, after.level + 1, after))

    groups = defaultdict(list)
    for task in dependants[None]:
        groups[jobs[task.needs] if task.needs else "", shape(task)].append(task)
    for (job, (_, needed, _)), group in sorted(groups.items(), key=lambda each: (-each[0][1][0], repr(each[0]))):
        share = 1 if job else needed.runs_per_gpu
        elements = [group[start : start + share] for start in range(0, len(group), share)]
        for part in ([each] for each in elements) if job else _parts(elements, largest):
            yield from hang(Array(needed, part, after_job=job))


def _parts(elements: list[list[Task]], largest: int) -> Iterator[list[list[Task]]]:
    for start in range(0, len(elements), largest):
        yield elements[start : start + largest]
