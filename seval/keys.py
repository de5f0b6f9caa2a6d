"""Keys and values as people write them in files and on command lines: each key has one type, written in one way."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import PurePath

from seval.defaults import ALIASES, CHOICES, DEFAULTS, SET_ALIASES
from seval.errors import ConfigError
from seval.text import literal, short


def flatten(cfg: dict, prefix: str = "") -> dict[str, object]:
    """`{"SOLVER.BASE_LR": 0.03, ...}`, in the order of seval/defaults.py."""
    flat: dict[str, object] = {}
    for key, value in cfg.items():
        inner = isinstance(value, dict) and value
        flat |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


#: Every key with its default.
STANDARD = flatten(DEFAULTS)
#: What the names of keys in a group begin with: `SOLVER.` and the like.
GROUPS = {key[: place + 1] for key in STANDARD for place, letter in enumerate(key) if letter == "."}

#: Values of these keys are names of files, which are bytes in the encoding of the locale.
_PATHS = ("OUTPUT_DIR", "DATASET.ROOT", "MODEL.WEIGHTS", "CURRICULUM")
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_FORMS = {
    int: "an int in plain decimal digits, such as 1200",
    float: "a float, such as 0.03",
    bool: "a bool, True or False",
    list: "a list, such as [100, 200]",
    str: "a str; write it in quotes",
}


def value_of(key: str, value: object, where: str) -> object:
    """The value that a key gets, of the type of its default; `where` it is given is for the messages.

    Text is read: whole numbers in decimal digits, lists as in Python. An int is accepted for a float. Raises
    `ConfigError` for another type, and for an unknown key, naming the nearest one.
    """
    if key not in STANDARD:
        if inside := [known for known in STANDARD if known.startswith(f"{key}.")]:
            raise ConfigError(f"{key} in {where} is a group of keys, not one key; set one of {some(inside)}")
        near = difflib.get_close_matches(key[:100].upper(), STANDARD, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown key {short(key)} in {where}; did you mean {near!r}?")
    kind = type(STANDARD[key])
    value = _said(value, kind) if isinstance(value, str) else value
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, PurePath):
        value = str(value)
    if type(value) is bool and key == "RUNTIME.PROGRESS":  # as it was before there were several kinds
        value = str(value)
    if isinstance(value, str) and (key in CHOICES or key == "ALGORITHM.NAME"):
        value = ALIASES.get(value.capitalize() if value in ("true", "false") else value, value)
    if isinstance(value, str) and key == "DATASET.NAME":
        value = SET_ALIASES.get(value, value)
    if kind is float and type(value) is int:
        with suppress(OverflowError):
            value = float(value)
    if kind is str and type(value) is int:  # of another number it is not known how it was written
        value = short(value)
    if type(value) is not kind:
        wanted = f"{_FORMS[kind]}; its default is {short(STANDARD[key])}"
        raise ConfigError(f"{key} is {short(value)} in {where}, but must be {wanted}")
    return value


def _said(text: str, kind: type) -> object:
    """What a text means where a value of this type is expected; the text itself where it means no such value."""
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is int:
        return int(text) if _WHOLE.fullmatch(text) else text
    if kind is float:
        return float(text) if _NUMBER.fullmatch(text) else text
    if kind is list:
        with suppress(ValueError):
            return literal(text)
    return text


def pairs(words: Sequence[str]) -> list[str]:
    """The `KEY VALUE` pairs that the words of a command line mean.

    KEY=VALUE, --KEY VALUE and keys in lower case mean the same. Raises `ConfigError` where a word is no key, or a key
    has no value.
    """
    found, rest = [], iter(words)
    for word in rest:
        key, equals, value = word.removeprefix("--").partition("=")
        key = key.upper() if key.upper() in STANDARD else key
        if word.startswith("--") and key not in STANDARD:
            value = value if equals else next(rest, "VALUE")
            example = f"{near} {short(value)[1:-1]}" if (near := nearest(key)) else "SEED 1"
            raise ConfigError(
                f"unknown option {short(word)}; --help lists the options, and keys are set as in {example}"
            )
        if key.endswith((".yaml", ".yml")):
            raise ConfigError(f"{short(word)} is not a key; write --config-file before the name of a file")
        given = value if equals else next(rest, None)
        if given is None:
            raise ConfigError(f"{short(word)} has no value; keys are set by KEY VALUE pairs, such as SEED 1")
        found += [key, given if key in _PATHS else _as_utf8(given)]
    return found


def nearest(word: str) -> str | None:
    """The key that an option such as --base-lr may mean; None if none is near."""
    last = {key.rpartition(".")[2]: key for key in STANDARD}
    near = difflib.get_close_matches(word[:100].upper().replace("-", "_"), [*STANDARD, *last], n=1, cutoff=0.8)
    return last.get(near[0], near[0]) if near else None


def _as_utf8(word: str) -> str:
    """What the word's bytes are in UTF-8, if they are: the locale must not change what a run is."""
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeError:
        return word


def some(names: Iterable[str]) -> str:
    """The names, or the first of many, for a message."""
    names = list(names)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
