"""Files that are damaged, odd or cannot be read are told in the line of their run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.listing.conftest import started
from tests.listing.test_list import A, B, rows

DAMAGE = {
    "empty": b"",
    "torn": b'{"id": "aaaaaaaaaa", "resul',
    "no JSON": b"\xff\xfe",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "changed": b'{"id": "aaaaaaaaaa", "results": {}, "sha256": "00"}',
    "of another": b'{"id": "bbbbbbbbbb", "results": {}}',
    "of a number": b'{"id": 1, "results": {}}',
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_said_in_its_line(write, call, name):
    started(write(A))
    write(B, SEED=2)
    (Path("runs") / A / "record.json").write_bytes(DAMAGE[name])
    code, out, err = call()
    assert (code, err) == (2, "") and "damaged: record.json: " in rows(out)[A] and "seed 1" in rows(out)[A]
    assert "done" in rows(out)[B] and "Traceback" not in out
    code, out, err = call("show", "a")
    assert (code, err) == (2, "") and "damaged" in out and "record.json: " in out
    code, out, err = call("diff", "a", "b")
    assert (code, err) == (2, "") and "SEED" in out
    assert call("csv")[1].count("\n") == 3 and call("SEED=2")[0] == 0


@pytest.mark.parametrize(
    "part",
    [
        {"results": {"test": 3}},
        {"results": {"test": {"ema": {"none": {"top1": {"median20": "high"}}}}}},
        {"config": 3, "delta": [], "steps": "many", "evaluations": -1},
        {"config": {"SEED": [1, {"a": 2}], "DATASET.NAME": None, "ODD": "x\x1b[31m\n", "ALGORITHM.NAME": 4}},
        {"provenance": [1], "seconds": "x", "prerequisites": {"a": 1}, "method": 5},
        {"provenance": {"commit": 1, "code": None, "finished": [], "packages": [], "dirty": "x", "device": {"a": 1}}},
        {"per_class": {"none": {"recall": "all"}}, "splits": [1]},
        {"per_class": {"none": {"recall": [1, "x"]}}, "splits": {"labeled": {"class_counts": [{}]}}},
        {"seconds": 10**400, "steps": 10**400, "evaluations": 10**400, "per_class": {"none": {"recall": [10**400]}}},
        {"results": {"test": {"ema": {"none": {"top1": {"median20": 10**400, "last": 10**400}}}}}},
        {"splits": {"labeled": {"class_counts": [10**4000]}}, "config": {"SEED": 10**4000}},
        {"splits": {"labeled": 3}, "prerequisites": [1, None, "x\x1b"], "method": "\x1b[2J" * 100},
    ],
)
def test_a_record_of_odd_parts_is_never_a_traceback(write, call, part):
    write(A, **part)
    write(B)
    for words in ([], ["csv"], ["show", "a"], ["show", "b"], ["diff", "a", "b"], ["diff", "b", "a"], ["SEED=1"]):
        code, out, err = call(*words)
        assert code in (0, 2) and not err and out and "\x1b" not in out


@pytest.mark.parametrize("name", ["record.json", "run.json", "config.yaml", "metrics.jsonl", "failure.json", "claim.1"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "garbage", "loop"])
def test_a_file_that_cannot_be_read_is_never_a_traceback(write, call, name, kind, tmp_path):
    write(B)
    folder = tmp_path / "runs" / A
    folder.mkdir()
    path = folder / name
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "garbage": lambda: path.write_bytes(b"\x00\xff{[: \x1b[2J\n" * 9),
        "loop": lambda: path.symlink_to(path),
    }[kind]()
    for words in ([], ["show", "a"], ["csv"], ["diff", "a", "b"]):
        code, out, err = call(*words)
        assert code in (0, 2) and not err and "\x1b" not in out
    if name == "record.json":
        word = "damaged" if kind == "garbage" else "unreadable"  # only what was read is called damaged
        assert f"{word}: record.json: " in rows(call()[1])[A] and rows(call(f"state={word}")[1]).keys() == {A}
    if name in ("record.json", "run.json", "config.yaml"):
        assert f"{name}: " in rows(call()[1])[A]


def test_a_file_with_the_name_of_a_run_is_said_in_its_line(write, call, tmp_path):
    write(B)
    (tmp_path / "runs" / A).write_text("")
    code, out, err = call()
    assert (code, err) == (2, "") and "unreadable: record.json: Not a directory" in rows(out)[A]
