"""CIFAR-10 and CIFAR-100 from official files, and wrong files are named."""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile

import numpy as np
import pytest
import torchvision

from seval.data.hdf5 import read, verify, write
from seval.data.sources import cifar, raw
from tests.standins import (
    Malicious,
    as_cifar10,
    as_rgb,
    fails,
    same,
    write_cifar100,
    write_small_cifar10,
)

cifar10, cifar100 = cifar.CIFAR10.read, cifar.CIFAR100.read


def test_cifar10(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path, tiny, 20, 5)
    got = cifar10(tmp_path)
    first = np.sort(np.concatenate([np.flatnonzero(tiny.train.labels == c)[:20] for c in range(10)]))
    assert np.array_equal(got.train.images, as_cifar10(tiny.train.images[first]))
    assert np.array_equal(got.train.labels, tiny.train.labels[first])
    assert got.test.images.shape == (50, 3, 32, 32) and got.class_names[3] == "cat"
    assert got.attributes["official"] is False
    batch = folder / "data_batch_3"
    assert got.attributes["sources_sha256"]["data_batch_3"] == hashlib.sha256(batch.read_bytes()).hexdigest()
    assert same(cifar10(folder), got)


def test_standins_are_cifar10_to_torchvision(tmp_path, tiny, monkeypatch):
    folder = write_small_cifar10(tmp_path, tiny)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setitem(torchvision.datasets.CIFAR10.meta, "md5", None)
    theirs, ours = torchvision.datasets.CIFAR10(str(tmp_path)), cifar10(tmp_path)
    assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), ours.train.images)
    assert theirs.targets == ours.train.labels.tolist() and tuple(theirs.classes) == ours.class_names
    assert (folder / "data_batch_1").read_bytes().startswith(b"\x80\x02}q\x00(U\x0bbatch_label")


def test_official_files_are_known_as_such(tmp_path, tiny, monkeypatch):
    folder = write_small_cifar10(tmp_path, tiny)
    md5 = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}
    theirs = torchvision.datasets.CIFAR10
    monkeypatch.setattr(theirs, "train_list", [[name, md5[name]] for name, _ in theirs.train_list])
    monkeypatch.setattr(theirs, "test_list", [[name, md5[name]] for name, _ in theirs.test_list])
    monkeypatch.setitem(theirs.meta, "md5", md5["batches.meta"])
    assert cifar10(tmp_path).attributes["official"] is True


def test_cifar10_archive(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path / "plain", tiny)
    (tmp_path / "packed").mkdir()
    archive = tmp_path / "packed" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    assert same(cifar10(tmp_path / "packed"), cifar10(tmp_path / "plain"))
    archive.write_bytes(archive.read_bytes()[:-5000])
    assert f"{archive} is truncated" in fails(cifar10, tmp_path / "packed")
    (folder / "data_batch_4").unlink()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    assert f"{archive} has no data_batch_4" in fails(cifar10, tmp_path / "packed")


def test_missing_extra_and_wrong_files_of_cifar10_are_named(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path, tiny)
    assert "has neither cifar-10-batches-py nor cifar-10-python.tar.gz" in fails(cifar10, tmp_path / "nowhere")
    (folder / "data_batch_6").touch()
    assert f"{folder / 'data_batch_6'} is no file of this set" in fails(cifar10, tmp_path)
    (folder / "data_batch_6").unlink()
    whole = (folder / "data_batch_2").read_bytes()
    pixels = np.zeros((2, 3072), np.uint8)
    for content, message in [
        (whole[:-1], "is truncated"),
        (whole[:1000], "is truncated"),
        (b"", "is truncated"),
        (pickle.dumps({"data": pixels[:, 1:], "labels": [0, 1]}), "must hold data uint8 (N, 3072)"),
        (pickle.dumps({"data": pixels.astype(float), "labels": [0, 1]}), "must hold data uint8 (N, 3072)"),
        (pickle.dumps({"data": pixels, "labels": [0, 10]}), "a list of 2 labels in 0..9"),
        (pickle.dumps({"data": pixels, "labels": [0, [1]]}), "a list of 2 labels in 0..9"),
        (pickle.dumps({"data": pixels, "labels": [0]}), "a list of 2 labels in 0..9"),
        (pickle.dumps({"data": pixels, "fine_labels": [0, 1]}), "a list of 2 labels in 0..9"),
        (pickle.dumps([pixels]), "not a pickled dictionary"),
        (pickle.dumps({"data": pixels, "labels": [0, 1], "batch_label": pixels}), "says it is the , not the training"),
    ]:
        (folder / "data_batch_2").write_bytes(content)
        error = fails(cifar10, tmp_path)
        assert str(folder / "data_batch_2") in error and message in error
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    assert f"{folder} has no data_batch_2, test_batch" in fails(cifar10, tmp_path)


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_does_not_execute(tmp_path, tiny, protocol):
    folder, trace = write_small_cifar10(tmp_path, tiny), tmp_path / "trace"
    for attack in (
        Malicious(os.mkdir, str(trace)),
        Malicious(exec, f"open({str(trace)!r}, 'w')"),
        Malicious(np.load, str(trace)),
        Malicious(np.memmap, str(trace), "u1", "w+", 0, 8),
    ):
        (folder / "data_batch_1").write_bytes(pickle.dumps({"data": attack, "labels": []}, protocol))
        assert "which no image set needs" in fails(cifar10, tmp_path)
        assert not trace.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_this_python_are_read(protocol):
    pixels = np.arange(6144).astype(np.uint8).reshape(2, 3072)
    file = raw.in_memory(pickle.dumps({b"data": pixels, b"labels": [3, 4]}, protocol), "here")
    got = cifar._batch(cifar._CIFAR10, file, "training batch 1 of 5")
    assert np.array_equal(got.images.reshape(2, 3072), pixels) and got.labels.tolist() == [3, 4]


def test_labels_that_are_numbers_of_numpy_are_read(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path, tiny)
    before = cifar10(tmp_path)
    for path in folder.glob("*_batch*"):
        batch = pickle.loads(path.read_bytes(), encoding="latin1")
        labels = [np.int64(label) for label in batch["labels"]]
        path.write_bytes(pickle.dumps(batch | {"labels": labels}, protocol=2 if "1" in path.name else 4))
    assert np.array_equal(cifar10(tmp_path).train.labels, before.train.labels)


@pytest.mark.parametrize("names", [None, 5, b"cat", ["cat"] * 9, ["cat"] * 9 + [1], ["cat"] * 9 + [""], ["a\nb"] * 10])
def test_wrong_class_names_of_cifar10_are_named(tmp_path, tiny, names):
    meta = write_small_cifar10(tmp_path, tiny) / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": names}))
    assert f"{meta} must hold 10 label_names" in fails(cifar10, tmp_path)


def test_swapped_files_of_cifar10_are_named(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path, tiny)
    first, second = (folder / f"data_batch_{k}" for k in (1, 2))
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    assert f"{first} says it is the training batch 2 of 5, not the training batch 1 of 5" in fails(cifar10, tmp_path)


def test_cifar100(tmp_path, tiny):
    folder = write_cifar100(tmp_path, tiny)
    write(tmp_path / "cifar100.h5", cifar100(tmp_path))
    verify(tmp_path / "cifar100.h5")
    got = read(tmp_path / "cifar100.h5")
    assert got.train.images.shape == (300, 3, 32, 32) and np.bincount(got.train.labels).tolist() == [3] * 100
    assert got.class_names[42] == "fine_42" and got.mean == (0.5071, 0.4865, 0.4409)
    for c in (0, 57, 99):
        members = as_rgb(tiny.train.images[tiny.train.labels == c % 10][c // 10 * 3 :][:3], 32)
        images = got.train.images[got.train.labels == c]
        assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in members)
    with tarfile.open(tmp_path / "cifar-100-python.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    folder.rename(tmp_path / "elsewhere")
    assert same(cifar100(tmp_path), cifar100(tmp_path / "elsewhere"))


def test_standins_are_cifar100_to_torchvision(tmp_path, tiny, monkeypatch):
    write_cifar100(tmp_path, tiny)
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setitem(torchvision.datasets.CIFAR100.meta, "md5", None)
    theirs, ours = torchvision.datasets.CIFAR100(str(tmp_path)), cifar100(tmp_path)
    assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), ours.train.images)
    assert theirs.targets == ours.train.labels.tolist() and tuple(theirs.classes) == ours.class_names


def test_wrong_files_of_cifar100_are_named(tmp_path, tiny):
    folder, trace = write_cifar100(tmp_path, tiny), tmp_path / "trace"
    train, test = folder / "train", folder / "test"
    whole_train, whole_test = train.read_bytes(), test.read_bytes()
    pixels = np.zeros((2, 3072), np.uint8)
    for content, message in [
        (whole_train[:-1], "is truncated"),
        (whole_train[:5000], "is truncated"),
        (whole_test, "says it is the testing batch 1 of 1"),
        (pickle.dumps({"data": pixels, "labels": [1, 2]}), "must hold fine_labels, a list of 2 labels in 0..99"),
        (pickle.dumps({"data": pixels, "fine_labels": [1, 100]}), "a list of 2 labels in 0..99"),
        (pickle.dumps({"data": Malicious(os.mkdir, str(trace)), "fine_labels": []}), "which no image set needs"),
    ]:
        train.write_bytes(content)
        error = fails(cifar100, tmp_path)
        assert str(train) in error and message in error
    assert not trace.exists()
    train.write_bytes(whole_train)
    (folder / "data_batch_1").touch()
    assert f"{folder / 'data_batch_1'} is no file of this set" in fails(cifar100, tmp_path)
    (folder / "data_batch_1").unlink()
    (folder / "meta").unlink()
    assert f"{folder} has no meta" in fails(cifar100, tmp_path)
