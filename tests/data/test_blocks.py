"""Sets that do not fit into memory: pixels in blocks, and encoded images."""

from __future__ import annotations

import multiprocessing
import pickle

import h5py
import numpy as np
import pytest

from seval.data.blocks import Blocks, digest
from seval.data.hdf5 import read, verify, write
from seval.data.image_set import Encoded, ImageSet, Part
from seval.errors import DataError
from tests.standins import fails, same, whole


def in_blocks(array: np.ndarray, rows: int) -> Blocks:
    return Blocks(array.shape, lambda: (array[i : i + rows] for i in range(0, len(array), rows)))


def encoded_blocks(contents: list[bytes]) -> Blocks:
    offsets = np.cumsum([0, *map(len, contents)])
    return Blocks((int(offsets[-1]),), lambda: (np.frombuffer(c, np.uint8) for c in contents), offsets)


@pytest.fixture
def jpegs(small: ImageSet) -> tuple[ImageSet, dict[str, list[bytes]]]:
    """A set of encoded images, large enough to cross the borders of chunks, and its images."""
    rng = np.random.RandomState(0)
    contents = {n: [rng.bytes(rng.randint(1, 200_000)) for _ in p.labels] for n, p in small.parts.items()}
    parts = {n: p._replace(images=encoded_blocks(contents[n])) for n, p in small.parts.items()}
    parts["unlabeled"] = parts["unlabeled"]._replace(batch=np.array([1, 1, 2, 2, 2], np.uint8))
    return small._replace(mean=(0.5,) * 3, std=(0.5,) * 3, **parts), contents


@pytest.mark.parametrize("rows", [1, 7, 30, 100])
def test_a_set_in_blocks_is_the_same_file(tmp_path, small, rows):
    batch = np.arange(30, dtype=np.uint8)
    small = small._replace(train=small.train._replace(batch=batch))
    parts = {name: part._replace(images=in_blocks(part.images, rows)) for name, part in small.parts.items()}
    write(tmp_path / "whole.h5", small)
    write(tmp_path / "small.h5", small._replace(**parts))
    assert (tmp_path / "small.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    got = verify(tmp_path / "small.h5")
    assert isinstance(got.train.images, Blocks) and np.array_equal(got.train.batch, batch)
    assert same(got, read(tmp_path / "small.h5")) and np.array_equal(whole(got.train.images), small.train.images)
    assert digest(in_blocks(small.train.images, rows)) == digest(small.train.images)


def test_blocks_that_break_their_promise_are_refused(tmp_path, small):
    pixels = small.train.images
    for wrong in (
        Blocks((31, *pixels.shape[1:]), in_blocks(pixels, 7).blocks),
        Blocks((29, *pixels.shape[1:]), in_blocks(pixels, 7).blocks),
        Blocks(pixels.shape, in_blocks(pixels[..., 1:], 7).blocks),
        Blocks(pixels.shape, in_blocks(pixels.astype(np.int64), 7).blocks),
    ):
        labels = np.zeros(len(wrong), np.int64)
        assert "train/images must be" in fails(write, tmp_path / "s.h5", small._replace(train=Part(wrong, labels)))
        assert not list(tmp_path.iterdir())


def test_encoded_images(tmp_path, jpegs):
    images, contents = jpegs
    path = tmp_path / "jpegs.h5"
    write(path, images)
    for got in (read(path), verify(path), pickle.loads(pickle.dumps(read(path)))):
        for name, part in got.parts.items():
            assert isinstance(part.images, Encoded) and len(part.images) == len(contents[name])
            assert [part.images.read(i) for i in range(len(part.labels))] == contents[name]
        assert got.unlabeled.batch.tolist() == [1, 1, 2, 2, 2] and got.train.batch is None
    with pytest.raises(IndexError):
        got.train.images.read(len(got.train.labels))
    write(tmp_path / "again.h5", got)
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"^cannot read {path}: No such file"):
        Encoded(path, "train", got.train.images.offsets, b"").read(0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on forks beside threads
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_encoded_images_in_other_processes(tmp_path, jpegs, method):
    images, contents = jpegs
    write(tmp_path / "jpegs.h5", images)
    train = read(tmp_path / "jpegs.h5").train.images
    train.read(0)  # so that a forked process inherits an open file
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(train.read, range(len(train)), chunksize=3) == contents["train"]


def test_encoded_images_of_a_file_that_took_its_place_are_refused(tmp_path, jpegs):
    """Also where the other has images of the same lengths; who has opened the first file goes on with that."""
    images, contents = jpegs
    path = tmp_path / "jpegs.h5"
    write(path, images)
    early, late = read(path).train.images, read(path).train.images
    first, sent = early.read(0), pickle.dumps(late)
    swapped = images.train.images
    content = whole(swapped)[::-1].copy()
    other = Blocks(swapped.shape, lambda: iter([content]), swapped.offsets)
    write(path, images._replace(train=images.train._replace(images=other)))
    for images in (late, pickle.loads(sent)):
        assert f"{path} was replaced by another set" in fails(images.read, 0)
    assert early.read(0) == first == contents["train"][0]


def test_damage_to_encoded_images_is_noticed(tmp_path, jpegs):
    images, _ = jpegs
    path = tmp_path / "jpegs.h5"
    write(path, images)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    got = read(path)  # only offsets and labels
    assert "damaged" in fails(verify, path)
    assert any(
        "is damaged" in fails(part.images.read, i)
        for part in got.parts.values()
        for i in range(len(part.labels))
        if not _readable(part.images, i)
    )
    for change, message in [
        (lambda f: f["train/offsets"].__setitem__(3, 1), "train/offsets must be int64 (N + 1,) and rise from 0"),
        (lambda f: f["test/offsets"].__setitem__(-1, 10**9), "but test/offsets says otherwise"),
        (lambda f: f["unlabeled/batch"].__setitem__(0, 9), "unlabeled/batch does not match its SHA-256"),
        (lambda f: f.__delitem__("train/encoded"), "damaged"),
    ]:
        write(path, images)
        with h5py.File(path, "r+") as file:
            change(file)
        assert message in fails(verify, path)


def _readable(images: Encoded, i: int) -> bool:
    try:
        return bool(images.read(i))
    except DataError:
        return False
