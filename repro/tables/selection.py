"""Which cells a command is about: of one table, of several, of all of the paper, or a single configuration."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from repro.tables.reading import Reading
from repro.tables.table import Cell, Table, find_table, tables_of_the_paper
from seval.config import load
from seval.errors import ConfigError
from seval.run import Run


@dataclass
class Use:
    """A run and the cell it is for: the first that reads it or, where none does, the first that depends on it."""

    run: Run
    cell: Cell
    seed: int
    tables: list[str]  # names of all tables that need the run; that of the cell is among them

    @property
    def is_prerequisite(self) -> bool:
        """Whether no number is read from it, only another run depends on it."""
        return self.cell.runs[self.seed].id != self.run.id

    def __str__(self) -> str:
        """`w/ SEVAL (prerequisite), CIFAR10-LT n1=500, seed 79`."""
        row = f"{self.cell.row} (prerequisite)" if self.is_prerequisite else self.cell.row
        return ", ".join(filter(None, (row, self.cell.column, f"seed {self.seed}")))


@dataclass(frozen=True)
class Selection:
    """The cells that are asked for, by table."""

    tables: dict[str, list[Cell]]

    def cells(self) -> list[Cell]:
        """Of all tables."""
        return [cell for cells in self.tables.values() for cell in cells]

    def runs(self) -> dict[str, Use]:
        """By id, every run that a cell reads or that such a run depends on, each once and after its prerequisite."""
        found: dict[str, Use] = {}
        for name, cells in self.tables.items():
            for cell in cells:
                for seed, last in cell.runs.items():
                    for run in last.chain():
                        use = found.setdefault(run.id, Use(run, cell, seed, []))
                        if name not in use.tables:
                            use.tables.append(name)
                        if run is last and use.is_prerequisite:
                            use.cell, use.seed = cell, seed
        return found


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are reported in one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (--help has examples)")


def add_options(parser: argparse.ArgumentParser) -> None:
    """--table, --all or --config, and what narrows them."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--table", nargs="+", metavar="NAME", help="files in paper_tables/ (2 is table2), or paths ending in .yaml"
    )
    group.add_argument("--all", action="store_true", help="every table of the paper")
    group.add_argument(
        "--config", metavar="FILE", help="a single configuration instead, followed by KEY VALUE pairs if needed"
    )
    parser.add_argument("--rows", nargs="+", default=(), help="only these rows")
    parser.add_argument("--columns", nargs="+", default=(), help="only these columns")
    parser.add_argument("--seeds", nargs="+", type=int, default=(), help="these seeds instead of the table's")
    parser.add_argument("--output-dir", default="runs", help="folder that holds the folders of runs (default: runs)")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="settings that override those of --config")


def select(args: argparse.Namespace) -> Selection:
    """The cells that the command line asks for. Raises `ConfigError`."""
    if args.overrides and not args.config:
        raise ConfigError(f"KEY VALUE pairs go with --config, which is missing: {' '.join(args.overrides)}")
    if len(args.overrides) % 2:
        words = " ".join(args.overrides)
        raise ConfigError(f"settings are KEY VALUE pairs, but {len(args.overrides)} words are given: {words}")
    output = ["OUTPUT_DIR", args.output_dir]
    if args.config:
        return Selection({args.config: [_single_cell(args, [*args.overrides, *output])]})
    asked = tables_of_the_paper() if args.all else [find_table(name) for name in args.table]
    return Selection(
        {
            table.name: list(table.forcing(*_narrowed(table, asked, args), seeds=list(args.seeds)).cells(output))
            for table in asked
            if not args.all or _touched(table, args)
        }
    )


def _single_cell(args: argparse.Namespace, settings: Sequence[object]) -> Cell:
    if args.rows or args.columns:
        raise ConfigError("--rows and --columns choose from a table, but --config names a single configuration")
    seeds = args.seeds or [load(args.config, settings).SEED]
    runs = {seed: Run(load(args.config, [*settings, "SEED", seed])) for seed in seeds}
    return Cell(Path(args.config).stem, "", runs, Reading())


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
