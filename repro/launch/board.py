"""How far the runs that are asked for are: a board of signs, what failed, what is left."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Container, Mapping
from pathlib import Path

from tabulate import tabulate

from repro.launch.costs import Costs
from repro.launch.failures import failure
from repro.launch.queue import Queue, SlurmError, warn
from repro.launch.site import Site, find_site
from repro.launch.states import FAILED, STATES, State, counts, states
from repro.launch.summary import processor
from repro.tables.command_line import (
    command,
    list_of_runs,
    repeated,
    say,
)
from repro.tables.page import of_one
from repro.tables.selection import Selection, Use, is_open, naming, select
from seval.run import Run
from seval.text import printable

SIGNS = {
    "done": "✓",
    "running": "",
    "queued": "q",
    "waiting": "w",
    "resumable": "r",
    "timeout": "T",
    "canceled": "c",
    "oom": "M",
    "crashed": "X",
    "unknown": "?",
    "new": "·",
}
MORE = {"waiting": " (wn%: for a run that is at n%)"}
Found = Mapping[str, State]
Uses = Mapping[str, Use]


def sign(run: Run, found: Found, damaged: Container[str]) -> str:
    """The state of one seed of a cell; where it waits for another run, the share is that of the other run."""
    if run.id in damaged:
        return "!"
    state = found[run.id]
    before = run.prerequisite() if state.kind == "waiting" else None
    share = found[before.id].progress if before else state.progress
    return SIGNS[state.kind] + (f"{share or 0:.0%}" if state.kind in ("running", "waiting", "resumable") else "")


def board(asked: Selection, uses: Uses, found: Found, damaged: Container[str]) -> str:
    """For every table its signs, one for each seed of a cell."""
    parts = []
    for name, cells in asked.tables.items():
        runs = {id: found[id] for id, use in uses.items() if name in use.tables}
        columns, rows = list(dict.fromkeys(cell.column for cell in cells)), {}
        for cell in cells:
            signs = " ".join(sign(run, found, damaged) for run in cell.runs.values())
            rows.setdefault(cell.row, [printable(cell.row)]).append(signs)
        if runs:
            body = tabulate(rows.values(), [printable(text) for text in (name, *columns)], disable_numparse=True)
            parts.append(f"{printable(name)}: {len(runs)} runs: {counts(runs)}\n{body}")
    used = {state.kind for state in found.values()}
    legend = [f"{SIGNS[kind] or 'n%'} {word}{MORE.get(kind, '')}" for kind, word in STATES.items() if kind in used]
    legend += ["! damaged record"] if any(run in damaged for run in found) else []
    return "\n\n".join([*parts, f"one sign per seed: {', '.join(legend)}"])


def costs(uses: Uses, found: Found, site: Site) -> str:
    """What was spent and what is left, and when the last run will be done at the present pace."""
    runs = [use.run for use in uses.values()]
    slurm = any(state.job for state in found.values()) or shutil.which("sbatch") is not None
    known = Costs(runs, site, processor(site, slurm))
    undone = [run for run in runs if found[run.id].kind != "done"]
    left, running = sum(map(known.left, undone)), sum(state.kind == "running" for state in found.values())
    text = f"{known.so_far()} spent" + (f"; left: {known.hours(undone)}" if undone else "")
    if running and left:
        text += f"; at {running} runs at once, done in about {_duration(left / running)}"
    return text


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    if not days and not hours:
        return f"{minutes} min" if minutes else "a minute"
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60:02d} min"


def failed(args: argparse.Namespace, uses: Uses, found: Found) -> str:
    """What failed, why, where its log is, and what to do."""
    lines = []
    for id, use in uses.items():
        state = found[id]
        if state.kind in (*FAILED, "canceled", "unknown"):
            log = log_of(use.run, state)
            lines += [f"{id}  {use.label}: {state}", f"    {state.detail}", *([f"    log: {log}"] if log else [])]
    if not lines:
        return "nothing failed"
    return "\n".join([*lines, "again:", f"  {command('submit', args, *_retry(found))}"])


def _retry(found: Found) -> list[str]:
    """How submit.py takes on again what failed. Only on SLURM does it leave some failures alone unless asked."""
    kinds = sorted({state.kind for state in found.values()} & set(FAILED))
    here = shutil.which("sbatch") is not None
    if not kinds or not (here or any(found[id].job for id in found if found[id].kind in kinds)):
        return []
    return ["--retry", *kinds, *([] if here else ["--cluster", "slurm"])]


def log_of(run: Run, state: State) -> Path | None:
    """The log of the last attempt: SLURM's, or that of a process here."""
    if state.job and state.job.id:
        rank = next(element.index(run.id) for element in state.job.submission.elements if run.id in element)
        path = run.folder.parent / "slurm" / "logs" / f"{state.job.id}_{rank}_log.out"
        return path if path.exists() else None
    logs = sorted((run.folder.parent / "submitit" / run.id).glob("*.err"), key=lambda path: path.stat().st_mtime)
    return logs[-1] if logs else None


def as_json(uses: Uses, found: Found, damaged: Mapping[str, str]) -> str:
    """A list of all runs."""
    return json.dumps(
        [
            {
                "id": id,
                "label": use.label,
                "state": found[id].kind,
                "detail": found[id].detail,
                "progress": found[id].progress,
                "job": job.id if (job := found[id].job) else None,
                "folder": str(use.run.folder),
                "failure": failure(use.run.folder) if found[id].kind in FAILED else None,
                "damaged": damaged.get(id),
            }
            for id, use in uses.items()
        ],
        indent=1,
    )


def report(args: argparse.Namespace, asked: Selection, damaged: Mapping[str, str]) -> str:
    """What is printed, once."""
    site = Site.read(find_site(args.site))
    folder, uses = asked.output / "slurm", asked.runs()
    runs = [use.run for use in uses.values()]
    notes = []
    try:
        queue = Queue(site.tries, site.patience) if any(folder.glob("seval-*.json")) else None
        found = states(runs, folder, queue, warn)
    except SlurmError as error:
        found = states(runs, folder, None)
        notes.append(f"SLURM does not answer ({error}): what is queued or running there is not shown")
        say(notes[-1], error=True)
    if is_open(args):
        begun = [name for id, use in uses.items() if _has_begun(found[id]) for name in use.tables]
        asked = asked.only(begun)
        if not (uses := asked.runs()) and not args.json:
            return _nothing(args, asked)
        args = naming(args, asked.tables)
        notes.append(f"runs of every table and of none, by name:\n  {list_of_runs(args)}")
    if args.json:
        return as_json(uses, found, damaged)
    if args.failed:
        return failed(args, uses, found)
    numbers = [of_one(cell) for cell in asked.cells() if args.config and cell.values()]
    return "\n".join([board(asked, uses, found, damaged), costs(uses, found, site), *numbers, *notes])


def _has_begun(state: State) -> bool:
    """Whether it has a folder, a job or a result."""
    return state.kind != "new" or state.progress is not None


def _nothing(args: argparse.Namespace, asked: Selection) -> str:
    words = f"no table has a run in {asked.output}; this lists the tables, and then all runs in that folder:"
    return f"{words}\n  {repeated('submit', [])}\n  {list_of_runs(args)}"


def show(args: argparse.Namespace) -> int:
    """Print it, again and again with --watch; returns the exit code."""
    while True:
        asked = select(args)
        damaged = asked.damaged()
        text = report(args, asked, damaged)
        if args.watch:
            _begin(clock=not args.json)
        say(text)
        say(*(f"error: {words}" for words in damaged.values()), error=True)
        if not args.watch:
            return 2 if damaged else 0
        time.sleep(args.watch)


def _begin(clock: bool) -> None:
    """Clear a terminal, and say when this was; in a file the line also tells one look from the next."""
    print("\033[2J\033[H" if sys.stdout and sys.stdout.isatty() else "", end="")
    if clock:
        print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} ---")
