"""Every source: what it reads is what its publisher's files hold, and a file that is wrong is named."""

from __future__ import annotations

import csv
import functools
import gzip
import hashlib
import os
import pickle
import runpy
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torchvision

from repro import prepare as cli
from seval.data.hdf5 import read, verify, write
from seval.data.image_set import ImageSet
from seval.data.sources import SOURCES, cifar, fashion_mnist, fetch, raw, semi_aves, small_imagenet127, stl10
from tests.standins import (
    TINY,
    as_cifar10,
    as_rgb,
    fails,
    same,
    whole,
    write_cifar100,
    write_imagenet,
    write_semi_aves,
    write_small_cifar10,
    write_stl10,
)

cifar10, cifar100 = cifar.read_cifar10, cifar.read_cifar100


@pytest.fixture(scope="session")
def tiny() -> ImageSet:
    return read(TINY)


# CIFAR-10


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
    assert f"{archive} lacks data_batch_4" in fails(cifar10, tmp_path / "packed")


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
    ]:
        (folder / "data_batch_2").write_bytes(content)
        error = fails(cifar10, tmp_path)
        assert str(folder / "data_batch_2") in error and message in error
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    assert f"{folder} lacks data_batch_2, test_batch" in fails(cifar10, tmp_path)


class _Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_does_not_execute(tmp_path, tiny, protocol):
    folder, trace = write_small_cifar10(tmp_path, tiny), tmp_path / "trace"
    for attack in (
        _Malicious(os.mkdir, str(trace)),
        _Malicious(exec, f"open({str(trace)!r}, 'w')"),
        _Malicious(np.load, str(trace)),
        _Malicious(np.memmap, str(trace), "u1", "w+", 0, 8),
    ):
        (folder / "data_batch_1").write_bytes(pickle.dumps({"data": attack, "labels": []}, protocol))
        assert "which no image set needs" in fails(cifar10, tmp_path)
        assert not trace.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_this_python_are_read(protocol):
    pixels = np.arange(6144).astype(np.uint8).reshape(2, 3072)
    file = raw.of(pickle.dumps({b"data": pixels, b"labels": [3, 4]}, protocol), "here")
    got = cifar._batch(cifar._CIFAR10, file, "training batch 1 of 5")
    assert np.array_equal(got.images.reshape(2, 3072), pixels) and got.labels.tolist() == [3, 4]


def test_swapped_files_of_cifar10_are_named(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path, tiny)
    first, second = (folder / f"data_batch_{k}" for k in (1, 2))
    first.rename(folder / "aside")
    second.rename(first)
    (folder / "aside").rename(second)
    assert f"{first} says it is the training batch 2 of 5, not the training batch 1 of 5" in fails(cifar10, tmp_path)


# CIFAR-100


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
        (pickle.dumps({"data": _Malicious(os.mkdir, str(trace)), "fine_labels": []}), "which no image set needs"),
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
    assert f"{folder} lacks meta" in fails(cifar100, tmp_path)


# STL-10


@pytest.mark.parametrize("large", [raw.LARGE, 0])
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
    monkeypatch.setattr(raw, "LARGE", large)  # with 0, nothing of the archive is kept in memory
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
        ("extra_X.bin", b"", "is no file of this set"),
    ]:
        (folder / name).write_bytes(wrong)
        error = fails(stl10.read, tmp_path)
        assert str(folder / name) in error and message in error
        (folder / name).write_bytes(content[name]) if name in content else (folder / name).unlink()
    (folder / "train_X.bin").write_bytes(content["test_X.bin"])
    assert f"{folder / 'train_y.bin'} must hold 20 labels" in fails(stl10.read, tmp_path)
    (folder / "train_X.bin").unlink()
    assert f"{folder} lacks train_X.bin" in fails(stl10.read, tmp_path)


# Small-ImageNet-127

imagenet = small_imagenet127.read


@pytest.mark.parametrize(("side", "form"), [(32, "python2"), (32, "2"), (32, "4"), (32, "5"), (32, "npz"), (64, "npz")])
def test_small_imagenet127(tmp_path, tiny, side, form):
    written = write_imagenet(tmp_path / ("imagenet" if side == 32 else "imagenet64"), tiny, side, form=form)
    name = "small_imagenet127" if side == 32 else "small_imagenet127_64"
    write(tmp_path / f"{name}.h5", SOURCES[name].read(tmp_path))
    verify(tmp_path / f"{name}.h5")
    got = read(tmp_path / f"{name}.h5")
    train = [written[f"train_data_batch_{k}"] for k in range(1, 11)]
    assert np.array_equal(got.train.images.reshape(400, -1), np.concatenate([images for images, _ in train]))
    assert np.array_equal(got.test.images.reshape(40, -1), written["val_data"][0])
    assert got.train.batch.tolist() == np.repeat(range(1, 11), 40).tolist() and got.test.batch is None
    first = np.bincount(got.train.labels[got.train.batch == 1], minlength=127)
    assert (np.diff(first) <= 0).all() and got.num_classes == 127 == len(set(got.class_names))
    rows = {int(r["number"]): r for r in _rows()}
    pairs = (got.train.labels, np.concatenate([y for _, y in train])), (got.test.labels, written["val_data"][1])
    for labels, numbers in pairs:
        assert [got.class_names[y] for y in labels] == [rows[n]["class_name"] for n in numbers]
    order = [next(int(r["class_index"]) for r in rows.values() if r["class_name"] == n) for n in got.class_names]
    ties = [(a, b) for a, b, gap in zip(order, order[1:], np.diff(first), strict=False) if gap == 0]
    assert ties and all(a < b for a, b in ties)
    assert got.name == name and "76 of 1,000 a choice" in got.attributes["credit"]


def _rows() -> list[dict]:
    path = Path(small_imagenet127.__file__).with_name("imagenet127.csv")
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))


def test_the_shipped_map():
    rows = _rows()
    assert [int(r["number"]) for r in rows] == list(range(1, 1001)) and len({r["wnid"] for r in rows}) == 1000
    assert {int(r["class_index"]) for r in rows} == set(range(127))
    assert len({(r["class_index"], r["class_wnid"], r["class_name"]) for r in rows}) == 127
    assert sum(bool(r["choice"]) for r in rows) == 76
    assert max(np.bincount([int(r["class_index"]) for r in rows])) == 218


def test_a_users_imgname2folder_wins(tmp_path, tiny, capsys):
    written = write_imagenet(tmp_path, tiny)
    rows, path = _rows(), tmp_path / "imgname2folder.txt"
    lines = [f"{r['wnid']}_{i}.JPEG {r['class_wnid']}" for r in rows for i in (1, 2)]
    path.write_text("\n".join(lines))
    before = imagenet(tmp_path)
    assert "puts 0 of 1,000 elsewhere" in capsys.readouterr().out
    others = [r for r in rows if r["class_wnid"] != rows[500]["class_wnid"]]
    used = [rows[n - 1] for n in written["train_data_batch_1"][1] if rows[n - 1] in others][:1] + others[-1:]
    moved = {r["wnid"]: rows[500]["class_wnid"] for r in used}
    first = [f"{wnid}_0.JPEG {target}" for wnid, target in moved.items()]  # the first occurrence wins
    path.write_text("\n".join(first + lines))
    got = imagenet(tmp_path)
    assert f"{path} is there" in (out := capsys.readouterr().out) and "puts 2 of 1,000 elsewhere" in out
    assert "puts 2 of 1,000 elsewhere" in got.attributes["credit"]
    assert got.attributes["sources_sha256"]["imgname2folder.txt"] == hashlib.sha256(path.read_bytes()).hexdigest()
    names = [[s.class_names[y] for y in s.train.labels] for s in (before, got)]
    numbers = np.concatenate([written[f"train_data_batch_{k}"][1] for k in range(1, 11)])
    for old, new, number in zip(*names, numbers, strict=True):
        assert new == (rows[500]["class_name"] if rows[number - 1]["wnid"] in moved else old)
    for line, message in [
        ("n01440764_1.JPEG", "line 2, must hold an image and a folder"),
        ("n99999999_1.JPEG n01861778", "n99999999 is none of the 1,000 classes"),
        (f"{rows[0]['wnid']}_1.JPEG n99999999", "which is none of the 127 classes"),
    ]:
        path.write_text(f"{lines[0]}\n{line}\n")
        assert f"{path}, line 2," in (error := fails(imagenet, tmp_path)) and message in error
    path.write_text(lines[0])
    assert "says nothing about 999 of the 1,000 classes" in fails(imagenet, tmp_path)


def test_wrong_files_of_small_imagenet127_are_named(tmp_path, tiny):
    folder, trace = tmp_path / "imagenet", tmp_path / "trace"
    assert "Imagenet32_train.zip" in (error := fails(imagenet, tmp_path)) and "image-net.org" in error
    written = write_imagenet(folder, tiny)
    batch = folder / "train_data_batch_4"
    good, (images, labels) = batch.read_bytes(), written["train_data_batch_4"]
    content = {"data": images, "labels": labels.tolist(), "mean": images.mean(0)}
    for wrong, message in [
        (good[:-1], "is truncated"),
        (good[: len(good) // 2], "is truncated"),
        ((folder / "val_data").read_bytes(), "has no mean, so it is a validation file: files were swapped"),
        (pickle.dumps(content | {"labels": [0] * 40}), "a list of 40 labels in 1..1000"),
        (pickle.dumps(content | {"labels": [1001] * 40}), "a list of 40 labels in 1..1000"),
        (pickle.dumps(content | {"data": images[:, :-1]}), "but has uint8 (40, 3071)"),
        (pickle.dumps(content | {"data": as_rgb(tiny.train.images[:40], 64).reshape(40, -1)}), "(40, 12288)"),
        (pickle.dumps(content | {"mean": _Malicious(os.mkdir, str(trace))}), "which no image set needs"),
    ]:
        batch.write_bytes(wrong)
        error = fails(imagenet, tmp_path)
        assert str(batch) in error and message in error
    assert not trace.exists()
    batch.write_bytes(good)
    np.savez(folder / "train_data_batch_4.npz", **content)
    assert "are the same batch" in fails(imagenet, tmp_path)
    batch.unlink()
    imagenet(tmp_path)
    npz = folder / "train_data_batch_4.npz"
    npz.write_bytes(npz.read_bytes()[:-100])
    assert f"{npz} is truncated" in fails(imagenet, tmp_path)
    np.savez(npz, data=np.array([_Malicious(os.mkdir, str(trace))], object), labels=labels, mean=0)
    assert f"{npz} is truncated or not an .npz of arrays" in fails(imagenet, tmp_path) and not trace.exists()
    npz.unlink()
    assert f"{folder} lacks train_data_batch_4" in fails(imagenet, tmp_path)
    batch.write_bytes(good)
    (folder / "val_data").write_bytes(good)
    assert f"{folder / 'val_data'} has a mean, so it is a training file" in fails(imagenet, tmp_path)
    (folder / "train_data_batch_11").write_bytes(good)
    assert f"{folder / 'train_data_batch_11'} is no file of down-sampled ImageNet" in fails(imagenet, tmp_path)


def test_the_construct_script_runs_twice(tmp_path, tiny, monkeypatch, capsys):
    script = TINY.parent / "imagenet" / "construct_small_imagenet_127.py"
    folder = tmp_path / "data" / "imagenet"
    write_imagenet(folder, tiny)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / script.name).write_text(script.read_text())
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [script.name])
    monkeypatch.delenv("SEVAL_DATA", raising=False)
    made = []
    for said in ("is ready", "nothing to do"):
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script.name, run_name="__main__")
        assert ended.value.code == 0 and said in capsys.readouterr().out
        made.append((tmp_path / "data" / "small_imagenet127.h5").read_bytes())
    assert made[0] == made[1] and before == {name: (folder / name).read_bytes() for name in before}
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["imagenet", "small_imagenet127.h5"]


def test_an_interrupted_preparation(tmp_path, tiny, monkeypatch, capsys):
    write_imagenet(tmp_path / "imagenet", tiny)
    command, loads, load = ["small_imagenet127", "--root", str(tmp_path)], [], small_imagenet127._load

    def interrupted(*arguments):
        loads.append(arguments)
        if len(loads) == 14:  # the third batch to be written
            raise KeyboardInterrupt
        return load(*arguments)

    monkeypatch.setattr(small_imagenet127, "_load", interrupted)
    assert cli.main(command) == 130 and "interrupted: nothing was changed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["imagenet"]
    assert cli.main(command) == 0 and verify(tmp_path / "small_imagenet127.h5")


# Semi-Aves


@pytest.fixture(scope="session")
def aves(tmp_path_factory, tiny) -> Path:
    return write_semi_aves(tmp_path_factory.mktemp("aves"), tiny)


def test_semi_aves(tmp_path, aves):
    assert cli.main(["semi_aves", "--raw", str(aves.parent), "--root", str(tmp_path)]) == 0
    verify(tmp_path / "semi_aves.h5")
    got = read(tmp_path / "semi_aves.h5")
    names = ("l_train_val", "test", "u_train")
    lists = {name: [line.split() for line in (aves / f"{name}.txt").read_text().splitlines()] for name in names}
    for listed, part in zip(lists.values(), got.parts.values(), strict=True):
        assert len(listed) == len(part.images)
        assert all(part.images.read(i) == (aves / path).read_bytes() for i, (path, _) in enumerate(listed))
    for name, part in (("l_train_val", got.train), ("test", got.test)):
        assert [got.class_names[y] for y in part.labels] == [f"species {label}" for _, label in lists[name]]
    counts = np.bincount(got.train.labels, minlength=200)
    original = [int(name.removeprefix("species ")) for name in got.class_names]
    assert sorted(original) == list(range(200)) and counts.sum() == len(lists["l_train_val"])
    assert all((-counts[i], original[i]) < (-counts[i + 1], original[i + 1]) for i in range(199))
    assert got.unlabeled.batch.tolist() == [1] * 20 + [2] * 30 and set(got.unlabeled.labels.tolist()) == {-1}
    assert got.mean == (0.485, 0.456, 0.406) and got.std == (0.229, 0.224, 0.225)
    assert got.attributes["official"] is None


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("test.txt", lambda c: c + b"test/7.jpg\n", "test.txt, line 201, must hold a relative path and a label"),
        ("test.txt", lambda c: c + b"test/x.jpg 1 2\n", "test.txt, line 201, must hold"),
        ("test.txt", lambda c: c + b"test/x.jpg cat\n", "test.txt, line 201, must hold"),
        ("test.txt", lambda c: c + b"test/x.jpg 200\n", "line 201, has the label 200"),
        ("test.txt", lambda c: c + b"test/x.jpg -1\n", "line 201, has the label -1"),
        ("test.txt", lambda c: c + c[: c.index(b"\n") + 1], "line 201, repeats test/0.jpg"),
        ("test.txt", lambda c: c + b"test/x.jpg 1\n", "x.jpg is missing, but "),
        ("test.txt", lambda c: c + b"../secret.jpg 1\n", "but this list is of images in test"),
        ("test.txt", lambda c: c + b"test/../../secret.jpg 1\n", "but this list is of images in test"),
        ("test.txt", lambda c: b"", "test.txt is empty"),
        ("u_train_in.txt", lambda c: c.replace(b"u_train_in", b"u_train_out"), "this list is of images in u_train_in"),
        ("u_train.txt", lambda c: c[c.index(b"\n") + 1 :], "u_train.txt lacks u_train_in/0.jpg"),
        ("u_train_in.txt", lambda c: c[c.index(b"\n") + 1 :], "has u_train_in/0.jpg, which u_train_in.txt lacks"),
        ("l_train_val.txt", lambda c: c[c.index(b"trainval_images/1/") :], "has no image of class 0"),
        ("test/5.jpg", lambda c: b"", "test/5.jpg is empty"),
        ("test/5.jpg", lambda c: c[:-2], "test/5.jpg is truncated or not a JPEG"),
        ("test/5.jpg", lambda c: c[:100], "test/5.jpg is truncated or not a JPEG"),
        ("u_train_out/3.jpg", lambda c: b"\x89PNG\r\n\x1a\n" + c, "u_train_out/3.jpg is truncated or not a JPEG"),
    ],
)
def test_wrong_files_of_semi_aves_are_named(tmp_path, aves, path, change, message):
    content = (aves / path).read_bytes()
    try:
        (aves / path).write_bytes(change(content))
        error = fails(lambda: write(tmp_path / "semi_aves.h5", semi_aves.read(aves)))
        assert str(aves) in error and message in error and not list(tmp_path.iterdir())
    finally:
        (aves / path).write_bytes(content)


def test_missing_files_of_semi_aves_are_named(tmp_path, aves):
    assert "lacks l_train_val.txt, test.txt" in (error := fails(semi_aves.read, tmp_path))
    assert "github.com/cvl-umass/semi-inat-2020" in error and "semi_fgvc below DATASET.ROOT" in error


def test_swapped_lists_of_semi_aves_are_named(tmp_path, aves):
    one, other = aves / "l_train_val.txt", aves / "test.txt"
    content = one.read_bytes(), other.read_bytes()
    try:
        one.write_bytes(content[1])
        other.write_bytes(content[0])
        assert f"{one}, line 1, has test/0.jpg" in fails(semi_aves.read, aves)
    finally:
        one.write_bytes(content[0])
        other.write_bytes(content[1])


# Downloads


class _Shaky(BaseHTTPRequestHandler):
    """Serves one file, with ranges; the connections numbered in `breaks` break halfway through what they send."""

    def __init__(self, content: bytes, breaks: set[int], ranges: bool, seen: list, *arguments) -> None:
        self.content, self.breaks, self.ranges, self.seen = content, breaks, ranges, seen
        super().__init__(*arguments)

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.seen.append(asked)
        start = int(asked[len("bytes=") : -1]) if asked and self.ranges else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        rest = self.content[start:]
        self.send_response(206 if asked and self.ranges else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: len(rest) // 2] if len(self.seen) in self.breaks else rest)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def serve():
    """Start `_Shaky` servers: from (content, breaks, ranges) to an address and the list of the ranges asked for."""
    servers = []

    def start(content: bytes, breaks: set[int] = frozenset(), ranges: bool = True) -> tuple[str, list]:
        seen: list = []
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Shaky, content, breaks, ranges, seen)))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/file.bin", seen

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


CONTENT = np.random.RandomState(0).bytes(3_000_000)


def _archive(*urls: str, content: bytes = CONTENT) -> fetch.Archive:
    return fetch.Archive("file.bin", hashlib.md5(content).hexdigest(), urls)


def test_a_download_goes_on_where_it_broke(tmp_path, serve):
    url, seen = serve(CONTENT, {1, 2})
    fetch.fetch((_archive(url),), tmp_path)
    assert seen == [None, "bytes=1500000-", "bytes=2250000-"]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT and len(list(tmp_path.iterdir())) == 1
    fetch.fetch((_archive(url),), tmp_path)
    assert len(seen) == 3  # what is there and whole is not fetched again


def test_a_download_goes_on_in_the_next_call(tmp_path, serve):
    url, seen = serve(CONTENT, {1, 2, 3})
    error = fails(fetch.fetch, (_archive(url),), tmp_path)
    assert "the connection broke after 2625000 of 3000000 bytes" in error and "call again to go on" in error
    assert [path.name for path in tmp_path.iterdir()] == ["file.bin.part"]
    fetch.fetch((_archive(url),), tmp_path)
    assert seen[3:] == ["bytes=2625000-"] and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_whole_part_and_a_server_without_ranges(tmp_path, serve):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch.fetch((_archive(serve(CONTENT)[0]),), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    (tmp_path / "file.bin").write_bytes(b"damaged")
    url, seen = serve(CONTENT, {1}, ranges=False)
    fetch.fetch((_archive(url),), tmp_path)
    assert len(seen) == 2 and (tmp_path / "file.bin").read_bytes() == CONTENT


def test_mirrors_and_files_that_are_not_the_published_ones(tmp_path, serve):
    wrong, right = serve(CONTENT[::-1])[0], serve(CONTENT)[0]
    (tmp_path / "file.bin.part").write_bytes(b"of another file")
    fetch.fetch((_archive("http://127.0.0.1:9/file.bin", wrong, right),), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    (tmp_path / "file.bin").unlink()
    error = fails(fetch.fetch, (_archive("http://127.0.0.1:9/file.bin", wrong),), tmp_path)
    assert "refused" in error and f"{wrong}: what it gives is not the published file" in error
    assert f"cannot fetch {tmp_path / 'file.bin'}" in error and not list(tmp_path.iterdir())


def test_the_command_downloads_only_where_asked(tmp_path, tiny, serve, monkeypatch, capsys):
    folder = write_small_cifar10(tmp_path / "theirs", tiny)
    with tarfile.open(tmp_path / "theirs.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    content = (tmp_path / "theirs.tar.gz").read_bytes()
    archive = _archive(serve(content, {1})[0], content=content)._replace(name="cifar-10-python.tar.gz")
    monkeypatch.setitem(SOURCES, "cifar10", SOURCES["cifar10"]._replace(archives=(archive,)))
    command, broken = ["cifar10", "--root", str(tmp_path)], tmp_path / "raw/cifar-10-batches-py"
    assert cli.main(command) == 2 and "fetch it with --download" in capsys.readouterr().err
    broken.mkdir(parents=True)
    assert cli.main(command) == 2 and "lacks data_batch_1" in capsys.readouterr().err
    assert cli.main([*command, "--download"]) == 0
    assert verify(tmp_path / "cifar10.h5").attributes["official"] is False
    monkeypatch.setitem(SOURCES, "cifar10", SOURCES["cifar10"]._replace(archives=(_archive("http://127.0.0.1:9/x"),)))
    (tmp_path / "raw/cifar-10-python.tar.gz").unlink()
    assert cli.main([*command, "--download", "--force"]) == 2
    assert "error: cannot fetch" in (error := capsys.readouterr().err) and error.count("\n") == 1


@pytest.mark.parametrize("name", ["small_imagenet127", "small_imagenet127_64", "semi_aves"])
def test_what_a_license_forbids_is_explained(tmp_path, name, capsys):
    assert cli.main([name, "--root", str(tmp_path), "--download"]) == 2
    assert "forbid fetching it for you" in (error := capsys.readouterr().err) and error.count("\n") == 1
    assert "forbid fetching it for you" in fails(SOURCES[name].download, tmp_path)


def test_addresses_and_checksums_are_those_of_torchvision():
    theirs = torchvision.datasets
    for name, dataset in (("cifar10", theirs.CIFAR10), ("cifar100", theirs.CIFAR100), ("stl10", theirs.STL10)):
        assert fetch.ARCHIVES[name] == (fetch.Archive(dataset.filename, dataset.tgz_md5, (dataset.url,)),)
    ours = fetch.ARCHIVES["fashion_mnist"]
    assert [(a.name, a.md5) for a in ours] == theirs.FashionMNIST.resources
    assert all(a.urls[0] == theirs.FashionMNIST.mirrors[0] + a.name for a in ours)


# Fashion-MNIST


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
        (labels, gzip.compress(b"\0\0\x08\x01\0\0\0\x02\x00\x01"), "must hold 30 labels in 0..9, but holds 2"),
        (labels, gzip.compress(b"\0\0\x08\x01\0\0\0\x1e" + b"\x0a" * 30), "must hold 30 labels in 0..9"),
    ]:
        path.write_bytes(content)
        error = fails(fashion_mnist.read, tmp_path)
        assert str(path) in error and message in error
        path.write_bytes(packed[path])
    images.unlink()
    assert "lacks train-images-idx3-ubyte" in fails(fashion_mnist.read, tmp_path)


def test_sixteen_from_twenty_eight():
    images = np.random.RandomState(0).randint(0, 256, (5, 1, 28, 28)).astype(np.uint8)
    got = fashion_mnist._halve(images)
    assert got.shape == (5, 1, 16, 16) and got.dtype == np.uint8
    assert not got[:, :, 0].any() and not got[:, :, :, 15].any()
    for n, y, x in ((0, 1, 1), (3, 7, 12), (4, 14, 14)):
        block = [int(images[n, 0, 2 * y - 2 + i, 2 * x - 2 + j]) for i in (0, 1) for j in (0, 1)]
        assert got[n, 0, y, x] == int(sum(block) / 4 + 0.5)
