"""Does the runs that are asked for and missing: on SLURM, or on this machine."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Container, Mapping, Sequence
from contextlib import nullcontext

import torch

from repro.launch.costs import Costs
from repro.launch.data import missing_data
from repro.launch.environment import ignored
from repro.launch.ledger import alone
from repro.launch.local import Debug, Local, carry_out
from repro.launch.plan import Task, choose, plan
from repro.launch.queue import SlurmError
from repro.launch.site import Site, find_site
from repro.launch.slurm import Launcher
from repro.launch.states import State, states
from repro.launch.summary import (
    describe,
    describe_array,
    describe_each,
    left_alone,
    nothing_left,
    other_code,
    overruled,
    processor,
)
from repro.tables.command_line import command, say
from repro.tables.interrupts import INTERRUPTED, below_the_sign, raised
from repro.tables.overview import overview
from repro.tables.selection import Selection, is_open, select
from seval.errors import ConfigError, RunBusy


def _set_aside(asked: Selection, dry_run: bool) -> None:
    """Move away what is done of the runs that are asked for, though not what they depend on. Raises `RunBusy`."""
    for run in [use.run for use in asked.runs().values() if not use.is_prerequisite and use.run.done()]:
        where = asked.output / ".old" if dry_run else run.set_aside()
        say(f"{run.id}  {run.name} is done again; what was there {'would go to' if dry_run else 'is in'} {where}")


def on_slurm(args: argparse.Namespace, asked: Selection, damaged: Container[str]) -> int:
    """Submit, or cancel with --cancel, or only print with --dry-run. Raises `SlurmError`, `RunBusy`."""
    launcher = Launcher(Site.read(find_site(args.site)), asked.output / "slurm", args.array_parallelism)
    if not args.dry_run:
        launcher.check()
    only = nullcontext() if args.dry_run else alone(launcher.folder)
    with only:  # a second submitter then sees what the first has submitted
        found = states((use.run for use in asked.runs().values()), launcher.folder, launcher.queue)
        if args.cancel:
            return _cancel(launcher, found, args.dry_run)
        kinds = args.retry and [*args.retry, *(["new"] if "done" in args.retry else [])]
        tasks, left = choose(_sound(asked, damaged), found, kinds)
        return _submit(args, asked, tasks, left, found, launcher)


def _submit(
    args: argparse.Namespace,
    asked: Selection,
    tasks: Mapping[str, Task],
    left: Sequence[tuple[Task, str]],
    found: Mapping[str, State],
    launcher: Launcher,
) -> int:
    runs, site = asked.runs().values(), launcher.site
    costs = Costs((use.run for use in runs), site, processor(site, slurm=True))
    say(*describe(asked, runs, tasks, found, costs), *left_alone(args, left, found), *other_code(args, found))
    if not tasks:
        say("nothing to submit", *nothing_left(args, asked, found, left))
        return 0
    _check_data(tasks, args.dry_run or bool(launcher.site.slurm_python))
    planned = launcher.plan(tasks, found, args.retry)
    if unused := ignored():
        say(f"note: {', '.join(unused)} of the environment are not used; the site file says what sbatch is asked for")
    say(*overruled("slurm", args.overrides, site.gpu))
    if args.dry_run:
        say(*map(describe_array, planned), *describe_each(tasks, found))
        return 0
    say("submitting:")
    for array, job in launcher.submit(planned):
        say(f"  job {job}: {describe_array(array).strip()}")
    say("the same command submits what is missing then; how far they are:", f"  {command('status', args)}")
    return 0


def _check_data(tasks: Mapping[str, Task], only_print: bool) -> None:
    """Prevent hundreds of failures because a file is missing; an image may have a file that the host has not."""
    if absent := missing_data(task.run for task in tasks.values()):
        if not only_print:
            raise ConfigError(absent)
        say(f"note: {absent}")


def _cancel(launcher: Launcher, found: Mapping[str, State], dry_run: bool) -> int:
    live = {state.job.id for state in found.values() if state.job and state.job.live}
    if unknown := {state.job.submission.name for state in found.values() if state.job and state.kind == "unknown"}:
        say(f"what is unknown is left alone; `scancel --name={','.join(sorted(unknown))}` ends it, if it is there")
    if dry_run or not live:
        say(f"{len(live)} jobs would be ended" if live else "nothing of it is in the queue")
        return 0
    jobs, others = launcher.cancel(found)
    say(f"{len(jobs)} jobs ended; their runs keep their checkpoints")
    if others:
        say("these ended with them, as they shared a GPU:", *(f"  {other}" for other in others))
    return 0


def _sound(asked: Selection, damaged: Container[str]) -> dict[str, Task]:
    """The runs that are missing, without those that depend on a damaged record."""
    return {id: task for id, task in plan(asked).items() if not any(run.id in damaged for run in task.run.chain())}


def on_this_machine(args: argparse.Namespace, asked: Selection, damaged: Container[str], again: str) -> int:
    """Do all missing runs, at once or one after another; returns the exit code."""
    runs, tasks, site = asked.runs().values(), _sound(asked, damaged), Site.read(find_site(args.site))
    found, logs = states((use.run for use in runs), asked.output / "slurm", None), asked.output / "submitit"
    gpus = torch.cuda.device_count() if any(task.run.cfg.GPU_ID >= 0 for task in tasks.values()) else 0
    machine = Debug(logs) if args.machine == "debug" else Local(logs, args.jobs, gpus)
    costs = Costs((use.run for use in runs), site, processor(site, slurm=False))
    say(*describe(asked, runs, tasks, found, costs), *other_code(args, found), machine)
    if not tasks:
        say("nothing to do", *nothing_left(args, asked, found, ()))
        return 0
    _check_data(tasks if args.machine == "local" else {}, only_print=True)
    say(*overruled(args.machine, args.overrides, bool(gpus)))
    if args.dry_run:
        say(*describe_each(tasks, found))
    return 0 if args.dry_run else _carry_out(tasks, machine, again)


def _carry_out(tasks: Mapping[str, Task], machine: Debug | Local, again: str) -> int:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with machine:
            failed = carry_out(tasks, machine)
    except KeyboardInterrupt:
        words = "interrupted; the runs have been ended. The same command resumes from their checkpoints:"
        say(f"{below_the_sign()}{words}\n  {again}", error=True)
        return INTERRUPTED
    except (OSError, ValueError) as error:
        say(f"error: {error}; finished runs are kept, and the same command does the others", error=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)
    if failed:
        lines = (f"  {tasks[name].use} ({name}): {reason}" for name, reason in failed.items())
        say(f"{len(failed)} of {len(tasks)} runs are missing:", *lines, f"to try again:\n  {again}", error=True)
    return 1 if failed else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def submit(args: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit code."""
    again = args.again
    if is_open(args):
        say(overview())
        return 0
    try:
        with raised():
            asked = select(args)
            if "done" in args.retry:
                _set_aside(asked, args.dry_run)
            damaged = {} if args.cancel else asked.damaged()
            say(*(f"error: {words}" for words in damaged.values()), error=True)
            if args.machine == "slurm":
                code = on_slurm(args, asked, damaged)
            else:
                code = on_this_machine(args, asked, damaged, again)
            return code or (2 if damaged else 0)
    except BrokenPipeError:
        raise
    except RunBusy as error:
        say(f"error: {error}; wait for it, then submit what is missing", error=True)
        return 1
    except (SlurmError, OSError) as error:
        words = "Jobs in the queue stay there, and nothing is submitted twice. Once the cause is fixed, repeat:"
        say(f"error: {error}. {words}\n  {again}", error=True)
        return 1
    except KeyboardInterrupt:
        say(f"{below_the_sign()}interrupted; jobs in the queue stay there. To continue, repeat\n  {again}", error=True)
        return INTERRUPTED
