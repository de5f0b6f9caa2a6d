"""The same few images as folders, as a list and as arrays, and the command that prepares them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from repro import prepare as cli
from seval.data import hdf5
from seval.data.image_set import ImageSet


class Picture(NamedTuple):
    split: str
    label: str
    array: np.ndarray


def pictures(tiny: ImageSet, color: bool = False) -> list[Picture]:
    """A long tail of three classes with names as people have them, and every part; no image is there twice."""
    images = tiny.train.pixels[:, 0]
    images = np.stack([images, images[:, ::-1], 255 - images], 3) if color else images
    counts = [("train", "été 2", 5), ("train", "b", 9), ("train", "a", 5), ("valid", "b", 2), ("valid", "a", 1)]
    counts += [("test", "a", 2), ("test", "b", 2), ("test", "été 2", 2), ("unlabeled", "", 7)]
    kinds = [(split, label) for split, label, count in counts for _ in range(count)]
    return [Picture(*kind, image) for kind, image in zip(kinds, images, strict=False)]


def write_folder(folder: Path, given: list[Picture], kind: str = "png") -> None:
    for i, (split, label, array) in enumerate(given):
        save(folder / split / label / f"{i:03}.{kind}", array)


def write_csv(file: Path, given: list[Picture], kind: str = "png") -> None:
    rows = [("label", "path", "split", "remark")]
    for i, (split, label, array) in enumerate(given):
        save(file.parent / f"{999 - i}.{kind}", array)
        rows.append((label, f"{999 - i}.{kind}", split, "a, b"))
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        csv.writer(opened).writerows(rows)


def write_npz(file: Path, given: list[Picture]) -> None:
    names = sorted({label for _, label, _ in given if label})
    arrays: dict[str, np.ndarray] = {"class_names": np.array(names)}
    for split, name in (("train", "train"), ("valid", "val"), ("test", "test"), ("unlabeled", "unlabeled")):
        inside = [picture for picture in given if picture.split == split]
        arrays[f"{name}_images"] = np.stack([picture.array for picture in inside])
        if split != "unlabeled":
            arrays[f"{name}_labels"] = np.array([[names.index(picture.label)] for picture in inside])
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)


def save(path: Path, array: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


class Own:
    """Runs prepare.py for a set called own, in a root of its own."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture) -> None:
        self.root, self.capsys, self.path = root, capsys, root / "own.h5"
        self.out = self.err = ""

    def __call__(self, *words: object) -> int:
        code = cli.main([*map(str, words), "--name", "own", "--root", str(self.root)])
        self.out, self.err = self.capsys.readouterr()
        assert self.err.count("\n") == (code == 2)
        return code

    def fails(self, *words: object) -> str:
        """The error of a command, which leaves nothing valid behind."""
        assert self(*words) == 2 and not self.path.exists()
        assert self.err.startswith("error: ") and not list(self.root.glob("*.partial"))
        return self.err[7:-1]

    def made(self, *words: object) -> ImageSet:
        """The set that a command writes."""
        assert self(*words, "--force") == 0, self.err
        hdf5.verify(self.path)
        assert not self.root.joinpath(".own.h5.inspected").exists()
        return hdf5.read(self.path)
