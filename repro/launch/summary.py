"""A plan in words: what is asked for, the state of its runs, what is left to do, in which jobs and at what cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from repro.launch.arrays import Array
from repro.launch.costs import Costs
from repro.launch.plan import Task, levels
from repro.launch.site import Site
from repro.launch.states import State, counts
from repro.tables.selection import Selection, Use


def describe(
    asked: Selection, runs: Iterable[Use], tasks: Mapping[str, Task], found: Mapping[str, State], site: Site
) -> list[str]:
    """What is asked for, the states of its runs, and what is left to do at what cost."""
    runs, lines = list(runs), []
    for name, cells in asked.tables.items():
        numbers = [len(cell.runs) for cell in cells if cell.runs]
        own = [use for use in runs if name in use.tables]
        shared = sum(len(use.tables) > 1 for use in own)
        if own:
            lines.append(
                f"{name}: {len(numbers)} cells, {sum(numbers)} numbers from {len(own)} runs"
                + (f", {shared} shared with the other tables here" if shared else "")
            )
    if len(asked.tables) > 1:
        lines.append(f"in all: {sum(bool(cell.runs) for cell in asked.cells())} cells")
    lines.append(f"runs: {len(found)}: {counts(found)}")
    if tasks:
        order = levels(tasks)
        hours = Costs((use.run for use in runs), site).hours(task.run for task in tasks.values())
        lines.append(
            f"to do: {len(tasks)} runs in {len(order)} level{'s' * (len(order) > 1)}: "
            f"{', then '.join(str(len(level)) for level in order)}; {hours}"
        )
    return lines


def describe_each(tasks: Mapping[str, Task], found: Mapping[str, State]) -> list[str]:
    """A line for each run."""
    return [
        f"  {task.run.id}  level {depth}  {found[task.run.id]!s:<16}  {task.use}"
        for depth, level in enumerate(levels(tasks), 1)
        for task in level
    ]


def describe_array(array: Array) -> str:
    """Its level, size, rows, data sets, resources and what it waits for, in a line."""
    needed, count = array.resources, len(array.elements)
    names = sorted({task.run.cfg.DATASET.NAME for task in array.tasks})
    rows = list(dict.fromkeys(task.use.cell.row for task in array.tasks))
    what = ", ".join(rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
    share = f", {needed.runs_per_gpu} runs on a GPU" if needed.runs_per_gpu > 1 else ""
    after = f", after job {array.after_job}" if array.after_job else ""
    after = ", each after its element of the level before" if array.after else after
    memory = f"{needed.memory_gb * needed.runs_per_gpu:g} GB" if needed.memory_gb else "the site's memory"
    return (
        f"  level {array.level}: {count} element{'s' * (count > 1)} of {what} on {', '.join(names)} "
        f"({needed.minutes} min, {memory}, {needed.cpus} cpus{share}){after}"
    )
