"""Two runs side by side: the settings in which they differ, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from repro.listing.board import said, state, steps
from repro.listing.differences import shown
from repro.listing.found import METRICS, Found, cut, whole_record
from repro.tables.reading import OFFSETS, Reading
from seval.errors import ConfigError, RecordError
from seval.keys import STANDARD


def comparison(one: Found, other: Found, reading: Reading) -> str:
    """Both runs; numbers that only one of them has are shown, too."""
    pair = (one, other)
    about = [
        ("name", *(run.name for run in pair)),
        ("state", *(state(run) for run in pair)),
        ("steps", *(steps(run) for run in pair)),
        ("finished", *(run.finished for run in pair)),
        ("code", *(run.code for run in pair)),
        ("device", *(run.about("device") for run in pair)),
        ("seconds", *("" if run.seconds is None else f"{run.seconds:.0f}" for run in pair)),
    ]
    head = tabulate([row for row in about if any(row[1:])], ["", one.id, other.id], disable_numparse=True)
    return "\n\n".join([head, _settings(one, other), *_numbers(one, other, reading)])


def _settings(one: Found, other: Found) -> str:
    if one.delta is None or other.delta is None:
        return f"the settings of {' and '.join(run.id for run in (one, other) if run.delta is None)} are not known"
    keys = [key for key in dict.fromkeys([*STANDARD, *one.delta, *other.delta]) if one.value(key) != other.value(key)]
    if not keys:
        return "they have the same settings; what a run depends on is part of what it is, too"
    rows = [
        (cut(key), *("—" if run.value(key) is None else shown(run.value(key), 400) for run in (one, other)))
        for key in keys
    ]
    return tabulate(rows, ["settings that differ", one.id, other.id], disable_numparse=True)


def _numbers(one: Found, other: Found, reading: Reading) -> list[str]:
    """By offset and metric, in percent, and by how much the second run is better."""
    records = [whole_record(Found(run.id, run.folder)) for run in (one, other)]
    rows = []
    for offset in OFFSETS:
        for metric in METRICS:
            values = [_value(record, reading._replace(offset=offset, metric=metric)) for record in records]
            if any(value is not None for value in values):
                difference = "" if None in values else f"{values[1] - values[0]:+.2f}"
                rows.append(
                    (offset, metric, *("—" if value is None else f"{value:.2f}" for value in values), difference)
                )
    if not rows:
        return ["neither has a record to compare" if not any(records) else "their records have no such numbers"]
    heads = ["offset", "metric", one.id, other.id, "difference"]
    sides = ["left", "left", "right", "right", "right"]
    words = said(reading._replace(offset="none")).replace(", no offset", "")
    return [f"in percent: {words}\n" + tabulate(rows, heads, disable_numparse=True, colalign=sides)]


def _value(record: Mapping[str, Any] | None, reading: Reading) -> Any:
    try:
        return reading.of(record) if record else None
    except (ConfigError, RecordError):
        return None
