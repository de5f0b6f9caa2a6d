"""Do the runs that a table still needs, each after its prerequisite; a run that has a record is never done again."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.interrupts import end_at_once

if __name__ == "__main__":  # the imports below take seconds
    end_at_once()

import argparse
import shutil
from collections.abc import Callable, Sequence

from repro.launch.arguments import add_own_options, add_site_option
from repro.tables.command_line import Parser, add_narrowing, add_selection, is_open, performed, repeated, settled

EXAMPLES = """\
examples:
  python repro/submit.py --table 2 --dry-run                what is missing, in how many jobs, for how many GPU-hours
  python repro/submit.py --table 2                          on a cluster: job arrays; elsewhere: all its cores or GPUs
  python repro/submit.py --all                              every table of the paper; runs they share are done once
  python repro/submit.py --table 2 --rows "w/ SEVAL" --seeds 79
  python repro/submit.py --config configs/cifar10/fixmatch_seval_load.yaml DATASET.CIFAR10.NUM_LABELED_HEAD 500
  python repro/submit.py --table 2 --retry oom              again, with twice the memory
  python repro/submit.py --table 2 --cancel                 end all its jobs in the queue
A second call, at any time, submits only missing runs. Then, for the same table: repro/status.py, repro/aggregate.py
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `machine` is the cluster that is used. Raises `ConfigError` where it is wrong."""
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_selection(parser, required=False)
    add_narrowing(parser)
    add_own_options(parser)
    add_site_option(parser)
    args = settled(parser.parse_args(argv))
    if is_open(args) and {*(sys.argv[1:] if argv is None else argv)} - {"--dry-run"}:
        parser.error("one of --table, --all and --config is needed; without a word, the tables are listed")
    args.machine = args.cluster or ("slurm" if shutil.which("sbatch") else "local")
    if args.jobs < 0 or args.array_parallelism < 0:
        parser.error(f"--jobs and --array-parallelism must be positive, but are {args.jobs}, {args.array_parallelism}")
    if args.machine != "slurm" and ({*args.retry} - {"done"} or args.cancel):
        parser.error(
            f"--retry and --cancel are for --cluster slurm; on this machine ({args.machine}) a second call "
            "tries again what failed, and Ctrl-C ends it"
        )
    if args.retry and args.cancel:
        parser.error("--retry submits runs and --cancel ends them; give one of the two")
    if args.jobs and args.machine != "local":
        parser.error(f"--jobs is for --cluster local, but this is {args.machine}; of SLURM it is --array-parallelism")
    if args.array_parallelism and args.machine != "slurm":
        parser.error(f"--array-parallelism is for --cluster slurm, but this is {args.machine}; here it is --jobs")
    args.again = repeated("submit", sys.argv[1:] if argv is None else argv)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0: no run is missing, or the rest is in the queue; 1: some runs failed; 2: bad input, or a damaged record.

    130: interrupted.
    """
    return performed(lambda: parse(argv), _work)


def _work() -> Callable[[argparse.Namespace], int]:
    from repro.launch.submitting import submit  # PyTorch takes seconds

    return submit


if __name__ == "__main__":
    sys.exit(main())
