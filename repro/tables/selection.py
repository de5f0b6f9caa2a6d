"""Which cells a command is about: of one table, of several, of all of the paper, or a single configuration."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from repro.tables.table import TABLES, Cell, Table, find
from seval.config import load
from seval.errors import ConfigError
from seval.run import Run

Selection = dict[str, list[Cell]]  # by table


def add_options(parser: argparse.ArgumentParser) -> None:
    """--table, --all or --config, and what narrows them."""
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument(
        "--table", nargs="+", metavar="NAME", help="files in paper_tables/ (2 is table2), or paths ending in .yaml"
    )
    one.add_argument("--all", action="store_true", help="every table of the paper")
    one.add_argument("--config", metavar="FILE", help="a single configuration instead, with KEY VALUE pairs behind it")
    parser.add_argument("--rows", nargs="+", default=(), help="only these rows")
    parser.add_argument("--columns", nargs="+", default=(), help="only these columns")
    parser.add_argument("--seeds", nargs="+", type=int, default=(), help="these seeds instead of the table's")
    parser.add_argument("--output-dir", default="runs", help="folder of the runs' folders (default: runs)")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="laid over --config")


def select(args: argparse.Namespace) -> Selection:
    """The cells, by table. Raises `ConfigError`."""
    if args.overrides and not args.config:
        raise ConfigError(f"KEY VALUE pairs go with --config, but there is none: {' '.join(args.overrides)}")
    if len(args.overrides) % 2:
        raise ConfigError(
            f"KEY VALUE pairs are even in number, but there are {len(args.overrides)} words: {' '.join(args.overrides)}"
        )
    output = ["OUTPUT_DIR", args.output_dir]
    if args.config:
        if args.rows or args.columns:
            raise ConfigError("--rows and --columns choose from a table, but there is only --config")
        words = [*args.overrides, *output]
        seeds = args.seeds or [load(args.config, words).SEED]
        runs = {seed: Run(load(args.config, [*words, "SEED", seed])) for seed in seeds}
        return {args.config: [Cell(Path(args.config).stem, "", runs, ("test", "ema", "none", "top1", "median20"))]}
    asked = paper() if args.all else [find(name) for name in args.table]
    return {
        table.name: list(table.forcing(*_narrowed(table, asked, args), seeds=list(args.seeds)).cells(output))
        for table in asked
        if not args.all or _touched(table, args)
    }


def paper() -> list[Table]:
    """The paper's tables, in their order."""
    files = [file for file in TABLES.glob("table*.yaml") if re.fullmatch(r"table\d+", file.stem)]
    return [Table.read(file) for file in sorted(files, key=lambda file: int(file.stem[5:]))]


def _touched(table: Table, args: argparse.Namespace) -> bool:
    asked = ((args.rows, table.rows), (args.columns, table.columns))
    return all(not given or set(given) & set(own) for given, own in asked)


def _narrowed(table: Table, asked: Sequence[Table], args: argparse.Namespace) -> list[list[str]]:
    """Rows and columns of this table; where there are several, a name need only be in one of them."""
    narrowed = []
    for given, own, others in (
        (args.rows, table.rows, [each.rows for each in asked]),
        (args.columns, table.columns, [each.columns for each in asked]),
    ):
        narrowed.append([name for name in given if name in own or not any(name in other for other in others)])
    return narrowed


def last_runs(selection: Selection) -> list[Run]:
    """The runs that numbers are read off; what they stand on is in their chains."""
    return [run for cells in selection.values() for cell in cells for run in cell.runs.values()]


def all_cells(selection: Selection) -> list[Cell]:
    """Of all tables."""
    return [cell for cells in selection.values() for cell in cells]


def ids(cells: Sequence[Cell]) -> set[str]:
    """Of all runs of some cells, what they stand on included."""
    return {run.id for cell in cells for last in cell.runs.values() for run in last.chain()}
