"""The YAML file of a table: laid over its base files, and checked at every level: table, column, row, single cell."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

import yaml

from repro.tables.reading import CHOICES
from seval.errors import ConfigError

KINDS = ("results", "settings")
#: Keys of every level of which the later one wins; what is `assumed` belongs to its level alone.
MERGED = (*CHOICES, "config", "folder", "set", "seeds")
LEVEL = (*MERGED, "assumed")
_GRID = ("columns", "rows", "reported")
_TABLE = ("_BASE_", "kind", "title", "note", *_GRID, *LEVEL)


class _Loader(yaml.SafeLoader):
    """YAML whose names are text, and where naming a row twice is an error rather than the loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            problem = f"{twice[0]!r} is given twice in one mapping"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return {str(name): value for name, value in super().construct_mapping(node, deep).items()}


def read_mapping(path: Path) -> dict:
    """The keys and values of a YAML file. Raises `ConfigError` where it cannot be read or holds something else."""
    try:
        content = yaml.load(path.read_text(), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    return as_mapping(content, str(path))


def as_mapping(value: object, where: str) -> dict:
    """The value, {} for nothing. Raises `ConfigError` where it is no mapping."""
    if not isinstance(value, dict | None):
        raise ConfigError(f"{where} must be a mapping, but is {value!r}")
    return value or {}


def check_known(given: Iterable[object], valid: Iterable[str], what: str) -> None:
    """Raise `ConfigError` for the first of `given` that is not valid, with the nearest and all valid names."""
    valid = list(valid)
    for name in given:
        if name not in valid:
            near = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.0)[:1]
            hint = f"did you mean {near[0]!r}? Valid: {', '.join(valid)}" if near else "there are none"
            raise ConfigError(f"unknown {what}: {name!r}; {hint}")


def read_table(path: Path, above: tuple[Path, ...] = ()) -> dict:
    """What a table's file says, laid over its `_BASE_` files, whose paths are relative to it. Raises `ConfigError`.

    What files `set` and what they assume adds up. Columns, rows and reported numbers are replaced name by name, all
    other keys as a whole.
    """
    if path.resolve() in above:
        raise ConfigError(f"{path} includes itself through _BASE_: {' -> '.join(map(str, above))}")
    own = read_mapping(path)
    bases = own.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"_BASE_ in {path} must be a file or a list of files, but is {bases!r}")
    content: dict = {}
    for base in bases:
        content = _laid_over(content, read_table(path.parent / base, (*above, path.resolve())))
    columns = as_mapping(content.get("columns"), "columns") | as_mapping(own.get("columns"), f"columns in {path}")
    _check_table(own, columns, path)
    return _laid_over(content, own)


def _laid_over(below: dict, above: dict) -> dict:
    merged = below | above
    for key in _GRID:
        merged |= {key: (below.get(key) or {}) | (above.get(key) or {})} if key in merged else {}
    for key in ("set", "assumed"):
        merged |= {key: [*as_list(below.get(key, [])), *as_list(above.get(key, []))]} if key in merged else {}
    return merged


def as_list(value: object) -> list:
    """A single text is a list of it."""
    return value if isinstance(value, list) else [value]


def _check_table(content: dict, columns: dict, path: Path) -> None:
    """Check a file before it is laid over others; `columns` includes the columns of the others."""
    check_known(content, _TABLE, f"key in {path}")
    check_known([content.get("kind", "results")], KINDS, f"kind in {path}")
    levels = {part: as_mapping(content.get(part), f"{part} in {path}") for part in ("columns", "rows")}
    check_level({key: value for key, value in content.items() if key in LEVEL}, str(path))
    for part, own in levels.items():
        for name, level in own.items():
            where = f"{part.removesuffix('s')} {name!r} of {path}"
            check_level(as_mapping(level, where), where, columns if part == "rows" else None)


def check_level(level: dict, where: str, columns: dict | None = None) -> None:
    """Raise `ConfigError` about a key or value that means nothing; only a row, given `columns`, may hold cells."""
    check_known(level, LEVEL if columns is None else (*LEVEL, "cells"), f"key in {where}")
    for key, choices in CHOICES.items():
        if key in level:
            check_known([level[key]], choices, f"{key} in {where}")
    seeds, pairs, reasons = level.get("seeds", [0]), level.get("set", []), as_list(level.get("assumed", "a reason"))
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds in {where} must be a list of different whole numbers, but is {seeds!r}")
    if not isinstance(pairs, list) or len(pairs) % 2:
        raise ConfigError(f"set in {where} must be a list of KEY VALUE pairs, but is {pairs!r}")
    if not reasons or not all(isinstance(reason, str) and reason for reason in reasons):
        raise ConfigError(f"assumed in {where} must be a text or a list of texts, but is {level['assumed']!r}")
    for column, single in as_mapping(level.get("cells"), f"cells in {where}").items():
        check_known([column], columns or (), f"column in the cells of {where}")
        check_level(as_mapping(single, f"cell {column!r} in {where}"), f"cell {column!r} in {where}")


def reported_numbers(content: object, rows: dict, columns: dict, path: Path) -> dict[str, dict]:
    """{row: {column: (mean, std)}}; a lone number is a mean that was published without a deviation."""
    reported: dict[str, dict] = {}
    for row, numbers in as_mapping(content, f"reported in {path}").items():
        check_known([row], rows, f"row in reported of {path}")
        for column, given in as_mapping(numbers, f"reported of {row!r} in {path}").items():
            check_known([column], columns, f"column in reported of {path}")
            pair = as_list(given)
            if len(pair) not in (1, 2) or not all(type(number) in (int, float) for number in pair):
                raise ConfigError(f"reported of {row!r}, {column!r} in {path} must be [mean, std], but is {given!r}")
            reported.setdefault(row, {})[column] = (pair[0], pair[1] if len(pair) == 2 else None)
    return reported
