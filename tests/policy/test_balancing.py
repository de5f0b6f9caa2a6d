"""The rules that set weights by class, against slow loops, and the laws they obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.policy.five_classes import COUNTS, C, U, built, drawn, evaluate, refresh, rows, stream, train


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("counts", [COUNTS, (30.0,) * C])
def test_bernoulli_balance_keeps_each_class_at_its_rate_in_training_and_all_in_evaluation(counts, progress):
    policy, draws = built("bernoulli_balance", counts), 4000
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weight = train(policy, rows(np.repeat(range(C), draws), 0.5), range(C * draws), progress)
    assert set(weight.tolist()) <= {0.0, 1.0} and (evaluate(policy, drawn(0)) == 1).all()
    for c, found in enumerate(weight.reshape(C, draws).mean(1)):
        chance = 1 - progress * (1 - min(counts) / counts[c])
        assert abs(found - chance) <= 4 * math.sqrt(chance * (1 - chance) / draws) + 1e-7


def saw_weights(memory: list[int]) -> np.ndarray:
    seen = [label for label in memory if label >= 0]
    counts = [seen.count(c) * U / len(seen) for c in range(C)]
    beta = (sum(counts) / C - 1) / (sum(counts) / C)
    found = np.array([(1 - beta) / (1 - beta ** max(n, 1)) for n in counts])
    return found / found.mean()


def test_saw_equals_a_slow_loop():
    policy, memory, weights, other = built("saw"), [-1] * U, np.ones(C), drawn(99)
    refresh(policy)  # nothing was seen yet
    for i, (probs, index) in enumerate(stream()):
        labels = [int(row.argmax()) for row in probs.numpy()]
        assert np.allclose(train(policy, probs, index), weights[labels], atol=1e-5)
        for image, label in zip(index.tolist(), labels, strict=True):
            memory[image] = label
        if i % 4 == 0:  # the first time, most images were not seen
            refresh(policy)
            weights = saw_weights(memory)
        assert np.allclose(evaluate(policy, other), weights[other.argmax(1)], atol=1e-5)
    assert np.ptp(weights) > 0.1


def test_saw_weighs_rarer_classes_more_whatever_the_number_of_steps_and_of_images_seen():
    labels, found = [0] * 30 + [1] * 14 + [2] * 8 + [3] * 6 + [4] * 2, []
    for steps, stride in ((1, 1), (40, 1), (1, 2), (7, 2)):
        policy = built("saw")
        for _ in range(steps):
            train(policy, rows(labels[::stride], 0.4), range(0, U, stride))
        refresh(policy)
        found.append(evaluate(policy, rows(range(C), 0.4)))
        assert np.allclose(found[0], found[-1], atol=1e-6)
    assert (np.diff(found[0]) > 0).all() and np.allclose(found[0], saw_weights(labels), atol=1e-5)


@pytest.mark.parametrize("balancing", ["saw", "bernoulli_balance"])
def test_balanced_counts_and_predictions_leave_the_weights_of_the_plain_threshold(balancing):
    base, policy = (built(text, (30.0,) * C) for text in ("threshold(0.95)", f"threshold(0.95) | {balancing}"))
    given = rows([*range(C)] * (U // C), torch.linspace(0.9, 1.0, U))
    for progress in (0.0, 0.5, 1.0):
        expected = train(base, given, range(U), progress)
        assert 0 < expected.sum() < U
        assert np.allclose(train(policy, given, range(U), progress), expected, atol=1e-6)
        refresh(policy)
        assert np.allclose(evaluate(policy, given), evaluate(base, given), atol=1e-6)
