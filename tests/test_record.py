from __future__ import annotations

import json
import os

import pytest
import torch

from seval import record
from seval.errors import RecordError


def test_checkpoints_hold_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"meta": Bomb()}, tmp_path / "checkpoint.pt")
    with pytest.raises(RecordError, match="cannot be loaded"):
        record.load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "exploded").exists()


def test_the_last_line_is_that_of_all_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert record.last_line(path) is None
    for length in (10, 50_000, 65_536, 200_000):
        lines = [{"step": step, "progress": step / 3, "recall": "x" * length} for step in range(3)]
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        for cut in (0, 1, 2, 5, length, length + 60, len(text) - 3, len(text)):
            path.write_bytes(text[: len(text) - cut])
            assert [record.last_line(path)] == (record.read_lines(path)[-1:] or [None])
    path.write_bytes(text + b"\xff\n[1]\n{}\n")
    assert record.last_line(path) == lines[-1]
