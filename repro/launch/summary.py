"""A plan in words: what is asked for, the state of its runs, what is left to do, in which jobs and at what cost."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence

import torch

from repro.launch.arrays import Array
from repro.launch.costs import Costs
from repro.launch.plan import Task, levels
from repro.launch.site import Site
from repro.launch.states import HELD, LIVE, STATES, State, by_other_code, counts
from repro.tables.command_line import command
from repro.tables.page import of_one
from repro.tables.selection import Selection, Use
from seval.text import printable


def processor(site: Site, slurm: bool) -> str:
    """What the runs are counted in where no record says it: GPU or CPU."""
    return "GPU" if (site.gpu if slurm else torch.cuda.is_available()) else "CPU"


def describe(
    asked: Selection, runs: Iterable[Use], tasks: Mapping[str, Task], found: Mapping[str, State], costs: Costs
) -> list[str]:
    """What is asked for, the states of its runs, and what is left to do at what cost."""
    runs, lines = list(runs), []
    for name, cells in asked.tables.items():
        numbers = [len(cell.runs) for cell in cells if cell.runs]
        own = [use for use in runs if name in use.tables]
        shared = sum(len(use.tables) > 1 for use in own)
        if own:
            lines.append(
                f"{printable(name)}: {len(numbers)} cells, {sum(numbers)} numbers from {len(own)} runs"
                + (f", {shared} shared with the other tables here" if shared else "")
            )
    if len(asked.tables) > 1:
        lines.append(f"in all: {sum(bool(cell.runs) for cell in asked.cells())} cells")
    lines.append(f"runs: {len(found)}: {counts(found)}")
    if tasks:
        order = levels(tasks)
        hours = costs.hours(task.run for task in tasks.values())
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
    what = printable(", ".join(rows[:3])) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
    share = f", {needed.runs_per_gpu} runs on a GPU" if needed.runs_per_gpu > 1 else ""
    after = f", after job {array.after_job}" if array.after_job else ""
    after = ", each after its element of the level before" if array.after else after
    memory = f"{needed.memory_gb * needed.runs_per_gpu:g} GB" if needed.memory_gb else "the site's memory"
    return (
        f"  level {array.level}: {count} element{'s' * (count > 1)} of {what} on {', '.join(names)} "
        f"({needed.minutes} min, {memory}, {needed.cpus} cpus{share}){after}"
    )


def left_alone(args: Namespace, left: Sequence[tuple[Task, str]], found: Mapping[str, State]) -> list[str]:
    """The tasks that are not submitted, why, and the commands about those that failed."""
    if not left:
        return []
    lines = [f"left alone: {len(left)}", *(f"  {task.run.id}  {task.use}: {why}" for task, why in left)]
    if kinds := [kind for kind in HELD if kind in {found[task.run.id].kind for task, _ in left}]:
        lines += ["why they failed:", f"  {command('status', args, '--failed')}"]
        lines += ["to submit them again:", f"  {command('submit', args, '--retry', *kinds)}"]
    return lines


def other_code(args: Namespace, found: Mapping[str, State]) -> list[str]:
    """How to do again what other code did."""
    if not by_other_code(found) or "done" in args.retry:
        return []
    return [
        "to do again all that is done, such as what other code did:",
        f"  {command('submit', args, '--retry', 'done')}",
    ]


def nothing_left(args: Namespace, asked: Selection, found: Mapping[str, State], left: Sequence[object]) -> list[str]:
    """Why there is nothing to do, and the command to call next."""
    kinds = {state.kind for state in found.values()}
    if kinds <= {"done"}:
        if args.config:
            return ["every run has a record", *map(of_one, asked.cells())]
        return ["every run has a record; this writes the table:", f"  {command('aggregate', args)}"]
    if kinds & set(LIVE):
        return ["how far they are:", f"  {command('status', args)}"]
    if left or not args.retry:
        return []
    words = " or ".join(STATES[kind] for kind in args.retry)
    return [f"no run is {words}; to submit the others that are missing:", f"  {command('submit', args)}"]


#: Keys that each kind of machine decides by itself, and how.
_DECIDED = {
    "slurm": {
        "RUNTIME.THREADS": "`cpus` of the site file",
        "RUNTIME.WORKERS": "`cpus` of the site file",
        "RUNTIME.PROGRESS": "the log of a job, which has a line for each evaluation",
    },
    "local": {"RUNTIME.PROGRESS": "one progress bar for all runs"},
    "debug": {},
}
#: What comes to the same.
_AGREED = {("RUNTIME.PROGRESS", "lines"), ("GPU_ID", "-1")}


def overruled(machine: str, overrides: Sequence[str], gpus: bool) -> list[str]:
    """A note for each KEY VALUE pair that does not count on such a machine; none is ignored without a word."""
    decided = dict(_DECIDED[machine])
    if not gpus:
        decided["GPU_ID"] = "the site file, which asks for no GPU" if machine == "slurm" else "this machine: no GPU"
    elif machine != "debug":
        decided["GPU_ID"] = "the launcher, which gives each run a GPU"
    pairs = dict(zip(overrides[::2], overrides[1::2], strict=True))
    given = {key: value for key, value in pairs.items() if key in decided and (key, value) not in _AGREED}
    return [f"note: {key} {value} does not count here; it is decided by {decided[key]}" for key, value in given.items()]
