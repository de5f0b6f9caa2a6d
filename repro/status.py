"""How far a table is: the state of every run, what failed and why, and when it will be done."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.launch.costs import Costs
from repro.launch.queue import Queue, SlurmError, warn
from repro.launch.site import Site, add_site_option, find_site
from repro.launch.states import FAILED, STATES, State, counts, failure, states
from repro.tables.selection import Parser, Selection, Use, add_options, select
from seval.run import Run

EXAMPLES = """\
examples:
  python repro/status.py --table 2                  a table of cells and seeds
  python repro/status.py --table 2 --watch          the same, printed again and again
  python repro/status.py --table 2 --failed         the error and the log of every run that failed
  python repro/status.py --all --json               every run, for other programs
"""
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
Found = Mapping[str, State]
Uses = Mapping[str, Use]


def sign(run: Run, found: Found) -> str:
    """The state of one seed of a cell; where it waits for another run, the share is that of the other run."""
    state = found[run.id]
    before = run.prerequisite() if state.kind == "waiting" else None
    share = found[before.id].progress if before else state.progress
    return SIGNS[state.kind] + (f"{share or 0:.0%}" if state.kind in ("running", "waiting", "resumable") else "")


def board(asked: Selection, uses: Uses, found: Found) -> str:
    """For every table its signs, one for each seed of a cell."""
    parts = []
    for name, cells in asked.tables.items():
        runs = {id: found[id] for id, use in uses.items() if name in use.tables}
        columns, rows = list(dict.fromkeys(cell.column for cell in cells)), {}
        for cell in cells:
            rows.setdefault(cell.row, [cell.row]).append(" ".join(sign(run, found) for run in cell.runs.values()))
        if runs:
            body = tabulate(rows.values(), [name, *columns], disable_numparse=True)
            parts.append(f"{name}: {len(runs)} runs: {counts(runs)}\n{body}")
    used = {state.kind for state in found.values()}
    legend = ", ".join(f"{SIGNS[kind] or 'n%'} {word}" for kind, word in STATES.items() if kind in used)
    return "\n\n".join([*parts, f"one sign per seed: {legend}"])


def costs(uses: Uses, found: Found, site: Site) -> str:
    """GPU-hours spent and left, and when the last run will be done at the present pace."""
    runs = [use.run for use in uses.values()]
    known = Costs(runs, site)
    spent, left = sum(seconds for seconds, _ in known.spent.values()), sum(map(known.left, runs))
    running = sum(state.kind == "running" for state in found.values())
    undone = [run for run in runs if found[run.id].kind != "done"]
    text = f"{spent / 3600:.1f} GPU-hours spent" + (f"; left: {known.hours(undone)}" if undone else "")
    if running and left:
        text += f"; at {running} runs at once, done in about {_duration(left / running)}"
    return text


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60:02d} min"


def failed(uses: Uses, found: Found) -> str:
    """What failed, why, where its log is, and what to do."""
    lines = []
    for id, use in uses.items():
        state = found[id]
        if state.kind in (*FAILED, "canceled", "unknown"):
            log = log_of(use.run, state)
            lines += [f"{id}  {_label(use)}: {state}", f"    {state.detail}", *([f"    log: {log}"] if log else [])]
    if not lines:
        return "nothing failed"
    kinds = sorted({state.kind for state in found.values()} & set(FAILED))
    return "\n".join([*lines, *([f"again: python repro/submit.py ... --retry {' '.join(kinds)}"] if kinds else [])])


def _label(use: Use) -> str:
    return f"{use.tables[0]}: {use}"


def log_of(run: Run, state: State) -> Path | None:
    """The log of the last attempt: SLURM's, or that of a process here."""
    if state.job and state.job.id:
        rank = next(element.index(run.id) for element in state.job.submission.elements if run.id in element)
        path = run.folder.parent / "slurm" / "logs" / f"{state.job.id}_{rank}_log.out"
        return path if path.exists() else None
    logs = sorted((run.folder.parent / "submitit" / run.id).glob("*.err"), key=lambda path: path.stat().st_mtime)
    return logs[-1] if logs else None


def as_json(uses: Uses, found: Found) -> str:
    """A list of all runs."""
    return json.dumps(
        [
            {
                "id": id,
                "label": _label(use),
                "state": found[id].kind,
                "detail": found[id].detail,
                "progress": found[id].progress,
                "job": job.id if (job := found[id].job) else None,
                "folder": str(use.run.folder),
                "failure": failure(use.run.folder) if found[id].kind in FAILED else None,
            }
            for id, use in uses.items()
        ],
        indent=1,
    )


def report(args: argparse.Namespace, asked: Selection) -> str:
    """What is printed, once."""
    site = Site.read(find_site(args.site))
    folder, uses = Path(args.output_dir) / "slurm", asked.runs()
    runs = [use.run for use in uses.values()]
    notes = []
    try:
        queue = Queue(site.tries, site.patience) if any(folder.glob("seval-*.json")) else None
        found = states(runs, folder, queue, warn)
    except SlurmError as error:
        found = states(runs, folder, None)
        notes.append(f"SLURM does not answer ({error}): what is queued or running there is not shown")
        print(notes[-1], file=sys.stderr)
    if args.json:
        return as_json(uses, found)
    if args.failed:
        return failed(uses, found)
    return "\n".join([board(asked, uses, found), costs(uses, found, site), *notes])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    add_site_option(parser)
    parser.add_argument("--failed", action="store_true", help="the error and the log of every run that failed")
    parser.add_argument("--json", action="store_true", help="every run as JSON")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=30.0,
        metavar="SECONDS",
        help="print again, every 30 seconds by default",
    )
    args = parser.parse_args(argv)
    if args.watch is not None and args.watch <= 0:
        parser.error(f"--watch must be more than 0 seconds, but is {args.watch:g}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2: bad input."""
    try:
        args = parse(argv)
        while True:
            text = report(args, select(args))
            if args.watch:
                print("\033[2J\033[H" if sys.stdout.isatty() else "", end="")
            print(text, flush=True)
            if not args.watch:
                return 0
            time.sleep(args.watch)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
