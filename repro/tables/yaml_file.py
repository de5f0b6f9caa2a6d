"""The YAML file of a table: laid over its base files, and checked at every level: table, column, row, single cell."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from repro.tables.reading import CHOICES
from seval.errors import ConfigError
from seval.files import read_yaml
from seval.text import short

KINDS = ("results", "settings")
#: Keys of every level of which the later one wins; what is `assumed` belongs to its level alone.
MERGED = (*CHOICES, "config", "folder", "set", "seeds")
LEVEL = (*MERGED, "assumed")
_GRID = ("columns", "rows", "reported")
_TABLE = ("_BASE_", "kind", "title", "note", "marks", "claims", *_GRID, *LEVEL)
#: What `set` must not hold, as the command decides it, and what says it instead.
_ELSEWHERE = {"OUTPUT_DIR": "--output-dir on the command line", "SEED": "the key `seeds`"}
_DEEPEST = 20  # files over one another
_SIGN = re.compile("[†‡§][A-Za-z]{0,3}|[A-Za-z]{1,3}")


def read_mapping(path: Path) -> dict:
    """The keys and values of a YAML file. Raises `ConfigError` where it cannot be read or holds something else."""
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from None
    return as_mapping(content, str(path))


def as_mapping(value: object, where: str) -> dict:
    """The value, {} for nothing. Raises `ConfigError` where it is no mapping."""
    if not isinstance(value, dict | None):
        raise ConfigError(f"{where} must be a mapping, but is {short(value)}")
    return value or {}


def check_known(given: Iterable[object], valid: Iterable[str], what: str) -> None:
    """Raise `ConfigError` for the first of `given` that is not valid, with the nearest and all valid names."""
    valid = list(valid)
    for name in given:
        if name not in valid:
            near = difflib.get_close_matches(str(name)[:100], valid, n=1, cutoff=0.0)[:1]
            hint = f"did you mean {near[0]!r}? Valid: {', '.join(valid)}" if near else "there are none"
            raise ConfigError(f"unknown {what}: {short(name)}; {hint}")


def read_table(path: Path, above: tuple[Path, ...] = (), read: set[Path] | None = None) -> dict:
    """What a table's file says, laid over its `_BASE_` files, whose paths are relative to it. Raises `ConfigError`.

    What files `set` and what they assume adds up. Columns, rows, reported numbers and marks are replaced name by name,
    all other keys as a whole. A file that several name as their base is read once, for the first of them.
    """
    read = set() if read is None else read
    if path.resolve() in above:
        raise ConfigError(f"{path} includes itself through _BASE_: {' -> '.join(map(str, above))}")
    if len(above) >= _DEEPEST:
        raise ConfigError(f"{path} is laid under {_DEEPEST} other files through _BASE_, which is too deep")
    own = read_mapping(path)
    read.add(path.resolve())
    bases = own.pop("_BASE_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"_BASE_ in {path} must be a file or a list of files, but is {short(bases)}")
    content: dict = {}
    for base in (path.parent / base for base in bases):
        known = base.resolve()
        if known not in read or known in above or known == path.resolve():  # the latter two are a circle
            content = _laid_over(content, read_table(base, (*above, path.resolve()), read))
    columns = as_mapping(content.get("columns"), "columns") | as_mapping(own.get("columns"), f"columns in {path}")
    _check_table(own, columns, path)
    return _laid_over(content, own)


def _laid_over(below: dict, above: dict) -> dict:
    merged = below | above
    for key in (*_GRID, "marks"):
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
    _check_text(content, ("title", "note"), str(path))
    if not isinstance(content.get("claims"), list | None):
        raise ConfigError(f"claims in {path} must be a list, but is {short(content['claims'])}")
    marks = as_mapping(content.get("marks"), f"marks in {path}")
    for sign in marks:
        if not isinstance(sign, str) or not _SIGN.fullmatch(sign):
            raise ConfigError(f"marks in {path} has {short(sign)}; a mark is †, ‡ or §, at most three letters, or both")
    _check_text(marks, marks, f"marks in {path}")
    levels = {part: as_mapping(content.get(part), f"{part} in {path}") for part in _GRID}
    check_level({key: value for key, value in content.items() if key in LEVEL}, str(path))
    for part in ("columns", "rows"):
        for name, level in levels[part].items():
            where = f"{part.removesuffix('s')} {name!r} of {path}"
            check_level(as_mapping(level, where), where, columns if part == "rows" else None)


def check_level(level: dict, where: str, columns: dict | None = None) -> None:
    """Raise `ConfigError` about a key or value that means nothing; only a row, given `columns`, may hold cells."""
    check_known(level, LEVEL if columns is None else (*LEVEL, "cells"), f"key in {where}")
    for key, choices in CHOICES.items():
        if key in level:
            check_known([level[key]], choices, f"{key} in {where}")
    _check_text(level, ("folder", "config"), where)
    seeds, reasons = level.get("seeds", [0]), as_list(level.get("assumed", "a reason"))
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds in {where} must be a list of different whole numbers, but is {short(seeds)}")
    _check_pairs(level.get("set", []), where)
    if not reasons or not all(isinstance(reason, str) and reason for reason in reasons):
        raise ConfigError(f"assumed in {where} must be a text or a list of texts, but is {short(level['assumed'])}")
    for column, single in as_mapping(level.get("cells"), f"cells in {where}").items():
        check_known([column], columns or (), f"column in the cells of {where}")
        check_level(as_mapping(single, f"cell {column!r} in {where}"), f"cell {column!r} in {where}")


def _check_text(level: dict, keys: Iterable[str], where: str) -> None:
    for key in keys:
        value = level.get(key, "text")
        if not isinstance(value, str) or not value.strip():
            hint = "; write it in quotes" if isinstance(value, int | float) else ""
            raise ConfigError(f"{key} in {where} must be text, but is {short(value)}{hint}")
        if key in ("folder", "config") and (not value.isprintable() or len(value) > 200):
            raise ConfigError(f"{key} in {where} must be the name of a file, but is {short(value)}")


def _check_pairs(pairs: object, where: str) -> None:
    if not isinstance(pairs, list) or len(pairs) % 2 or not all(isinstance(key, str) for key in pairs[::2]):
        raise ConfigError(f"set in {where} must be a list of KEY VALUE pairs, but is {short(pairs)}")
    for key in pairs[::2]:
        if key in _ELSEWHERE:
            raise ConfigError(f"set in {where} holds {key}, which would count for nothing; use {_ELSEWHERE[key]}")


def reported_numbers(content: object, rows: dict, columns: dict, path: Path) -> dict[str, dict]:
    """{row: {column: (mean, std)}}; a lone number is a mean that was published without a deviation."""
    reported: dict[str, dict] = {}
    for row, column, given in _reported(content, rows, columns, path):
        pair = _unmarked(given)
        if len(pair) not in (1, 2) or not all(
            type(number) in (int, float) and math.isfinite(number) for number in pair
        ):
            raise ConfigError(f"reported of {row!r}, {column!r} in {path} must be [mean, std], but is {short(given)}")
        reported.setdefault(row, {})[column] = (pair[0], pair[1] if len(pair) == 2 else None)
    return reported


def reported_marks(content: object, marks: dict, rows: dict, columns: dict, path: Path) -> dict[str, dict[str, str]]:
    """{row: {column: mark}} of the reported numbers that have one: [mean, std, mark] or [mean, mark]."""
    found: dict[str, dict[str, str]] = {}
    for row, column, given in _reported(content, rows, columns, path):
        for sign in as_list(given)[len(_unmarked(given)) :]:
            check_known([sign], marks, f"mark in reported of {row!r}, {column!r} in {path}")
            found.setdefault(row, {})[column] = sign
    return found


def _reported(content: object, rows: dict, columns: dict, path: Path) -> Iterator[tuple[str, str, object]]:
    for row, numbers in as_mapping(content, f"reported in {path}").items():
        check_known([row], rows, f"row in reported of {path}")
        for column, given in as_mapping(numbers, f"reported of {row!r} in {path}").items():
            check_known([column], columns, f"column in reported of {path}")
            yield row, column, given


def _unmarked(given: object) -> list:
    """Without the text at the end, if there is one."""
    values = as_list(given)
    return values[:-1] if values and isinstance(values[-1], str) else values
