"""Small own sets, made of the real images in data/tiny.h5: pixels with all parts, and JPEG files."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from seval.data import hdf5
from seval.data.blocks import Blocks
from seval.data.image_set import ImageSet, Part
from tests.standins import TINY, write_jpegs

COUNTS = (24, 12, 6)  # labels of each class; a sixth of them are validation images
_tiny = lru_cache(1)(hdf5.read)
_ABOUT = {"source": "a test", "license": "MIT", "credit": "", "sources_sha256": {}, "official": None}


def own_set(name: str = "birds", unlabeled: int = 40) -> ImageSet:
    """Three classes of tiny with a natural long tail, validation, test and, if asked for, unlabeled images."""
    tiny = _tiny(TINY)
    labels, images = tiny.train.labels, tiny.train.pixels
    members = [np.flatnonzero(labels == c) for c in range(3)]
    chosen = np.concatenate([m[:count] for m, count in zip(members, COUNTS, strict=True)])
    batch = np.concatenate([np.where(np.arange(count) % 6 == 5, 2, 1) for count in COUNTS]).astype(np.uint8)
    rest = np.concatenate([m[-unlabeled:] for m in members])[: 3 * unlabeled : 3]
    test = np.concatenate([np.flatnonzero(tiny.test.labels == c)[:8] for c in range(3)])
    return tiny._replace(
        name=name,
        train=Part(images[chosen], labels[chosen], batch),
        test=Part(tiny.test.pixels[test], tiny.test.labels[test]),
        unlabeled=Part(images[rest], np.full(len(rest), -1)) if unlabeled else None,
        class_names=("shirt", "trousers", "pullover"),
        attributes=_ABOUT,
        sha256={},
    )


def write_own(root: Path, name: str = "birds", unlabeled: int = 40, encoded: bool = False) -> Path:
    """ROOT/NAME.h5; with `encoded`, its images are JPEG files."""
    images = own_set(name, unlabeled)
    if encoded:
        parts = {key: part._replace(images=_as_jpegs(root / name / key, part)) for key, part in images.parts.items()}
        images = images._replace(**parts, mean=images.mean * 3, std=images.std * 3)
    hdf5.write(root / f"{name}.h5", images)
    return root / f"{name}.h5"


def _as_jpegs(folder: Path, part: Part) -> Blocks:
    files = write_jpegs(folder, part.pixels)
    content = [np.frombuffer(files.read(i), np.uint8) for i in range(len(files))]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in content])])
    return Blocks((int(offsets[-1]),), lambda: iter([np.concatenate(content)]), offsets)
