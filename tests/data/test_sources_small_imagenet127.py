"""Small-ImageNet-127 from official files, and wrong files are named."""

from __future__ import annotations

import csv
import hashlib
import os
import pickle
import runpy
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from repro import prepare as cli
from seval.data.hdf5 import read, verify, write
from seval.data.sources import SOURCES, small_imagenet127
from tests.data.mutations import outcome
from tests.standins import (
    TINY,
    Malicious,
    as_rgb,
    fails,
    whole,
    write_imagenet,
)

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
        (pickle.dumps(content | {"mean": Malicious(os.mkdir, str(trace))}), "which no image set needs"),
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
    np.savez(npz, data=np.array([Malicious(os.mkdir, str(trace))], object), labels=labels, mean=0)
    assert f"{npz} is truncated or not an .npz of arrays" in fails(imagenet, tmp_path) and not trace.exists()
    npz.unlink()
    assert f"{folder} has no train_data_batch_4" in fails(imagenet, tmp_path)
    batch.write_bytes(good)
    (folder / "val_data").write_bytes(good)
    assert f"{folder / 'val_data'} has a mean, so it is a training file" in fails(imagenet, tmp_path)
    (folder / "train_data_batch_11").write_bytes(good)
    assert f"{folder / 'train_data_batch_11'} is no file of down-sampled ImageNet" in fails(imagenet, tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("terabyte", "holds an array uint8 (10000000000000,) in"),
        ("bomb", "has 4000000000 bytes, more than 536870912"),
        ("lzma", "or is packed in another way"),
        ("version", "is of another version"),
        ("npy", "File is not a zip file"),
        ("zip", "the magic string is not correct"),
        ("torn", "EOF in multi-line statement"),
        ("unclosed", "is truncated or not an .npz of arrays"),
        ("text", "has the dtype <U3, which is no plain number"),
    ],
)
def test_a_hostile_npz_is_refused(tmp_path, tiny, damage, message):
    write_imagenet(tmp_path, tiny, form="npz")
    path = tmp_path / "train_data_batch_2.npz"
    write_npz(path, damage)
    value, error, peak = outcome(lambda: imagenet(tmp_path))
    assert error.startswith(str(path)) and message in error and peak < 50e6


def test_an_npz_of_python_2_is_read(tmp_path, tiny):
    written, path = write_imagenet(tmp_path, tiny, form="npz"), tmp_path / "val_data.npz"
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content["data.npy"] = content["data.npy"].replace(b"(40, 3072), }  ", b"(40L, 3072L), }")
    assert b"40L" in content["data.npy"]
    with zipfile.ZipFile(path, "w") as file:
        for name, array in content.items():
            file.writestr(name, array)
    assert np.array_equal(whole(imagenet(tmp_path).test.images).reshape(40, -1), written["val_data"][0])


def write_npz(path: Path, damage: str) -> None:
    """An .npz whose `data.npy` is hostile in the way that is named."""

    def header(text: str, version: int = 1) -> bytes:
        text = text.ljust(116) + "\n"
        size = struct.pack("<H" if version == 1 else "<I", len(text))
        return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode()

    good = header("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }")
    content = {
        "terabyte": header("{'descr': '|u1', 'fortran_order': False, 'shape': (10000000000000,), }"),
        "version": header("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", 2) + b"abc",
        "zip": b"PK\x03\x04" + bytes(100),
        "torn": header("{'descr': '|u1', 'fortran_order': False, 'sha"),
        "unclosed": header("{'descr': '|u1', 'fortran_order': False, 'shape': (3L, "),
        "text": header("{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }") + b"abc" * 4,
    }
    if damage == "npy":
        path.write_bytes(good + b"abc")
        return
    kind = zipfile.ZIP_LZMA if damage == "lzma" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w", kind, compresslevel=1) as file:
        file.writestr("data.npy", content.get(damage, good + b"abc"))
    if damage == "bomb":  # what it says of itself is enough
        path.write_bytes(path.read_bytes().replace(struct.pack("<I", len(good) + 3), struct.pack("<I", 4 * 10**9)))


def test_files_of_small_imagenet127_that_are_none(tmp_path, tiny):
    write_imagenet(tmp_path, tiny)
    path, listed = tmp_path / "train_data_batch_2", tmp_path / "imgname2folder.txt"
    (tmp_path / "train_data").mkdir()  # of another program
    (tmp_path / "._train_data_batch_1").write_bytes(b"\0")
    content = path.read_bytes()
    imagenet(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert f"{path} is a pipe" in fails(imagenet, tmp_path)
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    assert f"{path} has {1 << 40} bytes, but may have" in fails(imagenet, tmp_path)
    path.write_bytes(content)
    os.mkfifo(listed)
    assert f"{listed} is a pipe" in fails(imagenet, tmp_path)
    listed.unlink()
    listed.write_text("n01440764_1.JPEG\x1b[2J n0\x1b[2J")
    error = fails(imagenet, tmp_path)
    assert "line 1, has the folder n0\\x1b[2J" in error
    lines = [f"./x//{r['wnid']}_1.JPEG {r['class_wnid']}/" for r in _rows()]
    listed.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert "puts 0 of 1,000 elsewhere" in imagenet(tmp_path).attributes["credit"]


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
    assert cli.main(command) == 130 and capsys.readouterr().err.endswith("interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["imagenet"]
    assert cli.main(command) == 0 and verify(tmp_path / "small_imagenet127.h5")
