"""How far a table is: the state of every run, what failed and why, and when it will be done."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.interrupts import end_at_once

if __name__ == "__main__":  # the imports below take seconds
    end_at_once()

import argparse
from collections.abc import Callable, Sequence

from repro.launch.arguments import add_site_option
from repro.tables.command_line import Parser, add_narrowing, add_selection, performed, settled

EXAMPLES = """\
examples:
  python repro/status.py                            every table that has a run
  python repro/status.py --table 2                  a table of cells and seeds
  python repro/status.py --table 2 --watch          the same, printed again and again
  python repro/status.py --table 2 --failed         the error and the log of every run that failed
  python repro/status.py --all --json               every run, for other programs
"""
_LONGEST = 1_000_000  # seconds between two looks


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_selection(parser, required=False)
    add_narrowing(parser)
    add_site_option(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--failed", action="store_true", help="the error and the log of every run that failed")
    form.add_argument("--json", action="store_true", help="every run as JSON")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=30.0,
        metavar="SECONDS",
        help="print again, every 30 seconds by default",
    )
    args = settled(parser.parse_args(argv))
    if args.watch is not None and not 0 < args.watch <= _LONGEST:
        parser.error(f"--watch must be more than 0 and at most {_LONGEST} seconds, but is {args.watch:g}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2: bad input, or a damaged record; 130: interrupted."""
    return performed(lambda: parse(argv), _work)


def _work() -> Callable[[argparse.Namespace], int]:
    from repro.launch.board import show  # PyTorch takes seconds

    return show


if __name__ == "__main__":
    sys.exit(main())
