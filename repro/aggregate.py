"""Rebuild a table from the records of its runs, beside the reported numbers, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.page import comma_separated, latex, markdown
from repro.tables.reading import PROTOCOLS
from repro.tables.selection import Parser
from repro.tables.table import TABLES, find_table
from seval.files import replace

EXAMPLES = """\
examples:
  python repro/aggregate.py --table demo                      writes paper_tables/demo.md, .csv and .tex
  python repro/aggregate.py --table demo --protocol mean20    another number from the same records; retrains nothing
  python repro/aggregate.py --table demo --strict             exit code 1 while runs are missing
  python repro/aggregate.py --table 2                         table 2 of the paper: short for table2
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; `ConfigError` where it is wrong."""
    parser = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--table",
        required=True,
        help="name of a file in paper_tables/ (2 is short for table2), or a path ending in .yaml",
    )
    parser.add_argument("--output-dir", default="runs", help="folder that holds the folders of runs (default: runs)")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="read this protocol instead of the table's")
    parser.add_argument("--out", default=TABLES, type=Path, help="folder to write to (default: paper_tables)")
    parser.add_argument("--strict", action="store_true", help="exit code 1 if runs of a cell are missing")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 where --strict finds a cell with missing runs; 2: bad input."""
    try:
        args = parse(argv)
        table = find_table(args.table).forcing(protocol=args.protocol)
        cells = list(table.cells(["OUTPUT_DIR", args.output_dir]))
        page = markdown(table, cells)
        args.out.mkdir(parents=True, exist_ok=True)
        for suffix, text in ((".md", page), (".csv", comma_separated(table, cells)), (".tex", latex(table, cells))):
            replace(args.out / f"{table.name}{suffix}", text.encode())
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{page}\n{args.out / table.name}.md, .csv, .tex")
    short = sum(len(cell.values()) < len(cell.runs) for cell in cells)
    if short:
        print(
            f"runs of {short} of {len(cells)} cells are missing; python repro/submit.py --table {args.table} does them",
            file=sys.stderr,
        )
    return 1 if short and args.strict else 0


if __name__ == "__main__":
    sys.exit(main())
