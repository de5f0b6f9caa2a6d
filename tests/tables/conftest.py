"""A checkout with two small configurations and a table, and records as runs leave them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro.tables import table as tables
from tests.checkout import make_checkout

TABLE = """\
title: Two methods | and a chain
note: A table of made-up numbers.
folder: small
seeds: [0, 1, 2]
columns:
  γ=100: {}
  γ=10: {set: [DATASET.CIFAR10.IMB_FACTOR_L, 10]}
rows:
  Plain:       {config: plain}
  Plain, LA:   {config: plain, offset: logit_adjusted}
  Replay & Co: {config: replay, cells: {γ=10: null}}
  Deep:        {config: replay, set: [PREREQUISITE, [MEMO, middle, PREREQUISITE, [MEMO, first]]]}
reported:
  Plain:       {γ=100: [81.5, 0.41], γ=10: 70.25}
  Replay & Co: {γ=100: [60.0, 1.0]}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of two small configurations and one table, `sweep`; the working directory is in it."""
    make_checkout(tmp_path, TABLE, monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells_of(name: str = "sweep") -> dict[tuple[str, str], tables.Cell]:
    return {(cell.row, cell.column): cell for cell in tables.find_table(name).cells()}


def write_record(folder: Path, name: str, top1: float | None, seconds: float = 60.0) -> None:
    """As a run would leave it; the logit-adjusted reading is one point better, `last` one point worse."""

    def protocols(value: float | None) -> dict:
        return {"top1": {"median20": value, "last": None if value is None else value - 0.01}}

    results = {
        "test": {"ema": {"none": protocols(top1), "logit_adjusted": protocols(None if top1 is None else top1 + 0.01)}}
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(
        json.dumps(
            {
                "id": name,
                "results": results,
                "seconds": seconds,
                "provenance": {
                    "commit": "0123456789abcdef",
                    "dirty": False,
                    "device": "cpu (x86_64)",
                    "packages": {"seval": "1.0.0"},
                },
            }
        )
    )


def write_sweep() -> dict[tuple[str, str], list[float]]:
    """Records for all but a few runs; returns the values that belong to each cell."""
    cells = cells_of()
    given = {
        ("Plain", "γ=100"): [0.80, 0.82, 0.81],
        ("Plain", "γ=10"): [0.70, 0.7025, 0.705],
        ("Replay & Co", "γ=100"): [0.555, 0.575],
        ("Deep", "γ=100"): [0.6],
    }
    for key, values in given.items():
        for run, value in zip(cells[key].runs.values(), values, strict=False):
            for each in run.chain():
                write_record(each.folder, each.id, value)
    return given
