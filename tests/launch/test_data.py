"""Data sets by their content: fingerprints without pixels, and copies on scratch that are like the original."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from repro.launch.data import fingerprints, stage
from seval.data import hdf5
from seval.run import Run
from tests.settings import ROOT, small


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run on a small set of its own."""
    images = hdf5.read(ROOT / "data" / "tiny.h5")
    few = np.concatenate([np.flatnonzero(images.train.labels == label)[:60] for label in range(images.num_classes)])
    train = images.train._replace(images=images.train.images[few], labels=images.train.labels[few])
    hdf5.write(tmp_path / "tiny.h5", images._replace(train=train))
    return Run(small("fixmatch", tmp_path / "runs", "DATASET.ROOT", str(tmp_path)))


def prepare_again(run: Run) -> None:
    """The same images with the labels of two classes exchanged: a file of the same size."""
    path = Path(run.cfg.DATASET.ROOT) / "tiny.h5"
    images, size = hdf5.read(path), path.stat().st_size
    labels = images.train.labels.copy()
    first, second = (np.flatnonzero(labels == label)[:50] for label in (0, 1))
    labels[first], labels[second] = 1, 0
    hdf5.write(path, images._replace(train=images.train._replace(labels=labels)))
    assert path.stat().st_size == size


def test_a_fingerprint_is_that_of_the_run_and_needs_no_pixel(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Run(small("fixmatch", tmp_path / "runs", "DATASET.ROOT", str(tmp_path / "no-such"), "SEED", 7))
    expected, read = Run(run.cfg).fingerprint, hdf5.read
    opened: list[Path] = []

    def header(path: Path, *, in_blocks: bool = False) -> object:
        assert in_blocks
        opened.append(path)
        return read(path, in_blocks=True)

    monkeypatch.setattr(hdf5, "read", header)
    others = [Run(small("fixmatch", tmp_path / "runs", "DATASET.ROOT", str(tmp_path), "SEED", seed)) for seed in (1, 2)]
    assert fingerprints([run, away, *others]) == {each.id: expected for each in (run, *others)} and len(opened) == 1


def test_a_copy_is_made_again_where_the_data_changed(run: Run, tmp_path: Path) -> None:
    scratch = str(tmp_path / "scratch")
    first = stage(run, scratch)
    before = first.fingerprint
    assert first.id == run.id and first.cfg.DATASET.ROOT == scratch
    prepare_again(run)
    (now,) = fingerprints([run]).values()
    assert stage(run, scratch).fingerprint == now != before
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["tiny.h5"]


def flip(path: Path) -> None:
    with h5py.File(path) as file:
        place = file["train/images"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as file:
        file.seek(place + 99)
        byte = file.read(1)[0]
        file.seek(place + 99)
        file.write(bytes([byte ^ 1]))


def other_mean(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["mean"] = hdf5.encode_attribute([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"cut short"),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
        flip,
        other_mean,
    ],
    ids=["empty", "short", "half", "last byte", "hole", "bit", "header"],
)
def test_a_copy_that_is_not_like_the_original_is_made_again(
    run: Run, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    original, copy = tmp_path / "tiny.h5", tmp_path / "scratch" / "tiny.h5"
    stage(run, str(copy.parent))
    kept = copy.stat().st_mtime_ns
    stage(run, str(copy.parent))
    assert copy.stat().st_mtime_ns == kept  # it is a whole copy
    damage(copy)
    assert stage(run, str(copy.parent)).cfg.DATASET.ROOT == str(copy.parent)
    assert copy.read_bytes() == original.read_bytes() and len(list(copy.parent.iterdir())) == 1


@pytest.mark.parametrize("written", [0, 1000])
def test_a_full_disk_leaves_the_original_and_no_half_copy(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, written: int
) -> None:
    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert stage(run, str(tmp_path / "scratch")) is run and not list((tmp_path / "scratch").iterdir())
    said = capsys.readouterr().out
    assert "No space left on device" in said and "it is read where it is" in said and said.count("\n") == 1


def test_a_copy_that_lies_is_not_used(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: Path(target).write_bytes(b"something else"))
    assert stage(run, str(tmp_path / "scratch")) is run and not list((tmp_path / "scratch").iterdir())
    assert "differs from the original" in capsys.readouterr().out


def test_half_copies_of_killed_processes_are_swept_but_not_those_at_work(run: Run, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name, age in ((".tiny.h5.dead", 7200), (".tiny.h5.working", 5), (".other.h5.dead", 7200)):
        (scratch / name).write_bytes(b"half")
        stamp = (scratch / name).stat().st_mtime - age
        os.utime(scratch / name, (stamp, stamp))
    stage(run, str(scratch))
    assert {path.name for path in scratch.iterdir()} == {"tiny.h5", ".tiny.h5.working", ".other.h5.dead"}


def test_a_damaged_original_is_not_copied(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flip(tmp_path / "tiny.h5")
    assert stage(run, str(tmp_path / "scratch")) is run and "it is read where it is" in capsys.readouterr().out
