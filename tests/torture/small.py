"""The small runs that are tortured, and what of them must be equal afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import torch

from seval.config import load
from seval.data.hdf5 import read, write
from seval.data.image_set import Part
from seval.run import Run
from tests.settings import ROOT, SMALL
from tests.torture.shim import Attempt

CONFIG = ROOT / "configs" / "tiny" / "fixmatch_seval_load.yaml"
#: Both phases of SEVAL in less than a second: four evaluations, two checkpoints.
KEYS = {
    "GPU_ID": -1,
    "DATASET.NUM_VALID": 20,
    "DATASET.NUM_TEST": 4,
    "DATASET.TINY.NUM_LABELED_HEAD": 12,
    "DATASET.TINY.NUM_UNLABELED_HEAD": 20,
    "DATASET.TINY.IMB_FACTOR_L": 2,
    "DATASET.TINY.IMB_FACTOR_UL": 2,
    "SOLVER.MAX_ITER": 8,
    "SOLVER.IMS_PER_BATCH": 4,
    "PERIODS.EVAL": 2,
    "PERIODS.CHECKPOINT": 4,
    "PERIODS.QUALITY": 4,
}
#: Wall time, and what depends on it or on the machine.
TIMES = {"began", "seconds", "seconds_last_session", "spent", "provenance"}
#: Words that no message may say of files that are sound.
ADVICE = ("damaged", "delete", "move away", "move its folder", "write it again", "not HDF5", "Traceback")


def write_data(folder: Path) -> Path:
    """tiny.h5 with 40 training and 8 test images of each class."""
    whole = read(ROOT / "data" / "tiny.h5")
    parts = []
    for part, count in ((whole.train, 40), (whole.test, 8)):
        members = [np.flatnonzero(part.labels == c)[:count] for c in range(whole.num_classes)]
        chosen = np.sort(np.concatenate(members))
        parts.append(Part(part.pixels[chosen], part.labels[chosen]))
    cut = whole._replace(train=parts[0], test=parts[1], attributes={**whole.attributes, "official": False})
    write(folder / "tiny.h5", cut)
    return folder


def words(data: Path, runs: Path, **changes: object) -> list[object]:
    """The command line of main.py for both phases."""
    pairs = dict(zip(SMALL[::2], SMALL[1::2], strict=True)) | KEYS | changes
    pairs |= {"DATASET.ROOT": data, "OUTPUT_DIR": runs}
    flat = [word for pair in pairs.items() for word in pair]
    return ["--config-file", CONFIG, "--with-prerequisites", *flat]


def chain(data: Path, runs: Path, **changes: object) -> list[Run]:
    """The two runs."""
    return Run(load(CONFIG, list(map(str, words(data, runs, **changes)[3:])))).chain()


def state(runs: Path) -> dict[str, object]:
    """What must be equal, by the path of the file; times are left out, and so is what is hashed with them."""
    found: dict[str, object] = {}
    for path in sorted(runs.glob("*/*")):
        if path.name.startswith("claim.") or path.parent.name == "submitit":
            continue
        key = path.relative_to(runs).as_posix()
        try:
            found[key] = content(path)
        except Exception as error:
            found[key] = f"cannot be read: {type(error).__name__}"
    return found


def content(path: Path) -> object:
    """What a file holds that must be equal; an exception of any kind where it cannot be read."""
    if not path.is_file():
        return "not a file"
    if path.name in ("record.json", "run.json"):
        return untimed(json.loads(path.read_text()), drop={"sha256"})
    if path.suffix == ".jsonl":
        return [untimed(json.loads(line), drop={"sha256"}) for line in path.read_text().splitlines()]
    if path.suffix == ".h5":
        return arrays(path)
    if path.suffix == ".pt":
        return untimed(torch.load(path, weights_only=True))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def arrays(path: Path) -> dict[str, object]:
    """Every array and attribute of an HDF5 file."""
    found: dict[str, object] = {}
    with h5py.File(path) as file:
        found["attributes"] = dict(file.attrs)
        file.visititems(lambda key, item: found.update({key: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def untimed(value: object, drop: set[str] = frozenset()) -> object:
    """The value without the keys of TIMES at any depth, and without the keys `drop` at the top."""
    if isinstance(value, dict):
        return {key: untimed(each) for key, each in value.items() if key not in TIMES | drop}
    if isinstance(value, list | tuple):
        return [untimed(each) for each in value]
    if isinstance(value, str | bytes) and value[:2] in ('{"', b'{"', "[{", b"[{"):  # lines kept as text
        return [untimed(json.loads(line)) for line in value.splitlines()]
    return value


def same(a: object, b: object) -> bool:
    """Whether two states are equal, bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, float) and isinstance(b, float):
        return a == b or a != a and b != b
    return type(a) is type(b) and bool(a == b)


def differences(found: dict[str, object], expected: dict[str, object]) -> list[str]:
    """The files that differ, in words."""
    names = sorted(found.keys() | expected.keys())
    words = []
    for name in names:
        if name not in found or name not in expected:
            words.append(f"{name.rpartition('/')[2]} is {'left over' if name in found else 'missing'}")
        elif not same(found[name], expected[name]):
            words.append(f"{name.rpartition('/')[2]} differs")
    return words


def manners(done: Attempt, codes: tuple[int, ...], sound: bool = True) -> list[str]:
    """What is wrong with how a command ended: its exit code, a traceback, advice that no sound file deserves."""
    if done.code is None:
        return ["it hung"]
    problems = []
    if "Traceback" in done.err or "Exception ignored" in done.err:
        problems.append(f"traceback: {done.last}")
    if done.code not in codes:
        problems.append(f"exit code {done.code}: {done.last}")
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    if done.code == 2 and len(errors) != 1:
        problems.append(f"{len(errors)} error lines: {done.last}")
    if any(ord(letter) < 32 or ord(letter) == 127 for line in errors for letter in line):
        problems.append(f"control characters: {done.last!r}")
    if sound and done.code and (said := [word for word in ADVICE if word in done.err]):
        problems.append(f"says {said[0]!r} of a sound file: {done.last}")
    return problems


def clear(folder: Path) -> Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder
