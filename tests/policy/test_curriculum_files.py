"""A published curriculum is two tables of numbers; whatever else a file holds is one short line, at once."""

from __future__ import annotations

import io
import os
import time
import zipfile

import numpy as np
import pytest

from seval.errors import PolicyError
from seval.policy.seval import published


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("a.npy", npy(np.ones((2, 3))))
    return file.getvalue()


GOOD = npy(np.ones((2, 3)))
HOSTILE = {
    "empty": b"",
    "text": b"1, 2, 3\n",
    "zip": archive(),
    "huge": GOOD.replace(b"(2, 3), }       ", b"(9999999999999,)"),
    "torn header": GOOD.replace(b"(2, 3), }", b"(2, 3, '   "),
    "header of another kind": GOOD.replace(b"'shape'", b"[shape]"),
    "truncated": GOOD[:-8],
    "objects": npy(np.array([[1, "a"]], object)),
    "letters": npy(np.array([["a", "b"]])),
    "complex": npy(np.ones((2, 3), complex)),
    "one row": npy(np.ones(3)),
    "a number": npy(np.array(1.0)),
    "pickle": b"\x80\x04N.",
}


def put(folder, content: bytes) -> str:
    (folder / "x_estim_pi.npy").write_bytes(content)
    (folder / "x_estim_thres.npy").write_bytes(GOOD)
    return str(folder / "x")


def test_two_tables_of_numbers_are_read(tmp_path):
    arrays = published(put(tmp_path, npy(np.ones((2, 3), np.int32))))
    assert {name: (rows.shape, rows.dtype.name) for name, rows in arrays.items()} == {
        "pi_smoothed": ((2, 3), "float64"),
        "tau_smoothed": ((2, 3), "float64"),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_else_is_one_short_line(name, tmp_path):
    begun = time.monotonic()
    with pytest.raises(PolicyError, match="x_estim_pi.npy") as caught:
        published(put(tmp_path, HOSTILE[name]))
    message = str(caught.value).replace(str(tmp_path), "")
    assert message.isprintable() and len(message) <= 500 and "curriculum" in message
    assert time.monotonic() - begun < 5


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "x_estim_pi.npy")
    with pytest.raises(PolicyError, match="it is not a regular file"):
        published(tmp_path / "x")
    with pytest.raises(PolicyError, match="cannot read"):
        published("a\0b")


def test_random_damage_is_one_short_line_or_other_numbers(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(GOOD)
        for place in rng.integers(len(GOOD), size=3):
            damaged[place] = rng.integers(256)
        try:
            published(put(tmp_path, bytes(damaged)))
        except PolicyError as error:
            assert str(error).isprintable()
