"""Delete runs: never one that another run depends on or that is being trained, and nothing but their folders."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from repro.listing.board import state, steps
from repro.listing.folder import runs
from repro.listing.found import Found
from repro.tables.command_line import say
from repro.tables.reading import Reading
from seval.claim import claim
from seval.errors import ConfigError, RunBusy
from seval.files import told
from seval.keys import some

_ASIDE = ".removed."  # begins the name of a folder that is being deleted


def remove(ids: Sequence[str], output: Path, yes: bool) -> int:
    """Delete these runs; returns the exit code. Asks on a terminal unless `yes`. Raises `ConfigError`, `OSError`."""
    everything = {run.id: run for run in runs(output, Reading())}
    needs = {run.id: _needs(run) for run in everything.values()}
    check(ids, everything, needs)
    unknown = [run.id for run in everything.values() if run.delta is None and not run.needs and run.id not in ids]
    if unknown:
        say(f"warning: what {some(unknown)} may depend on is not known", error=True)
    say(*(f"{id}  {everything[id].name}: {state(everything[id])}, {steps(everything[id])} steps" for id in ids))
    if not (yes or _agreed(len(ids))):
        say("nothing is deleted")
        return 1
    for id in sorted(ids, key=lambda id: -_depth(id, needs)):  # first those that depend on others
        _delete(output, id)
        say(f"deleted {output / id}")
    _sweep(output)
    return 0


def check(ids: Sequence[str], everything: Mapping[str, Found], needs: Mapping[str, Iterable[str]]) -> None:
    """Raise `ConfigError` where one of these runs is being trained, or is needed by one that is not among them."""
    for id in ids:
        if everything[id].state == "running":
            raise ConfigError(f"{id} is being trained ({everything[id].detail}); end that first. Nothing is deleted")
        if everything[id].folder.is_symlink():
            raise ConfigError(
                f"{everything[id].folder} is a link to another folder; delete both by hand. Nothing is deleted"
            )
        above = [other for other in needs if id in needs[other] and other not in ids]
        if above:
            named = "; ".join(f"{other} {everything[other].name}" for other in above[:5])
            more = f" and {len(above) - 5} more" if len(above) > 5 else ""
            raise ConfigError(f"{id} is needed by {named}{more}; name these, too, or keep it. Nothing is deleted")


def _needs(run: Found) -> list[str]:
    """The ids that a run depends on; what older versions have not written is computed, which takes seconds."""
    if run.needs or run.state == "done" or run.delta is not None and not run.delta.get("PREREQUISITE"):
        return list(run.needs)
    from seval.config import load
    from seval.run import Run

    try:
        return [before.id for before in Run(load(run.folder / "config.yaml")).chain()[:-1]]
    except (ValueError, OSError, MemoryError):
        return []


def _depth(id: str, needs: Mapping[str, Sequence[str]], above: tuple[str, ...] = ()) -> int:
    """How many runs come before this one, one after the other."""
    before = [other for other in needs.get(id, ()) if other not in (*above, id)]
    return 1 + max((_depth(other, needs, (*above, id)) for other in before), default=-1)


def _agreed(number: int) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("nobody can be asked here; --yes deletes without asking. Nothing is deleted")
    print(f"delete {'this run' if number == 1 else f'these {number} runs'}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _delete(output: Path, id: str) -> None:
    """While it is claimed nobody starts to train the run; once it has another name, nobody finds a part of it."""
    folder, aside = output / id, output / f"{_ASIDE}{id}.{uuid4().hex}"
    try:
        with claim(folder):
            os.rename(folder, aside)
    except RunBusy as error:
        raise ConfigError(f"{error}; it is kept") from None
    except OSError as error:
        raise (told(error, "delete", folder) if error.strerror else error) from None
    shutil.rmtree(aside, ignore_errors=True)


def _sweep(output: Path) -> None:
    """Delete what earlier calls that were killed have left; what cannot be deleted is said."""
    for aside in output.glob(f"{_ASIDE}*"):
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            if aside.exists():
                say(f"warning: a part of {aside} cannot be deleted", error=True)
