"""The laws that every rule obeys, alone and in a chain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seval.errors import PolicyError
from seval.policy.base import Asked, Facts, HeldOut, Policy, PseudoLabels, Step, Student
from seval.policy.language import RULES, build_policy

C, N, M, D = 7, 200, 220, 5  # classes, images a step, unlabeled images, features
COUNTS = torch.tensor([400.0, 200, 100, 50, 25, 12, 6])
#: By rule: a chain that ends in it, with settings that make it do something.
SETTINGS = {
    "adsh": "adsh(0.8)",
    "adsh_rectify": "adsh(0.8) | adsh_rectify",
    "align": "align(0.7)",
    "bernoulli_balance": "bernoulli_balance",
    "cdmad": "cdmad",
    "crest": "crest",
    "darp": "darp(start=0.1, period=2)",
    "darp_estimate": "darp_estimate",
    "daso": "daso(0.7, window=2)",
    "daso_align": "daso_align",
    "debias": "debias",
    "flexda": "flexda(momentum=0.5)",
    "flexmatch": "flexmatch(0.45)",
    "freematch": "freematch(0.9)",
    "group_weight": "group_weight(1, 3)",
    "logit_adjust": "logit_adjust(0.7)",
    "one_hot": "one_hot",
    "saw": "saw",
    "sc_threshold": "sc_threshold",
    "seval_offset": "seval_offset(decay=0.2)",
    "seval_refine": "seval_refine(decay=0.2)",
    "seval_threshold": "seval_threshold(0.8, decay=0.2)",
    "sharpen": "sharpen",
    "simpro": "simpro",
    "softmatch": "softmatch(0.9)",
    "template_label": "template_threshold | template_label",
    "template_threshold": "template_threshold(0.1)",
    "threshold": "threshold(0.6)",
    "tras": "tras(threshold=0.6)",
}
PASSIVE = {"flexda", "crest", "darp_estimate", "daso_align", "seval_offset"}  # they learn, and change no pseudo-label


def probs(seed: int = 0, n: int = N, scale: float = 2.0) -> torch.Tensor:
    return (scale * torch.randn(n, C, generator=torch.Generator().manual_seed(seed))).softmax(1)


def held_out(seed: int = 1, order: torch.Tensor | None = None) -> HeldOut:
    g = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(COUNTS, 600, replacement=True, generator=g)
    logits = torch.randn(600, C, generator=g) + 2.0 * torch.nn.functional.one_hot(labels, C) + COUNTS.log()
    found = HeldOut(logits.double().softmax(1), labels)
    return found if order is None else HeldOut(found.probs[:, order], torch.argsort(order)[labels])


def step(seed: int = 4, order: torch.Tensor | None = None) -> Step:
    """A training step, its classes permuted by `order`; the features of a class lie around one direction."""
    g = torch.Generator().manual_seed(seed)
    centers, labels = 3 * torch.randn(C, D, generator=torch.Generator().manual_seed(9)), torch.arange(64) % C
    anchors = centers[labels] + torch.randn(64, D, generator=g)
    features = centers[torch.randint(C, (N,), generator=g)] + torch.randn(N, D, generator=g)
    labels = labels if order is None else torch.argsort(order)[labels]
    logits = {"linear": (2.0 * torch.randn(N, C, generator=torch.Generator().manual_seed(seed)),) * 2}
    logits = {head: tuple(columns(view, order) for view in views) for head, views in logits.items()}
    index = torch.randperm(M, generator=g)[:N]
    return Step(index, features, lambda: anchors, labels, 0.5, logits, asked(order).blank, asked(order).bias)


def asked(order: torch.Tensor | None = None, predicted: torch.Tensor | None = None) -> Asked:
    """What a network with some bias answers, its classes permuted by `order`."""
    blank, bias = torch.linspace(-1, 1, C)[None], torch.linspace(2, 0, C)[None]
    return Asked(lambda: predicted, lambda *_: columns(blank, order)[0], lambda head: columns(bias, order)[0])


def columns(values: torch.Tensor, order: torch.Tensor | None) -> torch.Tensor:
    return values if order is None else values[:, order]


def built(text: str, order: torch.Tensor | None = None, learned: bool = True) -> Policy:
    """The policy, its classes permuted by `order`, after three times a training step and a refresh."""
    counts = COUNTS if order is None else COUNTS[order]
    policy = build_policy(text, Facts(C, counts, M, num_held_out=600, feature_dim=D))
    torch.manual_seed(0)
    for i in range(3 if learned else 0):
        policy(PseudoLabels.of(columns(probs(10 + i), order)), step(10 + i, order))
        policy.refresh(held_out(i, order), asked(order, columns(probs(20 + i, M), order)), (i + 1) / 3)
    return policy


def test_every_rule_has_settings():
    assert SETTINGS.keys() == RULES.keys()


@pytest.mark.parametrize(("name", "text"), SETTINGS.items())
def test_rows_stay_on_the_simplex_and_at_most_one_of_two_changes(name, text):
    policy, weight = built(text), torch.rand(N, generator=torch.Generator().manual_seed(3))
    before = policy[:-1](PseudoLabels(probs(), weight), step())
    after = policy[-1](before, step()).check()
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(changed) == (name not in PASSIVE)


@pytest.mark.parametrize("text", SETTINGS.values())
def test_relabeling_the_classes_commutes(text):
    order = torch.randperm(C, generator=torch.Generator().manual_seed(5))
    found = []
    for permuted in (None, order):
        policy = built(text, permuted)
        torch.manual_seed(1)
        found.append(policy(PseudoLabels.of(columns(probs(), permuted)), step(order=permuted)))
    assert torch.allclose(found[0].probs[:, order], found[1].probs, atol=2e-4)
    assert torch.isclose(found[0].weight, found[1].weight, atol=1e-5).float().mean() > 0.99  # a fit's last digits


@pytest.mark.parametrize("text", SETTINGS.values())
def test_evaluation_changes_no_statistics_and_draws_nothing(text):
    policy = built(text).eval()
    before, state = _saved(policy).getvalue(), torch.get_rng_state()
    policy(PseudoLabels.of(probs()), None)
    assert _saved(policy).getvalue() == before and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("text", SETTINGS.values())
def test_state_survives_saving(text):
    trained, fresh = built(text), built(text, learned=False)
    fresh.load_state_dict(torch.load(_saved(trained), weights_only=True))
    for mode in (True, False):
        found = []
        for policy in (trained, fresh):
            torch.manual_seed(1)
            found.append(policy.train(mode)(PseudoLabels.of(probs()), step() if mode else None))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert all(np.array_equal(trained.artifact()[key], fresh.artifact()[key]) for key in trained.artifact())
    for found in zip(trained.margins(0.5), fresh.margins(0.5), strict=True):
        assert found == (None, None) or torch.equal(*found)
    given = PseudoLabels(probs(), torch.full((N,), 0.5)), step(), Student(probs(30), torch.zeros(N, D), 1)
    for found in zip(*(policy.train().penalties(*given) for policy in (trained, fresh)), strict=True):
        assert torch.equal(*found)
    assert all(torch.equal(trained.offsets()[key], value) for key, value in fresh.offsets().items())


def _saved(policy: Policy):
    import io

    buffer = io.BytesIO()
    torch.save(policy.state_dict(), buffer)
    buffer.seek(0)
    return buffer


def test_a_chain_is_its_rules_one_after_the_other():
    text = "logit_adjust(0.5) | threshold(0.5) | one_hot"
    by_hand = PseudoLabels.of(probs())
    for stage in text.split("|"):
        by_hand = built(stage)(by_hand, None)
    for a, b in zip(by_hand, built(text)(PseudoLabels.of(probs()), None), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "text", ["threshold(1.5)", "seval_refine(decay=1.0)", "seval_refine(groups=8)", "seval_refine | seval_refine"]
)
def test_bad_values_raise(text):
    policy = None
    with pytest.raises(PolicyError):
        policy = built(text)
        policy.artifact()


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("logit_adjust(1.0) | threshold(0.6) | one_hot", "threshold(0.6) | one_hot"),
        ("threshold(0.6) | bernoulli_balance", "threshold(0.6)"),
        ("threshold(0.6) | saw | one_hot", "threshold(0.6) | one_hot"),
        ("align | threshold(0.6)", "threshold(0.6)"),
        ("adsh(0.6) | adsh_rectify | one_hot", "threshold(0.6) | one_hot"),
    ],
)
def test_with_uniform_class_counts_and_predictions_a_rebalancing_rule_is_its_base(text, base):
    """As many predictions of every class, each seen alike: there is nothing to re-balance."""
    cycle = [probs(n=30).roll(i, 1) for i in range(C)]
    given = PseudoLabels.of(torch.cat(cycle))
    n, found = len(given.probs), []
    for each in (text, base):
        policy = build_policy(each, Facts(C, torch.full((C,), 50.0), n))
        step = Step(torch.arange(n), torch.ones(n, D), lambda: torch.ones(C, D), torch.arange(C), 0.0)
        for progress in (0.0, 0.01):
            result = policy(given, step._replace(progress=progress))
            policy.refresh(None, lambda: given.probs, progress)
        found.append(result)
    assert torch.allclose(found[0].probs, found[1].probs, atol=1e-6) and torch.allclose(*(p.weight for p in found))
    assert 0 < found[1].weight.mean() < 1
