"""Which runs are meant: KEY=VALUE, where the key is a setting or something else that is known of a run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from repro.listing.found import STATES, Found, recorded
from seval.errors import ConfigError
from seval.keys import STANDARD, value_of
from seval.text import short

Holds = Callable[[Found], bool]
#: What is known of a run besides its settings, as texts of which one has to be the value.
OWN: dict[str, Callable[[Found], Sequence[str]]] = {
    "id": lambda run: [run.id],
    "method": lambda run: [run.method, *([] if run.said else [run.algorithm])],
    "dataset": lambda run: [run.dataset],
    "seed": lambda run: [str(run.value("SEED"))],
    "state": lambda run: [run.state],
    "commit": lambda run: [run.about("commit")],
    "code": lambda run: [run.code, run.about("code")],
    "finished": lambda run: [run.finished],
    "host": lambda run: [run.about("host")],
    "job": lambda run: [run.about("job")],
    "device": lambda run: [run.about("device")],
    "needs": lambda run: run.needs,
}
_SETTINGS = {"dataset": "DATASET.NAME", "seed": "SEED"}
#: Of these a beginning is enough, as of an id.
_BEGINNINGS = ("id", "commit", "code", "finished", "needs")


def chosen(words: Sequence[str]) -> Holds:
    """Whether a run fits every word; of several values for one key it has one. Raises `ConfigError`.

    `KEY!=VALUE` is the opposite. A value may have * and ?. The end of a setting's key is enough where its data set and
    group are clear: NUM_LABELED_HEAD=500.
    """
    wanted: dict[str, list[Holds]] = {}
    unwanted: list[Holds] = []
    for word in words:
        key, equals, value = word.partition("=")
        opposite = key.endswith("!")
        key = key.removesuffix("!")
        if not equals or not key:
            raise ConfigError(f"{short(word)} is no filter; a filter is KEY=VALUE, such as state=done or SEED=1")
        holds = _one(key, value)
        if opposite:
            unwanted.append(holds)
        else:
            wanted.setdefault(key.lower(), []).append(holds)
    return lambda run: (
        all(any(holds(run) for holds in each) for each in wanted.values()) and not any(holds(run) for holds in unwanted)
    )


def _one(key: str, value: str) -> Holds:
    if key.lower() in OWN:
        return _own(key.lower(), value)
    upper = key.upper()
    meant = [upper] if upper in STANDARD else [known for known in STANDARD if known.endswith(f".{upper}")]
    if not meant:
        raise ConfigError(f"unknown filter {short(key)}; {_near(key)}")
    if not any(map(recorded, meant)):
        raise ConfigError(f"{meant[0]} cannot change a result, so no record has it; {_near(key, meant)}")
    wanted = {
        known: value if _is_pattern(value) else value_of(known, value, "the filter")
        for known in filter(recorded, meant)
    }
    return lambda run: any(_same(run.value(known), each) for known, each in wanted.items())


def _own(key: str, value: str) -> Holds:
    if key == "state" and not _is_pattern(value) and value.lower() not in STATES:
        near = difflib.get_close_matches(value.lower(), STATES, n=1, cutoff=0.5)
        words = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"no run has state {short(value)}; {words}States: {', '.join(STATES)}")
    if key in _SETTINGS and not _is_pattern(value):
        value = str(value_of(_SETTINGS[key], value, "the filter"))
    pattern = value + ("*" if key in _BEGINNINGS else "")
    return lambda run: any(_matches(text, pattern) for text in OWN[key](run) if text)


def _same(value: Any, wanted: object) -> bool:
    if isinstance(value, str) or isinstance(wanted, str):
        return value is not None and _matches(str(value), str(wanted))
    return value == wanted


def _matches(text: str, pattern: str) -> bool:
    """Capitals and blanks make no difference."""
    text, pattern = ("".join(each.lower().split()) for each in (text, pattern))
    return text == pattern or _is_pattern(pattern) and fnmatchcase(text, pattern.replace("[", "[[]"))


def _is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def _near(key: str, without: Sequence[str] = ()) -> str:
    """The names of filters that look like `key`, in words."""
    names = {name.upper(): name for name in OWN}
    for known in filter(recorded, STANDARD):
        names |= {known.rpartition(".")[2]: known.rpartition(".")[2], known: known}
    near = [names[each] for each in difflib.get_close_matches(key[:100].upper(), names, n=3, cutoff=0.6)]
    near = [each for each in near if each not in without]
    return f"did you mean {' or '.join(near)}?" if near else f"filters are {', '.join(OWN)}, and every key of main.py"
