"""A table is a grid of cells; a cell is one configuration over several seeds, and where to read its number.

A YAML file in `paper_tables/` says what its rows and columns share and where they differ. Table, column, row and single
cell take the same keys; the later one wins, and what each `set`s adds up:

    config, folder    the configuration file, configs/<folder>/<config>.yaml
    set               KEY VALUE pairs laid over it: [DATASET.TINY.NUM_LABELED_HEAD, 500]
    seeds             one run each
    metric, protocol, network, offset, split    which number of the record is read
    assumed           text, or a list of texts: what the paper leaves open here, what is done, and why; for the reader

`cells: {column: {...}}` inside a row is for a single cell (`null`: not part of the table). `reported: {row: {column:
[mean, std]}}` holds numbers to compare with, in percent; one of another protocol has a mark behind it, `[mean, std,
mark]`, that `marks: {mark: text}` explains, and no verdict. `_BASE_` names files that this file is laid over. Rows of
one configuration are read from the same runs. A table of `kind: settings` has no runs: it shows what its configurations
say, as repro/tables/settings.py reads them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from repro.tables.reading import CHOICES, Reading, Records
from repro.tables.yaml_file import (
    LEVEL,
    MERGED,
    as_list,
    check_known,
    check_level,
    read_table,
    reported_marks,
    reported_numbers,
)
from seval.config import load
from seval.defaults import Node
from seval.errors import ConfigError, RecordError
from seval.places import ROOT, found, own_folder
from seval.run import Run
from seval.text import printable

CONFIGS, TABLES = ROOT / "configs", ROOT / "paper_tables"
_DEFAULTS = Reading()._asdict() | {"seeds": [0, 1, 2]}


@dataclass(frozen=True)
class Cell:
    """One configuration over its seeds, and which number is read from their records; None where there are no runs."""

    row: str
    column: str
    runs: dict[int, Run]
    reading: Reading | None
    reported: tuple[float, float | None] | None = None
    records: Records = field(default_factory=Records, compare=False, repr=False)
    mark: str = ""  # of a reported number of another protocol

    def values(self) -> dict[int, float]:
        """By seed, percent or a number of classes, of those runs that have been recorded."""
        values = {}
        for seed, run in self.runs.items():
            value = None
            try:
                if self.reading and (record := self.records.of(run)):
                    value = self.reading.of(record)
            except RecordError as error:
                self.records.refuse(run, error)
            except ConfigError as error:
                raise ConfigError(f"row {self.row!r}, column {self.column!r}: {error}") from None
            if value is not None:
                values[seed] = value
        return values


@dataclass(frozen=True)
class Table:
    """Rows and columns as they were read; `forced` settings win over every level, `marked` are reported numbers."""

    name: str
    title: str
    note: str
    common: dict
    columns: dict[str, dict]
    rows: dict[str, dict]
    reported: dict[str, dict[str, tuple[float, float | None]]]
    kind: str = "results"
    marks: dict[str, str] = field(default_factory=dict)
    claims: list = field(default_factory=list)
    marked: dict[str, dict[str, str]] = field(default_factory=dict)
    forced: dict = field(default_factory=dict)
    path: Path = Path()

    @property
    def source(self) -> str:
        """What `--table` takes for it: its name or, where it is not in `paper_tables/`, its path."""
        return self.name if self.path.parent.resolve() == TABLES.resolve() else str(self.path)

    @property
    def folder(self) -> Path:
        """Where its pages go: beside its file or, of an installed table, in `paper_tables` here."""
        return own_folder(self.path.parent)

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """The table of a YAML file, checked; `ConfigError` names an unknown key and the nearest valid one."""
        path = Path(path)
        content = read_table(path)
        columns, rows = (
            {name: level or {} for name, level in content.get(part, {}).items()} for part in ("columns", "rows")
        )
        if not columns or not rows:
            raise ConfigError(f"{path} must have rows and columns")
        return cls(
            name=path.stem,
            title=content.get("title", path.stem),
            note=content.get("note", "").strip(),
            common=_DEFAULTS | {key: content[key] for key in LEVEL if key in content},
            columns=columns,
            rows=rows,
            reported=reported_numbers(content.get("reported"), rows, columns, path),
            kind=content.get("kind", "results"),
            marks=content.get("marks") or {},
            claims=content.get("claims") or [],
            marked=reported_marks(content.get("reported"), content.get("marks") or {}, rows, columns, path),
            path=path,
        )

    def forcing(self, rows: Sequence[str] = (), columns: Sequence[str] = (), **settings: object) -> Table:
        """The same table with some of its rows and columns only, and settings such as `seeds` or `protocol` forced."""
        check_known(rows, self.rows, f"row of table {self.name}")
        check_known(columns, self.columns, f"column of table {self.name}")
        forced = self.forced | {key: value for key, value in settings.items() if value}
        check_level(forced, "the command line")
        return replace(
            self,
            forced=forced,
            rows={name: self.rows[name] for name in rows or self.rows},
            columns={name: self.columns[name] for name in columns or self.columns},
        )

    def cells(self, overrides: Sequence[object] = ()) -> Iterator[Cell]:
        """Every cell, row by row, `overrides` laid over all of them; runs with equal ids are one object."""
        runs: dict[str, Run] = {}
        records = Records()
        for row in self.rows:
            for column in self.columns:
                settings, found, reading = self.settings(row, column), {}, None
                if settings and self.kind == "results":
                    reading = Reading(*(settings[key] for key in CHOICES))
                    for seed in settings["seeds"]:
                        where = f"row {row!r}, column {column!r}"
                        run = Run(self.configuration(settings, [*overrides, "SEED", seed], where))
                        found[seed] = runs.setdefault(run.id, run)
                number, mark = self.reported.get(row, {}).get(column), self.marked.get(row, {}).get(column, "")
                yield Cell(row, column, found, reading, number, records, mark)

    def settings(self, row: str, column: str) -> dict | None:
        """What table, column, row and cell say together; None where the row leaves this cell out."""
        single = self._single(row, column)
        if single is None:
            return None
        levels = (self.common, self.columns[column], self.rows[row], single, self.forced)
        merged = {key: value for level in levels for key, value in level.items() if key in MERGED}
        return merged | {"set": [word for level in levels for word in level.get("set", ())]}

    def assumed(self, row: str | None = None, column: str | None = None) -> list[str]:
        """What the row, the column, the cell of both or, where neither is named, the whole table assumes."""
        above = self.common if column is None else self.columns[column]
        level = above if row is None else self.rows[row] if column is None else self._single(row, column) or {}
        return as_list(level.get("assumed", []))

    def _single(self, row: str, column: str) -> dict | None:
        return (self.rows[row].get("cells") or {}).get(column, {})

    def configuration(self, settings: dict, overrides: Sequence[object], where: str) -> Node:
        """The configuration of those settings, `overrides` laid over it; an error names the table and `where`."""
        if missing := [key for key in ("folder", "config") if key not in settings]:
            raise ConfigError(f"table {self.name}, {where}: `{missing[0]}` is given neither there nor for the table")
        try:
            return load(CONFIGS / settings["folder"] / f"{settings['config']}.yaml", [*settings["set"], *overrides])
        except ConfigError as error:
            raise ConfigError(f"table {self.name}, {where}: {error}") from None


def find_table(name: str) -> Table:
    """The table of that name in `paper_tables/`, of a YAML file anywhere, or of the paper by its number alone."""
    stem = f"table{name}" if name.isdecimal() else name
    path = found(name) if name.endswith((".yaml", ".yml")) else TABLES / f"{stem}.yaml"
    if not os.path.isfile(path):  # also of a name that is too long
        name, there = printable(name), ", ".join(sorted(file.stem for file in TABLES.glob("*.yaml"))) or "none"
        raise ConfigError(
            f"no table {name!r} at {printable(str(path))}; tables in {TABLES.name}/ (2 is short for table2): {there}"
        )
    return Table.read(path)


def all_tables() -> list[Table]:
    """Those in `paper_tables/`; first the paper's by their numbers, then the others by their names."""
    paper = tables_of_the_paper()
    known = {table.path for table in paper}
    return [*paper, *(Table.read(file) for file in sorted(TABLES.glob("*.yaml")) if file not in known)]


def tables_of_the_paper() -> list[Table]:
    """Those that have a number, in order."""
    files = [file for file in TABLES.glob("table*.yaml") if re.fullmatch(r"table\d+", file.stem)]
    return [Table.read(file) for file in sorted(files, key=lambda file: int(file.stem[5:]))]
