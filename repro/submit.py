"""Do the runs a table still lacks, each after the run it stands on; what has a record is never done again."""
from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import submitit
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout at hand also works without installation

from repro import tables
from repro.clusters import Debug, Local
from repro.plan import Task, by_urgency, levels, plan

EXAMPLES = """\
examples:
  python repro/submit.py --table demo                       everything the table lacks, on all cores
  python repro/submit.py --table demo --dry-run             what that would be
  python repro/submit.py --table demo --rows SEVAL --seeds 0
  python repro/submit.py --table demo --cluster debug       one run after another, in this process
A second call goes on where the first ended. Then: python repro/aggregate.py --table demo
"""


def carry_out(tasks: dict[str, Task], cluster: Debug | Local) -> dict[str, str]:
    """Do all tasks, whatever becomes of the others; returns by id why one was not done."""
    waiting, failed, free = by_urgency(tasks), {}, list(range(cluster.jobs))
    running: dict[int, tuple[Task, submitit.Job | SimpleNamespace]] = {}
    with Overview(tasks) as overview:
        while waiting or running:
            for task in [task for task in waiting if task.needs in failed]:
                waiting.remove(task)
                failed[task.run.id] = f"not started, it stands on {task.needs}"
                overview.failure(task, failed[task.run.id])
            unmet = {task.run.id for task in waiting} | {task.run.id for task, _ in running.values()} | set(failed)
            ready = [task for task in waiting if task.needs not in unmet]
            while ready and free:
                task, slot = ready.pop(0), free.pop(0)
                waiting.remove(task)
                running[slot] = task, cluster.start(task, slot)
            for slot in [slot for slot, (_, job) in running.items() if job.done()]:
                task, job = running.pop(slot)
                free.append(slot)
                if task.run.record() is None:
                    failed[task.run.id] = f"{last_words(job.paths.stderr)} (log: {job.paths.stderr})"
                    overview.failure(task, failed[task.run.id])
                else:
                    overview.success(task)
            overview.update(task for task, _ in running.values())
            if running:
                time.sleep(0.2)
    return failed


class Overview:
    """One bar over the steps of all tasks, and a line for each that has ended."""

    def __init__(self, tasks: dict[str, Task]) -> None:
        self.tasks, self.failed, self.drawn = tasks, 0, 0.0
        self.steps = {name: task.steps_done for name, task in tasks.items()}
        self.ended: set[str] = set()
        self.bar = tqdm(total=sum(task.steps for task in tasks.values()), initial=int(sum(self.steps.values())),
                        unit=" steps", unit_scale=True, smoothing=0, dynamic_ncols=True)

    def __enter__(self) -> Overview:
        return self

    def __exit__(self, *exception: object) -> None:
        self.update([], now=True)
        self.bar.close()

    def update(self, running: Iterable[Task], now: bool = False) -> None:
        if not now and time.monotonic() < self.drawn + (1 if sys.stderr.isatty() else 30):
            return
        running = list(running)
        self.drawn = time.monotonic()
        self.steps |= {task.run.id: task.steps_done for task in running}
        self.bar.n = int(sum(self.steps.values()))
        self.bar.set_postfix_str(f"{len(self.ended) - self.failed}/{len(self.tasks)} runs done, {len(running)} running"
                                 + (f", {self.failed} failed" if self.failed else ""))

    def success(self, task: Task) -> None:
        self.ended.add(task.run.id)
        self.steps[task.run.id] = task.steps
        record = task.run.record()
        accuracy = record["results"]["test"]["ema"]["none"]["top1"][task.protocol]
        self._say(task, f"{record['seconds']:.0f} s, "
                  + ("no test accuracy" if accuracy is None else f"test accuracy {100 * accuracy:.2f} %"))

    def failure(self, task: Task, reason: str) -> None:
        self.ended.add(task.run.id)
        self.failed += 1
        self._say(task, f"FAILED, {reason}")

    def _say(self, task: Task, text: str) -> None:
        self.bar.write(f"{task.run.id}  {task.label}: {text}")
        sys.stdout.flush()


def last_words(log: Path) -> str:
    """The error at the end of a job's log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    starts = [i for i, line in enumerate(lines) if line.startswith("Traceback ")]
    for line in lines[starts[-1] + 1:] if starts else ():
        if line.strip() and not line.startswith(" "):
            return line
    return "it ended without a message; was it killed for memory?"


def describe(table: tables.Table, cells: Sequence[tables.Cell], tasks: dict[str, Task], where: str, every: bool) -> str:
    """The plan in three lines, and with `every` one more a run."""
    runs = {run.id for cell in cells for last in cell.runs.values() for run in last.chain()}
    begun = {name for name, task in tasks.items() if task.run.progress() is not None}
    order = levels(tasks)
    lines = [f"table {table.name}: {len(cells)} cells ({len(table.rows)} x {len(table.columns)}), "
             f"{sum(len(cell.runs) for cell in cells)} numbers off {len(runs)} runs",
             f"runs: {len(runs) - len(tasks)} done, {len(begun)} resumable, {len(tasks) - len(begun)} new"]
    if tasks:
        lines.append(f"levels: {', then '.join(str(len(level)) for level in order)}; {where}")
    if every:
        lines += [f"  {task.run.id}  level {depth}  {'resumable' if task.run.id in begun else 'new':<9}  {task.label}"
                  for depth, level in enumerate(order, 1) for task in level]
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = tables.Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="name of a file in paper_tables/, or a path ending in .yaml")
    parser.add_argument("--cluster", choices=("local", "debug"), default="local",
                        help="local: processes on this machine; debug: one run after another, in this process")
    parser.add_argument("--jobs", type=int, default=0, help="runs at once; default: one per GPU, else per core")
    parser.add_argument("--rows", nargs="+", default=(), help="only these rows")
    parser.add_argument("--columns", nargs="+", default=(), help="only these columns")
    parser.add_argument("--seeds", nargs="+", type=int, default=(), help="these seeds instead of the table's")
    parser.add_argument("--output-dir", default="runs", help="folder of the runs' folders (default: runs)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    args = parser.parse_args(argv)
    if args.jobs < 0:
        parser.error(f"--jobs must be positive, but is {args.jobs}")
    return args


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """0: nothing is missing any more; 1: some runs failed; 2: bad input; 130: interrupted."""
    try:
        args = parse(argv)
        table = tables.find(args.table).forcing(args.rows, args.columns, seeds=list(args.seeds))
        cells = list(table.cells(["OUTPUT_DIR", args.output_dir]))
        tasks = plan(cells)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    gpus = torch.cuda.device_count() if any(task.run.cfg.GPU_ID >= 0 for task in tasks.values()) else 0
    logs = Path(args.output_dir) / "submitit"
    cluster = Debug(logs) if args.cluster == "debug" else Local(logs, args.jobs, gpus)
    print(describe(table, cells, tasks, str(cluster), args.dry_run), flush=True)
    if not tasks:
        print(f"nothing to do; python repro/aggregate.py --table {args.table} prints the table")
    if not tasks or args.dry_run:
        return 0
    again = shlex.join(["python", "repro/submit.py", *(sys.argv[1:] if argv is None else argv)])
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with cluster:
            failed = carry_out(tasks, cluster)
    except KeyboardInterrupt:
        print(f"\ninterrupted; its runs have been ended. The same command goes on from their checkpoints:\n  {again}",
              file=sys.stderr)
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    if failed:
        print(f"{len(failed)} of {len(tasks)} runs are missing:", *(f"  {tasks[name].label} ({name}): {reason}"
              for name, reason in failed.items()), f"to try again:\n  {again}", sep="\n", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
