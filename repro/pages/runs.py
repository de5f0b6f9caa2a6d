"""What is known of each run: splits, origin, cost, and a card with a link to its record."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from repro.pages import html
from repro.pages.curves import OFFSETS
from repro.pages.html import tag, text
from repro.tables.reading import OFFSETS as ORDER
from repro.tables.reading import Records
from repro.tables.selection import Use
from seval.record import last_line
from seval.text import short

_NUMBERS = {"top1": "top-1", "balanced_accuracy": "balanced", "few": "few-shot"}
_SPLITS = ("labeled", "unlabeled", "held_out", "valid", "test")


def cards(uses: Iterable[Use], records: Records, out: Path) -> str:
    """All runs, each folded; `out` is the folder of the page."""
    found = [_card(use, records.of(use.run), records, out) for use in uses]
    return tag("section", tag("h2", "Runs"), tag("div", *found, class_="cards"), id="runs")


def _card(use: Use, record: dict | None, records: Records, out: Path) -> str:
    run = use.run
    damage = records.damaged.get(run.id)
    folder = Path(os.path.relpath(run.folder, out)).as_posix()
    if record is None:
        line = last_line(run.folder / "metrics.jsonl")
        state = "damaged" if damage else f"{line['progress']:.0%} done" if line else "not started"
        about = html.facts([("wrong", text(damage or "")), ("folder", text(run.folder)), ("read by", _read_by(use))])
        return html.folded(f"{_title(use)} {tag('span', state, class_='state')}", about, id=f"run-{run.id}")
    origin = record.get("provenance", {})
    links = [tag("a", file, href=f"{folder}/{file}") for file in ("record.json", "metrics.jsonl", "config.yaml")]
    facts = [
        ("files", ", ".join(links)),
        ("read by", _read_by(use)),
        ("wrong", text(damage or "")),
        ("after", ", ".join(tag("a", text(each), href=f"#run-{each}") for each in record.get("prerequisites", []))),
        ("steps", text(f"{record.get('steps', '?')} in {record.get('evaluations', '?')} evaluations")),
        ("took", f"{hours(record):.2f} h on {text(origin.get('device', 'an unknown device'))}"),
        ("finished", text(" ".join(str(origin[key]) for key in ("finished", "host", "job") if origin.get(key)))),
        ("code", text(code(origin) + (", unlike the code here" if run.made_by_other_code(record) else ""))),
    ]
    settings = [(key, text(short(value, 400))) for key, value in (record.get("delta") or {}).items()]
    inner = [html.facts(facts), _protocols(record), html.folded("what differs from the defaults", html.facts(settings))]
    return html.folded(f"{_title(use)} {tag('span', 'done', class_='state')}", *inner, id=f"run-{run.id}")


def _title(use: Use) -> str:
    before = " (prerequisite)" if use.is_prerequisite else ""
    return f"{text(use.run.name + before)} {tag('code', text(use.run.id))}"


def _read_by(use: Use) -> str:
    return f"{text(use)} of {text(', '.join(use.tables))}"


def _protocols(record: Mapping) -> str:
    """Numbers on the test images by the averaged network, under the two protocols that papers use most."""
    found, rows = record.get("results", {}), []
    for offset in ORDER:
        try:
            values = found["test"]["ema"][offset]
            cells = [_percent(values[key][way]) for way in ("median20", "last") for key in _NUMBERS]
        except (KeyError, TypeError):
            continue
        rows.append([text(OFFSETS[offset]), *cells])
    few = record.get("evaluations", 20)
    median = f"median of {few if isinstance(few, int) and few < 20 else 'last 20'}"
    header = ["offset", *(f"{label}, {way}" for way in (median, "last") for label in _NUMBERS.values())]
    return html.table(header, rows, sortable=False) if rows else ""


def _percent(value: object) -> str:
    return f"{100 * value:.2f}" if isinstance(value, int | float) else "—"


def code(origin: Mapping) -> str:
    """Commit, package version and, where it is known, the hash of the sources."""
    packages = origin.get("packages")
    version = packages.get("seval") if isinstance(packages, dict) else None
    commit = str(origin["commit"])[:10] if origin.get("commit") else "unknown commit"
    words = [commit + (" with changes" if origin.get("dirty") else ""), f"seval {version}" if version else ""]
    return ", ".join(filter(None, [*words, f"sources {str(origin['code'])[:10]}" if origin.get("code") else ""]))


def hours(record: Mapping) -> float:
    """Hours of computing."""
    seconds = record.get("seconds", 0.0)
    return seconds / 3600 if isinstance(seconds, int | float) else 0.0


def provenance(records: Iterable[Mapping]) -> str:
    """One line for each combination of code, image, software and device."""
    found: dict[tuple[str, ...], list[Mapping]] = {}
    for record in records:
        origin = record.get("provenance", {})
        packages = origin.get("packages")
        torch = packages.get("torch", "?") if isinstance(packages, dict) else "?"
        software = f"Python {origin.get('python', '?')}, torch {torch}"
        key = (code(origin), str(origin.get("image") or "—"), software, str(origin.get("device", "unknown")))
        found.setdefault(key, []).append(record)
    rows = []
    for key, every in sorted(found.items()):
        unit = "CPU-hours" if key[-1].startswith("cpu") else "GPU-hours"
        rows.append([*map(text, key), str(len(every)), f"{sum(map(hours, every)):.2f} {unit}"])
    header = ["code", "image", "software", "device", "runs", "cost"]
    inner = html.table(header, rows, words=True) if rows else tag("p", "No record yet.")
    return tag("section", tag("h2", "Provenance"), inner, id="provenance")


def splits(records: Iterable[Mapping]) -> str:
    """Each split once: of which data and seeds, how many images of each class, and the hash of their indices."""
    found: dict[tuple[str, str, str, str, str], set[str]] = {}
    for record in records:
        config, manifest = record.get("config") or {}, record.get("splits") or {}
        for split in _SPLITS:
            about = manifest.get(split) if isinstance(manifest, dict) else None
            if isinstance(about, dict) and (total := _total(about)):
                key = (
                    str(config.get("DATASET.NAME", "?")),
                    split,
                    total,
                    _by_class(about),
                    str(about.get("sha256", "")),
                )
                found.setdefault(key, set()).add(str(config.get("SEED", "?")))
    rows = [
        [text(data), split, total, each, text(", ".join(sorted(seeds))), tag("code", text(sha[:12]), title=sha)]
        for (data, split, total, each, sha), seeds in sorted(found.items(), key=_place)
    ]
    header = ["data", "split", "images", "of each class", "seeds", "SHA-256 of the indices"]
    inner = html.table(header, rows, words=True) if rows else tag("p", "No record yet.")
    return tag("section", tag("h2", "Splits"), inner, id="splits")


def _place(item: tuple[tuple[str, ...], set[str]]) -> tuple:
    (data, split, *others), _ = item
    return data, _SPLITS.index(split), others


def _total(about: Mapping) -> str:
    counts = about.get("class_counts")
    total = (sum(counts) if isinstance(counts, list) else 0) + int(about.get("unknown") or 0)
    return f"{total:,}".replace(",", " ") if total else ""


def _by_class(about: Mapping) -> str:
    counts = about.get("class_counts")
    if not isinstance(counts, list) or not counts:
        return ""
    if len(set(counts)) == 1:
        return f"{counts[0]} of each of {len(counts)}"
    unknown = f", {about['unknown']} of unknown class" if about.get("unknown") else ""
    if len(counts) <= 12:
        return ", ".join(map(str, counts)) + unknown
    return f"{max(counts)} to {min(counts)} of {len(counts)}{unknown}"
