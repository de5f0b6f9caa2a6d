"""Rules that refine predictions batch by batch, against slow loops and their laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seval.policy.base import PseudoLabels
from seval.policy.refinement import divide
from tests.policy.four_classes import COUNTS, C, build, evaluate, probs, step


def test_threshold_and_one_hot_equal_a_slow_loop():
    given = probs(n=200, scale=2.0)
    pseudo = build("threshold(0.6) | one_hot")(PseudoLabels.of(given), None)
    for row, hard, weight in zip(given.numpy(), pseudo.probs.numpy(), pseudo.weight.numpy(), strict=True):
        assert weight == (1.0 if max(row) >= np.float32(0.6) else 0.0)
        assert [i for i, p in enumerate(hard) if p == 1.0] == [int(np.argmax(row))] and hard.sum() == 1.0


def test_logit_adjustment_is_softmax_of_shifted_logits():
    logits = 3 * torch.randn(200, C, generator=torch.Generator().manual_seed(0))
    prior = (COUNTS / COUNTS.sum()).numpy()
    got = build("logit_adjust(1.5)")(PseudoLabels.of(logits.softmax(1)), None).probs.numpy()
    for z, q in zip(logits.numpy().astype(float), got, strict=True):
        shifted = z - 1.5 * np.log(prior)
        assert np.allclose(q, np.exp(shifted) / np.exp(shifted).sum(), atol=1e-5)


def test_an_offset_of_one_leaves_the_probabilities_bit_for_bit():
    assert torch.equal(divide(probs(), torch.ones(C)), probs())


@pytest.mark.parametrize(("temperature", "window"), [(0.0, 128), (0.5, 3), (1.0, 1)])
def test_align_equals_a_slow_loop(temperature, window):
    policy, means = build(f"align({temperature}, window={window})"), []
    assert torch.equal(evaluate(policy, PseudoLabels.of(probs()))[0], probs())
    target = (COUNTS.numpy().astype(float) / COUNTS.sum().item()) ** temperature
    target /= target.sum()

    def aligned(row: np.ndarray) -> np.ndarray:
        running = sum(means[-window:]) / len(means[-window:])
        scaled = [p * (q + 1e-6) / (a + 1e-6) for p, q, a in zip(row, target, running, strict=True)]
        return np.array(scaled) / sum(scaled)

    for seed in range(6):
        batch = probs(seed, n=10 + seed)
        means.append(batch.numpy().astype(float).mean(0))
        got = policy(PseudoLabels.of(batch), step(range(len(batch)))).check().probs
        assert np.allclose(got, [aligned(row) for row in batch.numpy()], atol=1e-5)
    got = evaluate(policy, PseudoLabels.of(probs(9))).probs
    assert np.allclose(got, [aligned(row) for row in probs(9).numpy()], atol=1e-5)


def test_align_at_temperature_0_is_alignment_to_the_uniform_distribution():
    cold, uniform = build("align(0.0)"), build("align", torch.full((C,), 7.0))
    assert torch.allclose(cold(PseudoLabels.of(probs()), step()).probs, uniform(PseudoLabels.of(probs()), step()).probs)


def test_align_leaves_predictions_whose_mean_is_the_target():
    prior, shift = COUNTS / COUNTS.sum(), 0.05 * (probs() - 1 / C)
    batch = torch.cat([prior + shift, prior - shift])
    assert torch.allclose(build("align")(PseudoLabels.of(batch), step()).probs, batch, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 2.0])
def test_sharpen_equals_a_slow_loop(temperature):
    powers = [[float(p) ** (1 / temperature) for p in row] for row in probs()]
    expected = [[p / sum(row) for p in row] for row in powers]
    policy = build(f"sharpen({temperature})")
    for got in (policy(PseudoLabels.of(probs()), step()), evaluate(policy, PseudoLabels.of(probs()))):
        assert np.allclose(got.check().probs, expected, atol=1e-6)
