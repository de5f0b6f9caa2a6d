"""The options of submit.py that no other script has, and the one that names a site."""

from __future__ import annotations

import argparse

from repro.tables.command_line import named, whole


def add_own_options(parser: argparse.ArgumentParser) -> None:
    """Where and how runs are done; which runs is said by the options that all scripts share."""
    parser.add_argument(
        "--cluster",
        choices=("slurm", "local", "debug"),
        help="slurm: job arrays; local: processes on this machine; debug: one run after another, in this process "
        "(default: slurm where sbatch is found, else local)",
    )
    parser.add_argument(
        "--jobs", type=whole, default=0, help="local: runs at once (default: one per GPU, else per core)"
    )
    parser.add_argument(
        "--array-parallelism", type=whole, default=0, metavar="N", help="slurm: elements of an array that run at once"
    )
    parser.add_argument(
        "--retry",
        nargs="+",
        choices=("oom", "crashed", "timeout", "done"),
        default=(),
        help="slurm: only runs that failed in this way, and runs that depend on them; oom with twice the memory, "
        "timeout with twice the time; everywhere: done, to do again what is done, such as after a change of the code; "
        "what was there is moved to OUTPUT_DIR/.old",
    )
    parser.add_argument(
        "--cancel",
        action="store_true",
        help="slurm: end what these tables have in the queue, including runs that other tables share",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan, run nothing")


def add_site_option(parser: argparse.ArgumentParser) -> None:
    """--site."""
    parser.add_argument(
        "--site",
        type=named,
        metavar="FILE",
        help="slurm: facts about the site (default: SEVAL_SITE if set, else slurm/site.yaml if there is such a file "
        "here or in the checkout, else slurm/cluster.yaml)",
    )
