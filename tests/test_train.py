from __future__ import annotations

import math

import pytest
import torch

from seval import record, train
from seval.run import Run
from tests.settings import ROOT, small


def test_the_loss_falls(tmp_path):
    run = Run(small("fixmatch", tmp_path, "SOLVER.MAX_ITER", 60, "PERIODS.EVAL", 20))
    run.execute()
    losses = [line["loss"]["linear/labeled"] for line in record.read_lines(run.folder / "metrics.jsonl")]
    assert losses[0] > 1.2 * losses[-1]


def test_learning_rates_by_hand():
    solver = small("supervised", ROOT, "SOLVER.BASE_LR", 0.1, "SOLVER.MAX_ITER", 300, "SOLVER.WARMUP_ITERS", 10).SOLVER
    assert (
        train.rate(0, solver) == 0 and train.rate(5, solver) == pytest.approx(0.05) and train.rate(200, solver) == 0.1
    )
    cosine = small("supervised", ROOT, "SOLVER.SCHEDULE", "cosine", "SOLVER.MAX_ITER", 300).SOLVER
    assert train.rate(150, cosine) == pytest.approx(0.03 * math.cos(7 * math.pi / 32))
    half = small("supervised", ROOT, "SOLVER.SCHEDULE", "half_cosine", "SOLVER.MAX_ITER", 300).SOLVER
    weight = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.03)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(weight, 300)
    for t in range(301):
        assert train.rate(t, half) == pytest.approx(annealing.get_last_lr()[0], abs=1e-12)
        weight.step()
        annealing.step()
    steps = small("supervised", ROOT, "SOLVER.SCHEDULE", "multi_step", "SOLVER.STEPS", [100, 200]).SOLVER
    assert [train.rate(t, steps) for t in (99, 100, 200)] == pytest.approx([0.03, 0.003, 0.0003])


def test_a_loss_that_is_not_finite_stops_with_the_interval(tmp_path, monkeypatch):
    real = train.update

    def update(training, step):
        losses = real(training, step)
        return losses | {"linear/labeled": torch.tensor(float("nan"))} if step == 7 else losses

    monkeypatch.setattr(train, "update", update)
    run = Run(small("fixmatch", tmp_path))
    with pytest.raises(train.TrainingError, match="nan between steps 6 and 9"):
        run.execute()
    assert record.load_checkpoint(run.folder / "checkpoint.pt")["step"] == 6
    monkeypatch.undo()
    assert run.execute()["steps"] == 12


def test_a_diverged_network_is_neither_recorded_nor_saved(tmp_path):
    run = Run(small("fixmatch_seval", tmp_path, "SOLVER.BASE_LR", 1e29))
    with pytest.raises(train.TrainingError):
        run.execute()
    assert run.state() == "new" and not record.read_lines(run.folder / "metrics.jsonl")
