"""Everything about one run, as text."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from repro.listing.board import said, steps
from repro.listing.differences import shown
from repro.listing.found import METRICS, Found, cut, inside, number, whole_record
from repro.listing.logs import last_lines, log_of
from repro.tables.reading import PROTOCOLS, Reading
from seval.keys import STANDARD
from seval.record import read_lines

_BAR = 40  # characters of a recall of 100 %
_CLASSES = 40  # more classes than this are drawn as one sign each
_EVALUATIONS = 3  # of the last ones
_SIGNS = "▁▂▃▄▅▆▇█"


def card(run: Found, everything: Sequence[Found], reading: Reading) -> str:
    """What is known of a run; `everything` are all runs of its folder, among which are its parents and children."""
    record = whole_record(Found(run.id, run.folder)) or {}
    parts = [_head(run, everything), _settings(run), *_splits(record), *_results(record, reading)]
    parts += [*_recall(record, reading), *_evaluations(run, reading), *_log(run)]
    return "\n\n".join(parts)


def _head(run: Found, everything: Sequence[Found]) -> str:
    by_id = {other.id: other for other in everything}
    children = [other.id for other in everything if run.id in other.needs]
    packages = run.provenance.get("packages")
    lines = {
        "state": f"{run.state}, {steps(run)} steps" + (f", finished {run.finished}" if run.finished else ""),
        "trained by" if run.state == "running" else "why": run.detail,
        "damaged": "; ".join(run.faults),
        "folder": str(run.folder),
        "needs": "\n".join(_named(id, by_id) for id in run.needs),
        "needed by": "\n".join(_named(id, by_id) for id in children),
        "code": ", ".join(
            [
                *([f"commit {run.about('commit')}"] if run.about("commit") else []),
                *(["with changes"] if run.provenance.get("dirty") else []),
                *([f"sources {run.about('code')[:12]}"] if run.about("code") else []),
            ]
        ),
        "packages": ", ".join(f"{key} {value}" for key, value in packages.items())
        if isinstance(packages, dict)
        else "",
        "machine": ", ".join(
            f"{word}{run.about(key)}{more}"
            for key, word, more in (
                ("device", "", ""),
                ("threads", "", " threads"),
                ("host", "on ", ""),
                ("job", "job ", ""),
                ("image", "image ", ""),
            )
            if run.about(key)
        ),
        "time": "" if run.seconds is None else f"{run.seconds:.0f} s",
    }
    rows = [(key, cut(line, 500)) for key, text in lines.items() if text for line in text.split("\n")]
    return f"{run.id}  {run.name}\n" + tabulate(rows, tablefmt="plain", disable_numparse=True)


def _named(id: str, by_id: Mapping[str, Found]) -> str:
    return f"{id}  {by_id[id].name} ({by_id[id].state})" if id in by_id else f"{cut(id)}  (not here)"


def _settings(run: Found) -> str:
    if run.delta is None:
        return "its settings are not known"
    rows = [
        (cut(key), shown(value, 300), shown(STANDARD[key], 60) if key in STANDARD else "")
        for key, value in run.delta.items()
    ]
    heads = ["setting", "value", "default"]
    return tabulate(rows, heads, disable_numparse=True) if rows else "all settings are the defaults"


def _splits(record: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for name, split in _items(record, "splits"):
        counts = inside(split, "class_counts")
        if isinstance(counts, list) and counts and all(type(count) is int for count in counts):
            most = " ".join(map(str, counts[:20])) + (" ..." if len(counts) > 20 else "")
            rows.append((cut(name), str(sum(counts)), most, cut(str(split.get("sha256")))[:12]))
    if rows:
        yield tabulate(rows, ["split", "images", "images per class", "sha256 of the indices"], disable_numparse=True)


def _results(record: Mapping[str, Any], reading: Reading) -> Iterator[str]:
    """All metrics for the split and the network that are asked for, top-1 for the others; every protocol."""
    rows = []
    for split, networks in _items(record, "results"):
        for network, offsets in _items(networks):
            asked = (split, network) == (reading.split, reading.network)
            for offset, metrics in _items(offsets):
                for metric, values in _items(metrics):
                    numbers = [_percent(values.get(each)) for each in PROTOCOLS] if isinstance(values, dict) else []
                    if any(numbers) and (asked or metric == "top1"):
                        rows.append((not asked, [*map(cut, (split, network, offset, metric)), *numbers]))
    if rows:
        rows.sort(key=lambda row: row[0])
        sides = ["left"] * 4 + ["right"] * len(PROTOCOLS)
        heads = ["split", "network", "offset", "metric", *PROTOCOLS]
        count = record.get("evaluations")
        yield f"in percent, of {count} evaluations\n" + tabulate(
            [row for _, row in rows], heads, disable_numparse=True, colalign=sides
        )


def _recall(record: Mapping[str, Any], reading: Reading) -> Iterator[str]:
    """The recall of each class in the last evaluation; records have it for the averaged network on the test images."""
    recall = inside(record, "per_class", reading.offset, "recall")
    if not isinstance(recall, list) or not all(each is None or number(each) is not None for each in recall):
        return
    counts = inside(record, "splits", "labeled", "class_counts")
    counts = counts if isinstance(counts, list) and len(counts) == len(recall) else [None] * len(recall)
    head = f"recall of each class in percent (test images, averaged network, last evaluation, offset {reading.offset})"
    if len(recall) > _CLASSES:
        yield "\n".join([head, *_sparks(recall)])
        return
    rows = [
        (
            str(index),
            "" if count is None else f"{count} labels",
            bar(each),
            "—" if each is None else f"{100 * each:.1f}",
        )
        for index, (each, count) in enumerate(zip(recall, counts, strict=True))
    ]
    body = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=["right", "right", "left", "right"])
    yield f"{head}\n{body}"


def bar(share: float | None) -> str:
    """A bar of that share of its full width."""
    full, empty = ("█", "·") if _writes("█·") else ("#", ".")
    filled = round(_BAR * min(1.0, max(0.0, share or 0.0)))
    return full * filled + empty * (_BAR - filled)


def _sparks(recall: Sequence[float | None]) -> list[str]:
    """Fifty classes a line, each a sign of a height, with the mean of the line."""
    signs = _SIGNS if _writes(_SIGNS) else "0123456789"
    lines = []
    for start in range(0, len(recall), 50):
        part = [each for each in recall[start : start + 50]]
        known = [each for each in part if each is not None]
        mean = f"{100 * sum(known) / len(known):.1f}" if known else "—"
        text = "".join(" " if each is None else signs[min(len(signs) - 1, int(each * len(signs)))] for each in part)
        lines.append(f"{start:>4} to {start + len(part) - 1:<4} {text:<50}  mean {mean}")
    return lines


def _writes(signs: str) -> bool:
    """Whether standard output can show these signs."""
    encoding = sys.stdout.encoding if isinstance(sys.stdout, io.TextIOBase) else None
    try:
        signs.encode(encoding or "utf-8")
    except UnicodeError:
        return False
    return True


def _evaluations(run: Found, reading: Reading) -> Iterator[str]:
    try:
        lines = read_lines(run.folder / "metrics.jsonl")
    except (OSError, MemoryError) as error:
        yield f"its evaluations cannot be read: {cut(str(error), 200)}"
        return
    rows = []
    for line in lines[-_EVALUATIONS:]:
        loss = [number(each) or 0.0 for _, each in _items(line, "loss")]
        where = (reading.split, reading.network, reading.offset)
        numbers = [_percent(inside(line, *where, metric)) for metric in METRICS]
        rows.append((str(line.get("step")), f"{sum(loss):.3f}", *numbers))
    if rows:
        where = said(reading).rpartition(", ")[0]
        yield f"last evaluations ({where})\n" + tabulate(
            rows, ["step", "loss", *METRICS], disable_numparse=True, stralign="right"
        )


def _log(run: Found) -> Iterator[str]:
    if log := log_of(run.folder):
        yield "\n".join([f"end of {log}", *(f"  {cut(line, 300)}" for line in last_lines(log))])


def _percent(value: object) -> str:
    share = number(value)
    return "" if share is None else f"{100 * share:.2f}"


def _items(value: object, *path: str) -> list[tuple[str, Any]]:
    """The items of an object in a record, where it is one."""
    value = inside(value, *path)
    return list(value.items()) if isinstance(value, Mapping) else []
