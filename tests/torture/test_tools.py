"""The instruments themselves: a fault does what it is said to do, and a case that goes wrong is counted."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.torture import small
from tests.torture.explore import explore, judged
from tests.torture.shim import READS, Attempt, Fault
from tests.torture.table import Row, page, shape


def write(words: list[str]) -> int:
    """What is attempted here: write a file aside, flush it, rename it; read it."""
    file = os.open(f"{words[0]}/aside", os.O_WRONLY | os.O_CREAT)
    if os.write(file, b"0123456789") < 10:
        return 3
    os.fsync(file)
    os.rename(f"{words[0]}/aside", f"{words[0]}/file")
    return 0 if Path(words[0], "file").read_bytes() == b"0123456789" else 4


@pytest.fixture
def attempted(zygote, tmp_path):
    def attempt(action: str = "", at: int = 0, value: int = 0, **more: int) -> tuple[Attempt, dict[str, bytes]]:
        small.clear(tmp_path / "w")
        fault = Fault(tmp_path / "w", at, action, value, **more)
        done = zygote.attempt("tests.torture.test_tools:write", [tmp_path / "w"], fault)
        return done, {path.name: path.read_bytes() for path in (tmp_path / "w").iterdir()}

    return attempt


@pytest.mark.torture
@pytest.mark.slow
def test_each_fault_does_what_it_says(attempted):
    whole = b"0123456789"
    done, files = attempted("kill")
    assert done.code == 0 and files == {"file": whole} and not done.fired
    assert [call.split()[0] for call in done.calls] == ["open64", "write", "fsync", "rename"]
    for at, left in ((1, {}), (2, {"aside": b""}), (3, {"aside": whole}), (4, {"aside": whole})):
        done, files = attempted("kill", at)
        assert (done.code, files, done.fired) == (-9, left, True)
    assert attempted("tear", 2)[1] == {"aside": b"01234"}
    done, files = attempted("short", 2)
    assert done.code == 3 and files == {"aside": b"01234"}
    for action, left in (("fail", {"aside": whole}), ("lie", {"file": whole})):
        done, files = attempted(action, 4, errno.ESTALE)
        assert files == left and "Stale file handle" in done.last and done.code == 1
    assert "Input/output error" in attempted("fail", 1, errno.EIO, kinds=READS)[0].last
    done, _ = attempted("raise", 3, signal.SIGTERM)
    assert done.code == -signal.SIGTERM
    assert "KeyboardInterrupt" in attempted("raise twice", 3, signal.SIGINT, gap=1)[0].err


def go_wrong(words: list[str]) -> int:
    """Cases of `explore` that are each judged in another way."""

    def refuse(text: str) -> None:
        raise ValueError(text)

    cases = [
        ("fine", lambda: None),
        ("refused", lambda: refuse("a line")),
        ("in two lines", lambda: refuse("a\nb")),
        ("other", lambda: [][1]),
        ("wrong", lambda: "another number"),
        ("slow", lambda: time.sleep(60)),
        ("large", lambda: bytearray(8 << 30) and None),
        ("dead", os.abort),
    ]
    return explore(cases, (ValueError,))


@pytest.mark.torture
@pytest.mark.slow
def test_what_goes_wrong_is_counted(lab):
    judged(lab, row := Row("control"), "tests.torture.test_tools:go_wrong")
    assert (row.tried, row.failed) == (8, 6)
    assert all(name in " ".join(row.unknown()) for name in ("in two lines", "other", "wrong", "slow", "large", "dead"))


def test_states_are_compared_to_the_last_bit():
    state = {"a/record.json": {"x": [1.0, float("nan")]}, "a/checkpoint.pt": {"net": torch.tensor([0.0, 1.0])}}
    other = {"a/record.json": {"x": [1.0, float("nan")]}, "a/checkpoint.pt": {"net": torch.tensor([-0.0, 1.0])}}
    assert small.differences(state, state | {}) == []
    assert small.differences(state, other) == ["checkpoint.pt differs"]
    assert small.differences(state | {"a/.x": 1}, state) == [".x is left over"]
    assert small.same(np.arange(3), np.arange(3)) and not small.same(np.arange(3), np.arange(3.0))
    timed = {"seconds": 1, "list": [{"seconds": 2, "k": 1}], "text": '{"seconds": 3, "k": 2}\n', "sha256": "x"}
    assert small.untimed(timed, drop={"sha256"}) == {"list": [{"k": 1}], "text": [{"k": 2}]}


def test_manners():
    assert small.manners(Attempt(2, "", "error: cannot read x\n"), (0, 2)) == []
    for code, err in ((None, ""), (1, ""), (2, "cannot"), (2, "error: a\nerror: b"), (0, "Exception ignored in: x")):
        assert small.manners(Attempt(code, "", err), (0, 2)), (code, err)
    assert small.manners(Attempt(2, "", "error: x is damaged\n"), (2,))
    assert not small.manners(Attempt(2, "", "error: x is damaged\n"), (2,), sound=False)


def test_the_table_has_a_line_for_each_campaign_and_its_reasons():
    row = Row("c")
    row.judge("one", [])
    for number in (7, 8):
        row.judge(f"case {number}", [f"/tmp/a{number}/b is wrong at {number} (and more)"])
    assert page([row]).splitlines()[-1] == "| c | 3 | 1 | 2 2: PATH is wrong at N |"
    assert row.unknown() == ["case 7: /tmp/a7/b is wrong at 7 (and more)"]
    assert Row(**row.plain()) == row and shape("x 1.5 0xff") == "x N N"
