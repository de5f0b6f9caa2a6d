"""Raw files to HDF5 and back, and that every kind of damage is noticed and named."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from repro import prepare as cli
from seval.data import hdf5
from seval.data.hdf5 import data_file, read, verify, write
from seval.data.image_set import Encoded, ImageSet, Part, Stream, class_counts, digest, statistics
from seval.data.sources import fashion_mnist
from seval.errors import DataError
from tests.standins import TINY, fails, same, whole, write_small_cifar10


@pytest.fixture(scope="session")
def tiny() -> ImageSet:
    return read(TINY)


@pytest.fixture
def small(tiny: ImageSet) -> ImageSet:
    """A set of every part, small enough to try many ways of damage."""
    return tiny._replace(
        name="small",
        train=Part(tiny.train.images[:30], tiny.train.labels[:30]),
        test=Part(tiny.test.images[:20], tiny.test.labels[:20]),
        unlabeled=Part(tiny.train.images[30:35], np.full(5, -1)),
        attributes=tiny.attributes | {"official": False},
    )


# The set that ships with the code


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


# The file


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
    read(path)
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
            file.attrs[name] = hdf5.text(value)
    read(path)
    assert message in fails(verify, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.attrs.__delitem__("license"), "/ lacks the attribute license"),
        (lambda f: f.attrs.__delitem__("format"), "/ lacks the attribute format"),
        (lambda f: f.attrs.__setitem__("format", hdf5.text(2)), "is of format 2, but this code reads format 1"),
        (lambda f: f.attrs.__setitem__("mean", "0.5"), "damaged"),
        (lambda f: f.attrs.__setitem__("mean", hdf5.text([0.1, 0.2])), "do not fit 1 channels"),
        (lambda f: f.attrs.__setitem__("std", hdf5.text([0])), "do not fit 1 channels"),
        (lambda f: f.__delitem__("test"), "test"),
        (lambda f: f.__delitem__("train/labels"), "labels"),
        (lambda f: f["train/images"].attrs.__delitem__("sha256"), "/train/images lacks the attribute sha256"),
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
            patch.setattr(hdf5, "check", lambda *_: None)
            write(path, wrong)
        assert message in fails(read, path)


def test_an_interrupted_writer_leaves_what_was_there(tmp_path, small, monkeypatch):
    path = tmp_path / "small.h5"
    write(path, small)
    before = path.read_bytes()

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(hdf5, "text", interrupted)
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
    assert "it can: cifar10, cifar100, fashion_mnist, semi_aves, small_ima" in fails(read, Path("data/mnist.h5"))
    aves = fails(read, data_file("semi_aves"))
    assert "--download" not in aves and "u_train_in" in aves and aves.endswith("semi_aves --raw DIR`")


def test_root(monkeypatch):
    monkeypatch.setenv("SEVAL_DATA", "/sets")
    assert data_file("tiny") == data_file("tiny", "data") == Path("/sets/tiny.h5")
    assert data_file("tiny", "other") == Path("other/tiny.h5")
    monkeypatch.delenv("SEVAL_DATA")
    assert data_file("tiny", "data") == Path("data/tiny.h5")


# Streams and encoded images


def streamed(array: np.ndarray, rows: int) -> Stream:
    return Stream(array.shape, lambda: (array[i : i + rows] for i in range(0, len(array), rows)))


def encoded(contents: list[bytes]) -> Stream:
    offsets = np.cumsum([0, *map(len, contents)])
    return Stream((int(offsets[-1]),), lambda: (np.frombuffer(c, np.uint8) for c in contents), offsets)


@pytest.fixture
def jpegs(small: ImageSet) -> tuple[ImageSet, dict[str, list[bytes]]]:
    """A set of encoded images, large enough to cross the borders of chunks, and its images."""
    rng = np.random.RandomState(0)
    contents = {n: [rng.bytes(rng.randint(1, 200_000)) for _ in p.labels] for n, p in small.parts.items()}
    parts = {n: p._replace(images=encoded(contents[n])) for n, p in small.parts.items()}
    parts["unlabeled"] = parts["unlabeled"]._replace(batch=np.array([1, 1, 2, 2, 2], np.uint8))
    return small._replace(mean=(0.5,) * 3, std=(0.5,) * 3, **parts), contents


@pytest.mark.parametrize("rows", [1, 7, 30, 100])
def test_a_streamed_set_is_the_same_file(tmp_path, small, rows):
    batch = np.arange(30, dtype=np.uint8)
    small = small._replace(train=small.train._replace(batch=batch))
    parts = {name: part._replace(images=streamed(part.images, rows)) for name, part in small.parts.items()}
    write(tmp_path / "whole.h5", small)
    write(tmp_path / "small.h5", small._replace(**parts))
    assert (tmp_path / "small.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    got = verify(tmp_path / "small.h5")
    assert isinstance(got.train.images, Stream) and np.array_equal(got.train.batch, batch)
    assert same(got, read(tmp_path / "small.h5")) and np.array_equal(whole(got.train.images), small.train.images)
    assert digest(streamed(small.train.images, rows)) == digest(small.train.images)


def test_a_stream_that_breaks_its_promise_is_refused(tmp_path, small):
    pixels = small.train.images
    for wrong in (
        Stream((31, *pixels.shape[1:]), streamed(pixels, 7).blocks),
        Stream((29, *pixels.shape[1:]), streamed(pixels, 7).blocks),
        Stream(pixels.shape, streamed(pixels[..., 1:], 7).blocks),
        Stream(pixels.shape, streamed(pixels.astype(np.int64), 7).blocks),
    ):
        labels = np.zeros(len(wrong), np.int64)
        assert "train/images must be" in fails(write, tmp_path / "s.h5", small._replace(train=Part(wrong, labels)))
        assert not list(tmp_path.iterdir())


def test_encoded_images(tmp_path, jpegs):
    images, contents = jpegs
    path = tmp_path / "jpegs.h5"
    write(path, images)
    for got in (read(path), verify(path), pickle.loads(pickle.dumps(read(path)))):
        for name, part in got.parts.items():
            assert isinstance(part.images, Encoded) and len(part.images) == len(contents[name])
            assert [part.images.read(i) for i in range(len(part.labels))] == contents[name]
        assert got.unlabeled.batch.tolist() == [1, 1, 2, 2, 2] and got.train.batch is None
    with pytest.raises(IndexError):
        got.train.images.read(len(got.train.labels))
    write(tmp_path / "again.h5", got)
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()
    path.unlink()
    assert "damaged or gone" in fails(Encoded(path, "train", got.train.images.offsets).read, 0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on forks beside threads
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_encoded_images_in_other_processes(tmp_path, jpegs, method):
    images, contents = jpegs
    write(tmp_path / "jpegs.h5", images)
    train = read(tmp_path / "jpegs.h5").train.images
    train.read(0)  # so that a forked process inherits an open file
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(train.read, range(len(train)), chunksize=3) == contents["train"]


def test_damage_to_encoded_images_is_noticed(tmp_path, jpegs):
    images, _ = jpegs
    path = tmp_path / "jpegs.h5"
    write(path, images)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    got = read(path)  # only offsets and labels
    assert "damaged" in fails(verify, path)
    assert any(
        "is damaged" in fails(part.images.read, i)
        for part in got.parts.values()
        for i in range(len(part.labels))
        if not _readable(part.images, i)
    )
    for change, message in [
        (lambda f: f["train/offsets"].__setitem__(3, 1), "train/offsets must be int64 (N + 1,) and rise from 0"),
        (lambda f: f["test/offsets"].__setitem__(-1, 10**9), "but test/offsets says otherwise"),
        (lambda f: f["unlabeled/batch"].__setitem__(0, 9), "unlabeled/batch does not match its SHA-256"),
        (lambda f: f.__delitem__("train/encoded"), "damaged"),
    ]:
        write(path, images)
        with h5py.File(path, "r+") as file:
            change(file)
        assert message in fails(verify, path)


def _readable(images: Encoded, i: int) -> bool:
    try:
        return bool(images.read(i))
    except DataError:
        return False


def test_a_killed_writer_leaves_nothing_that_hinders(tmp_path, small):
    path = tmp_path / "small.h5"
    code = (
        "import sys, time; from seval.data.prepare import *; from seval.data.parts import *\n"
        "def blocks():\n    yield images.train.images[:10]; print('half', flush=True); time.sleep(60)\n"
        f"images = read({str(TINY)!r})\n"
        f"stream = Stream(images.train.images.shape, blocks)\n"
        f"write({str(path)!r}, images._replace(train=images.train._replace(images=stream)))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"half\n"
        writer.kill()
    assert [p.suffix for p in tmp_path.iterdir()] == [".partial"]
    write(path, small)
    assert [p.name for p in tmp_path.iterdir()] == ["small.h5"] and verify(path)


# The command


def test_the_command_prepares_once_and_heals(tmp_path, tiny, capsys):
    write_small_cifar10(tmp_path / "raw", tiny)
    command, path = ["cifar10", "--root", str(tmp_path)], tmp_path / "cifar10.h5"
    assert cli.main([*command, "--verify"]) == 2
    assert capsys.readouterr().err.startswith(f"error: no file {path}; write it with")
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert f"{path} is ready" in out and "train: 200 images of 10 classes, 20 to 20 per class" in out
    assert "these raw files are not the published ones" in out
    written = path.read_bytes()
    assert cli.main(command) == 0 and "there already and valid; nothing to do" in capsys.readouterr().out
    path.write_bytes(written[:5000])
    assert cli.main([*command, "--verify"]) == 2 and path.stat().st_size == 5000
    assert cli.main(command) == 0 and path.read_bytes() == written
    assert "writing it again" in capsys.readouterr().out
    path.write_bytes(b"")
    (tmp_path / "raw/cifar-10-batches-py/batches.meta").unlink()
    assert cli.main([*command, "--force"]) == 2 and path.read_bytes() == b""
    assert "lacks batches.meta" in capsys.readouterr().err


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0 and "python repro/prepare.py cifar10 --download" in capsys.readouterr().out
