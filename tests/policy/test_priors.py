"""DebiasPL, SimPro, ADELLO's flexda and CPE's group weights against loops over images and classes, and their laws."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from seval.errors import PolicyError, RecipeError
from seval.policy.base import Facts, Policy, PseudoLabels, Step, Student
from seval.policy.language import build_policy
from tests.policy import slow_rules as slow
from tests.policy.five_classes import COUNTS, C, at, built, refresh

N, B, THRESHOLD = 12, 6, 0.7


def logits(seed: int, n: int = N, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(n, C, generator=torch.Generator().manual_seed(seed)) + 0.5 * torch.tensor(COUNTS).log()


def labels(seed: int) -> Tensor:
    return torch.randint(C, (B,), generator=torch.Generator().manual_seed(100 + seed))


def step(progress: float = 0.5, seed: int = 0) -> Step:
    return at(range(N), progress)._replace(anchor_labels=labels(seed))


def train(policy: Policy, z: Tensor, given: Step) -> PseudoLabels:
    return policy.train()(PseudoLabels.of(z.softmax(1)), given)


def close(found: object, expected: object) -> bool:
    both = (torch.as_tensor(value, dtype=torch.float64) for value in (found, expected))
    return torch.allclose(*both, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("strength", "momentum"), [(0.4, 0.999), (1.5, 0.8)])
def test_debias_labels_before_it_moves_and_its_margin_after(strength, momentum):
    policy, rule = built(f"debias({strength}, {momentum})"), slow.Debias(C, strength, momentum)
    for i in range(6):
        found, expected = train(policy, logits(i), step()), rule.step(logits(i).tolist())
        assert close(found.probs, expected) and (found.weight == 1).all()
        margins = policy.margins(0.5)
        assert margins.labeled is None and close(margins.unlabeled, rule.margin())
        refresh(policy)
        evaluated = policy.eval()(PseudoLabels.of(logits(99).softmax(1)), None).probs
        offset = torch.tensor(rule.margin())
        assert close(evaluated, (logits(99) - offset).softmax(1)) and not policy.offsets()


@pytest.mark.parametrize(("tau", "threshold", "momentum"), [(2.0, THRESHOLD, 0.9), (1.0, 0.6, 0.6), (0.0, 0.9, 0.9)])
def test_simpro_is_an_e_step_each_step_and_an_m_step_each_evaluation(tau, threshold, momentum):
    policy = built(f"simpro({tau}, {threshold}, {momentum}) | threshold({threshold})")
    rule = slow.SimPro([*COUNTS], tau, threshold, momentum)
    for period in range(4):
        for i in range(3):
            seed = 10 * period + i
            found = train(policy, logits(seed), step(seed=seed))
            probs, weights = rule.step(logits(seed).tolist(), labels(seed).tolist())
            assert close(found.probs, probs) and found.weight.tolist() == weights
            margins = policy.margins(0.5)  # moves at evaluations only
            assert all(close(margin, rule.offset(rule.all)) for margin in margins)
        assert period == 0 or 0 < sum(weights) < N
        policy.eval()(PseudoLabels.of(logits(0).softmax(1)), None)  # counts nothing
        refresh(policy)
        rule.period()
        assert close(policy[0].unlabeled, rule.unlabeled) and close(policy[0].all, rule.all)
    assert not policy.offsets()


def test_simpro_without_kept_labels_shrinks_one_prior_which_no_label_sees():
    policy = built("simpro(threshold=1.0)")
    for i in range(4):
        train(policy, logits(0, scale=0.1), step()._replace(anchor_labels=torch.arange(C)))
        refresh(policy)
        share = 0.9 ** (i + 1)
        assert close(policy[0].unlabeled, [share / C] * C)
        prior = [share * n / sum(COUNTS) + (1 - share) / C for n in COUNTS]
        assert close(policy[0].all, prior)
    found = train(policy, logits(3), step())
    assert close(found.probs, logits(3).softmax(1))
    before = policy[0].all.clone()
    policy[0].labels.zero_()
    refresh(policy)  # nothing at all was seen
    assert torch.equal(policy[0].all, before)


def test_simpro_refuses_a_step_without_labels():
    with pytest.raises(PolicyError, match="simpro counts labels"):
        train(built("simpro"), logits(0), Step.of(torch.arange(N), 0.5))


def test_simpro_with_true_kept_labels_finds_the_unlabeled_prior():
    truth = torch.tensor([3] * 50 + [1] * 30 + [0] * 10 + [4] * 6 + [2] * 4)
    policy, shares = built("simpro"), torch.bincount(truth) / len(truth)
    given = at(range(len(truth)))._replace(anchor_labels=torch.arange(C))
    for _ in range(80):
        train(policy, 40 * torch.eye(C)[truth], given)
        refresh(policy)
    share = policy[0].unlabeled / policy[0].unlabeled.sum()
    assert torch.allclose(share, shares, atol=1e-3)
    assert torch.allclose(policy[0].all, (100 * shares + 1) / (100 + C), atol=1e-3)


@pytest.mark.parametrize(("floor", "power", "distill"), [(0.1, 2.0, 0.3), (0.5, 1.0, 0.0), (0.0, 2.0, 0.19)])
def test_flexda_margins_and_complement(floor, power, distill):
    policy = built(f"flexda({floor}, {power}, 0.8, {distill}) | threshold({THRESHOLD}) | one_hot")
    rule, temperatures = slow.FlexDA([*COUNTS], floor, power, 0.8, distill), []
    for i in range(9):
        u, weak, strong = i / 8, logits(i), logits(50 + i).requires_grad_()
        found = train(policy, weak, step(u))
        rule.step(weak.tolist(), u)
        assert close(found.probs, [slow.one_hot(row) for row in weak.softmax(1).tolist()])
        margins = policy.margins(u)
        assert close(margins.labeled, rule.labeled(u)) and close(margins.unlabeled, rule.unlabeled(u))
        penalties = policy.penalties(found, step(u), Student(strong, torch.zeros(N, 0)))
        assert len(penalties) == (u >= distill)
        if penalties:
            assert close(penalties[0].item(), rule.complement(weak.tolist(), strong.tolist(), THRESHOLD, u))
            temperatures.append(policy[0].temperature.item())
        assert 0 < found.weight.sum() < N
    assert close(temperatures, [rule.T] * len(temperatures)) and rule.T >= 1
    assert (rule.T == 1) == (distill == 0)  # Q starts uniform
    assert not policy.offsets()


def test_flexda_laws():
    policy = built("flexda(momentum=0.5)")
    train(policy, logits(1), step(0.0))
    q = policy[0].mean
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    assert policy.margins(0.0).unlabeled.abs().max() < 1e-6
    for u in (0.0, 0.3, 1.0):
        margins = policy.margins(u)
        assert torch.allclose(margins.labeled - margins.unlabeled, (prior / q).log(), atol=1e-6)
    assert not built("flexda(distill=1.0)")[0].penalizes


def test_the_complement_teaches_the_dropped_alone_and_no_margin_learns():
    policy, z = built(f"flexda(distill=0.0) | threshold({THRESHOLD}) | one_hot"), logits(2)
    found, strong = train(policy, z, step()), logits(3).requires_grad_()
    (loss,) = policy.penalties(found, step(), Student(strong, torch.zeros(N, 0)))
    (gradient,) = torch.autograd.grad(loss, strong)
    assert torch.equal(gradient.abs().sum(1) > 0, found.weight == 0)


def test_margins_of_rules_add_up():
    policy = built("debias | simpro")
    train(policy, logits(0), step())
    first, second = (rule.margins(0.5) for rule in policy)
    whole = policy.margins(0.5)
    assert torch.equal(whole.labeled, second.labeled)
    assert torch.equal(whole.unlabeled, first.unlabeled + second.unlabeled)
    assert built("").margins(0.5) == built("threshold").margins(0.5) == (None, None)


@pytest.mark.parametrize(
    ("cuts", "expected"), [((1, 3), (2, 3, 1, 2, 3)), ((2, 4), (1, 2, 1, 2, 3)), ((3, 3), (1, 3, 1, 1, 3))]
)
def test_group_weights_are_the_numbers_of_groups_by_rank(cuts, expected):
    """COUNTS rank the classes 2, 0, 3, 1, 4."""
    pseudo = PseudoLabels(torch.eye(C).roll(1, 0), torch.tensor([0.0, 0.5, 1, 1, 1]))
    found = built("group_weight({}, {})".format(*cuts))(pseudo, None)
    wanted = [w * expected[(i - 1) % C] for i, w in enumerate(pseudo.weight.tolist())]
    assert found.weight.tolist() == wanted and torch.equal(found.probs, pseudo.probs)
    assert set(expected) <= {1, 2, 3}


def test_a_uniform_prior_that_stays_changes_no_label_and_moves_all_logits_alike():
    policy = build_policy("simpro | threshold", Facts(4, torch.full((4,), 9.0), 60))
    probs = torch.randn(N, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    given = step()._replace(anchor_labels=torch.arange(4))
    assert torch.allclose(policy(PseudoLabels.of(probs), given).probs, probs, atol=1e-7)
    assert all(close(margin, [2 * log(0.25)] * 4) for margin in policy.margins(0.5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("debias(momentum=1.5)", "momentum is 1.5"),
        ("simpro(threshold=-0.1)", "threshold is -0.1"),
        ("simpro(momentum=2.0)", "momentum is 2"),
        ("flexda(floor=1.1)", "floor is 1.1"),
        ("flexda(distill=-1.0)", "distill is -1"),
        ("threshold | flexda", "flexda comes first"),
        ("group_weight(0, 3)", "cuts must be"),
        ("group_weight(3, 2)", "cuts must be"),
        ("group_weight(2, 5)", "of 5 classes"),
    ],
)
def test_wrong_arguments(text, words):
    with pytest.raises(PolicyError, match=words):
        built(text)


@pytest.mark.parametrize("text", ["group_weight(2)", "group_weight(1, 2.5)", "debias('x')", "flexda(None)"])
def test_unreadable_arguments(text):
    with pytest.raises(RecipeError):
        built(text)


@pytest.mark.parametrize("text", ["debias(strength=0.0)", "simpro(tau=0.0)"])
def test_without_strength_labels_and_margins_are_those_of_no_rule_bit_for_bit(text):
    policy = built(text)
    for i in range(4):
        given = PseudoLabels.of(logits(i).softmax(1))
        assert torch.equal(policy.train()(given, step(seed=i)).probs, given.probs)
        margins = [margin for margin in policy.margins(0.5) if margin is not None]
        assert margins and all((margin == 0).all() for margin in margins)
        refresh(policy)
