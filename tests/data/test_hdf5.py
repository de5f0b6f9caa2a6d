"""An image set to HDF5 and back, and that every kind of damage is noticed and named."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from seval.data import hdf5
from seval.data.hdf5 import data_file, read, verify, write
from seval.data.image_set import Part, class_counts, statistics
from seval.data.sources import fashion_mnist
from seval.errors import DataError
from tests.standins import TINY, fails, same


def test_tiny_is_what_it_says(tiny):
    verify(TINY)
    assert TINY.stat().st_size <= 8_000_000
    assert tiny.name == "tiny" and tiny.num_classes == 10
    assert tiny.train.images.shape == (47000, 1, 16, 16) and tiny.test.images.shape == (3000, 1, 16, 16)
    assert tiny.attributes["class_counts"] == {"train": [4700] * 10, "test": [300] * 10}
    assert tiny.attributes["official"] and "1708.07747" in tiny.attributes["credit"]
    assert tiny.attributes["license"].startswith("MIT")
    assert tiny.attributes["sources_sha256"] == fashion_mnist.FILES_SHA256
    scaled = tiny.train.images / 255
    assert np.allclose((tiny.mean, tiny.std), ((scaled.mean(),), (scaled.std(),)), rtol=0, atol=1e-12)


def test_statistics_by_channel():
    images = np.random.RandomState(0).randint(0, 256, (7, 3, 4, 5)).astype(np.uint8)
    assert np.allclose(statistics(images), ((images / 255).mean((0, 2, 3)), (images / 255).std((0, 2, 3))))


@pytest.mark.parametrize("compress", [False, True])
def test_round_trip(tmp_path, small, compress):
    write(tmp_path / "small.h5", small, compress)
    verify(tmp_path / "small.h5")
    got = read(tmp_path / "small.h5")
    assert got.attributes == small.attributes | {"class_counts": class_counts(small)}
    assert same(got, small._replace(sha256=got.sha256, attributes=got.attributes))
    labels = got.train.labels
    assert got.sha256["train/labels"] == hashlib.sha256(b'["<i8", [30]]' + labels.tobytes()).hexdigest()
    write(tmp_path / "again.h5", got, compress)
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "small.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.h5", "small.h5"]


def test_altered_bytes_and_truncation_are_noticed(tmp_path, small):
    path, altered = tmp_path / "small.h5", tmp_path / "altered.h5"
    write(path, small)
    whole, expected, noticed = path.read_bytes(), read(path), 0
    places = np.random.RandomState(0).permutation(len(whole))[:400]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 0x10
        altered.write_bytes(changed)
        try:
            got = read(altered)
        except DataError as error:
            assert str(altered) in str(error) and "python repro/prepare.py altered" in str(error)
            noticed += 1
        else:
            assert same(got, expected)  # the byte lies between HDF5's blocks
    assert noticed > 0.9 * len(places)
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        altered.write_bytes(whole[:length])
        assert "damaged, incomplete or not HDF5" in fails(read, altered)


def test_a_byte_of_the_images_of_tiny(tmp_path, tiny):
    content, path = bytearray(TINY.read_bytes()), tmp_path / "tiny.h5"
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert f"python repro/prepare.py tiny --root {tmp_path}" in fails(read, path)


@pytest.mark.parametrize(("key", "value"), [("train/images", 0), ("test/labels", 0), ("unlabeled/labels", 3)])
def test_verify_notices_what_is_consistent_but_altered(tmp_path, small, key, value):
    path = tmp_path / "small.h5"
    write(path, small)
    with h5py.File(path, "r+") as file:
        file[key][0] = value if value or file[key][0].any() else 1
    read(path, in_blocks=True) if key == "train/images" else fails(read, path, in_blocks=True)
    assert f"{key} does not match its SHA-256" in fails(read, path)
    assert f"{key} does not match its SHA-256" in fails(verify, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_counts": {"train": [3] * 10}}, "its class counts do not match"),
        ({"mean": [0.5], "official": True}, "its mean is (0.5,), but its pixels have"),
        ({"std": [0.5], "official": True}, "its std is (0.5,), but its pixels have"),
    ],
)
def test_verify_notices_altered_attributes(tmp_path, small, change, message):
    path = tmp_path / "small.h5"
    mean, std = statistics(small.train.images)
    write(path, small._replace(mean=mean, std=std))
    with h5py.File(path, "r+") as file:
        for name, value in change.items():
            file.attrs[name] = hdf5.encode_attribute(value)
    read(path)
    assert message in fails(verify, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.attrs.__delitem__("license"), "the attribute license of / is missing"),
        (lambda f: f.attrs.__delitem__("format"), "the attribute format of / is missing"),
        (
            lambda f: f.attrs.__setitem__("format", hdf5.encode_attribute(2)),
            "is of format 2, but this code reads format 1",
        ),
        (lambda f: f.attrs.__setitem__("mean", "0.5"), "damaged"),
        (lambda f: f.attrs.__setitem__("mean", hdf5.encode_attribute([0.1, 0.2])), "do not fit 1 channels"),
        (lambda f: f.attrs.__setitem__("std", hdf5.encode_attribute([0])), "do not fit 1 channels"),
        (lambda f: f.__delitem__("test"), "test"),
        (lambda f: f.__delitem__("train/labels"), "labels"),
        (lambda f: f["train/images"].attrs.__delitem__("sha256"), "the attribute sha256 of /train/images is missing"),
    ],
)
def test_incomplete_files(tmp_path, small, damage, message):
    path = tmp_path / "small.h5"
    write(path, small)
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("train", lambda p: Part(p.images.astype(np.float32), p.labels), "train/images must be uint8 (N, c, H, W)"),
        ("train", lambda p: Part(p.images[:, 0], p.labels), "train/images must be uint8 (N, c, H, W)"),
        ("train", lambda p: Part(p.images[:0], p.labels[:0]), "train/images must be uint8 (N, c, H, W)"),
        ("test", lambda p: Part(p.images, p.labels.astype(np.int32)), "test/labels must be int64 (20,), but is int32"),
        ("test", lambda p: Part(p.images, p.labels[:-1]), "test/labels must be int64 (20,), but is int64 (19,)"),
        (
            "test",
            lambda p: Part(p.images[..., 1:], p.labels),
            "test has images of (1, 16, 15), but train of (1, 16, 16)",
        ),
        ("train", lambda p: Part(p.images, p.labels + 1), "but must lie in 0..9"),
        ("test", lambda p: Part(p.images, p.labels - 1), "but must lie in 0..9"),
        ("unlabeled", lambda p: Part(p.images, p.labels - 1), "but must lie in -1..9"),
    ],
)
def test_the_layout_is_checked_before_writing_and_on_reading(tmp_path, small, monkeypatch, part, change, message):
    path, wrong = tmp_path / "small.h5", small._replace(**{part: change(getattr(small, part))})
    assert message in fails(write, path, wrong)
    assert not list(tmp_path.iterdir())
    if len(wrong.train.images):
        with monkeypatch.context() as patch:  # what another writer might leave
            patch.setattr(hdf5, "check_arrays", lambda *_: None)
            write(path, wrong)
        assert message in fails(read, path)


def test_an_interrupted_writer_leaves_what_was_there(tmp_path, small, monkeypatch):
    path = tmp_path / "small.h5"
    write(path, small)
    before = path.read_bytes()

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(hdf5, "encode_attribute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(path, small._replace(name="other"))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["small.h5"]


def test_a_missing_file_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("SEVAL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    message = fails(read, data_file("cifar10"))
    assert "no file data/cifar10.h5; write it with `python repro/prepare.py cifar10 --download`" in message
    assert "put cifar-10-python.tar.gz into a folder DIR and run `python repro/prepare.py cifar10 --raw DIR`" in message
    assert "--root elsewhere" in fails(read, Path("elsewhere/cifar10.h5"))
    assert "can prepare cifar10, cifar100, fashion_mnist, semi_aves, small_ima" in fails(read, Path("data/x.h5"))
    (tmp_path / "birds.h5").touch()
    near = fails(read, Path("bird.h5"))
    assert "did you mean birds?" in near and "holds birds;" in near and "your own images" in near
    assert "did you mean cifar10?" in fails(read, Path("cifar-10.h5"))
    aves = fails(read, data_file("semi_aves"))
    assert "--download" not in aves and "u_train_in" in aves and aves.endswith("semi_aves --raw DIR`")


def test_root(monkeypatch):
    monkeypatch.setenv("SEVAL_DATA", "/sets")
    assert data_file("tiny") == data_file("tiny", "data") == Path("/sets/tiny.h5")
    assert data_file("tiny", "other") == Path("other/tiny.h5")
    monkeypatch.delenv("SEVAL_DATA")
    assert data_file("tiny", "data") == Path("data/tiny.h5")


def test_a_killed_writer_leaves_nothing_that_hinders(tmp_path, small):
    path = tmp_path / "small.h5"
    code = (
        "import sys, time; from seval.data.hdf5 import *; from seval.data.blocks import *\n"
        "def blocks():\n    yield images.train.images[:10]; print('half', flush=True); time.sleep(60)\n"
        f"images = read({str(TINY)!r})\n"
        f"stream = Blocks(images.train.images.shape, blocks)\n"
        f"write({str(path)!r}, images._replace(train=images.train._replace(images=stream)))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    write(path, small)
    assert [p.name for p in tmp_path.iterdir()] == ["small.h5"] and verify(path)
