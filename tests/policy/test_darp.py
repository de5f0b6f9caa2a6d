"""DARP and its estimate of the class counts, against slow loops and their laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import logsumexp
from torch import Tensor

from seval.errors import PolicyError
from seval.policy.base import HeldOut, PseudoLabels
from tests.policy.four_classes import COUNTS, ORDER, C, M, build, evaluate, probs, step


def wanted(counts: Tensor = COUNTS, size: int = M) -> np.ndarray:
    return counts.double().numpy() * size / counts.double().sum().item()


def slow_refine(table: np.ndarray, target: np.ndarray, alpha: float, iterations: int) -> np.ndarray:
    """DARP by bisection; all entropies are positive, so that every column's equation has a solution."""
    kept = np.zeros(table.shape)
    for k, (c, column) in enumerate(zip(target, table.T.astype(float), strict=True)):
        top = np.argsort(-column, kind="stable")[: int(np.floor(alpha * c))]
        kept[top, k] = column[top] * (c + 1e-6) / (column[top].sum() + 1e-6)
    log_a = np.log((kept + 1e-6) / (kept + 1e-6).sum(1, keepdims=True))
    entropy, nu = -(np.exp(log_a) * np.log(np.exp(log_a) + 1e-6)).sum(1), np.ones(len(target))
    assert entropy.min() > 0

    def excess(v: float, k: int) -> float:
        return logsumexp(log_a[:, k] + log_x - v * entropy) - np.log(target[k])

    for _ in range(iterations):
        log_x = -logsumexp(log_a - np.outer(entropy, nu), axis=1)
        nu = np.array([brentq(excess, -1e6, 1e6, args=(k,), xtol=1e-9) for k in range(len(target))])
    log_refined = log_a - np.outer(entropy, nu)
    return np.exp(log_refined - logsumexp(log_refined, axis=1, keepdims=True))


def refined(table: Tensor, text: str, counts: Tensor = COUNTS, **facts) -> np.ndarray:
    """What a refinement of all images, which is every step's here, makes of them."""
    text = f"{text[:-1]}, period=1)" if text.endswith(")") else f"{text}(period=1)"
    policy = build(text, counts, size=len(table), **facts)
    return policy(PseudoLabels.of(table), step(range(len(table)))).check().probs.numpy().astype(float)


@pytest.mark.parametrize(("alpha", "start"), [(2.0, 0.4), (50.0, 0.0)])  # 50 keeps all, also of a table part uniform
def test_darp_equals_a_slow_loop(alpha, start):
    policy = build(f"darp({alpha}, start={start}, period=3, iterations=4)")
    table, last = np.full((M, C), 1 / C), np.full((M, C), 1 / C)  # uniform, too, until the first refinement
    for i in range(14):
        index = torch.arange(15 * i, 15 * i + 15) % M
        given, progress = probs(i, n=15), i / 13
        got = policy(PseudoLabels.of(given), step(index, progress)).check().probs
        table[index] = given.numpy()
        if progress < start:
            assert torch.equal(got, given)
            continue
        if (i + 1) % 3 == 0:  # of the steps of the run, whenever it became active
            last = slow_refine(table, wanted(), alpha, 4)
        assert np.allclose(got, last[index], atol=1e-5)
    assert torch.equal(evaluate(policy, PseudoLabels.of(probs()))[0], probs())


@pytest.mark.parametrize("scale", [2.0, 4.0])  # at 4, many are confident, and the rarest class's nu is 288
def test_darp_equals_a_slow_loop_on_confident_predictions_and_meets_the_target(scale):
    table, target = probs(n=300, scale=scale), wanted(size=300)
    missed = [abs(refined(table, f"darp(iterations={n})").sum(0) - target).max() for n in (10, 200)]
    assert np.allclose(refined(table, "darp"), slow_refine(table.numpy(), target, 2.0, 10), atol=1e-3)
    assert abs(table.sum(0).numpy() - target).max() > 50 and 1 > missed[0] > 0.01 > missed[1]


def test_darp_keeps_as_many_as_a_whole_target():
    counts, table = torch.tensor([15.0, 8, 3]), probs(n=26, classes=3)  # 15 / 26 * 26 < 15 in floating point
    assert np.allclose(refined(table, "darp(1.0)", counts), slow_refine(table.numpy(), wanted(counts, 26), 1.0, 10))


def test_darp_commutes_with_relabeling_the_classes():
    permuted = refined(probs()[:, ORDER], "darp", COUNTS[ORDER])
    assert np.allclose(refined(probs(), "darp")[:, ORDER], permuted, atol=1e-5)


def test_darp_wants_the_artifacts_counts_instead_of_the_labeled_ones():
    other = COUNTS.flip(0)
    got = refined(probs(), "darp", artifacts={"unlabeled_counts": 3 * other.numpy()})
    assert np.allclose(got, refined(probs(), "darp", other), atol=1e-6)
    assert not np.allclose(got, refined(probs(), "darp"), atol=0.1)


def sample(seed: int, scale: float = 2.0, n: int = 80) -> HeldOut:
    labels = torch.arange(n) % C
    logits = torch.randn(n, C, generator=torch.Generator().manual_seed(seed))
    return HeldOut((logits + scale * torch.nn.functional.one_hot(labels, C)).double().softmax(1), labels)


def slow_confusion(held_out: HeldOut) -> np.ndarray:
    confusion = np.zeros((C, C))
    for row, label in zip(held_out.probs.tolist(), held_out.labels.tolist(), strict=True):
        for k, p in enumerate(row):
            confusion[k, label] += p
    return confusion / confusion.sum(0)


def test_darp_estimate_equals_a_slow_loop():
    policy, accepted, reasons = build("darp_estimate(condition=10)"), [], set()
    for seed in range(12):
        held_out, unlabeled = sample(seed, scale=(0.3, 1.5, 3.0)[seed % 3]), probs(seed) * COUNTS ** (seed % 4)
        unlabeled /= unlabeled.sum(1, keepdim=True)
        confusion = slow_confusion(held_out)
        estimate = np.linalg.inv(confusion) @ unlabeled.double().sum(0).numpy()
        reasons |= {(bool((estimate < 0).any()), bool(np.linalg.cond(confusion) >= 10))}
        if not (estimate < 0).any() and np.linalg.cond(confusion) < 10:
            accepted.append(estimate)
        policy.refresh(held_out, lambda found=unlabeled: found, (seed + 1) / 12)
    assert len(reasons) == 4 and len(accepted) > 1  # each reason to reject occurred alone
    assert np.allclose(policy.artifact()["unlabeled_counts"], np.mean(accepted, axis=0), rtol=1e-6)
    for same in (policy(PseudoLabels.of(probs()), step()), evaluate(policy, PseudoLabels.of(probs()))):
        assert torch.equal(same.probs, probs())


def test_darp_estimate_recovers_the_counts_that_were_confused():
    true = np.array([30.0, 5, 20, 6])
    sums = torch.from_numpy(slow_confusion(sample(0)) @ true)
    policy = build("darp_estimate")
    policy.refresh(sample(0), lambda: (sums / M).expand(M, C), 1.0)
    assert np.allclose(policy.artifact()["unlabeled_counts"], true)


def test_darp_needs_held_out_data_and_an_accepted_estimate():
    with pytest.raises(PolicyError):
        build("darp_estimate", held_out=0)
    policy = build("darp_estimate(condition=0.5)")  # no matrix has so small a condition number
    policy.refresh(sample(0), probs, 1.0)
    assert policy.artifact()["unlabeled_counts"].sum() == 0
    with pytest.raises(PolicyError):
        build("darp", artifacts=policy.artifact())
