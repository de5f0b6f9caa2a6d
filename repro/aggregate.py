"""Rebuild a table from the records of its runs, beside the reported numbers, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.interrupts import end_at_once, raised

if __name__ == "__main__":  # the imports below take seconds
    end_at_once()

import argparse
import time
from collections.abc import Sequence
from contextlib import suppress

from repro.tables.command_line import Parser, add_selection, command, repeated, reported, say
from repro.tables.page import comma_separated, latex, markdown, of_one
from repro.tables.reading import PROTOCOLS
from repro.tables.selection import Selection, asked_tables, is_open, naming, select
from seval.files import replace, told

EXAMPLES = """\
examples:
  python repro/aggregate.py                                   every table that has a record; says which
  python repro/aggregate.py --table demo                      writes paper_tables/demo.md, .csv and .tex
  python repro/aggregate.py --table demo --protocol mean20    another number from the same records; retrains nothing
  python repro/aggregate.py --table demo --strict             exit code 1 while runs are missing
  python repro/aggregate.py --table 2                         table 2 of the paper: short for table2
  python repro/aggregate.py --config configs/tiny/fixmatch.yaml SEED 1    the number of a single configuration
"""
_LEFT_OVER = 3600  # seconds after which a file that was being written is that of a process that was killed


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_selection(parser, required=False)
    parser.add_argument("--protocol", choices=PROTOCOLS, help="read this protocol instead of the table's")
    parser.add_argument("--out", type=Path, help="folder to write to (default: the folder of the table's file)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if runs of a cell are missing")
    args = parser.parse_args(argv)
    if args.config and args.out:
        parser.error("--out is the folder of a table's pages, but --config has none: its number is only printed")
    if args.seeds and not args.config:
        parser.error("--seeds chooses the runs of --config; a table says its own seeds")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 where --strict finds a cell with missing runs; 2: bad input, or a damaged record; 130: interrupted."""
    return reported(lambda: _aggregate(parse(argv)))


def _aggregate(args: argparse.Namespace) -> int:
    if args.config:
        asked = select(args)
        say(*map(of_one, asked.cells()))
        return _missing(args, asked)
    output = "runs" if args.output_dir is None else args.output_dir
    options = [] if args.output_dir is None else ["--output-dir", output]
    found = {}
    for table in asked_tables(args):
        table = table.forcing(protocol=args.protocol)
        cells = list(table.cells(["OUTPUT_DIR", output]))
        if is_open(args) and not any(run.done() for cell in cells for run in cell.runs.values()):
            continue
        found[table.name] = cells
        page = markdown(table, cells, options)
        folder = args.out or table.folder
        pages = {".md": page, ".csv": comma_separated(table, cells), ".tex": latex(table, cells)}
        write(folder, table.name, pages)
        say(*([] if is_open(args) else [page]), f"{folder / table.name}.md, .csv, .tex")
    if not found:
        words = f"no table has a record in {output}; this lists the tables:\n  {repeated('submit', [])}"
        say(words, error=True)
        return int(args.strict)
    return _missing(naming(args, found) if is_open(args) else args, Selection(found))


def _missing(args: argparse.Namespace, asked: Selection) -> int:
    """Say which records are damaged and how many cells lack a run; returns the exit code."""
    uses, cells = asked.runs(), asked.cells()
    damaged = {id: words for cell in cells for id, words in cell.records.damaged.items()}
    for id, words in damaged.items():
        say(f"error: {uses[id].label}: {words}", error=True)
    short = sum(len(cell.values()) < len(cell.runs) for cell in cells)
    if short:
        words = f"runs of {short} of {len(cells)} cells are missing; this does them:\n  {command('submit', args)}"
        say(words, error=True)
    return 2 if damaged else 1 if short and args.strict else 0


def write(folder: Path, name: str, pages: dict[str, str]) -> None:
    """Write the pages, by suffix, each whole or not at all, and remove what killed processes have left of them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise told(error, "make", folder) from None
    with raised():
        for suffix, text in pages.items():
            replace(folder / f"{name}{suffix}", text.encode("utf-8", "surrogateescape"))
        for aside in folder.glob(".*"):
            begun = tuple(f".{name}{suffix}." for suffix in pages)
            with suppress(OSError):
                if aside.name.startswith(begun) and aside.stat().st_mtime < time.time() - _LEFT_OVER:
                    aside.unlink()


if __name__ == "__main__":
    sys.exit(main())
