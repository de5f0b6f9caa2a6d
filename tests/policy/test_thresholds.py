"""The rules that set weights by confidence, against slow loops, and the laws they obey."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from seval.policy.base import Policy, PseudoLabels, Student
from tests.policy.five_classes import HEAD, C, N, U, at, built, drawn, evaluate, refresh, rows, stream, train

TAU = np.float32(0.95)
TEXTS = "threshold, flexmatch, freematch(0.9), softmatch(0.9), adsh | adsh_rectify, bernoulli_balance, saw"


def bars(policy: Policy) -> np.ndarray:
    """(C,) the least confidence, of 0.21 to 1, at which a prediction of each class is kept."""
    grid = torch.arange(2100, 10001) / 10000
    kept = [evaluate(policy, rows([c] * len(grid), grid)) > 0 for c in range(C)]
    assert all((np.diff(k.astype(int)) >= 0).all() and k[-1] for k in kept)
    return np.array([grid[k.argmax()] for k in kept])


@pytest.mark.parametrize("text", TEXTS.split(", "))
def test_evaluation_changes_no_statistic_and_draws_nothing(text):
    policy = built(text)
    for probs, index in stream():
        train(policy, probs, index)
    refresh(policy, drawn(90, U))
    before, random = {k: v.clone() for k, v in policy.state_dict().items()}, torch.get_rng_state()
    first, second = (policy.eval()(PseudoLabels.of(drawn(91)), None) for _ in range(2))
    assert torch.equal(first.probs, second.probs) and torch.equal(first.weight, second.weight)
    assert all(torch.equal(before[k], v) for k, v in policy.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("tau", [0.5, 0.8, 0.95, 1.0])
def test_threshold_keeps_what_is_at_least_tau_confident(tau):
    tie = np.float32(tau)
    given = torch.cat([drawn(0, 200), rows([0, 1], torch.tensor([tie, np.nextafter(tie, np.float32(0))]))])
    expected = [float(max(row) >= tie) for row in given.numpy()]
    assert train(built(f"threshold({tau})"), given, range(202)).tolist() == expected and expected[-2:] == [1, 0]


def flexmatch_kept(p: np.ndarray, memory: list[int]) -> list[bool]:
    used = Counter(memory)
    never = used.pop(-1, 0)
    betas = [used[c] / max([never, *used.values()]) for c in range(C)]
    return [bool(max(row) >= np.float32(TAU * b / (2 - b))) for row in p for b in [betas[row.argmax()]]]


def test_flexmatch_equals_a_slow_loop_with_one_memory_an_image():
    policy, memory, masks, other = built("flexmatch(0.95)"), [-1] * U, [], drawn(99)
    for probs, index in stream():
        masks += flexmatch_kept(probs.numpy(), memory)  # before this batch is remembered
        assert train(policy, probs, index).tolist() == masks[-N:]
        for row, image in zip(probs.numpy(), index.tolist(), strict=True):
            if max(row) >= TAU:
                memory[image] = int(row.argmax())
        assert evaluate(policy, other).tolist() == flexmatch_kept(other.numpy(), memory)
    assert 0.2 < np.mean(masks) < 0.9 and set(memory) == {-1, *range(C)}


def test_flexmatch_threshold_rises_monotonically_to_tau_as_a_class_is_learned():
    policy, seen = built("flexmatch(0.95)"), []
    for start in range(0, U, 6):
        train(policy, rows([1] * 6, 0.97), range(start, start + 6))
        seen.append(bars(policy)[1])
    assert (np.diff(seen) >= 0).all() and seen[0] < 0.22 and max(seen) == seen[-1] == TAU


@pytest.mark.parametrize("steps", [1, 20])
def test_flexmatch_threshold_of_the_best_class_is_tau_whatever_the_number_of_steps(steps):
    policy, betas = built("flexmatch(0.95)"), np.array([30, 20, 10, 0, 0]) / 30
    for _ in range(steps):
        train(policy, rows([0] * 30 + [1] * 20 + [2] * 10, 0.97), range(U))
    assert bars(policy)[0] == TAU
    assert np.allclose(bars(policy), np.maximum(0.95 * betas / (2 - betas), 0.21), atol=1.1e-4)


def freematch_penalty(logits: np.ndarray, mean: np.ndarray, histogram: np.ndarray) -> float:
    strong, hard = np.zeros(C), np.zeros(C)
    for z in logits:
        strong += np.exp(z) / np.exp(z).sum() / len(logits)
        hard[z.argmax()] += 1 / len(logits)
    a, b = mean / histogram, np.array([s / h if h else 0.0 for s, h in zip(strong, hard, strict=True)])
    return sum(a / a.sum() * np.log(b / b.sum() + 1e-12))


def test_freematch_and_its_penalty_equal_a_slow_loop():
    policy, m, masks, other = built("freematch(0.9, 0.5)"), 0.9, [], drawn(99)
    confidence, mean, histogram = 1 / C, np.full(C, 1 / C), np.full(C, 1 / C)

    def kept(p: np.ndarray) -> list[bool]:
        return [bool(max(row) >= confidence * mean[row.argmax()] / max(mean)) for row in p]

    for i, (probs, index) in enumerate(stream()):
        p = probs.double().numpy()
        confidence = m * confidence + (1 - m) * sum(max(row) for row in p) / N
        mean = m * mean + (1 - m) * sum(p) / N
        histogram = m * histogram + (1 - m) * sum(np.eye(C)[row.argmax()] for row in p) / N
        masks += kept(p)
        pseudo = policy.train()(PseudoLabels.of(probs), at(index))
        assert pseudo.weight.tolist() == masks[-N:]
        assert evaluate(policy, other).tolist() == kept(other.double().numpy())
        logits = 2 * torch.randn(N, C, generator=torch.Generator().manual_seed(i))
        student = Student(logits.requires_grad_(), torch.zeros(N, 2))
        (penalty,) = policy.penalties(pseudo, at(index), student)
        expected = freematch_penalty(logits.detach().double().numpy()[masks[-N:]], mean, histogram)
        assert penalty.item() == pytest.approx(0.5 * expected, rel=1e-4)
        penalty.backward()
        assert (logits.grad.abs().sum(1) > 0).tolist() == masks[-N:]
        logits.grad = None
        none = policy[0].penalty(pseudo._replace(weight=torch.zeros(N)), at(index), student)
        none.backward()
        assert none.item() == 0 and not logits.grad.any()
    assert 0.2 < np.mean(masks) < 0.9


def test_freematch_global_threshold_rises_and_equal_mean_probabilities_give_it_to_every_class():
    policy, seen = built("freematch(0.9)"), [1 / C]
    for confidence in torch.linspace(0.4, 0.99, 30):
        train(policy, rows([*range(C)] * 4, confidence), range(4 * C))
        seen.append(float(policy[0].confidence))
        assert np.allclose(bars(policy), seen[-1], atol=1.1e-4)
    assert (np.diff(seen) > 0).all()


def test_softmatch_equals_a_slow_loop_and_weighs_1_from_the_mean_confidence_on():
    m, sigmas, mu, variance, model, full, other = 0.9, 1.5, 1 / C, 1.0, None, [], drawn(99)
    policy = built(f"softmatch({m}, sigmas={sigmas})")

    def confidences(p: np.ndarray) -> list[float]:
        scaled = [[row[k] * (1 / C + 1e-6) / (model[k] + 1e-6) for k in range(C)] for row in p]
        return [max(row) / sum(row) for row in scaled]

    def weights(found: list[float]) -> list[float]:
        return [math.exp(-(min(q - mu, 0) ** 2) / (2 * variance / sigmas**2)) for q in found]

    for probs, index in stream():
        p = probs.double().numpy()
        model = sum(p) / N if model is None else m * model + (1 - m) * sum(p) / N
        found = confidences(p)
        average = sum(found) / N
        mu = m * mu + (1 - m) * average
        variance = m * variance + (1 - m) * sum((q - average) ** 2 for q in found) / (N - 1)
        after, weight = policy.train()(PseudoLabels.of(probs), at(index))
        assert torch.equal(after, probs) and np.allclose(weight, weights(found), atol=1e-5)
        assert (weight > 0).all() and (weight <= 1).all() and (weight == 1).tolist() == [q >= mu for q in found]
        assert np.allclose(evaluate(policy, other), weights(confidences(other.double().numpy())), atol=1e-5)
        full += (weight == 1).tolist()
    assert 0.2 < np.mean(full) < 0.9


def test_adsh_thresholds_start_at_tau_not_at_its_negative_exponential():
    policy = built("adsh(0.95)")
    assert policy[0].thresholds.tolist() == [TAU] * C and (bars(policy) == TAU).all()
    assert train(policy, rows(range(C), 0.9), range(C)).tolist() == [0] * C


def adsh_thresholds(p: np.ndarray, old: list[np.float32]) -> list[np.float32]:
    ranked = [sorted((max(row) for row in p if row.argmax() == c), reverse=True) for c in range(C)]
    if not ranked[HEAD]:
        return old
    rho, new = sum(q >= TAU for q in ranked[HEAD]) / len(ranked[HEAD]), list(old)
    for c in range(C):
        if c != HEAD and ranked[c]:
            new[c] = min(TAU, ranked[c][max(0, round(len(ranked[c]) * rho - 1))])
    return new


@pytest.mark.parametrize("others, rank", [(1, 0), (3, 0), (5, 2), (7, 2), (9, 4)])
def test_adsh_rounds_a_rank_at_one_half_to_the_even_one(others, rank):
    """Half of the head's predictions are confident, and another class has an odd number: n / 2 - 1 ends in one half."""
    policy, confidence = built("adsh(0.95)"), torch.linspace(0.9, 0.5, others)
    refresh(policy, rows([HEAD] * 4 + [0] * others, torch.cat([torch.tensor([0.97, 0.96, 0.6, 0.5]), confidence])))
    assert policy[0].thresholds[0] == confidence[rank]


def test_adsh_and_its_rectification_equal_a_slow_loop():
    policy, history, masks, moved = built("adsh(0.95) | adsh_rectify"), [[TAU] * C], [], 0
    headless = rows([0, 1, 3, 4], 0.6)
    absent = rows([HEAD] * 3 + [0] * 4, torch.tensor([0.97, 0.96, 0.5, 0.9, 0.8, 0.3, 0.25]))
    for predictions in (headless, drawn(0, U), absent, headless, drawn(1, U, 2.0), drawn(2, U, 1.0), drawn(3, U, 9.0)):
        refresh(policy, predictions)
        history.append(adsh_thresholds(predictions.numpy(), history[-1]))
        assert policy[0].thresholds.tolist() == history[-1] and history[-1][HEAD] == TAU
        for given in (predictions, drawn(50, 200)):
            ratios = given.numpy() / np.array(history[-1])
            masks += [max(row) >= 1 for row in ratios]
            moved += sum(max(r) >= 1 > r[p.argmax()] for r, p in zip(ratios, given.numpy(), strict=True))
            after, weight = policy.train()(PseudoLabels.of(given), at(range(len(given))))
            assert weight.tolist() == masks[-len(given) :]
            assert np.allclose(after, [row / sum(row) for row in ratios], atol=1e-6)
    assert [a == b for a, b in zip(history, history[1:], strict=False)] == [True, False, False, True] + 3 * [False]
    assert history[3][0] == np.float32(0.3) and history[3][1] == history[2][1] < TAU
    assert 0.2 < np.mean(masks) < 0.9 and moved  # some rows are kept for a class that is not the likeliest
