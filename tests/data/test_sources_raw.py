"""One rule for all raw files: damage is a `DataError` that names them, and the faults of a machine keep their kind."""

from __future__ import annotations

import errno
import io
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from seval.data.sources import raw
from seval.files import told
from tests.data.mutations import outcome


class Failing(io.BytesIO):
    """A file whose reads fail after some bytes."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        super().__init__(content)
        self.error = error

    def read(self, count: int | None = -1) -> bytes:
        if self.tell() >= 1:
            raise self.error
        return super().read(count)


def failing(error: BaseException) -> raw.Raw:
    @contextmanager
    def start():
        yield Failing(b"\x80\x04]", error)

    return raw.Raw("file", 2_000_000, start)


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOLCK])
def test_a_fault_of_the_machine_is_not_called_damage(code):
    error = OSError(code, os.strerror(code))
    with pytest.raises(type(error)) as caught:
        raw.unpickle(failing(error))
    assert str(caught.value) == f"cannot read file: {os.strerror(code)}" and caught.value.errno == code
    with pytest.raises(OSError, match="^cannot read file: [^:]*$"), raw.reading("folder", "is damaged"):
        with raw.reading("a part of it", "is damaged"):
            raise told(error, "read", Path("file"))  # only the first names its file


def test_short_memory_stays_so():
    with pytest.raises(MemoryError, match=r"memory is too short for file \(2 MB\)"):
        raw.unpickle(failing(MemoryError()))
    with pytest.raises(KeyboardInterrupt):
        raw.unpickle(failing(KeyboardInterrupt()))


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), RecursionError(), OSError("not a gzip"), KeyError(3), OSError(errno.EINVAL, "seek")]
)
def test_damage_is_told_in_one_line(error):
    value, message, _ = outcome(lambda: raw.unpickle(failing(error)))
    assert message.startswith("file is truncated or not a pickled dictionary (")


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a pipe")):
        assert f"{path} is {what}" in outcome(lambda path=path: raw.on_disk(path, 10))[1]
    (tmp_path / "large").write_bytes(bytes(11))
    assert "large has 11 bytes, but may have 10 at most" in outcome(lambda: raw.on_disk(tmp_path / "large", 10))[1]
    with pytest.raises(FileNotFoundError, match="cannot read .*nothing: No such file"):
        raw.on_disk(tmp_path / "nothing", 10)


def test_text_is_utf_8_with_or_without_a_mark():
    for content in ("\ufeffé 1\n\n2", "é 1\r\n\r\n2", "é 1\r\r2"):
        assert list(raw.in_memory(content.encode(), "list").lines()) == [(1, "é 1\n"), (2, "\n"), (3, "2")]
    for content in ("é 1".encode("latin1"), "é 1".encode("utf-16")):
        value, message, _ = outcome(lambda content=content: list(raw.in_memory(content, "list").lines()))
        assert message.startswith("list is not text in UTF-8") and message.endswith("save it in that encoding")


@pytest.mark.parametrize(
    "labels", [[1, 2], (1, 2), np.array([1, 2]), np.array([1, 2], np.uint8), np.array([1, 2], ">i4")]
)
def test_labels(labels):
    got = raw.labels_in({"labels": labels}, "labels", "here", count=2, low=1, high=2)
    assert got.dtype == np.int64 and got.tolist() == [1, 2]


def doubled(levels: int) -> list:
    value: list = [1]
    for _ in range(levels):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "labels",
    [None, [], [1], [1, 3], [1, True], [1, "2"], [1, 2.0], [1, [2]], [1, 10**40], np.array([1.0, 2]),
     np.array([[1, 2]]), np.array([1, 3]), np.array(1), {"a": 1}, b"12", doubled(60), [doubled(60), 1]],
)  # fmt: skip
def test_labels_that_are_none(labels):
    batch = {"labels": labels}
    value, message, _ = outcome(lambda: raw.labels_in(batch, "labels", "here", count=2, low=1, high=2))
    assert message.startswith("here must hold labels, a list of 2 labels in 1..2;")
