"""One page about tables and their runs: numbers with verdicts, curves, curricula, splits, origin, what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.interrupts import end_at_once, raised

if __name__ == "__main__":  # the imports below take seconds
    end_at_once()

import argparse
from collections.abc import Sequence

from repro.pages.document import Report
from repro.tables import table as tables
from repro.tables.command_line import Parser, named, repeated, reported, say
from repro.tables.selection import asked_tables
from seval.errors import ConfigError
from seval.files import replace, told

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
    args = parser.parse_args(argv)
    args.all, args.overrides, args.config = False, [], None
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """0; 2: bad input, or a damaged file of a run, without which the page is written; 130: interrupted."""
    return reported(lambda: _report(parse(argv)))


def _report(args: argparse.Namespace) -> int:
    report = Report(asked_tables(args) if args.table else started(args), args)
    path = args.out / "index.html"
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise told(error, "make", args.out) from None
    page = report.html(args.out).encode("utf-8", "surrogateescape")
    with raised():
        replace(path, page)
    say(f"{path}: {', '.join(report.tables)}; {len(page) / 1e6:.1f} MB")
    if args.figures:
        with raised():
            say(f"{args.figures}: {len(report.save(args.figures))} files")
    damaged = report.damaged
    say(*(f"error: {words}" for words in damaged.values()), error=True)
    return 2 if damaged else 0


def started(args: argparse.Namespace) -> list[tables.Table]:
    """The tables here of which a run has been started. Raises `ConfigError` if there is none."""
    output = "runs" if args.output_dir is None else args.output_dir
    folders = {path.name for path in Path(output).glob("*/") if any(path.glob("[rm]e*.json*"))}
    known = [tables.Table.read(path) for path in sorted(tables.TABLES.glob("*.yaml"), key=_order)] if folders else []
    found = [
        table
        for table in known
        if any(run.id in folders for cell in table.cells(["OUTPUT_DIR", output]) for run in cell.runs.values())
    ]
    if not found:
        first = repeated("submit", ["--table", "demo", *(["--output-dir", output] if args.output_dir else [])])
        where = f"no table in {tables.TABLES.name}/ has a run in {output}"
        raise ConfigError(f"{where}; this does the runs of one: {first}")
    return found


def _order(path: Path) -> tuple[int, str]:
    number = path.stem.removeprefix("table")
    return (int(number), "") if number.isdecimal() else (0, path.stem)


if __name__ == "__main__":
    sys.exit(main())
