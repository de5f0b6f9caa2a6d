"""Fashion-MNIST from official files, and wrong files are named."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np

from seval.data.image_set import ImageSet
from seval.data.sources import fashion_mnist
from tests.data.mutations import outcome
from tests.standins import (
    fails,
    same,
)


def write_fashion(folder: Path, tiny: ImageSet, count: int = 30, packed: bool = True) -> None:
    """A stand-in of the four IDX files with the first so many images of tiny, bordered to 28 x 28."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", tiny.train), ("t10k", tiny.test)):
        pixels = np.pad(part.images[:count, 0], ((0, 0), (6, 6), (6, 6)))
        for kind, array in (("images-idx3", pixels), ("labels-idx1", part.labels[:count].astype(np.uint8))):
            content = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
            path = folder / f"{name}-{kind}-ubyte"
            path.with_suffix(".gz" if packed else "").write_bytes(gzip.compress(content) if packed else content)


def test_fashion_mnist(tmp_path, tiny):
    write_fashion(tmp_path / "FashionMNIST/raw", tiny, packed=True)
    write_fashion(tmp_path / "plain", tiny, packed=False)
    got = fashion_mnist.read(tmp_path)
    assert np.array_equal(got.train.images[:, :, 6:22, 6:22], tiny.train.images[:30])
    assert np.array_equal(got.test.labels, tiny.test.labels[:30]) and got.class_names[-1] == "Ankle boot"
    assert got.attributes["official"] is False
    assert same(got, fashion_mnist.read(tmp_path / "plain"))
    assert "images of a class, but tiny takes 4700" in fails(fashion_mnist.read_tiny, tmp_path)


def test_missing_and_wrong_files_of_fashion_mnist_are_named(tmp_path, tiny):
    assert "put train-images-idx3-ubyte.gz" in fails(fashion_mnist.read, tmp_path)
    write_fashion(tmp_path, tiny)
    images, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "t10k-labels-idx1-ubyte.gz"
    packed = {path: path.read_bytes() for path in (images, labels)}
    for path, content, message in [
        (images, packed[images][:-9], "is truncated"),
        (images, b"nothing", "not a .gz"),
        (images, gzip.compress(gzip.decompress(packed[images])[:-1]), "is truncated or no IDX file of uint8"),
        (images, packed[labels], "no IDX file of uint8 ('N', 28, 28)"),
        (images, gzip.compress(b""), "no IDX file"),
        (images, packed[images][:-8] + bytes(8), "is truncated or not a .gz (CRC check failed"),
        (labels, gzip.compress(b"\0\0\x08\x01\0\0\0\x02\x00\x01"), "must hold 30 labels in 0..9, but holds 2"),
        (labels, gzip.compress(b"\0\0\x08\x01\0\0\0\x1e" + b"\x0a" * 30), "must hold 30 labels in 0..9"),
    ]:
        path.write_bytes(content)
        error = fails(fashion_mnist.read, tmp_path)
        assert str(path) in error and message in error
        path.write_bytes(packed[path])
    images.unlink()
    assert "has no train-images-idx3-ubyte" in fails(fashion_mnist.read, tmp_path)


def test_a_small_file_that_is_large_unpacked_is_refused_while_it_is_read(tmp_path, tiny):
    write_fashion(tmp_path, tiny)
    for name, limit in (("train-images-idx3-ubyte", 1 << 26), ("t10k-labels-idx1-ubyte", 1 << 17)):
        path, content = tmp_path / f"{name}.gz", (tmp_path / f"{name}.gz").read_bytes()
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(2 * limit // 10_000_000 + 1):
                file.write(bytes(10_000_000))
        value, message, peak = outcome(lambda: fashion_mnist.read(tmp_path))
        assert f"{path}, unpacked, has {limit + 1} bytes" in message and peak < 1.2 * (1 << 26)
        path.write_bytes(content)
        with open(tmp_path / name, "wb") as file:
            file.truncate(1 << 40)
        path.unlink()
        assert f"{tmp_path / name} has {1 << 40} bytes, but may have" in fails(fashion_mnist.read, tmp_path)
        (tmp_path / name).unlink()
        path.write_bytes(content)


def test_a_pipe_as_a_file_of_fashion_mnist_ends_at_once(tmp_path, tiny):
    write_fashion(tmp_path, tiny)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is a pipe" in fails(fashion_mnist.read, tmp_path)


def test_sixteen_from_twenty_eight():
    images = np.random.RandomState(0).randint(0, 256, (5, 1, 28, 28)).astype(np.uint8)
    got = fashion_mnist._halve(images)
    assert got.shape == (5, 1, 16, 16) and got.dtype == np.uint8
    assert not got[:, :, 0].any() and not got[:, :, :, 15].any()
    for n, y, x in ((0, 1, 1), (3, 7, 12), (4, 14, 14)):
        block = [int(images[n, 0, 2 * y - 2 + i, 2 * x - 2 + j]) for i in (0, 1) for j in (0, 1)]
        assert got[n, 0, y, x] == int(sum(block) / 4 + 0.5)
