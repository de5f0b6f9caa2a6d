"""Rebuild a table from the records of its runs, beside the reported numbers, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.interrupts import end_at_once

if __name__ == "__main__":  # the imports below take seconds
    end_at_once()

import argparse
from collections.abc import Callable, Sequence

from repro.tables.command_line import Parser, add_selection, performed, settled
from repro.tables.reading import PROTOCOLS

EXAMPLES = """\
examples:
  python repro/aggregate.py                                   every table that has a record; says which
  python repro/aggregate.py --table demo                      writes paper_tables/demo.md, .csv and .tex
  python repro/aggregate.py --table demo --protocol mean20    another number from the same records; retrains nothing
  python repro/aggregate.py --table demo --strict             exit code 1 while runs are missing
  python repro/aggregate.py --table 2                         table 2 of the paper: short for table2
  python repro/aggregate.py --config configs/tiny/fixmatch.yaml SEED 1    the number of a single configuration
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_selection(parser, required=False)
    parser.add_argument("--protocol", choices=PROTOCOLS, help="read this protocol instead of the table's")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the folder of the table's file)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if runs of a cell are missing")
    args = settled(parser.parse_args(argv))
    if args.config and args.out:
        parser.error("--out is the folder of a table's pages, but --config has none: its number is only printed")
    if args.seeds and not args.config:
        parser.error("--seeds chooses the runs of --config; a table says its own seeds")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 where --strict finds a cell with missing runs; 2: bad input, or a damaged record; 130: interrupted."""
    return performed(lambda: parse(argv), _work)


def _work() -> Callable[[argparse.Namespace], int]:
    from repro.tables.aggregation import aggregate  # PyTorch takes seconds

    return aggregate


if __name__ == "__main__":
    sys.exit(main())
