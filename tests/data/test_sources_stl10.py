"""STL-10 from official files, and wrong files are named."""

from __future__ import annotations

import hashlib
import tarfile

import numpy as np
import pytest
import torchvision

from seval.data.hdf5 import read, verify, write
from seval.data.sources import archive, stl10
from tests.standins import (
    as_rgb,
    fails,
    same,
    whole,
    write_stl10,
)


@pytest.mark.parametrize("large", [archive.LARGE, 0])
def test_stl10(tmp_path, tiny, monkeypatch, large):
    folder = write_stl10(tmp_path, tiny)
    write(tmp_path / "stl10.h5", stl10.read(tmp_path))
    verify(tmp_path / "stl10.h5")
    got = read(tmp_path / "stl10.h5")
    assert np.array_equal(got.train.images, as_rgb(tiny.train.images[:30], 96))
    assert np.array_equal(got.test.images, as_rgb(tiny.test.images[:20], 96))
    assert np.array_equal(got.unlabeled.images, as_rgb(tiny.train.images[30:70], 96))
    assert np.array_equal(got.test.labels, tiny.test.labels[:20]) and set(got.unlabeled.labels.tolist()) == {-1}
    assert got.class_names[7] == "monkey" and got.attributes["official"] is False
    assert got.attributes["statistics_of"] == "cifar10"
    monkeypatch.setattr(archive, "LARGE", large)  # with 0, nothing of the archive is kept in memory
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed/stl10_binary.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    assert same(stl10.read(tmp_path / "packed"), stl10.read(tmp_path))


def test_standins_are_stl10_to_torchvision(tmp_path, tiny, monkeypatch):
    write_stl10(tmp_path, tiny)
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda self: True)
    ours = stl10.read(tmp_path)
    for name, part in ours.parts.items():
        theirs = torchvision.datasets.STL10(str(tmp_path), name)
        assert np.array_equal(theirs.data, whole(part.images)) and np.array_equal(theirs.labels, part.labels)
    assert tuple(torchvision.datasets.STL10(str(tmp_path)).classes) == ours.class_names


def test_an_official_set_with_the_statistics_of_another_is_valid(tmp_path, tiny, monkeypatch):
    folder = write_stl10(tmp_path, tiny)
    md5 = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    theirs = torchvision.datasets.STL10
    for listed in ("train_list", "test_list"):
        monkeypatch.setattr(theirs, listed, [[name, md5[name]] for name, _ in getattr(theirs, listed)])
    write(tmp_path / "stl10.h5", stl10.read(tmp_path))
    assert verify(tmp_path / "stl10.h5").attributes["official"] is True


def test_wrong_files_of_stl10_are_named(tmp_path, tiny):
    folder = write_stl10(tmp_path, tiny)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name, wrong, message in [
        ("train_X.bin", content["train_X.bin"][:-1], "is truncated"),
        ("unlabeled_X.bin", b"", "is truncated"),
        ("train_y.bin", content["train_y.bin"][:-1], "must hold 30 labels in 1..10"),
        ("train_y.bin", content["test_y.bin"], "must hold 30 labels in 1..10"),
        ("test_y.bin", b"\x00" * 20, "must hold 20 labels in 1..10"),
        ("test_y.bin", b"\x0b" * 20, "must hold 20 labels in 1..10"),
        ("class_names.txt", b"cat dog", "must hold 10 class names, but holds 2"),
        ("class_names.txt", b"cat\x1b[2J " * 10, "must hold 10 class names"),
        ("class_names.txt", "kočka ".encode("utf-16") * 10, "is not text in UTF-8"),
        ("class_names.txt", bytes(1 << 17), "but may have 65536 at most"),
        ("train_y.bin", bytes(1 << 17), "but may have 65536 at most"),
        ("extra_X.bin", b"", "is no file of this set"),
    ]:
        (folder / name).write_bytes(wrong)
        error = fails(stl10.read, tmp_path)
        assert str(folder / name) in error and message in error
        (folder / name).write_bytes(content[name]) if name in content else (folder / name).unlink()
    (folder / "class_names.txt").write_bytes(b"\xef\xbb\xbf" + content["class_names.txt"].replace(b"\n", b"\r\n"))
    assert stl10.read(tmp_path).class_names[:2] == ("airplane", "bird")
    (folder / "train_X.bin").write_bytes(content["test_X.bin"])
    assert f"{folder / 'train_y.bin'} must hold 20 labels" in fails(stl10.read, tmp_path)
    (folder / "train_X.bin").unlink()
    assert f"{folder} has no train_X.bin" in fails(stl10.read, tmp_path)
