"""Which cells a command is about: of one table, of several, of all of the paper, or a single configuration."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from repro.tables.command_line import is_open
from repro.tables.reading import Reading, Records
from repro.tables.table import Cell, Table, all_tables, find_table, tables_of_the_paper
from repro.tables.yaml_file import check_known, check_level
from seval.config import flatten, load
from seval.defaults import DEFAULTS
from seval.errors import ConfigError
from seval.keys import pairs
from seval.run import Run
from seval.text import printable


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

    @property
    def label(self) -> str:
        """The same after the name of the first table that needs it."""
        return f"{printable(self.tables[0])}: {self}"

    def __str__(self) -> str:
        """`w/ SEVAL (prerequisite), CIFAR10-LT n1=500, seed 79`."""
        row = f"{self.cell.row} (prerequisite)" if self.is_prerequisite else self.cell.row
        return printable(", ".join(filter(None, (row, self.cell.column, f"seed {self.seed}"))))


@dataclass(frozen=True)
class Selection:
    """The cells that are asked for, by table, and the folder of their runs."""

    tables: dict[str, list[Cell]]
    output: Path = Path("runs")

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

    def only(self, tables: Collection[str]) -> Selection:
        """The same of some of its tables."""
        return Selection({name: self.tables[name] for name in self.tables if name in tables}, self.output)

    def damaged(self) -> dict[str, str]:
        """By id, a line about each record that cannot be read or is not that of its run."""
        found = {}
        for id, use in self.runs().items():
            if not use.run.done():
                continue
            records = Records()  # each is let go of at once, for there may be ten thousand
            try:
                records.of(use.run)
            except OSError as error:
                records.damaged[id] = str(error)
            if id in records.damaged:
                found[id] = f"{use.label}: {records.damaged[id]}"
        return found


def select(args: argparse.Namespace) -> Selection:
    """The cells that the command line asks for. Raises `ConfigError`."""
    if args.config:
        return _single(args)
    asked, output = asked_tables(args), "runs" if args.output_dir is None else args.output_dir
    rows, columns = args.rows, args.columns
    check_known(rows, dict.fromkeys(name for table in asked for name in table.rows), "row")
    check_known(columns, dict.fromkeys(name for table in asked for name in table.columns), "column")
    found = {}
    for table in asked:  # of several tables, a name need only be in one
        own = [[name for name in given if name in all] for given, all in ((rows, table.rows), (columns, table.columns))]
        if not (rows and not own[0] or columns and not own[1]):
            narrowed = table.forcing(*own, seeds=list(args.seeds))
            found[table.name] = list(narrowed.cells(["OUTPUT_DIR", output]))
    if not found:
        raise ConfigError("no table here has such a row and such a column")
    return Selection(found, Path(output))


def asked_tables(args: argparse.Namespace) -> list[Table]:
    """The tables of --table or --all, and every one where neither is given.

    Raises `ConfigError`, also for KEY VALUE pairs, which belong to --config.
    """
    names = list(args.table or ())
    keys = [place for place, word in enumerate(names) if word in flatten(DEFAULTS)]
    settings = [*names[keys[0] :], *args.overrides] if keys else args.overrides
    if settings:
        folder = "; the folder of the runs of a table is --output-dir" if "OUTPUT_DIR" in settings else ""
        raise ConfigError(f"KEY VALUE pairs go with --config, which is missing: {' '.join(settings)}{folder}")
    if is_open(args):
        return all_tables()
    asked = tables_of_the_paper() if args.all else [find_table(name) for name in dict.fromkeys(names)]
    known: dict[str, Table] = {}
    for table in asked:
        other = known.setdefault(table.name, table)
        if other.path.resolve() != table.path.resolve():
            raise ConfigError(f"{other.path} and {table.path} have the same name; call the command for each of them")
    return list(known.values())


def naming(args: argparse.Namespace, tables: Collection[str]) -> argparse.Namespace:
    """The command line that names these tables of `paper_tables/`."""
    return argparse.Namespace(**vars(args) | {"table": list(tables) or None})


def _single(args: argparse.Namespace) -> Selection:
    """One cell: a configuration over its seeds."""
    words = args.overrides = pairs(args.overrides)
    if getattr(args, "rows", ()) or getattr(args, "columns", ()):
        raise ConfigError("--rows and --columns choose from a table, but --config names a single configuration")
    given = dict(zip(words[::2], words[1::2], strict=True))
    if args.seeds and "SEED" in given:
        raise ConfigError(f"SEED {given['SEED']} and --seeds both say which seeds; give one of them")
    if args.output_dir is not None:
        other = given.get("OUTPUT_DIR") or args.output_dir
        if Path(other) != Path(args.output_dir):
            raise ConfigError(
                f"OUTPUT_DIR {other} and --output-dir {args.output_dir} are two folders; give one of them"
            )
        words = [*words, "OUTPUT_DIR", args.output_dir]
    check_level({"seeds": list(args.seeds) or [0]}, "the command line")
    cfg = load(args.config, words)
    runs = {seed: Run(load(args.config, [*words, "SEED", seed])) for seed in args.seeds or [cfg.SEED]}
    protocol = getattr(args, "protocol", None)
    cell = Cell(Path(args.config).stem, "", runs, Reading(protocol=protocol) if protocol else Reading())
    return Selection({args.config: [cell]}, Path(cfg.OUTPUT_DIR))
