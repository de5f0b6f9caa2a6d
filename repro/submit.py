"""Do the runs that a table still needs, each after its prerequisite; a run that has a record is never done again."""

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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.launch.environment import ignored
from repro.launch.ledger import alone
from repro.launch.local import Debug, Local, carry_out
from repro.launch.plan import Task, choose, plan
from repro.launch.queue import SlurmError
from repro.launch.site import Site, add_site_option, find_site
from repro.launch.slurm import Launcher
from repro.launch.states import LIVE, State, states
from repro.launch.summary import describe, describe_array, describe_each
from repro.tables.selection import Parser, Selection, add_options, select
from seval.data.hdf5 import data_file
from seval.errors import ConfigError, RunBusy

EXAMPLES = """\
examples:
  python repro/submit.py --table 2 --dry-run                what is missing, in how many jobs, for how many GPU-hours
  python repro/submit.py --table 2                          on a cluster: job arrays; elsewhere: all its cores or GPUs
  python repro/submit.py --all                              every table of the paper; runs they share are done once
  python repro/submit.py --table 2 --rows "w/ SEVAL" --seeds 79
  python repro/submit.py --config configs/cifar10/fixmatch_seval_load.yaml DATASET.CIFAR10.NUM_LABELED_HEAD 500
  python repro/submit.py --table 2 --retry oom              again, with twice the memory
  python repro/submit.py --table 2 --cancel                 end all its jobs in the queue
A second call, at any time, submits only missing runs. Then: python repro/status.py, python repro/aggregate.py
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    _add_own_options(parser)
    add_site_option(parser)
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


def _add_own_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cluster",
        choices=("slurm", "local", "debug"),
        help="slurm: job arrays; local: processes on this machine; debug: one run after another, in this process "
        "(default: slurm where sbatch is found, else local)",
    )
    parser.add_argument("--jobs", type=int, default=0, help="local: runs at once (default: one per GPU, else per core)")
    parser.add_argument(
        "--array-parallelism", type=int, default=0, metavar="N", help="slurm: elements of an array that run at once"
    )
    parser.add_argument(
        "--retry",
        nargs="+",
        choices=("oom", "crashed", "timeout"),
        default=(),
        help="slurm: only runs that failed in this way, and runs that depend on them; oom with twice the memory, "
        "timeout with twice the time",
    )
    parser.add_argument(
        "--cancel",
        action="store_true",
        help="slurm: end what these tables have in the queue, including runs that other tables share",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")


def on_slurm(args: argparse.Namespace, asked: Selection) -> int:
    """Submit, or cancel with --cancel, or only print with --dry-run. Raises `SlurmError`, `RunBusy`."""
    launcher = Launcher(Site.read(find_site(args.site)), Path(args.output_dir) / "slurm", args.array_parallelism)
    if not args.dry_run:
        launcher.check()
    only = nullcontext() if args.dry_run else alone(launcher.folder)
    with only:  # a second submitter then sees what the first has submitted
        found = states((use.run for use in asked.runs().values()), launcher.folder, launcher.queue)
        return _cancel(launcher, found, args.dry_run) if args.cancel else _submit(args, asked, found, launcher)


def _submit(args: argparse.Namespace, asked: Selection, found: Mapping[str, State], launcher: Launcher) -> int:
    tasks, left = choose(plan(asked), found, args.retry)
    print(*describe(asked, asked.runs().values(), tasks, found, launcher.site), sep="\n")
    if left:
        print(f"left alone: {len(left)}", *(f"  {task.run.id}  {task.use}: {why}" for task, why in left), sep="\n")
    if not tasks:
        live = any(state.kind in LIVE for state in found.values())
        follow = "status.py shows how far it is" if live else "aggregate.py prints the table"
        print(f"nothing to submit; python repro/{follow}")
        return 0
    _check_data(tasks, args.dry_run or bool(launcher.site.slurm_python))
    planned = launcher.plan(tasks, found, args.retry)
    if unused := ignored():
        print(f"note: {', '.join(unused)} of the environment are not used; the site file says what sbatch is asked for")
    if args.dry_run:
        print(*map(describe_array, planned), *describe_each(tasks, found), sep="\n")
        return 0
    print("submitting:", flush=True)
    for array, job in launcher.submit(planned):
        print(f"  job {job}: {describe_array(array).strip()}", flush=True)
    print("python repro/status.py shows how far they are; the same command submits what is missing then")
    return 0


def _check_data(tasks: Mapping[str, Task], only_print: bool) -> None:
    """Prevent hundreds of jobs that fail because a file is missing; an image may have a file that the host has not."""
    asked = {task.run.cfg.DATASET.NAME: task.run.cfg.DATASET.ROOT for task in tasks.values()}
    absent = {name: file for name, root in asked.items() if not (file := data_file(name, root)).is_file()}
    if absent:
        message = (
            f"there is no {', '.join(map(str, absent.values()))}; `python repro/prepare.py {next(iter(absent))}` "
            "makes it, and SEVAL_DATA names another folder"
        )
        if not only_print:
            raise ConfigError(message)
        print(f"note: {message}")


def _cancel(launcher: Launcher, found: Mapping[str, State], dry_run: bool) -> int:
    live = {state.job.id for state in found.values() if state.job and state.job.live}
    if unknown := {state.job.submission.name for state in found.values() if state.job and state.kind == "unknown"}:
        print(f"what is unknown is left alone; `scancel --name={','.join(sorted(unknown))}` ends it, if it is there")
    if dry_run or not live:
        print(f"{len(live)} jobs would be ended" if live else "nothing of it is in the queue")
        return 0
    jobs, others = launcher.cancel(found)
    print(f"{len(jobs)} jobs ended; their runs keep their checkpoints")
    if others:
        print("these ended with them, as they shared a GPU:", *others, sep="\n  ")
    return 0


def on_this_machine(args: argparse.Namespace, asked: Selection, again: str) -> int:
    """Do all missing runs, at once or one after another; returns the exit code."""
    runs, tasks, folder = asked.runs().values(), plan(asked), Path(args.output_dir)
    found = states((use.run for use in runs), folder / "slurm", None)
    gpus = torch.cuda.device_count() if any(task.run.cfg.GPU_ID >= 0 for task in tasks.values()) else 0
    logs = folder / "submitit"
    machine = Debug(logs) if args.cluster == "debug" else Local(logs, args.jobs, gpus)
    site = Site.read(find_site(args.site))
    print(*describe(asked, runs, tasks, found, site), str(machine), sep="\n", flush=True)
    if not tasks:
        print("nothing to do; python repro/aggregate.py prints the table")
    if args.dry_run and tasks:
        print(*describe_each(tasks, found), sep="\n")
    return 0 if args.dry_run or not tasks else _carry_out(tasks, machine, again)


def _carry_out(tasks: Mapping[str, Task], machine: Debug | Local, again: str) -> int:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with machine:
            failed = carry_out(tasks, machine)
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; the runs have been ended. The same command resumes from their checkpoints:\n  {again}",
            file=sys.stderr,
        )
        return 130
    except (OSError, ValueError) as error:
        print(f"error: {error}; finished runs are kept, and the same command does the others", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    if failed:
        print(
            f"{len(failed)} of {len(tasks)} runs are missing:",
            *(f"  {tasks[name].use} ({name}): {reason}" for name, reason in failed.items()),
            f"to try again:\n  {again}",
            sep="\n",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """0: no run is missing, or the rest is in the queue; 1: some runs failed; 2: bad input; 130: interrupted."""
    again = shlex.join(["python", "repro/submit.py", *(sys.argv[1:] if argv is None else argv)])
    try:
        args = parse(argv)
        asked = select(args)
        return on_slurm(args, asked) if args.cluster == "slurm" else on_this_machine(args, asked, again)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RunBusy as error:
        print(f"error: {error}; wait for it, then submit what is missing", file=sys.stderr)
        return 1
    except (SlurmError, OSError) as error:
        print(
            f"error: {error}. Jobs in the queue stay there, and nothing is submitted twice. Once the cause is fixed, "
            f"repeat the same command\n  {again}",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"\ninterrupted; jobs in the queue stay there. To continue, repeat\n  {again}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
