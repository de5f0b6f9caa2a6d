"""Every method and combination of paper_tables/methods_demo.yaml, on a few real images: one table drives all tests."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

from repro.tables import table as tables
from seval import record
from seval.config import load
from seval.data.splits import long_tail
from seval.errors import Interrupted, RecordError
from seval.policy import darp
from seval.policy.base import Facts, PseudoLabels
from seval.policy.language import build_policy
from seval.run import Run
from tests.settings import ROOT, SMALL, result

ROWS = list(tables.find_table("methods_demo").rows)
#: Enough labels for the ten of each class that DARP holds out; the shares of training that methods wait for are short.
SETTINGS = [*SMALL, "DATASET.TINY.NUM_LABELED_HEAD", 150, "DATASET.TINY.NUM_UNLABELED_HEAD", 150]
SETTINGS += ["SOLVER.MAX_ITER", 40, "PERIODS.EVAL", 10, "PERIODS.CHECKPOINT", 20, "SOLVER.IMS_PER_BATCH", 16]
SETTINGS += ["PERIODS.QUALITY", 40]


def run(row: str, folder, seed: int = 0) -> Run:
    table = tables.find_table("methods_demo").forcing(rows=[row], columns=["none"], seeds=[seed])
    (cell,) = table.cells([*SETTINGS, "OUTPUT_DIR", str(folder)])
    return cell.runs[seed]


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
    head = [name.removesuffix("/labeled") for name in lines[0]["loss"] if name.endswith("/labeled")][-1]
    assert lines[-1]["loss"][f"{head}/labeled"] < lines[0]["loss"][f"{head}/labeled"]

    broken = run(row, tmp_path / "broken")
    for each in whole.chain()[:-1]:
        shutil.copytree(each.folder, tmp_path / "broken" / each.id)
    polls = iter(range(40))
    with pytest.raises(Interrupted):
        broken.execute(lambda: next(polls) == 33)  # between two evaluations
    torch.manual_seed(99)  # what another process would begin with
    assert result(run(row, tmp_path / "broken").execute()) == result(expected)


def test_both_heads_of_seval_on_abc_learn_from_their_own_predictions(tmp_path):
    last = run("SEVAL + ABC", tmp_path)
    execute(last)
    learned = record.load_artifacts(last.folder / "artifacts.h5")
    assert learned.keys() == {"linear", "balanced"}
    for name in ("pi_fitted", "tau_fitted"):
        assert not np.array_equal(learned["linear"][name], learned["balanced"][name])


def test_the_learned_offset_changes_nothing_in_training(tmp_path):
    nets = []
    for row in ("FixMatch", "FixMatch + learned post-hoc"):
        last = run(row, tmp_path)
        done = execute(last)
        nets.append(record.load_checkpoint(last.folder / "checkpoint.pt")["net"])
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])
    learned = record.load_artifacts(last.folder / "artifacts.h5")["linear"]["pi_fitted"]
    assert "seval" in done["results"]["test"]["ema"] and len(learned) == 4 and not (learned == 1).all()


def test_darp_aims_at_what_its_estimate_left(tmp_path, monkeypatch):
    monkeypatch.setattr(darp, "unlabeled_counts", lambda held_out, probs, condition: torch.arange(1.0, 11))
    last = run("DARP", tmp_path)
    last.prerequisite().execute()
    training = last.build(last.artifacts()[0])
    target = training.heads[0].policy[0].target
    assert torch.allclose(target, torch.arange(1.0, 11).double() / 55 * len(last.splits.unlabeled))


def test_a_generation_draws_from_the_labels_and_what_the_one_before_selected(tmp_path):
    last = run("CReST", tmp_path)
    execute(last)
    before = record.load_artifacts(last.prerequisite().folder / "artifacts.h5")["linear"]
    assert len(before["selected"]) > 0
    training = last.build(last.artifacts()[0])
    labeled, feed = len(last.splits.labeled), training.loader.feeds["labeled"]
    assert len(feed.images.pixels) == feed.sampler.size == labeled + len(before["selected"])
    images = training.data["unlabeled"].pixels[torch.from_numpy(before["selected"])]
    assert torch.equal(feed.images.pixels[labeled:], images)
    assert training.loader.labels[labeled:].tolist() == before["selected_labels"].tolist()
    assert training.class_counts.sum() == labeled  # what rules re-balance by stays the labels'


def test_crt_stands_on_the_supervised_run_and_keeps_its_backbone(tmp_path):
    last, supervised = run("cRT", tmp_path), run("Supervised", tmp_path)
    assert last.prerequisite().id == supervised.id
    execute(last)
    nets = [record.load_checkpoint(each.folder / "checkpoint.pt")["ema"] for each in (supervised, last)]
    same = {key: torch.equal(nets[0][key], nets[1][key]) for key in nets[0]}
    assert all(same[key] for key in same if key.startswith("backbone."))
    assert not any(same[key] for key in same if key.startswith("classifiers."))


def test_crt_takes_no_backbone_of_another_run_or_of_an_earlier_step(tmp_path):
    last, other = run("cRT", tmp_path), run("Supervised", tmp_path / "other", seed=1)
    execute(last.prerequisite())
    execute(other)
    path = last.prerequisite().folder / "checkpoint.pt"
    whole, state = path.read_bytes(), record.load_checkpoint(path)
    record.save_checkpoint(tmp_path / "earlier.pt", state | {"step": state["step"] - 1})
    for content, words in (
        ((other.folder / "checkpoint.pt").read_bytes(), "belongs to another configuration"),
        ((tmp_path / "earlier.pt").read_bytes(), "is of step"),
        (b"", "is damaged"),
        (None, "is missing; move its folder away and do that run again"),
    ):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(RecordError, match=rf"checkpoint\.pt.* {words}"):
            last.execute()
    path.write_bytes(whole)
    assert last.execute()["prerequisites"] == [last.prerequisite().id]


@pytest.mark.parametrize("folder", ["methods", "cifar10", "cifar100", "stl10", "tiny"])
def test_abc_with_la_adjusts_only_predictions_that_carry_the_labeled_prior(folder):
    """The standard head's 0.9975 for the head class and the balanced head's 0.8 are one belief under two priors."""
    heads = load(ROOT / "configs" / folder / "abc_la.yaml").HEADS
    facts = Facts(10, torch.tensor(long_tail(1500, 100, num_classes=10)).float(), num_unlabeled=1)
    standard, balanced = (torch.zeros(1, 10).index_fill_(1, torch.tensor(0), p) for p in (0.9975, 0.8))
    standard[0, 9], balanced[0, 9] = 0.0025, 0.2
    for head, given in ((heads.LINEAR, standard), (heads.BALANCED, balanced)):
        policy = build_policy(head.POLICY.removesuffix("| one_hot"), facts).eval()
        probs, weight = policy(PseudoLabels.of(given), None)
        assert torch.allclose(probs, balanced, atol=2e-3) and weight.tolist() == [0]


@pytest.mark.parametrize("row", ["DASO", "ReMixMatch + SEVAL", "USADTM"])
def test_bfloat16_trains(row, tmp_path):
    table = tables.find_table("methods_demo").forcing(rows=[row], columns=["none"], seeds=[0])
    (cell,) = table.cells([*SETTINGS, "OUTPUT_DIR", str(tmp_path), "SOLVER.PRECISION", "bfloat16"])
    assert execute(cell.runs[0])["steps"] == 40
