"""Damaged, altered and hostile prepared files: nothing of them is believed, and each is one `DataError`."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from seval.data import hdf5
from seval.data.hdf5 import encode_attribute, read, verify, write
from seval.data.image_set import ImageSet, fingerprint, fingerprint_0_1
from seval.errors import DamagedData
from tests.standins import TINY, fails, same


@pytest.fixture
def path(tmp_path: Path, small: ImageSet) -> Path:
    write(tmp_path / "small.h5", small)
    return tmp_path / "small.h5"


def trial(path: Path, content: bytes, expected: ImageSet) -> str:
    path.write_bytes(content)
    try:
        got = read(path)
    except DamagedData as error:
        assert "\n" not in str(error) and "write it again: python repro/prepare.py" in str(error)
        return "noticed"
    assert same(got, expected) and fingerprint(got) == fingerprint(expected)
    return "without effect"


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["bit", "hole"])
def test_no_flipped_bit_and_no_hole_of_tiny_is_believed(kind, times, tiny, tmp_path):
    whole, rng, outcomes = TINY.read_bytes(), np.random.RandomState(times), []
    for place in rng.randint(len(whole), size=times):
        content = bytearray(whole)
        if kind == "bit":
            content[place] ^= 1 << rng.randint(8)
        else:
            content[place : place + 512] = bytes(len(content[place : place + 512]))
        outcomes.append(trial(tmp_path / "tiny.h5", content, tiny))
    assert outcomes.count("noticed") > 0.9 * times


def test_no_damage_of_the_header_is_believed(path):
    """A bit in every byte that holds no image: HDF5 checksums what it keeps of attributes, shapes and places."""
    expected, whole, rng = read(path), path.read_bytes(), np.random.RandomState(0)
    with h5py.File(path) as file:
        chunks = [file[key].id.get_chunk_info(0) for key in expected.arrays()]
    data = {byte for chunk in chunks for byte in range(chunk.byte_offset, chunk.byte_offset + chunk.size)}
    places = sorted(set(range(len(whole))) - data)
    outcomes = []
    for place in rng.permutation(places)[:600]:
        content = bytearray(whole)
        content[place] ^= 1 << rng.randint(8)
        outcomes.append(trial(path.with_name("altered.h5"), content, expected))
    assert outcomes.count("noticed") > 0.9 * len(outcomes)


def test_zeros_in_place_of_ones_are_noticed(path, small):
    """The checksum of HDF5 takes two bytes of 255 for two of 0, and labels that are unknown are such bytes."""
    assert (small.unlabeled.labels == -1).all()
    with h5py.File(path) as file:
        chunk = file["unlabeled/labels"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    with h5py.File(path) as file:
        assert not file["unlabeled/labels"][()].any()
    assert "unlabeled/labels does not match its SHA-256" in fails(read, path, in_blocks=True)


def replaced(path: Path, key: str, **options) -> None:
    with h5py.File(path, "r+") as file:
        sha256 = file[key].attrs["sha256"]
        del file[key]
        file.create_dataset(key, **options).attrs["sha256"] = sha256


HOSTILE = {
    "nothing stored": {"shape": (10**7, 1, 16, 16), "chunks": (4096, 1, 16, 16), "fletcher32": True},
    "nothing stored, in one piece": {"shape": (10**7, 1, 16, 16)},
    "more than memory": {"shape": (1 << 40, 1, 16, 16), "chunks": (4096, 1, 16, 16)},
    "a bomb": {"data": np.zeros((200_000, 1, 16, 16), np.uint8), "chunks": (50_000, 1, 16, 16), "compression": 9},
    "a huge chunk": {"shape": (30, 1, 16, 16), "maxshape": (None, 1, 16, 16), "chunks": (1 << 23, 1, 16, 16)},
}


@pytest.mark.parametrize("in_blocks", [False, True])
@pytest.mark.parametrize("key", ["train/images", "test/labels", "unlabeled/images"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_declared_is_bounded_by_what_is_stored(kind, key, in_blocks, path):
    replaced(path, key, **{"dtype": np.uint8} | HOSTILE[kind])
    assert path.stat().st_size < 5_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert f"{key} claims " in fails(read, path, in_blocks=in_blocks)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 50_000  # KiB


def test_an_array_lies_in_the_file(path, tmp_path, small):
    """Not behind a link to another file, in a raw file, or in a file that it is a view of."""
    write(tmp_path / "other.h5", small)
    (tmp_path / "raw").write_bytes(small.test.labels.tobytes())
    layout = h5py.VirtualLayout((20,), np.int64)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "test/labels", (20,))
    kinds = {
        "outside": lambda f: f["test"].__setitem__("labels", h5py.ExternalLink("other.h5", "/test/labels")),
        "soft": lambda f: f["test"].__setitem__("labels", h5py.SoftLink("/train/labels")),
        "loop": lambda f: f["test"].__setitem__("labels", h5py.SoftLink("/test/labels")),
        "group": lambda f: f["test"].create_group("labels"),
        "raw": lambda f: f["test"].create_dataset(
            "labels", (20,), np.int64, external=[(str(tmp_path / "raw"), 0, 160)]
        ),
        "view": lambda f: f["test"].create_virtual_dataset("labels", layout),
        "text": lambda f: f["test"].create_dataset("labels", data=["x" * 100] * 20),
        "empty": lambda f: f["test"].create_dataset("labels", data=h5py.Empty(np.int64)),
    }
    whole = path.read_bytes()
    for kind, change in kinds.items():
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            del file["test/labels"]
            change(file)
            if kind not in ("outside", "soft", "loop"):
                file["test/labels"].attrs["sha256"] = encode_attribute("0")
        assert "is damaged, incomplete or not HDF5" in fails(read, path), kind


@pytest.mark.parametrize("text", ["[" * 100_000, "NaN", "[NaN]", "[1e999]", "{", "9" * 5000, "", '{"a": 1, "a": 2}'])
@pytest.mark.parametrize("key", ["mean", "class_names", "name", "format"])
def test_header_fields_that_are_no_json_value(key, text, path):
    with h5py.File(path, "r+") as file:
        file.attrs[key] = np.array(text.encode(), dtype=f"S{max(1, len(text))}")
    assert len(fails(read, path)) < 1000


HEADERS = {
    "mean": ["x", ["x"], [None], [True], [[0.5]], [], [0.5, 0.5], 0.5, None, {"0": 1}, [10**400], [1e300]],
    "std": [[0], [0.0], [-1], [1e-9], [1e300], ["1"], [], [1, 1], "1", [True]],
    "class_names": [["a"] * 10, [1] * 10, ["a"], [], "abcdefghij", [""] * 10, [["a"]] * 10, None, [None] * 10],
    "name": ["", " ", 5, None, ["small"]],
    "official": ["yes", 1, []],
    "credit": [5, None],
    "sources_sha256": ["", []],
    "class_counts": [5, {"train": 5}, {"train": [3] * 9}, [[3] * 10]],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in HEADERS.items() for value in values])
def test_header_fields_that_cannot_be(key, value, path):
    with h5py.File(path, "r+") as file:
        file.attrs[key] = encode_attribute(value)
    message = fails(read, path)
    assert str(path) in message and "damaged" in message and len(message) < 1000
    with pytest.raises(DamagedData):
        verify(path)


def test_a_known_name_is_that_of_the_set(path, small, monkeypatch):
    known = path.with_name("small_imagenet127.h5")
    os.rename(path, known)
    assert "small_imagenet127.h5 holds the set 'small', not 'small_imagenet127'; move it away" in fails(read, known)
    for name, other in (("small_imagenet127", "small_imagenet127_64"), ("small_imagenet127_64", "small_imagenet127")):
        write(path.with_name(f"{name}.h5"), small._replace(name=other))
        assert f"holds the set '{other}', not '{name}'" in fails(read, path.with_name(f"{name}.h5"))
        write(path.with_name(f"{name}.h5"), small._replace(name=name))
        assert read(path.with_name(f"{name}.h5")).name == name


def test_the_fingerprint_covers_arrays_and_header(path, small):
    whole = read(path)
    assert fingerprint(whole) == fingerprint(read(path, in_blocks=True)) == fingerprint(read(path))
    others = [
        small._replace(name="other"),
        small._replace(mean=(0.25,)),
        small._replace(std=(0.25,)),
        small._replace(class_names=tuple(reversed(small.class_names))),
        small._replace(test=small.test._replace(labels=small.test.labels[::-1].copy())),
        small._replace(unlabeled=None),
        *(small._replace(attributes=dict(small.attributes) | {key: "x"}) for key in ("source", "license", "credit")),
        small._replace(attributes=dict(small.attributes) | {"official": None}),
        small._replace(attributes=dict(small.attributes) | {"statistics_of": "cifar10"}),
    ]
    prints = {fingerprint(whole)}
    for other in others:
        write(path, other)
        prints.add(fingerprint(read(path)))
    assert len(prints) == 1 + len(others)


def test_the_fingerprint_of_the_first_version_is_over_arrays_alone(tiny):
    arrays = json.dumps({key: hdf5.digest(array) for key, array in tiny.arrays().items()}, sort_keys=True)
    assert fingerprint_0_1(tiny) == hashlib.sha256(arrays.encode()).hexdigest()
    assert fingerprint_0_1(tiny._replace(mean=(0.0,))) == fingerprint_0_1(tiny) != fingerprint(tiny)
