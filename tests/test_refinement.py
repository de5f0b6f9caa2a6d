"""Rules that refine predictions, batch by batch or as a whole, against slow loops and their laws."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import logsumexp
from torch import Tensor

from seval.errors import PolicyError
from seval.policy.base import Facts, HeldOut, Policy, PseudoLabels, Step
from seval.policy.language import build_policy

C, M = 4, 61  # classes, unlabeled images
COUNTS = torch.tensor([400.0, 50, 200, 100])
ORDER = torch.tensor([2, 0, 3, 1])


def probs(seed: int = 0, n: int = M, scale: float = 1.0, classes: int = C) -> Tensor:
    return (scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))).softmax(1)


def build(text: str, counts: Tensor = COUNTS, artifacts: Mapping = {}, held_out: int = 9, size: int = M) -> Policy:
    return build_policy(text, Facts(len(counts), counts, size, held_out, artifacts=artifacts))


def step(index: Sequence[int] | Tensor = range(M), progress: float = 0.5) -> Step:
    index = torch.as_tensor(index)
    return Step(
        index, torch.zeros(len(index), 1), lambda: torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), progress
    )


def evaluate(policy: Policy, pseudo: PseudoLabels) -> PseudoLabels:
    """Its output in evaluation, which must leave its state."""
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    after = policy.eval()(pseudo, None)
    assert all(torch.equal(before[key], value) for key, value in policy.state_dict().items())
    policy.train()
    return after


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
    """What one step on all images makes of them."""
    policy = build(text, counts, size=len(table), **facts)
    return policy(PseudoLabels.of(table), step(range(len(table)))).check().probs.numpy().astype(float)


@pytest.mark.parametrize(("alpha", "start"), [(2.0, 0.4), (50.0, 0.0)])  # 50 keeps all, also of a table part uniform
def test_darp_equals_a_slow_loop(alpha, start):
    policy = build(f"darp({alpha}, start={start}, period=3, iterations=4)")
    table, acted, last = np.full((M, C), 1 / C), 0, None
    for i in range(14):
        index = torch.arange(15 * i, 15 * i + 15) % M
        given, progress = probs(i, n=15), i / 13
        got = policy(PseudoLabels.of(given), step(index, progress)).check().probs
        table[index] = given.numpy()
        if progress < start:
            assert torch.equal(got, given)
            continue
        if acted % 3 == 0:
            last = slow_refine(table, wanted(), alpha, 4)
        acted += 1
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


def crest(text: str = "crest", counts: Tensor = COUNTS, predicted: Tensor | None = None) -> Policy:
    policy = build(text, counts)
    policy.refresh(None, lambda: probs(n=200) if predicted is None else predicted, 1.0)
    return policy


def picked(policy: Policy) -> dict[int, int]:
    return dict(zip(*(policy.artifact()[key].tolist() for key in ("selected", "selected_labels")), strict=True))


@pytest.mark.parametrize("power", [1 / 3, 1.0, 0.0])
def test_crest_equals_a_slow_loop(power):
    table, counts, expected = probs(n=200).numpy(), COUNTS.tolist(), {}
    ranking = sorted(range(C), key=lambda c: -counts[c])
    for rank, c in enumerate(ranking):
        members = sorted((i for i in range(200) if np.argmax(table[i]) == c), key=lambda i: -max(table[i]))
        rate = (counts[ranking[C - 1 - rank]] / counts[ranking[0]]) ** power
        expected |= {i: c for i in members[: int(np.floor(rate * len(members)))]}
        assert rank < C - 1 or all(i in expected for i in members)  # of the rarest class all
    assert picked(crest(f"crest({power})")) == expected


def test_crest_selects_everything_where_the_counts_are_uniform():
    assert picked(crest(counts=torch.full((C,), 5.0))) == dict(enumerate(probs(n=200).argmax(1).tolist()))


def test_crest_takes_a_share_that_is_a_whole_number():
    predicted = torch.linspace(0.6, 0.9, 90)  # all as class 0, of which 0.7 * 90, less than 63 in floating point
    policy = crest("crest(1.0)", torch.tensor([10.0, 7.0]), torch.stack([predicted, 1 - predicted], 1))
    assert len(picked(policy)) == 63


def test_crest_commutes_with_relabeling_the_classes():
    permuted = picked(crest(counts=COUNTS[ORDER], predicted=probs(n=200)[:, ORDER]))
    assert picked(crest()) == {i: int(ORDER[c]) for i, c in permuted.items()}


def test_crest_selects_nothing_before_the_end_and_its_selection_survives_saving():
    fresh, buffer = build("crest"), io.BytesIO()
    fresh.refresh(None, probs, 0.99)
    assert not picked(fresh)
    torch.save(crest().state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert picked(fresh) == picked(crest()) and len(picked(fresh)) > 0
