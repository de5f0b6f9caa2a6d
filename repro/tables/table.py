"""A table is a grid of cells; a cell is one configuration over several seeds, and where to read its number.

A YAML file in `paper_tables/` says what its rows and columns share and where they differ. Table, column, row and single
cell take the same keys; the later one wins, and what each `set`s adds up:

    config, folder    the configuration file, configs/<folder>/<config>.yaml
    set               KEY VALUE pairs laid over it: [DATASET.TINY.NUM_LABELED_HEAD, 500]
    seeds             one run each
    metric, protocol, network, offset, split    which number of the record is read
    assumed         text, or a list of texts: what the paper leaves open here, what is done, and why; for the reader

`cells: {column: {...}}` inside a row is for a single cell (`null`: not part of the table). `reported: {row: {column:
[mean, std]}}` holds numbers to compare with, in percent. Rows of one configuration are read off the same runs. A table
of `kind: settings` has no runs: it shows what its configurations say, as repro/hyperparameters.py reads them.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import yaml

from repro.tables.reading import CASES, count
from seval.config import load
from seval.defaults import Node
from seval.errors import ConfigError
from seval.run import Run

ROOT = Path(__file__).resolve().parents[2]
CONFIGS, TABLES = ROOT / "configs", ROOT / "paper_tables"
#: Where a number stands in a record, outermost key first; the first choice is the default.
CHOICES = {
    "split": ("test", "valid"),
    "network": ("ema", "raw"),
    "offset": ("none", "logit_adjusted", "seval", "seval_smoothed"),
    "metric": ("top1", "balanced_accuracy", "geometric_mean", "many", "medium", "few", *CASES),
    "protocol": ("median20", "mean20", "last", "best_on_valid", "best_on_test"),
}
KINDS = ("results", "settings")
_MERGED = (*CHOICES, "config", "folder", "set", "seeds")
_LEVEL = (*_MERGED, "assumed")
_TABLE = ("kind", "title", "note", "columns", "rows", "reported", *_LEVEL)


@dataclass(frozen=True)
class Cell:
    """One configuration over its seeds, and the path of the number that is read off their records."""

    row: str
    column: str
    runs: dict[int, Run]
    path: tuple[str, ...]
    reported: tuple[float, float | None] | None = None

    def label(self, seed: int, run: Run) -> str:
        """What a run is for: `w/ SEVAL (prerequisite), CIFAR10-LT n1=500, seed 79`."""
        part = "" if run.id == self.runs[seed].id else " (prerequisite)"
        return ", ".join(filter(None, (f"{self.row}{part}", self.column, f"seed {seed}")))

    def values(self) -> dict[int, float]:
        """By seed, percent or a number of classes, of those runs that have been recorded."""
        values = {}
        for seed, run in self.runs.items():
            if (record := run.record()) is not None and (value := self._look_up(record)) is not None:
                values[seed] = value
        return values

    def _look_up(self, record: dict) -> float | None:
        reading = dict(zip(CHOICES, self.path, strict=True))
        if reading["metric"] in CASES:
            return count(record, reading)
        node = record["results"]
        for key in self.path:
            if key not in node:
                raise ConfigError(
                    f"row {self.row!r} reads {'/'.join(self.path)}, but run {record['id']} recorded no "
                    f"{key!r} there, only {', '.join(node)}"
                )
            node = node[key]
        return None if node is None else 100 * node


def mean_std(values: Iterable[float]) -> tuple[float, float]:
    """Mean and population standard deviation, which is what the field prints."""
    values = list(values)
    return float(np.mean(values)), float(np.std(values))


@dataclass(frozen=True)
class Table:
    """Rows and columns as they were read; `forced` settings win over every level."""

    name: str
    title: str
    note: str
    common: dict
    columns: dict[str, dict]
    rows: dict[str, dict]
    reported: dict[str, dict[str, tuple[float, float | None]]]
    kind: str = "results"
    forced: dict = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Table:
        """The table of a YAML file, checked; `ConfigError` names an unknown key and the nearest valid one."""
        path = Path(path)
        try:
            content = yaml.load(path.read_text(), _Loader)
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from None
        content = _mapping(content, str(path))
        known(content, _TABLE, f"key in {path}")
        known([content.get("kind", "results")], KINDS, f"kind in {path}")
        columns, rows = (
            {
                name: _mapping(level, f"{name} in {path}")
                for name, level in _mapping(content.get(part), f"{part} in {path}").items()
            }
            for part in ("columns", "rows")
        )
        if not columns or not rows:
            raise ConfigError(f"{path} must have rows and columns")
        standard = {key: choices[0] for key, choices in CHOICES.items()} | {"seeds": [0, 1, 2]}
        common = standard | {key: content[key] for key in _LEVEL if key in content}
        table = cls(
            path.stem,
            str(content.get("title", path.stem)),
            str(content.get("note", "")).strip(),
            common,
            columns,
            rows,
            _reported(content.get("reported"), rows, columns, path),
            content.get("kind", "results"),
        )
        _check(table.common, str(path))
        for name, level in columns.items():
            _check(level, f"column {name!r} of {path}")
        for name, level in rows.items():
            _check(level, f"row {name!r} of {path}", columns)
        return table

    def forcing(self, rows: Sequence[str] = (), columns: Sequence[str] = (), **settings: object) -> Table:
        """The same table with some of its rows and columns only, and settings such as `seeds` or `protocol` forced."""
        known(rows, self.rows, f"row of table {self.name}")
        known(columns, self.columns, f"column of table {self.name}")
        forced = self.forced | {key: value for key, value in settings.items() if value}
        _check(forced, "the command line")
        return replace(
            self,
            forced=forced,
            rows={name: self.rows[name] for name in rows or self.rows},
            columns={name: self.columns[name] for name in columns or self.columns},
        )

    def cells(self, overrides: Sequence[object] = ()) -> Iterator[Cell]:
        """Every cell, row by row, `overrides` laid over all of them; runs with equal ids are one object."""
        runs: dict[str, Run] = {}
        for row in self.rows:
            for column in self.columns:
                settings, where = self.settings(row, column), f"row {row!r}, column {column!r}"
                settings = settings if settings and self.kind == "results" else {"seeds": ()}
                path, found = tuple(str(settings[key]) for key in CHOICES if key in settings), {}
                for seed in settings["seeds"]:
                    run = Run(self.configuration(settings, [*overrides, "SEED", seed], where))
                    found[seed] = runs.setdefault(run.id, run)
                yield Cell(row, column, found, path, self.reported.get(row, {}).get(column))

    def settings(self, row: str, column: str) -> dict | None:
        """What table, column, row and cell say together; None where the row leaves this cell out."""
        single = self._single(row, column)
        if single is None:
            return None
        levels = (self.common, self.columns[column], self.rows[row], single, self.forced)
        merged = {key: value for level in levels for key, value in level.items() if key in _MERGED}
        return merged | {"set": [word for level in levels for word in level.get("set", ())]}

    def assumed(self, row: str | None = None, column: str | None = None) -> list[str]:
        """What the row, the column, the cell of both or, where neither is named, the whole table assumes."""
        above = self.common if column is None else self.columns[column]
        level = above if row is None else self.rows[row] if column is None else self._single(row, column) or {}
        texts = level.get("assumed", [])
        return [texts] if isinstance(texts, str) else texts

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


def find(name: str) -> Table:
    """The table of that name in `paper_tables/`, of a YAML file anywhere, or of the paper by its number alone."""
    stem = f"table{name}" if name.isdecimal() else name
    path = Path(name) if name.endswith(".yaml") else TABLES / f"{stem}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in TABLES.glob("*.yaml"))) or "none"
        raise ConfigError(f"no table {name!r} at {path}; tables in {TABLES.name}/ (2 is short for table2): {there}")
    return Table.read(path)


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are told in one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (--help has examples)")


class _Loader(yaml.SafeLoader):
    """YAML whose names are text, and where naming a row twice is an error rather than the loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(f"{twice[0]!r} is given twice in one mapping{node.start_mark}".replace("\n", ""))
        return {str(name): value for name, value in super().construct_mapping(node, deep).items()}


def _mapping(value: object, where: str) -> dict:
    if not isinstance(value, dict | None):
        raise ConfigError(f"{where} must be a mapping, but is {value!r}")
    return value or {}


def known(given: Iterable[object], valid: Iterable[str], what: str) -> None:
    """Complain of the first of `given` that is none of `valid`, naming the nearest."""
    valid = list(valid)
    for name in given:
        if name not in valid:
            near = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown {what}: {name!r}; did you mean {near!r}?")


def _check(level: dict, where: str, columns: dict | None = None) -> None:
    """Complain about a level whose keys or values mean nothing; only a row, with `columns` to name, may hold cells."""
    known(level, _LEVEL if columns is None else (*_LEVEL, "cells"), f"key in {where}")
    for key, choices in CHOICES.items():
        if key in level:
            known([level[key]], choices, f"{key} in {where}")
    seeds, pairs, texts = level.get("seeds", [0]), level.get("set", []), level.get("assumed", "a text")
    if (
        not isinstance(seeds, list)
        or not seeds
        or len({*map(str, seeds)}) < len(seeds)
        or not all(type(seed) is int and seed >= 0 for seed in seeds)
    ):
        raise ConfigError(f"seeds in {where} must be a list of different whole numbers, but is {seeds!r}")
    if not isinstance(pairs, list) or len(pairs) % 2:
        raise ConfigError(f"set in {where} must be a list of KEY VALUE pairs, but is {pairs!r}")
    if not texts or not all(isinstance(text, str) and text for text in (texts if isinstance(texts, list) else [texts])):
        raise ConfigError(f"assumed in {where} must be a text or a list of texts, but is {texts!r}")
    for column, single in _mapping(level.get("cells"), f"cells in {where}").items():
        known([column], columns or (), f"column in the cells of {where}")
        _check(_mapping(single, f"cell {column!r} in {where}"), f"cell {column!r} in {where}")


def _reported(content: object, rows: dict, columns: dict, path: Path) -> dict[str, dict]:
    """{row: {column: (mean, std)}}; a lone number is a mean that was published without a deviation."""
    reported: dict[str, dict] = {}
    for row, numbers in _mapping(content, f"reported in {path}").items():
        known([row], rows, f"row in reported of {path}")
        for column, given in _mapping(numbers, f"reported of {row!r} in {path}").items():
            known([column], columns, f"column in reported of {path}")
            pair = given if isinstance(given, list) else [given]
            if len(pair) not in (1, 2) or not all(type(number) in (int, float) for number in pair):
                raise ConfigError(f"reported of {row!r}, {column!r} in {path} must be [mean, std], but is {given!r}")
            reported.setdefault(row, {})[column] = (pair[0], pair[1] if len(pair) == 2 else None)
    return reported
