"""The data set of a run: which one it is, by its content, and its copy on a node's own disk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from seval.config import with_overrides
from seval.data import hdf5
from seval.data.blocks import digest
from seval.data.image_set import ImageSet, fingerprint
from seval.errors import DataError
from seval.files import check_replaceable
from seval.run import Run

ABANDONED = 3600  # seconds since the last write to a half copy


def fingerprints(runs: Iterable[Run]) -> dict[str, str]:
    """By id, the fingerprint of the run's data set, of which no pixel is read; none where the file is not here.

    Raises `DataError` if a file is damaged, and `OSError`.
    """
    by_file: dict[Path, str] = {}
    found = {}
    for run in runs:
        file = data_file(run)
        if file not in by_file:
            if not file.is_file():
                continue
            by_file[file] = fingerprint(hdf5.read(file, in_blocks=True))
        found[run.id] = by_file[file]
    return found


def data_file(run: Run) -> Path:
    """The prepared file of its data set."""
    return hdf5.data_file(run.cfg.DATASET.NAME, run.cfg.DATASET.ROOT)


def missing_data(runs: Iterable[Run]) -> str:
    """Which data sets of the runs are not here, and what makes them: hundreds of jobs would fail for it. "" if none."""
    asked = {run.cfg.DATASET.NAME: file for run in runs if not (file := data_file(run)).is_file()}
    if not asked:
        return ""
    makes = "it" if len(asked) == 1 else "them"
    there = (
        f"there is no {', '.join(map(str, asked.values()))}; SEVAL_DATA names another folder, and this makes {makes}"
    )
    return f"{there}:\n  " + "\n  ".join(hdf5.remedy(file) for file in asked.values())


def stage(run: Run, scratch: str) -> Run:
    """The run with its data set on the node's own disk, copied there unless it is; a failed copy is no error."""
    folder, source = Path(os.path.expandvars(scratch)), data_file(run)
    if not scratch or not source.is_file():
        return run
    try:
        if "$" in str(folder):
            raise OSError("that variable is not set")
        _copy(source, folder / source.name)
    except (OSError, DataError) as error:
        print(f"{source} was not copied to {folder} ({error}); it is read where it is", flush=True)
        return run
    return Run(with_overrides(run.cfg, ["DATASET.ROOT", str(folder)]))


def _copy(source: Path, target: Path) -> None:
    """Make `target` a whole copy of `source` unless it is one already. Raises `OSError`, `DataError`."""
    original = hdf5.read(source, in_blocks=True)
    if _is_copy(target, original):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*"):  # of a process that was killed
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - ABANDONED:
                left.unlink()
    aside = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        shutil.copyfile(source, aside)
        if not _is_copy(aside, original):
            raise OSError("the copy differs from the original")
        check_replaceable(target)
        os.replace(aside, target)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _is_copy(path: Path, original: ImageSet) -> bool:
    """Whether a file has the header of `original`, and the arrays that this header promises."""
    try:
        images = hdf5.read(path, in_blocks=True)
        same = fingerprint(images) == fingerprint(original)
        return same and all(digest(array) == images.sha256[key] for key, array in images.arrays().items())
    except (OSError, ValueError, LookupError, RuntimeError):  # it is missing, of another format, or damaged
        return False
