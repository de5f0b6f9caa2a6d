"""What was submitted to SLURM.

Every array that is submitted has a ledger, `OUTPUT_DIR/slurm/<name>.json`, written *before* sbatch is called. The
name is the array's job name, so what is in the queue is found even where sbatch's answer was lost, and by everyone who
shares the folder.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from seval.claim import claim
from seval.errors import ConfigError, RunBusy
from seval.files import read_json, sealed, unsealed, write_json
from seval.text import printable, short

_NAME = re.compile(r"seval-[0-9A-Za-z]{1,64}")
_ID = re.compile(r"[0-9A-Za-z]{1,64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_NUMBER = (int, float)
_KEYS = {
    "name": str,
    "elements": list,
    "settings": dict,
    "labels": dict,
    "needs": dict,
    "minutes": int,
    "memory_gb": _NUMBER,
    "created": _NUMBER,
    "versions": dict,
    "scratch": str,
}


@dataclass
class Submission:
    """One array: which runs its elements do, and the resources that were asked for."""

    name: str
    elements: list[list[str]]  # ids of the runs that share an element
    settings: dict[str, list]  # KEY VALUE pairs by id
    labels: dict[str, str]  # by id
    needs: dict[str, str]  # id of the prerequisite by id, where it had no record yet
    minutes: int
    memory_gb: float
    created: float = field(default_factory=time.time)
    versions: dict[str, str | None] = field(default_factory=dict)  # of the worker's packages, asked when submitting
    scratch: str = ""
    data: dict[str, str] = field(default_factory=dict)  # fingerprint of the data set by id, where it was here

    def keys(self) -> list[tuple[str, int]]:
        """(name, index) of every element."""
        return [(self.name, index) for index in range(len(self.elements))]

    @classmethod
    def read(cls, path: Path) -> Submission:
        """The content of a ledger. Raises `ConfigError` if it is damaged, and `OSError`."""
        try:
            made = read_json(path, _KEYS)
            made = unsealed(made) if "data" in made or "sha256" in made else made | {"data": {}}  # as in version 0.1.0
            if problem := _problem(made, path.stem):
                raise ValueError(problem)
        except ValueError as error:
            raise ConfigError(
                f"{path} cannot be read ({printable(str(error))}): it is damaged, or of another version of seval; once "
                f"`squeue --name={path.stem}` shows nothing, move it out of its folder"
            ) from None
        made["labels"] = {id: printable(label) for id, label in made["labels"].items()}
        return cls(**made)

    def write(self, folder: Path) -> Path:
        """Its ledger; an `OSError` here means that nothing was submitted."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        write_json(path, sealed(asdict(self)))
        return path


def _problem(made: dict[str, Any], name: str) -> str | None:
    """What is wrong with the content of the ledger of that name; None if nothing is."""
    if other := made.keys() - {each.name for each in fields(Submission)}:
        return f"it has {short(min(other))}, which is no part of it"
    if made["name"] != name or not _NAME.fullmatch(name):
        return f"its 'name' is {short(made['name'])}"
    if not all(isinstance(each, list) and each for each in made["elements"]) or not made["elements"]:
        return "its 'elements' are not lists of runs"
    listed = [id for element in made["elements"] for id in element]
    if not all(isinstance(id, str) and _ID.fullmatch(id) for id in listed) or len(ids := set(listed)) < len(listed):
        return "its 'elements' have something else than ids, or one twice"
    for key, fits in (("settings", _is_pairs), ("labels", _is_text)):
        if made[key].keys() != ids or not all(map(fits, made[key].values())):
            return f"its {key!r} are not those of its elements"
    for key, form in (("needs", _ID), ("data", _FINGERPRINT)):
        some = made[key].items() if isinstance(made[key], dict) else [("", "")]
        if not all(id in ids and isinstance(value, str) and form.fullmatch(value) for id, value in some):
            return f"its {key!r} are not those of its elements"
    if not all(value is None or isinstance(value, str) for value in made["versions"].values()):
        return "its 'versions' are not text"
    for key, least, most in (("minutes", 1, 1e9), ("memory_gb", 0, 1e9), ("created", 0, 1e11)):
        if not least <= made[key] <= most:
            return f"its {key!r} is {short(made[key])}"
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_pairs(value: object) -> bool:
    return isinstance(value, list) and len(value) % 2 == 0 and all(map(_is_text, value[::2]))


def submissions(folder: Path, tell: Callable[[str], object] | None = None) -> list[Submission]:
    """All submissions of a folder, in the order they were made.

    A ledger that cannot be read is an error, because what it submitted may be in the queue. With `tell`, it is left
    out, and `tell` gets the message. Raises `ConfigError`, `OSError`.
    """
    found = []
    for path in _ledgers(folder):
        try:
            found.append(Submission.read(path))
        except FileNotFoundError:  # its submission has just failed
            continue
        except (ConfigError, OSError) as error:
            if tell is None:
                raise
            tell(f"{error}; until then the state of its runs is not known")
    return sorted(found, key=lambda each: (each.created, each.name))


def _ledgers(folder: Path) -> Iterable[Path]:
    """Unlike `glob`, raises `OSError` where the folder is there and cannot be read."""
    with suppress(FileNotFoundError):
        return [folder / name for name in os.listdir(folder) if name.startswith("seval-") and name.endswith(".json")]
    return []


@contextmanager
def alone(folder: Path, wait: float = 300) -> Iterator[None]:
    """Nobody else submits meanwhile; whom it waits for is said on stderr. Raises `RunBusy` after `wait` seconds."""
    with ExitStack() as stack:
        try:
            stack.enter_context(claim(folder, "submit"))
        except RunBusy as busy:
            print(f"{busy}; waiting for it, at most {wait:.0f} s", file=sys.stderr, flush=True)
            stack.enter_context(claim(folder, "submit", wait=wait))
        yield
