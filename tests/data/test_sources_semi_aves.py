"""Semi-Aves from official files, and wrong files are named."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from repro import prepare as cli
from seval.data.hdf5 import read, verify, write
from seval.data.sources import semi_aves
from tests.standins import (
    fails,
    same,
    write_semi_aves,
)


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


def sized(content: bytes, width: int, height: int) -> bytes:
    """A JPEG that says it has another size."""
    at = content.index(b"\xff\xc0")
    return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]


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
        ("u_train.txt", lambda c: c[c.index(b"\n") + 1 :], "u_train_in/0.jpg of u_train_in.txt is missing from"),
        ("u_train_in.txt", lambda c: c[c.index(b"\n") + 1 :], "has u_train_in/0.jpg, which is not in u_train_in.txt"),
        ("l_train_val.txt", lambda c: c[c.index(b"trainval_images/1/") :], "has no image of class 0"),
        ("test/5.jpg", lambda c: b"", "test/5.jpg is empty"),
        ("test/5.jpg", lambda c: c[:-2], "test/5.jpg is truncated or not a JPEG"),
        ("test/5.jpg", lambda c: c[:100], "test/5.jpg is truncated or not a JPEG"),
        (
            "test/5.jpg",
            lambda c: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" + c,
            "test/5.jpg is truncated or",
        ),
        ("test/5.jpg", lambda c: sized(c, 65000, 65000), "5.jpg has 65000 x 65000 pixels, but may have 67108864"),
        ("test/5.jpg", lambda c: sized(c, 0, 20), "test/5.jpg is truncated or not a JPEG"),
        ("test.txt", lambda c: c + b"test/a\0b.jpg 1\n", "line 201, has a path that is too long or has control"),
        ("test.txt", lambda c: c + b"test/\x1b[2J.jpg 1\n", "has control characters: test/\\x1b[2J.jpg"),
        ("test.txt", lambda c: c + b"test/" + b"a" * 2000 + b" 1\n", "line 201, has a path that is too long"),
        ("test.txt", lambda c: c + b"test/" + b"a" * 500 + b" 1\n", "is missing, but "),
        ("test.txt", lambda c: c + b"test/0.jpg/a.jpg 1\n", "0.jpg/a.jpg is missing, but "),
        ("test.txt", lambda c: c + b"test 1\n", "line 201, has test, but "),
        ("test.txt", lambda c: c + b". 1\n", "line 201, has ., but this list is of images in test"),
        ("test.txt", lambda c: c + b"/test/x.jpg 1\n", "has /test/x.jpg, but this list is of images in test"),
        ("test.txt", lambda c: c + b"./test//0.jpg 1\n", "line 201, repeats test/0.jpg"),
        ("test.txt", lambda c: c + "test/x.jpg ٣\n".encode(), "line 201, must hold a relative path and a label"),
        ("test.txt", lambda c: c + b"test/x.jpg " + b"1" * 5000 + b"\n", "line 201, must hold a relative path"),
        ("test.txt", lambda c: c.decode().encode("utf-16"), "test.txt is not text in UTF-8"),
        ("test.txt", lambda c: c + b"test/\xe9.jpg 1\n", "test.txt is not text in UTF-8"),
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


@pytest.mark.parametrize(
    "change",
    [
        lambda name, line: f"./{line}",
        lambda name, line: line.replace("/", "//"),
        lambda name, line: f"./{line}" if name == "u_train.txt" else line,
        lambda name, line: line.replace("\n", "\r\n"),
        lambda name, line: line.replace("\n", "\r"),
        lambda name, line: f"\ufeff{line}" if "/0.jpg" in line else line,
    ],
)
def test_lists_may_be_written_in_other_ways(aves, change):
    before, content = semi_aves.read(aves), {path: path.read_bytes() for path in aves.glob("*.txt")}
    try:
        for path, lines in content.items():
            changed = [change(path.name, line) for line in lines.decode().splitlines(keepends=True)]
            text = "".join(changed)
            path.write_bytes((text[:1] + text[1:].replace("\ufeff", "")).encode())
        assert same(semi_aves.read(aves)._replace(attributes={}), before._replace(attributes={}))
    finally:
        for path, lines in content.items():
            path.write_bytes(lines)


def test_pipes_and_folders_in_place_of_files_of_semi_aves(aves):
    for path in (aves / "test.txt", aves / "test/5.jpg"):
        content = path.read_bytes()
        for make, what in ((os.mkfifo, "a pipe"), (os.mkdir, "a folder")):
            path.unlink(missing_ok=True)
            make(path)
            error = fails(semi_aves.read, aves)
            assert f"{path} is {what}" in error and ("jpg" not in path.name or f"{aves / 'test.txt'}, line" in error)
            path.rmdir() if path.is_dir() else path.unlink()
        with open(path, "wb") as file:
            file.truncate(1 << 40)
        assert f"{path} has {1 << 40} bytes, but may have" in fails(semi_aves.read, aves)
        path.write_bytes(content)


def test_missing_files_of_semi_aves_are_named(tmp_path, aves):
    assert "has no l_train_val.txt, test.txt" in (error := fails(semi_aves.read, tmp_path))
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
