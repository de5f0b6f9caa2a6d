"""Lists and arrays as people write them, and everything that can be wrong with them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.data.own import pictures, write_npz


def rows(folder: Path, given: list[tuple[str, ...]], columns: str = "path,label,split") -> Path:
    with (folder / "list.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([columns.split(","), *given])
    return folder / "list.csv"


def test_lists_as_people_write_them(own, folder):
    """Absolute and relative paths, no split, an empty label, cases and blanks."""
    images = own.made("folder", "--raw", folder)
    paths = sorted(folder.rglob("*.png"))
    given = [(str(path), *_kind(folder, path)) for path in paths]
    given[::2] = [
        (f"./x/../{path.relative_to(folder)}", f" {label} ", split.upper())
        for path, (_, label, split) in zip(paths[::2], given[::2], strict=True)
    ]
    assert own.made("csv", rows(folder, given)).sha256 == images.sha256
    given = [(label, path, split) for path, label, split in given]
    (folder.parent / "elsewhere").mkdir()
    file = rows(folder.parent / "elsewhere", given, "Label, PATH ,Split")
    assert own.made("csv", file, "--raw", folder).sha256 == images.sha256
    trained = [(path, label) for label, path, split in given if "train" in split.lower()]
    labeled = own.made(
        "csv",
        rows(folder, [*trained, (str(next(folder.glob("unlabeled/*"))), "")], "path,label"),
        "--test-portion",
        0.3,
    )
    assert labeled.unlabeled is not None and len(labeled.unlabeled.labels) == 1


def _kind(folder: Path, path: Path) -> tuple[str, str]:
    split, *label = path.relative_to(folder).parent.parts
    return (label or [""])[0], split


@pytest.mark.parametrize(
    ("given", "columns", "message"),
    [
        ([], "file,label", "has no column path: its first line is 'file,label'"),
        ([], "path;label", "has no column path and none label"),
        ([], "path,label,path", "names a column twice"),
        ([("a", "b", "c")], "path,label", "line 2, has 3 values for 2 columns"),
        ([("a", "3"), ("b", "cat")], "path,label", "has the label 'cat' in line 3, but the number 3 in line 2"),
        ([("a", "3"), ("b", "3.0")], "path,label", "has the label 3.0 in line 3 and 3 in line 2"),
        ([], "path,label", "there are no images in"),
    ],
)
def test_lists_that_are_none(own, tmp_path, given, columns, message):
    assert message in own.fails("csv", rows(tmp_path, given, columns))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("gone.png", "a", "train"), "gone.png: it is missing"),
        (("train", "a", "train"), "train: it is a folder"),
        (("", "a", "train"), "line 25: its path is empty"),
        (("./train/b/../b/005.png", "a", "train"), "it repeats the path 'train/b/005.png' of line"),
        (("train/b/005.png", "a", "tset"), "its split is 'tset', but must be one of train, valid, test, unlabeled"),
        (("x.png", "", "test"), "its label is empty, but the split is test"),
        (("x.png", "a\x1b", "test"), "is not printable text"),
    ],
)
def test_a_row_that_cannot_be_used_is_listed(own, folder, row, message):
    given = [(str(path.relative_to(folder)), *_kind(folder, path)) for path in sorted(folder.rglob("*.png"))]
    own.fails("csv", rows(folder, [*given, row]))
    line = own.out.splitlines()[0].replace(f"line {len(given) + 2}", "line 25")
    assert message in line and own.err.startswith("error: 1 files cannot be used")


def test_lists_in_other_encodings_are_refused(own, tmp_path):
    (tmp_path / "list.csv").write_bytes("path,label\né,b\n".encode("utf-16"))
    assert "is not text in UTF-8" in own.fails("csv", tmp_path / "list.csv")
    assert "cannot read" in own.fails("csv", tmp_path / "none.csv")
    assert "is no CSV" in own.fails("csv", _written(tmp_path / "list.csv", 'path,label\na,"b'))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


IMAGES = (
    np.arange(6 * 64, dtype=np.uint16).astype(np.uint8).reshape(6, 8, 8)
    * np.arange(1, 7, dtype=np.uint8)[:, None, None]
)
GOOD = {"train_images": IMAGES[:4], "train_labels": [0, 1, 1, 0], "test_images": IMAGES[4:], "test_labels": [0, 1]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_labels": [0, 1, 1, -1]}, "has train_labels from -1 to 1, but labels must lie from 0 up"),
        ({"class_names": ["x"]}, "from 0 to 1, but labels must lie in 0..0, as there are 1 class_names"),
        ({"class_names": ["x", "x"]}, "must hold class_names as different texts"),
        ({"class_names": np.array(["x", None])}, "class_names.npy has the dtype |O, which is no plain number or text"),
        ({"class_names": ["x", " "]}, "class_names: its class ' ' is not printable"),
        ({"train_labels": [0.0, 1, 1, 0]}, "has train_labels float64 (4,), but labels must be whole numbers"),
        ({"train_labels": np.eye(4, dtype=int)}, "has train_labels int64 (4, 4), but labels must be"),
        ({"train_labels": [0, 1]}, "has train_labels int64 (2,), but labels must be whole numbers (4,) or (4, 1)"),
        ({"train_labels": None}, "has no array train_labels; images without labels belong into unlabeled_images"),
        ({"train_images": None}, "has no array train_images"),
        ({"train_images": IMAGES[:4] / 255}, "has train_images float64 (4, 8, 8), but images must be uint8"),
        ({"train_images": IMAGES[:4, None].repeat(3, 1)}, "has train_images uint8 (4, 3, 8, 8), but images must be"),
        ({"train_images": IMAGES[:4, :, :0]}, "images without pixels"),
        ({"train_images": IMAGES[:4] > 9}, "has the dtype |b1, which is no plain number"),
    ],
)
def test_arrays_that_are_no_set(own, tmp_path, changed, message):
    arrays = {name: array for name, array in (GOOD | changed).items() if array is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    assert message in own.fails("npz", tmp_path / "x.npz")


def test_arrays_in_other_shapes_are_the_same(own, tmp_path):
    np.savez(tmp_path / "x.npz", **GOOD)
    first = own.made("npz", tmp_path / "x.npz")
    others = {"train_images": np.asfortranarray(GOOD["train_images"]), "train_labels": np.array([[0], [1], [1], [0]])}
    others |= {"test_images": GOOD["test_images"][..., None], "unlabeled_images": np.zeros((0, 8, 8), np.uint8)}
    np.savez(tmp_path / "x.npz", **GOOD | others | {"class_names": ["0", "1", "never"]})
    assert own.made("npz", tmp_path / "x.npz").sha256 == first.sha256 and "1 of class_names have no images" in own.out


def test_damaged_arrays_are_one_line(own, tmp_path, tiny):
    write_npz(tmp_path / "x.npz", pictures(tiny))
    whole = (tmp_path / "x.npz").read_bytes()
    for content in (b"", whole[:300], whole[:-30], whole[:2000] + b"xx" + whole[2002:]):
        (tmp_path / "x.npz").write_bytes(content)
        assert "x.npz is no .npz of plain arrays" in own.fails("npz", tmp_path / "x.npz")
