"""Every method and combination of paper_tables/methods_demo.yaml, on a few real images: one table drives all tests."""

from __future__ import annotations

import math

import pytest
import torch

from repro import tables
from seval import record
from seval.policy import darp
from seval.run import Run
from tests.settings import SMALL, result

ROWS = list(tables.find("methods_demo").rows)
#: Enough labels for the ten of each class that DARP holds out; the shares of training that methods wait for are short.
SETTINGS = [*SMALL, "DATASET.TINY.NUM_LABELED_HEAD", 150, "DATASET.TINY.NUM_UNLABELED_HEAD", 150]
SETTINGS += ["SOLVER.MAX_ITER", 40, "PERIODS.EVAL", 10, "PERIODS.CHECKPOINT", 20, "SOLVER.IMS_PER_BATCH", 16]
SETTINGS += ["PERIODS.QUALITY", 40]


def run(row: str, folder) -> Run:
    table = tables.find("methods_demo").forcing(rows=[row], columns=["none"], seeds=[0])
    (cell,) = table.cells([*SETTINGS, "OUTPUT_DIR", str(folder)])
    return cell.runs[0]


def execute(last: Run) -> dict:
    for each in last.chain():
        done = each.execute()
    return done


@pytest.mark.parametrize("row", ROWS)
def test_training_is_finite_the_loss_falls_and_a_broken_run_ends_alike(row, tmp_path, monkeypatch):
    # so short a supervised run gives DARP no estimate that it would accept
    monkeypatch.setattr(darp, "unlabeled_counts", lambda held_out, probs, condition: probs.double().sum(0))
    whole = run(row, tmp_path / "whole")
    expected = execute(whole)
    lines = record.read_lines(whole.folder / "metrics.jsonl")
    assert all(math.isfinite(value) for line in lines for value in line["loss"].values())
    head = list(lines[0]["policy"])[-1]
    assert lines[-1]["loss"][f"{head}/labeled"] < lines[0]["loss"][f"{head}/labeled"]

    broken = run(row, tmp_path / "broken")
    for each in broken.chain()[:-1]:
        each.execute()
    append = record.append_line

    def breaking(path, line):
        append(path, line)
        if line["step"] == 30:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(record, "append_line", breaking)
        broken.execute()
    torch.manual_seed(99)  # what another process would begin with
    assert result(run(row, tmp_path / "broken").execute()) == result(expected)
