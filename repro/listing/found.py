"""A run as a list shows it, from the small files of its folder. Each may be missing or damaged; nothing here raises.

What a run is stands in its record, else in run.json, which is written when it starts, else in config.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from repro.launch.failures import failure
from repro.tables.reading import Reading
from seval.claim import holder
from seval.defaults import DEFAULTS, NOT_IDENTITY, Node, node_of
from seval.errors import ConfigError, RecordError
from seval.files import read_json, read_yaml, unsealed
from seval.keys import STANDARD, flatten
from seval.record import last_line, read_record
from seval.text import printable, short

#: What can be told of a run by its files; what is only queued has none.
STATES = ("done", "running", "resumable", "canceled", "oom", "crashed", "damaged", "unreadable", "new")
#: The metrics of a line; all that a record has are read.
METRICS = ("top1", "balanced_accuracy", "geometric_mean", "many", "medium", "few")
#: The beginning of the keys of each data set's own node.
_NODES = {f"DATASET.{key}.": key for key, value in DEFAULTS.DATASET.items() if isinstance(value, Node)}
_LONGEST = 80  # characters of a name or a reason


@dataclass
class Found:
    """One folder of a run. `delta` has the settings that differ from the defaults; None where that is not known."""

    id: str
    folder: Path
    state: str = "new"
    detail: str = ""
    said: str = ""  # the name of its method, if a file says it
    delta: dict[str, Any] | None = None
    needs: tuple[str, ...] = ()  # the runs that it depends on; the last one directly
    step: int | None = None
    steps: int | None = None
    numbers: dict[str, float] = field(default_factory=dict)  # percent by metric; of a record, else of the last line
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    evaluations: int | None = None  # that the record summarizes
    faults: list[str] = field(default_factory=list)
    broken: str = ""  # what is wrong with the record: "damaged" or, where that is not known, "unreadable"

    @cached_property
    def dataset(self) -> str:
        """The name of the data set; "" where it is not known."""
        name = None if self.delta is None else self.delta.get("DATASET.NAME", STANDARD["DATASET.NAME"])
        return name if isinstance(name, str) else ""

    @cached_property
    def method(self) -> str:
        """The name of the method or, in records that do not say it, the algorithm and the policy of each head."""
        if self.said or self.delta is None:
            return self.said
        policies = [self.value(f"HEADS.{name}.POLICY") for name in DEFAULTS.HEADS]
        words = "; ".join(each.replace(" ", "") for each in policies if isinstance(each, str) and each)
        return f"{self.algorithm} ({words})" if words else self.algorithm

    @property
    def algorithm(self) -> str:
        """The name of the algorithm without its arguments; "" where it is not known."""
        return str(self.value("ALGORITHM.NAME") or "").partition("(")[0]

    @property
    def name(self) -> str:
        """`fixmatch · tiny · seed 1`, or what is known of it."""
        seed = self.value("SEED")
        parts = (self.method, self.dataset, "" if seed is None else f"seed {seed}")
        return " · ".join(cut(part) for part in parts if part) or "?"

    @property
    def code(self) -> str:
        """The commit, with + and the code's own hash where the code was another; "" where neither is known."""
        commit, code = self.about("commit")[:7], self.about("code")[:7]
        return commit + (f"+{code}" if self.provenance.get("dirty") else "") if commit else code

    @property
    def finished(self) -> str:
        """`2026-11-26 04:47`, in the time of the machine that wrote it."""
        return self.about("finished").replace("T", " ")[:16]

    def about(self, key: str) -> str:
        """What the provenance says, as text; "" where it says nothing."""
        value = self.provenance.get(key)
        return cut(str(value)) if isinstance(value, str | int) and value != "" else ""

    def value(self, key: str) -> Any:
        """A setting of the run; None where it is not known, or where the key is one of another data set."""
        if self.delta is None or not belongs(key, self.dataset):
            return None
        return self.delta.get(key, STANDARD.get(key))


@lru_cache(1024)
def recorded(key: str) -> bool:
    """Whether a key can change a result, and so is part of what a run is."""
    return not any(f"{key}.".startswith(f"{out}.") for out in NOT_IDENTITY)


@lru_cache(4096)
def belongs(key: str, dataset: str) -> bool:
    """Whether a key is part of what a run on that data set is."""
    node = next((name for begin, name in _NODES.items() if key.startswith(begin)), None)
    return recorded(key) and (node is None or node == node_of(dataset))


def cut(text: str, limit: int = _LONGEST) -> str:
    """One line for a terminal, of a bounded length."""
    line = printable(text)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def look(folder: Path, reading: Reading) -> Found:
    """What the files in a folder say; what is wrong with them is in its `faults`."""
    found = Found(folder.name, folder)
    record = whole_record(found)
    if record:
        _of_record(found, record, reading)
    if found.delta is None:
        _of_start(found)
    if not record:
        _of_progress(found, reading)
    return found


def whole_record(found: Found) -> dict | None:
    """The record in the folder; None if there is none, or one that is damaged, which is then one of the faults."""
    with _noting(found, "record.json"):
        record = read_record(found.folder / "record.json")
        if record and record["id"] != found.id:
            raise RecordError(f"it is that of run {short(record['id'])}")
        return record
    return None


@contextmanager
def _noting(found: Found, name: str) -> Iterator[None]:
    """A file that is there, but cannot be read or is not what it should be, is a fault of the run."""
    try:
        yield
    except FileNotFoundError:
        return
    except (OSError, ValueError, MemoryError) as error:
        words = str(error).removeprefix("cannot read ").replace(str(found.folder / name), name)
        words = words.removeprefix(name).removeprefix(" is damaged ").removeprefix(": ").partition("; move it away")[0]
        words = words[1:-1] if words.startswith("(") and words.endswith(")") else words
        found.faults.append(cut(f"{name}: {words or type(error).__name__}"))
        if name == "record.json":
            found.broken = "unreadable" if isinstance(error, OSError | MemoryError) else "damaged"


def _of_record(found: Found, record: dict, reading: Reading) -> None:
    found.said = _text(record, "method")
    config, delta = record.get("config"), record.get("delta")
    settings = config if isinstance(config, dict) else delta if isinstance(delta, dict) else None
    found.delta = None if settings is None else _differing(settings)
    before = record.get("prerequisites")
    found.needs = tuple(id for id in before if isinstance(id, str)) if isinstance(before, list) else ()
    found.step = found.steps = _whole(record, "steps")
    found.provenance = value if isinstance(value := record.get("provenance"), dict) else {}
    found.evaluations = _whole(record, "evaluations")
    found.seconds = number(record.get("seconds"))
    for metric in METRICS:
        with _noting(found, "record.json"), suppress(ConfigError):  # this one is not recorded
            value = reading._replace(metric=metric).of(record)
            if value is not None:
                found.numbers[metric] = value
    found.state = found.broken or "done"


def _of_start(found: Found) -> None:
    """From run.json or, where an older version has written none, from config.yaml."""
    with _noting(found, "run.json"):
        started = unsealed(read_json(found.folder / "run.json", {"id": str, "delta": dict}))
        if started["id"] != found.id:
            raise ValueError(f"it is that of run {short(started['id'])}")
        found.said, found.delta = _text(started, "method"), _differing(started["delta"])
        found.needs = (needs,) if (needs := _text(started, "needs")) else ()
        found.steps = _whole(started, "steps")
        return
    with _noting(found, "config.yaml"):
        content = read_yaml(found.folder / "config.yaml")
        if not isinstance(content, dict):
            raise ValueError("it has no keys and values")
        settings = flatten(content)
        found.said = _text(settings, "METHOD.NAME")
        dataset = str(settings.get("DATASET.NAME"))
        found.delta = _differing({key: value for key, value in settings.items() if belongs(key, dataset)})
        found.steps = _whole(settings, "SOLVER.MAX_ITER")


def _differing(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if STANDARD.get(key, ...) != value}


def _of_progress(found: Found, reading: Reading) -> None:
    """How far a run is that has no record, or one that cannot be used."""
    held = failed = None
    with _noting(found, "metrics.jsonl"):
        line = last_line(found.folder / "metrics.jsonl") or {}
        found.step = _whole(line, "step")
        for metric in METRICS:
            value = number(inside(line, reading.split, reading.network, reading.offset, metric))
            if value is not None:
                found.numbers[metric] = 100 * value
    with _noting(found, "claim"):
        held, failed = holder(found.folder), failure(found.folder)
        found.state = "resumable" if (found.folder / "checkpoint.pt").exists() else "new"
    if held:
        found.state = "running"
        found.detail = cut(f"process {held.get('pid', '?')} on {held.get('host', 'another host')}")
    elif found.broken:
        found.state = found.broken
    elif failed:
        found.state, found.detail = failed["kind"], cut(failed["error"])


def inside(value: Any, *path: str) -> Any:
    """What is at this place of an object from a file; None where there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def number(value: Any) -> float | None:
    """The value, if it is a number that can be shown."""
    return float(value) if type(value) in (int, float) and abs(value) < 1e15 else None


def _text(value: Mapping[str, Any], key: str) -> str:
    return text if isinstance(text := value.get(key), str) else ""


def _whole(value: Mapping[str, Any], key: str) -> int | None:
    return whole if type(whole := value.get(key)) is int and 0 <= whole < 10**15 else None
