"""Raw files to HDF5 and back, and that every kind of damage is noticed and named."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torchvision

from repro import prepare as cli
from seval.data import prepare, sources
from seval.data.prepare import DataError, ImageSet, Part, data_file, read, verify, write
from tests.standins import TINY, as_cifar10, write_small_cifar10


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


def fails(function, *arguments) -> str:
    """The message of the `DataError` that the call must raise, on one line."""
    with pytest.raises(DataError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(a: ImageSet, b: ImageSet) -> bool:
    plain = [s._replace(train=None, test=None, unlabeled=None) for s in (a, b)]
    arrays = [[array for part in s.parts.values() for array in part] for s in (a, b)]
    return plain[0] == plain[1] and all(map(np.array_equal, *arrays)) and list(a.parts) == list(b.parts)


# The set that ships with the code


def test_tiny_is_what_it_says(tiny):
    verify(TINY)
    assert TINY.stat().st_size <= 8_000_000
    assert tiny.name == "tiny" and tiny.num_classes == 10
    assert tiny.train.images.shape == (47000, 1, 16, 16) and tiny.test.images.shape == (3000, 1, 16, 16)
    assert tiny.attributes["class_counts"] == {"train": [4700] * 10, "test": [300] * 10}
    assert tiny.attributes["official"] and "1708.07747" in tiny.attributes["credit"]
    assert tiny.attributes["license"].startswith("MIT")
    assert tiny.attributes["sources_sha256"] == sources._FASHION_SHA256
    scaled = tiny.train.images / 255
    assert np.allclose((tiny.mean, tiny.std), ((scaled.mean(),), (scaled.std(),)), rtol=0, atol=1e-12)


def test_statistics_by_channel():
    images = np.random.RandomState(0).randint(0, 256, (7, 3, 4, 5)).astype(np.uint8)
    assert np.allclose(prepare.statistics(images), ((images / 255).mean((0, 2, 3)), (images / 255).std((0, 2, 3))))


# The file


@pytest.mark.parametrize("compress", [False, True])
def test_round_trip(tmp_path, small, compress):
    write(tmp_path / "small.h5", small, compress)
    got = verify(tmp_path / "small.h5")
    assert got.attributes == small.attributes | {"class_counts": prepare.class_counts(small)}
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
    mean, std = prepare.statistics(small.train.images)
    write(path, small._replace(mean=mean, std=std))
    with h5py.File(path, "r+") as file:
        for name, value in change.items():
            file.attrs[name] = prepare._text(value)
    read(path)
    assert message in fails(verify, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.attrs.__delitem__("license"), "/ lacks the attribute license"),
        (lambda f: f.attrs.__delitem__("format"), "/ lacks the attribute format"),
        (lambda f: f.attrs.__setitem__("format", prepare._text(2)), "is of format 2, but this code reads format 1"),
        (lambda f: f.attrs.__setitem__("mean", "0.5"), "damaged"),
        (lambda f: f.attrs.__setitem__("mean", prepare._text([0.1, 0.2])), "do not fit 1 channels"),
        (lambda f: f.attrs.__setitem__("std", prepare._text([0])), "do not fit 1 channels"),
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
            patch.setattr(prepare, "_check", lambda *_: None)
            write(path, wrong)
        assert message in fails(read, path)


def test_an_interrupted_writer_leaves_what_was_there(tmp_path, small, monkeypatch):
    path = tmp_path / "small.h5"
    write(path, small)
    before = path.read_bytes()

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "digest", interrupted)
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
    assert "it can: cifar10, fashion_mnist, tiny" in fails(read, Path("data/mnist.h5"))


def test_root(monkeypatch):
    monkeypatch.setenv("SEVAL_DATA", "/sets")
    assert data_file("tiny") == data_file("tiny", "data") == Path("/sets/tiny.h5")
    assert data_file("tiny", "other") == Path("other/tiny.h5")
    monkeypatch.delenv("SEVAL_DATA")
    assert data_file("tiny", "data") == Path("data/tiny.h5")


# CIFAR-10


def test_cifar10(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path, tiny, 20, 5)
    got = sources.cifar10(tmp_path)
    first = np.sort(np.concatenate([np.flatnonzero(tiny.train.labels == c)[:20] for c in range(10)]))
    assert np.array_equal(got.train.images, as_cifar10(tiny.train.images[first]))
    assert np.array_equal(got.train.labels, tiny.train.labels[first])
    assert got.test.images.shape == (50, 3, 32, 32) and got.class_names[3] == "cat"
    assert got.attributes["official"] is False
    batch = folder / "data_batch_3"
    assert got.attributes["sources_sha256"]["data_batch_3"] == hashlib.sha256(batch.read_bytes()).hexdigest()
    assert same(sources.cifar10(folder), got)


def test_standins_are_cifar10_to_torchvision(tmp_path, tiny, monkeypatch):
    folder = write_small_cifar10(tmp_path, tiny)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setitem(torchvision.datasets.CIFAR10.meta, "md5", None)
    theirs, ours = torchvision.datasets.CIFAR10(str(tmp_path)), sources.cifar10(tmp_path)
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
    assert sources.cifar10(tmp_path).attributes["official"] is True


def test_cifar10_archive(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path / "plain", tiny)
    (tmp_path / "packed").mkdir()
    archive = tmp_path / "packed" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    assert same(sources.cifar10(tmp_path / "packed"), sources.cifar10(tmp_path / "plain"))
    archive.write_bytes(archive.read_bytes()[:-5000])
    assert f"{archive} is truncated" in fails(sources.cifar10, tmp_path / "packed")
    (folder / "data_batch_4").unlink()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    assert f"{archive} lacks data_batch_4" in fails(sources.cifar10, tmp_path / "packed")


def test_missing_extra_and_wrong_files_of_cifar10_are_named(tmp_path, tiny):
    folder = write_small_cifar10(tmp_path, tiny)
    assert "neither cifar-10-batches-py nor cifar-10-python.tar.gz" in fails(sources.cifar10, tmp_path / "nowhere")
    (folder / "data_batch_6").touch()
    assert f"{folder / 'data_batch_6'} is no file of CIFAR-10" in fails(sources.cifar10, tmp_path)
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
        (pickle.dumps([pixels]), "not a CIFAR-10 pickle"),
    ]:
        (folder / "data_batch_2").write_bytes(content)
        error = fails(sources.cifar10, tmp_path)
        assert str(folder / "data_batch_2") in error and message in error
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").unlink()
    assert f"{folder} lacks data_batch_2, test_batch" in fails(sources.cifar10, tmp_path)


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
        assert "which no image set needs" in fails(sources.cifar10, tmp_path)
        assert not trace.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_this_python_are_read(protocol):
    pixels = np.arange(6144).astype(np.uint8).reshape(2, 3072)
    raw = sources._Raw(pickle.dumps({b"data": pixels, b"labels": [3, 4]}, protocol), "here")
    got = sources._cifar10_batch(raw)
    assert np.array_equal(got.images.reshape(2, 3072), pixels) and got.labels.tolist() == [3, 4]


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
    got = sources.fashion_mnist(tmp_path)
    assert np.array_equal(got.train.images[:, :, 6:22, 6:22], tiny.train.images[:30])
    assert np.array_equal(got.test.labels, tiny.test.labels[:30]) and got.class_names[-1] == "Ankle boot"
    assert got.attributes["official"] is False
    assert same(got, sources.fashion_mnist(tmp_path / "plain"))
    assert "images of a class, but tiny takes 4700" in fails(sources.tiny, tmp_path)


def test_missing_and_wrong_files_of_fashion_mnist_are_named(tmp_path, tiny):
    assert "put train-images-idx3-ubyte.gz" in fails(sources.fashion_mnist, tmp_path)
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
        error = fails(sources.fashion_mnist, tmp_path)
        assert str(path) in error and message in error
        path.write_bytes(packed[path])
    images.unlink()
    assert "lacks train-images-idx3-ubyte" in fails(sources.fashion_mnist, tmp_path)


def test_sixteen_from_twenty_eight():
    images = np.random.RandomState(0).randint(0, 256, (5, 1, 28, 28)).astype(np.uint8)
    got = sources._halve(images)
    assert got.shape == (5, 1, 16, 16) and got.dtype == np.uint8
    assert not got[:, :, 0].any() and not got[:, :, :, 15].any()
    for n, y, x in ((0, 1, 1), (3, 7, 12), (4, 14, 14)):
        block = [int(images[n, 0, 2 * y - 2 + i, 2 * x - 2 + j]) for i in (0, 1) for j in (0, 1)]
        assert got[n, 0, y, x] == int(sum(block) / 4 + 0.5)


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


def test_the_command_downloads_only_where_asked(tmp_path, tiny, capsys, monkeypatch):
    class Standin(torchvision.datasets.CIFAR10):
        def __init__(self, root, download):
            assert download and root == str(tmp_path / "raw")
            write_small_cifar10(Path(root), tiny)

    command = ["cifar10", "--root", str(tmp_path)]
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Standin)
    assert cli.main(command) == 2 and "fetch it with --download" in capsys.readouterr().err
    assert cli.main([*command, "--download"]) == 0
    assert verify(tmp_path / "cifar10.h5").attributes["official"] is False


def test_a_failed_download_is_one_line(tmp_path, capsys, monkeypatch):
    def download(root, download):
        raise RuntimeError("no network\nat all")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", download)
    assert cli.main(["cifar10", "--root", str(tmp_path), "--download"]) == 2
    assert "error: cannot fetch CIFAR10" in (error := capsys.readouterr().err) and error.count("\n") == 1


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0 and "python repro/prepare.py cifar10 --download" in capsys.readouterr().out
