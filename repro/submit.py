"""Do the runs a table still lacks, each after the run it stands on; what has a record is never done again."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout at hand also works without installation

from repro.launch import site as sites
from repro.launch.arrays import Array
from repro.launch.costs import Costs
from repro.launch.local import Debug, Local, carry_out
from repro.launch.plan import Task, levels, missing, plan
from repro.launch.queue import SlurmError
from repro.launch.slurm import Cluster
from repro.launch.states import LIVE, State, counts, states
from repro.tables import table as tables
from repro.tables.selection import Selection, add_options, all_cells, ids, last_runs, select
from seval.claim import claim
from seval.data.hdf5 import data_file
from seval.errors import ConfigError, RunBusy

EXAMPLES = """\
examples:
  python repro/submit.py --table 2 --dry-run                what is missing, in how many jobs, for how many GPU-hours
  python repro/submit.py --table 2                          on a cluster: job arrays; elsewhere: all cores or GPUs here
  python repro/submit.py --all                              every table of the paper; runs they share are done once
  python repro/submit.py --table 2 --rows "w/ SEVAL" --seeds 79
  python repro/submit.py --config configs/cifar10/fixmatch_seval_load.yaml DATASET.CIFAR10.NUM_LABELED_HEAD 500
  python repro/submit.py --table 2 --retry oom              once more with twice the memory
  python repro/submit.py --table 2 --cancel                 end what it has in the queue
A second call, at any time, submits only what is missing. Then: python repro/status.py, python repro/aggregate.py
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = tables.Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument(
        "--cluster",
        choices=("slurm", "local", "debug"),
        help="slurm: job arrays; local: processes "
        "on this machine; debug: one run after another, in this process (default: slurm if it is here)",
    )
    parser.add_argument("--jobs", type=int, default=0, help="local: runs at once; default: one per GPU, else per core")
    parser.add_argument("--site", metavar="FILE", help="slurm: facts about the site (default: slurm/cluster.yaml)")
    parser.add_argument(
        "--array-parallelism", type=int, default=0, metavar="N", help="slurm: elements of an array at once"
    )
    parser.add_argument(
        "--retry",
        nargs="+",
        choices=("oom", "crashed", "timeout"),
        default=(),
        help="slurm: only runs that ended so, and what stands on them; oom with twice the memory, "
        "timeout with twice the time",
    )
    parser.add_argument(
        "--cancel",
        action="store_true",
        help="slurm: end what these tables have in the queue, runs shared with other tables included",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")
    args = parser.parse_args(argv)
    args.cluster = args.cluster or ("slurm" if shutil.which("sbatch") else "local")
    if args.jobs < 0 or args.array_parallelism < 0:
        parser.error(f"--jobs and --array-parallelism must be positive, but are {args.jobs}, {args.array_parallelism}")
    if args.cluster != "slurm" and (args.retry or args.cancel):
        parser.error(
            f"--retry and --cancel are for --cluster slurm; on this machine ({args.cluster}) a second call "
            "tries again what failed, and Ctrl-C ends it"
        )
    return args


def describe(asked: Selection, tasks: Mapping[str, Task], found: Mapping[str, State], site: sites.Site) -> list[str]:
    """The plan: what is asked for, what has become of it, what is left to do and at what cost."""
    lines, own = [], {name: ids(cells) for name, cells in asked.items()}
    for name, cells in ((name, cells) for name, cells in asked.items() if own[name]):
        others = own[name] & set().union(*(runs for other, runs in own.items() if other != name))
        numbers = [len(cell.runs) for cell in cells if cell.runs]
        lines.append(
            f"{name}: {len(numbers)} cells, {sum(numbers)} numbers off {len(own[name])} runs"
            + (f", {len(others)} shared with the other tables here" if others else "")
        )
    if len(asked) > 1:
        lines.append(f"in all: {sum(bool(cell.runs) for cell in all_cells(asked))} cells")
    lines.append(f"runs: {len(found)}: {counts(found)}")
    if tasks:
        order = levels(dict(tasks))
        costs = Costs({each.id: each for last in last_runs(asked) for each in last.chain()}.values(), site)
        hours = costs.hours(task.run for task in tasks.values())
        lines.append(
            f"to do: {len(tasks)} runs in {len(order)} level{'s' * (len(order) > 1)}: "
            f"{', then '.join(str(len(level)) for level in order)}; {hours}"
        )
    return lines


def each(tasks: Mapping[str, Task], found: Mapping[str, State]) -> list[str]:
    """A line a run."""
    return [
        f"  {task.run.id}  level {depth}  {found[task.run.id]!s:<16}  {task.label}"
        for depth, level in enumerate(levels(dict(tasks)), 1)
        for task in level
    ]


def on_slurm(args: argparse.Namespace, asked: Selection) -> int:
    """Submit, or with --cancel end, or with --dry-run only tell. Raises `SlurmError`, `RunBusy`."""
    site = sites.Site.read(sites.find(args.site))
    cluster = Cluster(site, Path(args.output_dir) / "slurm", args.array_parallelism)
    runs = last_runs(asked)
    alone = nullcontext() if args.dry_run else claim(cluster.folder, "submit", wait=300)
    with alone:  # whoever comes second sees what the first one has submitted
        if args.cancel:
            return _cancel(cluster, states(runs, cluster.folder, cluster.slurm), args.dry_run)
        return _submit(args, asked, runs, cluster)


def _submit(args: argparse.Namespace, asked: Selection, runs: Sequence, cluster: Cluster) -> int:
    found = states(runs, cluster.folder, cluster.slurm)
    tasks, left = missing(plan(all_cells(asked)), found, args.retry)
    print(*describe(asked, tasks, found, cluster.site), sep="\n")
    if left:
        print(f"left alone: {len(left)}", *left, sep="\n")
    if not tasks:
        print(
            "nothing to submit; "
            + (
                "python repro/status.py follows it"
                if any(state.kind in LIVE for state in found.values())
                else "python repro/aggregate.py prints the table"
            )
        )
        return 0
    _check_data(tasks, args.dry_run or bool(cluster.site.slurm_python))
    planned = cluster.plan(tasks, found, args.retry)
    if args.dry_run:
        print(*(_about(array) for array in planned), *each(tasks, found), sep="\n")
        return 0
    print("submitting:", flush=True)
    for array, job in cluster.submit(planned):
        print(f"  job {job}: {_about(array).strip()}", flush=True)
    print("python repro/status.py shows how far they are; the same command submits what is missing then")
    return 0


def _check_data(tasks: Mapping[str, Task], only_told: bool) -> None:
    """Hundreds of jobs that fail for want of one file are prevented here; an image may have what the host has not."""
    asked = {task.run.cfg.DATASET.NAME: task.run.cfg.DATASET.ROOT for task in tasks.values()}
    absent = {name: file for name, root in asked.items() if not (file := data_file(name, root)).is_file()}
    if absent:
        words = (
            f"there is no {', '.join(map(str, absent.values()))}; `python repro/prepare.py {next(iter(absent))}` "
            "makes it, SEVAL_DATA says where else it is"
        )
        if not only_told:
            raise ConfigError(words)
        print(f"note: {words}")


def _about(array: Array) -> str:
    needed, count = array.resources, len(array.elements)
    names = sorted({task.run.cfg.DATASET.NAME for task in array.tasks})
    rows = list(dict.fromkeys(task.label.partition(", ")[0].removesuffix(" (prerequisite)") for task in array.tasks))
    what = ", ".join(rows[:3]) + (f" and {len(rows) - 3} more" if len(rows) > 3 else "")
    share = f", {needed.runs_per_gpu} runs on a GPU" if needed.runs_per_gpu > 1 else ""
    after = (
        ", each after its element of the level before"
        if array.after
        else f", after job {array.after_job}"
        if array.after_job
        else ""
    )
    return (
        f"  level {array.level}: {count} element{'s' * (count > 1)} of {what} on {', '.join(names)} "
        f"({needed.minutes} min, {needed.memory_gb * needed.runs_per_gpu:g} GB, {needed.cpus} cpus{share}){after}"
    )


def _cancel(cluster: Cluster, found: Mapping[str, State], dry_run: bool) -> int:
    live = {state.job.id for state in found.values() if state.job and state.job.live}
    if dry_run or not live:
        print(f"{len(live)} jobs would be ended" if live else "nothing of it is in the queue")
        return 0
    jobs, others = cluster.cancel(found)
    print(f"{len(jobs)} jobs ended; their runs keep their checkpoints")
    if others:
        print("with them, as they shared a GPU:", *others, sep="\n  ")
    return 0


def on_this_machine(args: argparse.Namespace, asked: Selection, again: str) -> int:
    """Everything missing, at once or one after another; returns the exit code."""
    runs = last_runs(asked)
    tasks, folder = plan(all_cells(asked)), Path(args.output_dir)
    found = states(runs, folder / "slurm", None)
    gpus = torch.cuda.device_count() if any(task.run.cfg.GPU_ID >= 0 for task in tasks.values()) else 0
    logs = folder / "submitit"
    cluster = Debug(logs) if args.cluster == "debug" else Local(logs, args.jobs, gpus)
    print(*describe(asked, tasks, found, sites.Site.read(sites.find(args.site))), str(cluster), sep="\n", flush=True)
    if not tasks:
        print("nothing to do; python repro/aggregate.py prints the table")
    if args.dry_run and tasks:
        print(*each(tasks, found), sep="\n")
    if not tasks or args.dry_run:
        return 0
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with cluster:
            failed = carry_out(tasks, cluster)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; its runs have been ended. The same command goes on from their checkpoints:\n  {again}",
            file=sys.stderr,
        )
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}; what was finished is kept, and the same command goes on from there", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    if failed:
        print(
            f"{len(failed)} of {len(tasks)} runs are missing:",
            *(f"  {tasks[name].label} ({name}): {reason}" for name, reason in failed.items()),
            f"to try again:\n  {again}",
            sep="\n",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """0: nothing is missing any more, or it is in the queue; 1: some runs failed; 2: bad input; 130: interrupted."""
    again = shlex.join(["python", "repro/submit.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        args = parse(argv)
        asked = select(args)
        return on_slurm(args, asked) if args.cluster == "slurm" else on_this_machine(args, asked, again)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RunBusy as error:
        print(f"error: {error}; wait for it, then submit what is missing", file=sys.stderr)
        return 1
    except (SlurmError, OSError) as error:
        print(
            f"error: {error}. What is in the queue stays there, and nothing is submitted twice: once that is mended, "
            f"the same command goes on\n  {again}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted; what is in the queue stays there. The same command goes on:\n  {again}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
