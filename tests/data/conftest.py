"""The set that ships with the code, and an encoded set made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seval.data import hdf5
from seval.data.decode import Decoder
from seval.data.image_set import ImageSet, Part
from tests.data.own import Own, pictures, write_folder
from tests.standins import ENCODED_SIDE, TINY, write_jpegs


@pytest.fixture(scope="session")
def tiny() -> ImageSet:
    return hdf5.read(TINY)


@pytest.fixture
def small(tiny: ImageSet) -> ImageSet:
    """A set of every part, small enough to try many ways of damage."""
    return tiny._replace(
        name="small",
        train=Part(tiny.train.images[:30], tiny.train.labels[:30]),
        test=Part(tiny.test.images[:20], tiny.test.labels[:20]),
        unlabeled=Part(tiny.train.images[30:35], np.full(5, -1)),
        attributes=tiny.attributes | {"official": False},
    )


@pytest.fixture(scope="session")
def encoded(tiny, tmp_path_factory) -> ImageSet:
    """30 training and 5 test images of every class, as JPEG files of several shapes."""
    folder, parts = tmp_path_factory.mktemp("encoded"), {}
    for name, count in (("train", 30), ("test", 5)):
        images, labels = tiny.parts[name][:2]
        chosen = np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(tiny.num_classes)])
        parts[name] = Part(write_jpegs(folder / name, images[chosen]), labels[chosen])
    return tiny._replace(**parts, mean=tiny.mean * 3, std=tiny.std * 3)


@pytest.fixture(scope="session")
def decoders() -> dict[int, Decoder]:
    """One for each number of workers, so that the processes start only once."""
    return {workers: Decoder(size=ENCODED_SIDE, workers=workers) for workers in (0, 1, 2)}


@pytest.fixture
def own(tmp_path: Path, capsys: pytest.CaptureFixture) -> Own:
    """The command that prepares a user's own images."""
    return Own(tmp_path / "root", capsys)


@pytest.fixture
def folder(tmp_path: Path, tiny: ImageSet) -> Path:
    """A user's own images."""
    write_folder(tmp_path / "raw", pictures(tiny))
    return tmp_path / "raw"
