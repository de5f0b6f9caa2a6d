from __future__ import annotations

import numpy as np
import pytest
import torch

from seval import record
from seval.evaluate import evaluate, measure, predict, protocols
from seval.run import Run
from seval.train import update
from tests.settings import small


def test_offsets_are_taken_off_the_logits():
    logits, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    measured = measure(logits, labels, {"none": torch.zeros(2), "strong": torch.tensor([2.0, 0.0])}, torch.ones(2))
    assert measured["none"]["recall"] == [1.0, 0.0] and measured["strong"]["recall"] == [0.0, 1.0]


def test_protocols_by_hand():
    def line(test, valid):
        return {
            "test": {"ema": {"none": {"top1": test, "recall": [test]}}},
            "valid": {"ema": {"none": {"top1": valid}}},
        }

    tests = [0.9, *np.linspace(0.1, 0.5, 24)]
    valids = [0.0, 0.8, *([0.5] * 22), 0.8]
    got = protocols([line(t, v) for t, v in zip(tests, valids, strict=True)])["test"]["ema"]["none"]
    assert got.keys() == {"top1"}
    assert got["top1"] == pytest.approx(
        {
            "last": 0.5,
            "median20": np.median(tests[-20:]),
            "mean20": np.mean(tests[-20:]),
            "best_on_valid": 0.1,
            "best_on_test": 0.9,
        }
    )


def test_protocols_without_a_validation_split():
    got = protocols([{"test": {"ema": {"none": {"top1": 0.5, "few": None}}}}])
    assert got["test"]["ema"]["none"]["top1"]["best_on_valid"] is None
    assert got["test"]["ema"]["none"]["few"] == dict.fromkeys(got["test"]["ema"]["none"]["few"])


def test_one_seval_run_reports_the_last_unsmoothed_offset(tmp_path):
    run = Run(small("fixmatch_seval", tmp_path))
    run.execute()
    arrays = record.load_artifacts(run.folder / "artifacts.h5")["linear"]
    training = run.build({})
    training.load_state_dict(record.load_checkpoint(run.folder / "checkpoint.pt"))
    logits = predict(training.ema.network, training.data["test"], training.mean, training.std, 64)
    logits = logits["linear"].numpy()
    right = (logits - np.log(arrays["pi_fitted"][-1])).argmax(1) == training.data["test"].labels.numpy()
    assert run.record()["results"]["test"]["ema"]["seval"]["top1"]["last"] == pytest.approx(right.mean())


@pytest.mark.parametrize(
    ("method", "overrides", "color"),
    [
        ("cdmad", [], lambda mean, std: torch.ones_like(mean)),
        ("cdmad", ["HEADS.LINEAR.POLICY", "cdmad(value=-0.5)"], lambda mean, std: torch.full_like(mean, -0.5)),
        ("cdmad", ["HEADS.LINEAR.POLICY", "cdmad(black=True)"], lambda mean, std: (0 - mean) / std),
        ("sc_ssl", [], None),
    ],
)
def test_an_evaluation_asks_the_averaged_network(method, overrides, color, tmp_path):
    training = Run(small(method, tmp_path, *overrides)).build({})
    for step in range(11):
        update(training, step)
    evaluate(training, 12)
    net, head = training.ema.network, training.heads[-1]
    if color:
        image = color(training.mean, training.std).view(1, -1, 1, 1).expand(-1, *training.data["test"].pixels.shape[1:])
        with torch.no_grad():
            expected = {"cdmad": net.classify(net.features(image), head.name)[0]}
    else:
        expected = {"bias": net.classifiers["balanced"].bias}
    found = head.policy.offsets()
    assert found.keys() == expected.keys() and not net.training and training.net.training
    assert all(torch.allclose(found[key], value, atol=1e-5) and (value != 0).any() for key, value in expected.items())
