"""Whatever valid JSON the files of runs hold, even sealed: a line for each run, and never a traceback."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import pytest

from seval.files import sealed
from tests.listing.conftest import started

IDS = ("aaaaaaaaaa", "bbbbbbbbbb")
ODD = [None, True, 0, -1, 0.5, 1e300, 10**400, "", "x\x1b[2J\n", [], {}, [[]], [1, "a", None], {"a": 1}, "γ" * 5000]
COMMANDS = ([], ["csv"], ["show", *IDS], ["diff", *IDS], ["SEED=0", "method=fix*"], ["finished=2026", "seed!=0"])


def mutated(value: dict, draw: random.Random) -> dict:
    """The same with up to four parts replaced, at any depth."""
    value = copy.deepcopy(value)
    for _ in range(draw.randint(0, 4)):
        node = value
        while keys := list(node) if isinstance(node, dict) else list(range(len(node))):
            key = draw.choice(keys)
            if not (isinstance(node[key], dict | list) and node[key] and draw.random() < 0.75):
                node[key] = copy.deepcopy(draw.choice(ODD))
                break
            node = node[key]
    return value


def write(path: Path, values: list[dict], keys: dict, draw: random.Random) -> None:
    lines = [
        json.dumps(sealed(mutated({k: v for k, v in each.items() if k != "sha256"}, draw) | keys)) for each in values
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("seed", range(40))
def test_odd_files_are_never_a_traceback(trained, tmp_path, call, seed):
    folder, ids = trained
    draw, real = random.Random(seed), folder / ids["fixmatch"]
    for id in IDS:
        target = tmp_path / "runs" / id
        started(target)
        start = json.loads((target / "run.json").read_text())
        write(target / "run.json", [start], {"id": id}, draw)
        evaluations = [json.loads(line) for line in (real / "metrics.jsonl").read_text().splitlines()]
        write(target / "metrics.jsonl", evaluations, {"run": id}, draw)
        if draw.random() < 0.7:
            write(target / "record.json", [json.loads((real / "record.json").read_text())], {"id": id}, draw)
    for words in COMMANDS:
        code, out, err = call(*words, "--output-dir", tmp_path / "runs")
        assert code in (0, 2) and not err and "\x1b" not in out
        if words == []:
            assert all(id in out for id in IDS)
