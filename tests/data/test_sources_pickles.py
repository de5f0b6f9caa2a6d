"""Pickles of image sets: what is read, and that nothing else can be made, called or broken by one."""

from __future__ import annotations

import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from seval.data.sources.raw import in_memory, unpickle
from tests.data.mutations import is_plain, mutated, outcome
from tests.settings import ROOT
from tests.standins import write_cifar100, write_small_cifar10

PIXELS = np.arange(12, dtype=np.uint8).reshape(4, 3)
CONTENT = {
    "data": PIXELS,
    "labels": [np.int64(3), np.uint8(4), np.float32(0.5), 5, True, None, -7, 10**30, 1.5, 70000],
    "mean": np.asfortranarray(np.arange(4.0).reshape(2, 2)),
    "big": np.arange(3, dtype=">i4"),
    "sliced": np.arange(12).reshape(3, 4)[:, ::2],
    "names": ("é\n'", (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, [], {"a": b"\x00\xff"}),
    "same": PIXELS,
}


def unpickled(content: bytes) -> dict:
    return unpickle(in_memory(content, "here"))


@pytest.mark.parametrize("protocol", range(6))
def test_what_is_pickled_is_read(protocol):
    got = unpickled(pickle.dumps(CONTENT, protocol))
    assert got["labels"] == [3, 4, 0.5, 5, True, None, -7, 10**30, 1.5, 70000]
    assert [type(value) for value in got["labels"][:3]] == [int, int, float]
    assert got["names"] == CONTENT["names"] and got["same"] is got["data"] and is_plain(got)
    for key in ("data", "mean", "big", "sliced"):
        assert np.array_equal(got[key], CONTENT[key]) and got[key].dtype == CONTENT[key].dtype


def test_names_of_numpy_1_and_text_of_python_2():
    old = pickle.dumps({"data": PIXELS, "l": [np.int64(3)]}, 2).replace(b"numpy._core", b"numpy.core")
    assert np.array_equal(unpickled(old)["data"], PIXELS)
    assert unpickled(b"(dp0\nS'batch_label'\np1\nS'a\\xff'\np2\nsS'n'\nI01\nsS'm'\nL5L\ns.") == {
        "batch_label": b"a\xff", "n": True, "m": 5
    }  # fmt: skip


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def dtype(code: str, state: bytes = b"") -> bytes:
    """The dtype; `state` is what follows the byte order."""
    none = b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0"
    return b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R(K\x03" + text("|") + (state or none) + b"tb"


def array(shape: bytes, kind: bytes, raw: bytes) -> bytes:
    """An array in the old protocol; shape and kind are pickled."""
    begun = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R"
    return begun + b"(K\x01" + shape + kind + b"\x89C" + bytes([len(raw)]) + raw + b"tb"


#: An array of objects over eight bytes of the file, one of which is then replaced, so that Python frees an address.
POINTER = array(b"K\x01\x85", dtype("V8", b"N" + text("f") + b"\x85" b"}" + text("f") + b"cnumpy\ndtype\n" + text("O8")
                + b"\x89\x88\x87RK\0\x86sK\x08K\x01K\0"), b"A" * 8) + b"K\0N\x85s"  # fmt: skip
#: An array of four bytes whose dtype then gets large items, so that its last one lies behind it.
OVERFLOW = b"0" + dtype("S1", b"NNNK\x01K\x01K\0") + b"p9\n0" + array(b"K\x04\x85", b"g9\n", b"abcd")
OVERFLOW += b"g9\n(K\x03" + text("|") + b"NNNJ\0\0\x01\0K\x01K\0tb0K\x03C\x08AAAAAAAAs"
HOSTILE = {"pointer": b"\x80\x03}" + text("data") + POINTER + b"s.",
           "overflow": b"\x80\x03}" + text("data") + b"N" + OVERFLOW + b"s."}  # fmt: skip


def prepare(name: str, root) -> str:
    """The error of the whole command, which must be one line."""
    command = [sys.executable, "repro/prepare.py", name, "--root", str(root), "--raw", str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and not (root / f"{name}.h5").exists(), done
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_pickle_that_corrupts_the_memory_of_numpy_is_refused(tmp_path, tiny, name, attack):
    folder = (write_small_cifar10 if name == "cifar10" else write_cifar100)(tmp_path, tiny)
    path = folder / ("data_batch_2" if name == "cifar10" else "train")
    path.write_bytes(HOSTILE[attack])
    assert f"{path} holds an array of dtype" in prepare(name, tmp_path)


U1 = dtype("u1")
NESTED = b"]" + b"".join(b"]2\x85" for _ in range(3))
#: By what they try: pickled values. None of them can be read.
ATTACKS = {
    "a name": b"cos\nsystem\n" + text("true") + b"\x85R",
    "a name in a name": text("numpy") + text("core.multiarray._reconstruct.__globals__") + b"\x93",
    "a function as a value": b"cnumpy\ndtype\n",
    "a dtype as a value": U1,
    "an array without content": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R",
    "INST": b"(ios\nsystem\n",
    "OBJ": b"(cnumpy\ndtype\n" + text("O") + b"o",
    "NEWOBJ": b"cnumpy\nndarray\n(K\x08\x85t\x81",
    "NEWOBJ_EX": b"cnumpy\nndarray\nK\x08\x85}\x92",
    "EXT1": b"\x82\x01",
    "PERSID": b"Pid\n",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"C\x01a\x98",
    "the state of a list": b"]}b",
    "the attributes of a function": b"cnumpy\ndtype\nN}" + text("__defaults__") + b"(" + text("O") + b"ts\x86b",
    "the state of a finished array": array(b"K\x01\x85", U1, b"a") + b"(K\x01K\x01\x85" + U1 + b"\x89C\x01atb",
    "an item of an array": array(b"K\x01\x85", U1, b"a") + b"K\0K\x05s",
    "appending to an array": array(b"K\x01\x85", U1, b"a") + b"K\0a",
    "appending to a tuple": b"K\0\x85K\0a",
    "a dtype of objects": array(b"K\x01\x85", dtype("O8"), b"A" * 8),
    "a dtype of text": array(b"K\x01\x85", dtype("S8"), b"A" * 8),
    "a dtype of dates": array(b"K\x01\x85", dtype("M8"), b"A" * 8),
    "a dtype of many": array(b"K\x01\x85", dtype("u1,O"), b"A" * 9),
    "fields of a number": array(b"K\x01\x85", dtype("u8", b"N" + text("f") + b"\x85}K\x08K\x01K\0"), b"A" * 8),
    "a larger number": array(b"K\x01\x85", dtype("u1", b"NNNK\x08K\x01K\0"), b"A" * 8),
    "too few bytes": array(b"K\x09\x85", U1, b"A" * 8),
    "too many bytes": array(b"K\x07\x85", U1, b"A" * 8),
    "a negative shape": array(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86", U1, b"A"),
    "a shape of a terabyte": array(b"\x8a\x06\0\0\0\0\0\x01\x85", U1, b"A"),
    "an endless shape": array(b"K\0\x8a\xff" + b"\x7f" * 255 + b"\x86", U1, b""),
    "a shape of text": array(text("a") + b"\x85", U1, b"A"),
    "many axes": array(b"(" + b"K\x01" * 60 + b"t", U1, b"A"),
    "no dtype": array(b"K\x01\x85", b"N", b"A"),
    "a buffer of another size": b"cnumpy.core.numeric\n_frombuffer\n(C\x03abc" + U1 + b"K\x04\x85" + text("C") + b"tR",
    "a buffer of another order": b"cnumpy.core.numeric\n_frombuffer\n(C\x03abc" + U1 + b"K\x03\x85" + text("A") + b"tR",
    "a buffer of text": b"cnumpy.core.numeric\n_frombuffer\n(" + text("abc") + U1 + b"K\x03\x85" + text("C") + b"tR",
    "a number of two bytes": b"cnumpy.core.multiarray\nscalar\n" + U1 + b"C\x02ab\x86R",
    "a number of objects": b"cnumpy.core.multiarray\nscalar\n" + dtype("O8") + b"C\x08AAAAAAAA\x86R",
    "another encoding": b"c_codecs\nencode\n" + text("a") + text("zip") + b"\x86R",
    "a call with too few": b"cnumpy\ndtype\n)R",
    "a call of text": text("numpy.dtype") + b")R",
    "a key of many levels": b"}" + b")" + b"\x85" * 100_000 + b"Ns",
    "a key of a number": b"}K\x01Ns",
    "a key of a list": b"}]Ns",
    "half an item": b"(" + text("a") + b"d",
    "a terabyte of bytes": b"\x8e\0\0\0\0\0\x01\0\0",
    "an exabyte of bytes": b"\x96" + b"\xff" * 7 + b"\x0f",
    "a gigabyte of text": b"X\0\0\0\x40",
    "a terabyte of text": b"\x8d\0\0\0\0\0\x01\0\0",
    "negative bytes": b"T\xff\xff\xff\xff",
    "a number of a gigabyte": b"\x8b\0\0\0\x40",
    "a number of many digits": b"I" + b"9" * 5000 + b"\n",
    "no number": b"Ia\n",
    "text without quotes": b"Sabc\n",
    "a memo of many digits": b"Np" + b"9" * 40 + b"\n",
    "a memo that is negative": b"Np-1\n",
    "a memo that is not there": b"h\x07",
    "lists without end": b"]" * 3_000_000,
    "marks without end": b"(" * 3_000_000,
    "copies without end": b"N" + b"q\x01h\x01" * 700_000,
    "copies of a text": text("a" * 30_000) + b"q\x000c_codecs\nencode\nq\x010" + text("latin1") + b"q\x020]"
    + b"h\x01h\x00h\x02\x86Ra" * 8_000,
    "nothing on the stack": b"00000000",
    "no instruction": b"\xfe",
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_in_one_line(attack):
    content = b"\x80\x04}" + text("data") + ATTACKS[attack] + b"s."
    value, message, peak = outcome(lambda: unpickled(content))
    assert value is None and message.startswith("here ") and peak < 30e6 + 3 * len(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is truncated or not a pickled dictionary (it ends too early)"),
        (b"<!DOCTYPE html>", "is truncated or not a pickled dictionary (b'<' is no instruction)"),
        (pickle.dumps([1]), "is truncated or not a pickled dictionary (it holds a list)"),
        (pickle.dumps(CONTENT)[:-1], "is truncated or not a pickled dictionary (it ends too early)"),
        (pickle.dumps({"data": np.array([None])}), "here holds an array of dtype 'O8', but image sets hold plain"),
        (pickle.dumps({"a": 1, b"a": 2}), "here has a key twice, as text and as bytes"),
        (pickle.dumps({"a": {1}}, 4), "here has the instruction EMPTY_SET, which no image set needs"),
        (pickle.dumps({"a": ROOT}, 4), "here asks for pathlib.PosixPath, which no image set needs"),
    ],
)
def test_only_what_is_truncated_is_called_so(content, message):
    assert message in (error := outcome(lambda: unpickled(content))[1])
    assert ("truncated" in error) == ("truncated" in message)


def test_deep_values_are_read():
    deep = unpickled(b"}" + text("a") + b")" + b"\x85" * 90_000 + b"s.")
    assert is_plain(deep)


@pytest.mark.parametrize("protocol", [0, 2, 3, 5])
def test_damaged_pickles_are_read_or_refused(protocol):
    rng, sound, refused = np.random.RandomState(protocol), pickle.dumps(CONTENT, protocol), 0
    for _ in range(300):
        content = mutated(sound, rng)
        value, message, peak = outcome(lambda content=content: unpickled(content))
        assert peak < 20e6 and (message.startswith("here ") or is_plain(value)), content
        refused += bool(message)
    assert 30 < refused < 300


def test_random_instructions_are_read_or_refused():
    rng, parts = np.random.RandomState(0), [content for content in ATTACKS.values() if len(content) < 300]
    parts += [bytes([code]) for code in range(256)] + [U1, POINTER, OVERFLOW, array(b"K\x01\x85", U1, b"a"), text("a")]
    good = 0
    for _ in range(1000):
        chosen = b"".join(parts[i] for i in rng.randint(len(parts), size=rng.randint(1, 5)))
        for content in (b"}" + chosen + b".", b"}" + text("data") + chosen + b"s."):
            value, message, peak = outcome(lambda content=content: unpickled(content))
            assert peak < 20e6 and (message.startswith("here ") or is_plain(value)), content
            good += value is not None
    assert good > 10
