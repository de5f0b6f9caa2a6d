"""In which settings runs differ from each other, in as few words as possible."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any

from repro.listing.found import Found, cut
from seval.defaults import DEFAULTS
from seval.keys import STANDARD

#: What makes a method: where these follow from its name, its name says enough.
OF_METHOD = ("ALGORITHM.", "HEADS.", "DATASET.HELD_OUT", "DATASET.SAMPLER_", "PREREQUISITE", "CURRICULUM")
OF_METHOD += ("MODEL.FROZEN", "SOLVER.UNLABELED_BATCH_RATIO")
_NAMED = ("SEED", "DATASET.NAME")  # part of every name
_WIDEST = 60  # characters of a value


def differing(runs: Sequence[Found]) -> list[str]:
    """All keys in which at least two of the runs differ, seeds and data sets aside, in the order of the defaults."""
    known = [run for run in runs if run.delta is not None]
    keys = dict.fromkeys([*STANDARD, *(key for run in known for key in run.delta or ())])
    changed = {key for run in known for key in run.delta or ()}
    own = {f"DATASET.{key}." for key, value in DEFAULTS.DATASET.items() if isinstance(value, dict)}
    several = len({run.dataset for run in known}) > 1
    asked = [key for key in keys if key in changed or several and any(key.startswith(begin) for begin in own)]
    return [key for key in asked if key not in _NAMED and len({_value(run, key) for run in known}) > 1]


def few(runs: Sequence[Found]) -> list[str]:
    """The fewest of these keys that tell as much as all of them, beside what the method and the data set tell."""
    known = [run for run in runs if run.delta is not None]
    keys = []
    for key in differing(known):
        with_set = {(run.dataset, _value(run, key)) for run in known}
        with_method = {(run.method, run.dataset, _value(run, key)) for run in known}
        by_set = len(with_set) == len({run.dataset for run in known})
        by_method = len(with_method) == len({(run.method, run.dataset) for run in known})
        if not by_set and not (by_method and key.startswith(OF_METHOD)):
            keys.append(key)
    return _fewest(keys, known)


def _fewest(keys: Sequence[str], runs: Sequence[Found]) -> list[str]:
    """Keys that tell apart all runs that `keys` tell apart: always the one that tells most, then none too many."""
    values = {key: [_value(run, key) for run in runs] for key in keys}

    def groups(some: Sequence[str]) -> int:
        return len(set(zip(*(values[key] for key in some), strict=True))) if some else min(1, len(runs))

    taken: list[str] = []
    while groups(taken) < groups(keys):
        taken.append(max(keys, key=lambda key: groups([*taken, key])))
    for key in list(taken):
        rest = [each for each in taken if each != key]
        taken = rest if groups(rest) == groups(keys) else taken
    return [key for key in keys if key in taken]


def words(run: Found, keys: Sequence[str], names: dict[str, str] | None = None) -> str:
    """`BASE_LR=0.1 MAX_ITER=60`: the run's values of these keys, which can be given as filters."""
    names = names or shortest(keys)
    if run.delta is None:
        return ""
    values = {key: run.value(key) for key in keys}
    return " ".join(f"{names[key]}={shown(value)}" for key, value in values.items() if value is not None)


def shortest(keys: Sequence[str]) -> dict[str, str]:
    """By key, the shortest end of it that is not the end of another one of them."""
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
        others = [f".{other}" for other in keys if other != key]
        found[key] = next((end for end in ends if not any(other.endswith(f".{end}") for other in others)), key)
    return found


def shown(value: Any, limit: int = _WIDEST) -> str:
    """A setting as it is written on a command line."""
    if not isinstance(value, str):
        return cut(json.dumps(value), limit)
    return cut(f'"{value}"' if " " in value or not value else value, limit)


def _value(run: Found, key: str) -> Hashable:
    value = run.value(key)
    return json.dumps(value, sort_keys=True) if isinstance(value, list | dict) else value
