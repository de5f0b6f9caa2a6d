"""One page about tables and their runs: numbers with verdicts, curves, curricula, splits, origin, what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.interrupts import end_at_once

if __name__ == "__main__":  # the imports below take seconds
    end_at_once()

import argparse
from collections.abc import Callable, Sequence

from repro.tables.command_line import Parser, named, performed, settled

EXAMPLES = """\
examples:
  python repro/report.py                               report/index.html, of every table that has a run
  python repro/report.py --table demo                  of this one only, also where nothing is done yet
  python repro/report.py --table demo --figures DIR    each figure as pdf, svg and png as well
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = "files in paper_tables/ (2 is table2), or paths ending in .yaml (default: every table with a run)"
    parser.add_argument("--table", nargs="+", type=named, metavar="NAME", help=words)
    parser.add_argument("--output-dir", metavar="DIR", help="folder that holds the folders of runs (default: runs)")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: report)")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write each figure as pdf, svg and png there, too")
    parser.add_argument("overrides", nargs="*", metavar="TABLE", help="the same as after --table")
    parser.set_defaults(all=False, config=None)
    args = settled(parser.parse_args(argv))
    if args.overrides or args.config:
        parser.error(f"{args.config or args.overrides[0]!r} is no table")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2: bad input, or a damaged file of a run, without which the page is written; 130: interrupted."""
    return performed(lambda: parse(argv), _work)


def _work() -> Callable[[argparse.Namespace], int]:
    from repro.pages.writing import write  # PyTorch takes seconds

    return write


if __name__ == "__main__":
    sys.exit(main())
