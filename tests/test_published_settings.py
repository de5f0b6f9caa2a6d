"""Settings of the published configurations that a data set or a method has for itself."""

from __future__ import annotations

import pytest
import torch

from repro.tables import table as tables
from seval.config import load
from seval.defaults import Node
from seval.policy.base import Facts
from seval.policy.language import build_policy
from seval.run import Run
from tests.settings import ROOT


def config(name: str, *overrides: object) -> Node:
    return load(ROOT / "configs" / f"{name}.yaml", overrides)


def test_remixmatch_aligns_to_the_labels_only_where_unlabeled_images_are_distributed_like_them():
    for folder, policy in {"cifar10": "align | sharpen", "cifar100": "align | sharpen", "stl10": "sharpen"}.items():
        assert config(f"{folder}/remixmatch").HEADS.LINEAR.POLICY == policy


@pytest.mark.parametrize("folder", ["cifar10", "cifar100", "stl10", "semi_aves", "small_imagenet127"])
def test_evaluations_come_every_500_steps_but_at_sevals_own_period(folder):
    seval = {"cifar100": 2500, "small_imagenet127": 1000}.get(folder, 500)
    for file in (ROOT / "configs" / folder).glob("*.yaml"):
        cfg = load(file)
        assert cfg.PERIODS.EVAL == (seval if "seval" in file.name else 500), file
        assert cfg.SOLVER.MAX_ITER % cfg.PERIODS.EVAL == cfg.PERIODS.QUALITY % cfg.PERIODS.EVAL == 0


@pytest.mark.parametrize("folder", ["cifar10", "cifar100", "stl10", "semi_aves", "small_imagenet127"])
def test_daso_starts_after_5000_steps(folder):
    cfg = config(f"{folder}/daso")
    (rule,) = build_policy(cfg.HEADS.LINEAR.POLICY.partition("|")[0], Facts(2, torch.ones(2), 1, feature_dim=1))
    assert [step / cfg.SOLVER.MAX_ITER >= rule.start for step in (4999, 5000)] == [False, True]


@pytest.mark.parametrize("folder", ["cifar10", "cifar100", "stl10"])
def test_classifier_retraining_falls_to_rate_0_and_stands_on_the_supervised_run(folder):
    cfg = config(f"{folder}/crt")
    assert cfg.SOLVER.SCHEDULE == "half_cosine" and cfg.DATASET.SAMPLER_BETA == 1
    assert Run(cfg).prerequisite().id == Run(config(f"{folder}/supervised")).id


def darp_estimates() -> dict[str, Node]:
    """The configuration of every estimate that a table or a file of DARP depends on."""
    last = {folder: Run(config(f"{folder}/darp")) for folder in ("methods", "stl10")}
    for name in ("2", "4"):
        last |= {
            f"{name} {cell.column}": cell.runs[79] for cell in tables.find_table(name).cells() if cell.row == "w/ DARP"
        }
    return {name: run.prerequisite().cfg for name, run in last.items() if run.prerequisite()}


def test_darps_estimate_trains_as_in_its_own_code_and_reads_the_trained_network_every_epoch():
    estimates = darp_estimates()
    assert len(estimates) == 2 + 2 + 4
    for cfg in estimates.values():
        solver = cfg.SOLVER
        assert (solver.MAX_ITER, solver.IMS_PER_BATCH, cfg.PERIODS.EVAL) == (200 * 80, 128, 80)
        assert (solver.BASE_LR, solver.SCHEDULE, solver.GAMMA) == (0.1, "multi_step", 0.1)
        assert solver.STEPS == [round(share * solver.MAX_ITER) for share in (0.8, 0.9)] and not solver.WARMUP_ITERS
        assert cfg.MODEL.EMA_DECAY == 0 and cfg.ALGORITHM.NAME == "supervised"
        assert (cfg.DATASET.HELD_OUT, cfg.DATASET.HELD_OUT_PER_CLASS) == ("darp", 10)


def test_darps_estimate_on_semi_aves_trains_like_every_run_of_the_set():
    estimate, plain = Run(config("semi_aves/darp")).prerequisite().cfg, config("semi_aves/fixmatch")
    assert estimate.SOLVER == plain.SOLVER and estimate.SOLVER.MAX_ITER == 45000 and estimate.MODEL.EMA_DECAY == 0


@pytest.mark.parametrize("folder", ["cifar10", "cifar100"])
def test_darp_needs_no_estimate_where_the_ratios_are_equal(folder):
    assert not config(f"{folder}/darp").PREREQUISITE
