"""From runs to arrays: equal chains share an array at each level, and every dependant follows its own run."""

from __future__ import annotations

import dataclasses
import random
from types import SimpleNamespace

import pytest

from repro.launch.arrays import Array, arrays
from repro.launch.plan import Task
from repro.launch.site import Resources
from repro.tables.reading import Reading
from repro.tables.selection import Use
from repro.tables.table import Cell


def task(run: object, needs: str | None) -> Task:
    return Task(Use(run, Cell("Row", "LT", {0: run}, Reading()), 0, ["sweep"]), needs)


def forest(seed: int) -> tuple[dict[str, Task], dict[str, Resources], dict[str, str]]:
    """Tasks that stand on each other, or on runs of earlier jobs; what each needs; and those jobs."""
    chance = random.Random(seed)
    kinds = [Resources(minutes=minutes, runs_per_gpu=chance.choice([1, 1, 2, 3])) for minutes in (10, 20, 30)]
    jobs = {f"live{k}": f"{k}_{k}" if k else "7" for k in range(chance.randrange(3))}
    tasks: dict[str, Task] = {}
    one_kind = chance.choice(kinds) if chance.random() < 0.5 else None
    for k in range(chance.randrange(1, 60)):
        standing = [None, *jobs, *chance.sample(sorted(tasks), min(len(tasks), 8))]
        run = SimpleNamespace(id=f"{k:04x}", kind=one_kind or chance.choice(kinds))
        tasks[run.id] = task(run, chance.choice(standing))
    shuffled = chance.sample(sorted(tasks), len(tasks))
    return {id: tasks[id] for id in shuffled}, {id: tasks[id].run.kind for id in tasks}, jobs


def place(array: Array, id: str) -> tuple[int, int] | None:
    """(element, position in it) of a run."""
    found = [
        (k, [task.run.id for task in each].index(id))
        for k, each in enumerate(array.elements)
        if id in [task.run.id for task in each]
    ]
    return found[0] if found else None


@pytest.mark.parametrize("seed", range(60))
def test_arrays_of_a_random_forest_keep_their_laws(seed: int) -> None:
    tasks, needed, jobs = forest(seed)
    largest = 1 + seed % 7
    made = list(arrays(tasks, lambda task: needed[task.run.id], jobs, largest))
    assert sorted(task.run.id for array in made for task in array.tasks) == sorted(tasks)
    for number, array in enumerate(made):
        assert 1 <= len(array.elements) <= largest and all(array.elements)
        assert array.after is None or any(array.after is each for each in made[:number])
        assert array.level == (1 if array.after is None else array.after.level + 1)
        own = {dataclasses.replace(needed[task.run.id], runs_per_gpu=1) for task in array.tasks}
        assert own == {dataclasses.replace(array.resources, runs_per_gpu=1)}
        assert max(map(len, array.elements)) <= array.resources.runs_per_gpu  # a task of the job for each run
        for task in array.tasks:
            if task.needs in tasks:
                assert array.after and place(array.after, task.needs) == place(array, task.run.id)
                assert not array.after_job
            elif task.needs:
                assert (array.after, array.after_job, array.tasks) == (None, jobs[task.needs], [task])
            else:
                assert (array.after, array.after_job) == (None, "")


def test_equal_chains_share_one_array_a_level_and_long_chains_go_first() -> None:
    tasks = {}
    for seed in range(10):
        for name, needs in (
            (f"short{seed}", None),
            (f"a{seed}", None),
            (f"b{seed}", f"a{seed}"),
            (f"c{seed}", f"b{seed}"),
            (f"d{seed}", f"b{seed}"),
        ):
            tasks[name] = task(SimpleNamespace(id=name), needs)
    made = list(arrays(tasks, lambda task: Resources(), {}, 1000))
    assert [(array.level, len(array.elements)) for array in made] == [(1, 10), (2, 10), (3, 10), (3, 10), (1, 10)]
    assert len(list(arrays(tasks, lambda task: Resources(), {}, 4))) == 15
    packed = list(arrays(tasks, lambda task: Resources(runs_per_gpu=4), {}, 1000))
    assert [[len(each) for each in array.elements] for array in packed] == [[4, 4, 2]] * 5
