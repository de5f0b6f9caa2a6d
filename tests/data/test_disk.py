"""Full and failing disks: HDF5 never sees them, and what they cause is one error with nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from repro import prepare as cli
from seval.data import partial
from seval.data.blocks import Blocks
from seval.data.disk import Steady
from seval.data.hdf5 import read, verify, write
from seval.data.image_set import Encoded, ImageSet, Part
from tests.settings import ROOT
from tests.standins import write_small_cifar10

CALLS = ("open", "fstat", "pwrite", "preadv", "ftruncate", "fsync", "replace", "mkdir", "stat")


class Faults:
    """Lets the n-th of some calls to the system fail, and those after it too if it is to `last`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.count, self.last, self.calls, self.error = 0, 0, False, CALLS, OSError(errno.EIO, "I/O error")
        for name in CALLS:
            monkeypatch.setattr(os, name, self.failing(name, getattr(os, name)))

    def failing(self, name, call):
        def called(*arguments, **options):
            if self.at and name in self.calls:
                self.count += 1
                if self.count == self.at or (self.last and self.count > self.at):
                    raise self.error
            return call(*arguments, **options)

        return called

    def each(self, function, most: int = 500):
        """The outcome of `function` with a fault at each call in turn, until no call is left."""
        for at in range(1, most):
            self.at, self.count = at, 0
            try:
                function()
                outcome: object = None
            except BaseException as error:
                outcome = error
            reached, self.at = self.count >= at, 0
            yield outcome
            if not reached:
                return
        raise AssertionError("there is no end")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return Faults(monkeypatch)


@pytest.fixture
def encoded_file(tmp_path: Path, small: ImageSet) -> tuple[Path, list[bytes]]:
    """A set of encoded images, and the first part of it."""
    content = [np.random.RandomState(i).bytes(5000) for i in range(200)]
    offsets = np.cumsum([0, *map(len, content)])
    images = Blocks((int(offsets[-1]),), lambda: (np.frombuffer(each, np.uint8) for each in content), offsets)
    part = Part(images, np.arange(200) % 10)
    write(tmp_path / "e.h5", small._replace(mean=(0.5,) * 3, std=(0.5,) * 3, train=part, test=part, unlabeled=None))
    return tmp_path / "e.h5", content


@pytest.mark.parametrize(
    ("code", "compress", "last"),
    [
        (errno.EIO, False, False),
        (errno.ENOSPC, False, True),
        pytest.param(errno.EDQUOT, True, False, marks=pytest.mark.slow),
        pytest.param(errno.EROFS, True, True, marks=pytest.mark.slow),
    ],
)
def test_a_write_that_fails_anywhere_is_one_error_and_leaves_what_was_there(
    code, compress, last, faults, tmp_path, small
):
    path = tmp_path / "small.h5"
    write(path, small)
    before, whole = path.read_bytes(), small._replace(name="other")
    faults.error, faults.last = OSError(code, os.strerror(code)), last
    outcomes = []
    for outcome in faults.each(lambda: write(path, whole, compress)):
        outcomes.append(outcome)
        if outcome is None:  # the fault met a call that need not succeed, or none
            assert verify(path).name == "other"
        else:
            assert isinstance(outcome, OSError) and outcome.errno == code, outcome
            assert str(outcome).startswith("cannot ") and str(tmp_path) in str(outcome) and "\n" not in str(outcome)
            assert path.read_bytes() == before
        assert [left.name for left in tmp_path.iterdir()] == ["small.h5"]
        path.write_bytes(before)
    assert outcomes[-1] is None and sum(each is not None for each in outcomes) > 30


def test_a_ctrl_c_anywhere_in_a_write_is_not_swallowed(faults, tmp_path, small):
    path = tmp_path / "small.h5"
    faults.error = KeyboardInterrupt()
    *interrupted, done = faults.each(lambda: write(path, small))
    assert done is None and all(isinstance(each, KeyboardInterrupt) for each in interrupted)
    assert [left.name for left in tmp_path.iterdir()] == ["small.h5"]


@pytest.mark.parametrize(
    ("code", "in_blocks"), [(errno.EIO, False), (errno.ESTALE, True), (errno.EACCES, False), (errno.EMFILE, True)]
)
def test_a_read_that_fails_anywhere_is_not_damage(code, in_blocks, faults, tmp_path, small):
    path = tmp_path / "small.h5"
    write(path, small)
    faults.error = OSError(code, os.strerror(code))
    *failed, done = faults.each(lambda: (verify if in_blocks else read)(path))
    assert done is None and len(failed) > 10
    for each in filter(None, failed):
        assert isinstance(each, OSError) and each.errno == code
        assert str(each) == f"cannot read {path}: {os.strerror(code)}"


def test_an_encoded_image_that_cannot_be_read_now_can_be_read_later(faults, tmp_path, encoded_file):
    path, content = encoded_file
    part = read(path).train.images
    *failed, done = faults.each(lambda: Encoded(path, "train", part.offsets, part.mark).read(3))
    assert done is None and all(str(each) == f"cannot read {path}: I/O error" for each in failed)
    for image in (part, read(path).test.images):
        faults.at, faults.count, faults.calls = 1, 0, ("preadv",)
        with pytest.raises(OSError, match="cannot read"):
            image.read(0)
        faults.at = 0
    assert part.read(0) == content[0] and part.read(199) == content[199]


def test_what_is_written_after_an_error_can_be_read_back(tmp_path, monkeypatch):
    (tmp_path / "x").write_bytes(b"0123456789")
    steady = Steady(tmp_path / "x", "write", Path("y"))
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)  # nothing, and no error
    for start, content in ((8, b"abc"), (2, b"AB"), (9, b"X")):
        steady.seek(start)
        assert steady.write(memoryview(content)) == len(content)
    steady.truncate(3)
    steady.seek(1)
    assert steady.read(12) == b"1AB4567aXc\0\0" and steady.seek(0, os.SEEK_END) == 11
    assert (tmp_path / "x").read_bytes() == b"0123456789"
    with pytest.raises(OSError, match="^cannot write y: Input/output error$"):
        steady.check()


def test_a_disk_that_lies_is_noticed_before_the_rename(tmp_path, small, monkeypatch):
    path, real = tmp_path / "small.h5", os.pwrite
    write(path, small)
    before = path.read_bytes()
    monkeypatch.setattr(
        os, "pwrite", lambda file, data, at: real(file, bytes(len(data)), at) if at > 5000 else len(data)
    )
    with pytest.raises(OSError, match=f"^cannot write {path}: it does not read back as it was written$"):
        write(path, small)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_locks_are_not_needed(tmp_path, small, monkeypatch):
    def fails(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(partial.fcntl, "flock", fails)
    path = tmp_path / "small.h5"
    write(path, small)
    with h5py.File(path, "r+"):  # another process that has it open, with HDF5's own lock
        assert verify(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_not_a_file_is_an_error_at_once(kind, tmp_path, capsys):
    path = tmp_path / "tiny.h5"
    {"pipe": os.mkfifo, "device": lambda p: p.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](path)
    for options in ([], ["--verify"], ["--show", str(tmp_path / "x.png")]):
        assert cli.main(["tiny", "--root", str(tmp_path), *options]) == 2
        assert capsys.readouterr().err == f"error: cannot read {path}: it is not a regular file\n"
    assert path.is_fifo() or path.is_symlink() or path.is_dir()


def test_short_memory_is_no_damage(tmp_path, tiny):
    """It stays a `MemoryError`, whatever fails: HDF5, NumPy, or the first step."""
    times = tiny.train._replace(images=np.tile(tiny.train.images, (4, 1, 1, 1)), labels=np.tile(tiny.train.labels, 4))
    write(tmp_path / "big.h5", tiny._replace(name="big", train=times))
    code = (
        "import sys, resource; from seval.data.hdf5 import read\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + int(float(sys.argv[1]) * 2**20),) * 2)\n"
        "try:\n    read(sys.argv[2])\n    print('read')\n"
        "except MemoryError as error:\n    print(error)"
    )
    for extra in (0, 0.2, 1, 20, 48):
        done = subprocess.run(
            [sys.executable, "-c", code, str(extra), str(tmp_path / "big.h5")], capture_output=True, text=True, cwd=ROOT
        )
        assert done.stdout.startswith(f"not enough memory to read {tmp_path}/big.h5"), (extra, done)
        assert extra != 20 or "Unable to allocate 45.9 MiB" in done.stdout


FILL = """
import json, resource, shutil, subprocess, sys
from pathlib import Path
from repro import prepare
folder, sizes, how = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
if how == "filled":
    shutil.disk_usage = lambda _: shutil._ntuple_diskusage(1 << 40, 0, 1 << 40)  # others fill it meanwhile
for size in sizes:
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    else:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder / "root")], check=True)
    code = prepare.main(["cifar10", "--raw", str(folder / "raw"), "--root", str(folder / "root")])
    left = sorted(path.name for path in (folder / "root").iterdir())
    print(json.dumps([size, code, left]), file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("how", ["limit", "full", "filled"])
def test_no_room_of_any_size_leaves_anything_and_the_next_start_succeeds(how, tmp_path, tiny):
    """In a process of its own, as HDF5 could crash: file sizes are limited, or the disk is a file system in memory."""
    write_small_cifar10(tmp_path / "raw", tiny)
    (root := tmp_path / "root").mkdir()
    if how != "limit" and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(root)]).returncode:
        pytest.skip("no file system can be mounted here")
    sizes = [1, 48, 1000, 4096, *range(5_000, 770_000, 60_000), *range(770_000, 800_000, 2_500), 10_000_000]
    command = [sys.executable, "-c", FILL, str(tmp_path), json.dumps(sizes), how]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0 and verify(root / "cifar10.h5")
    finally:
        subprocess.run(["umount", str(root)], capture_output=True)
    lines = done.stderr.splitlines()
    errors, outcomes = [[line for line in lines if (line[0] == "[") == kind] for kind in (False, True)]
    codes = [json.loads(outcome)[1:] for outcome in outcomes]
    assert codes == [[2, []]] * len(errors) + [[0, ["cifar10.h5"]]] * (len(sizes) - len(errors)) and len(errors) > 18
    assert all(error.startswith(f"error: cannot write {root}/cifar10.h5: ") for error in errors)
    reason = {"limit": "File too large", "filled": "No space left on device", "full": "no space for its 0.8 MB, 0."}[
        how
    ]
    assert sum(reason in error for error in errors) > 15


def test_space_is_asked_for_first(tmp_path, small, monkeypatch):
    usage = partial.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(OSError, match=r"small.h5: no space for its 0.0 MB, 0.0 MB are free$") as caught:
        write(tmp_path / "small.h5", small)
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())
    write(tmp_path / "small.h5", small, compress=True)  # its size is not known before
    monkeypatch.setattr(partial.shutil, "disk_usage", lambda _: usage._replace(total=0, free=0))  # nothing is known
    write(tmp_path / "small.h5", small)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(mask, tmp_path, small):
    before = os.umask(mask)
    try:
        write(tmp_path / "new" / "small.h5", small)
    finally:
        os.umask(before)
    assert (tmp_path / "new/small.h5").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~mask
