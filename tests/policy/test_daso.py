"""Rules on features, against slow loops over queues of Python lists, and their laws."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from torch import Tensor

from seval.errors import PolicyError
from seval.policy.base import Facts, Policy, PseudoLabels, Step, Student
from seval.policy.daso import FeatureQueue
from seval.policy.language import build_policy

C, D, N = 4, 3, 30  # classes, features, unlabeled images a step
COUNTS = torch.tensor([40.0, 20, 10, 5])


def build(text: str) -> Policy:
    return build_policy(text, Facts(C, COUNTS, 500, feature_dim=D))


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def probs(seed: int) -> Tensor:
    """Class 0 is the most frequent."""
    return (2 * random(seed, N, C) - 0.5 * torch.arange(C)).softmax(1)


def step(seed: int, progress: float = 0.5, classes: int = C, features: Tensor | None = None) -> Step:
    """Anchors of a class lie around its direction."""
    g = torch.Generator().manual_seed(1000 + seed)
    labels = torch.randint(classes, (9,), generator=g)
    anchors = random(77, C, D)[labels] + 0.3 * torch.randn(9, D, generator=g)
    features = random(2000 + seed, N, D) if features is None else features
    return Step(torch.arange(N), features, lambda: anchors, labels, progress)


class Lists:
    """Features of each class, the oldest first."""

    def __init__(self, size: int) -> None:
        self.of = [deque(maxlen=size) for _ in range(C)]

    def push(self, features: Tensor, labels: Tensor) -> None:
        for feature, label in zip(features.double().numpy(), labels.tolist(), strict=True):
            self.of[label].append(feature)

    def prototypes(self) -> list[np.ndarray]:
        return [sum(stored) / len(stored) if stored else np.zeros(D) for stored in self.of]


def cosines(feature: np.ndarray, prototypes: list[np.ndarray]) -> np.ndarray:
    """Zero to a prototype that is zero."""
    norm = np.linalg.norm(feature)
    return np.array([feature @ p / (norm * np.linalg.norm(p)) if p.any() else 0.0 for p in prototypes])


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def slow_penalty(weak: Tensor, strong: Tensor, prototypes: list[np.ndarray], temperature: float) -> float:
    losses = []
    for w, s in zip(weak.double().numpy(), strong.double().numpy(), strict=True):
        target, output = (softmax(cosines(feature, prototypes) / temperature) for feature in (w, s))
        losses.append(-sum(t * np.log(o) for t, o in zip(target, output, strict=True)))
    return float(np.mean(losses))


def test_a_queue_is_a_list_of_the_last_features_of_each_class():
    queue, lists, g = FeatureQueue(C, 3, D), Lists(3), torch.Generator().manual_seed(0)
    assert not queue.prototypes().any()
    for size in (1, 2, 5, 3, 40, 1, 7):  # among 40, some class has more than the queue holds
        features, labels = torch.randn(size, D, generator=g), torch.randint(C - 1, (size,), generator=g)
        queue.push(features, labels)
        lists.push(features, labels)
        assert np.allclose(queue.prototypes(), lists.prototypes(), atol=1e-6)
    assert not queue.prototypes()[C - 1].any()


@pytest.mark.parametrize(("flatness", "alignment", "start"), [(1.0, 1.0, 0.3), (0.5, 0.4, 0.0), (3.0, 2.0, 0.6)])
def test_daso_equals_a_slow_loop(flatness, alignment, start):
    policy = build(f"daso({flatness}, {alignment}, temperature=0.1, start={start}, queue=5, window=3)")
    lists, distribution, labels = Lists(5), np.full(C, 1 / C), []
    for i in range(12):
        now, given, strong = step(i, i / 11, classes=min(i + 1, C)), probs(i), random(3000 + i, N, D)
        lists.push(now.anchors(), now.anchor_labels)
        prototypes, expected = lists.prototypes(), given.double().numpy()
        if now.progress >= start:
            share = (distribution / distribution.max()) ** (1 / flatness)
            for n, (p, feature) in enumerate(zip(expected, now.features.double().numpy(), strict=True)):
                v = share[p.argmax()]
                expected[n] = (1 - v) * p + v * softmax(cosines(feature, prototypes) / 0.1)
        labels += expected.argmax(1).tolist()
        if i % 3 == 2:
            distribution, labels = np.bincount(labels, minlength=C) / len(labels), []
        pseudo = policy(PseudoLabels.of(given), now).check()
        assert np.allclose(pseudo.probs, expected, atol=1e-5) and (pseudo.weight == 1).all()
        penalties = policy.penalties(pseudo, now, Student(torch.zeros(N, C), strong))
        wanted = [alignment * slow_penalty(now.features, strong, prototypes, 0.1)] if now.progress >= start else []
        assert np.allclose(penalties, wanted, rtol=1e-4) and len(penalties) == len(wanted)


def test_daso_on_an_even_distribution_takes_the_semantic_labels():
    even = torch.eye(C).repeat(N // C + 1, 1)[: N - N % C]
    for before in (False, True):  # the first window is yet to come, or was even
        policy, lists, now = build("daso(0.7, start=0.2, window=1)"), Lists(256), step(0)
        if before:
            policy(PseudoLabels.of(even), step(1, progress=0.1))
            lists.push(step(1).anchors(), step(1).anchor_labels)
        lists.push(now.anchors(), now.anchor_labels)
        semantic = [softmax(cosines(f, lists.prototypes()) / 0.05) for f in now.features.double().numpy()]
        assert np.allclose(policy(PseudoLabels.of(probs(0)), now).probs, semantic, atol=1e-5)


def test_daso_keeps_predictions_of_classes_that_were_not_predicted():
    policy, given = build("daso(start=0.2, window=1)"), probs(0)
    policy(PseudoLabels.of(torch.eye(C)[torch.zeros(N, dtype=torch.int64)]), step(0, progress=0.1))
    changed = (policy(PseudoLabels.of(given), step(1)).probs - given).abs().amax(1) > 1e-6
    assert torch.equal(changed, given.argmax(1) == 0)


def test_daso_align_is_the_penalty_of_daso_alone():
    align, daso = build("daso_align(0.7, start=0.4, queue=5)"), build("daso(alignment=0.7, start=0.4, queue=5)")
    for i in range(5):
        now, given, student = step(i, i / 4), PseudoLabels.of(probs(i)), Student(torch.zeros(N, C), random(i, N, D))
        assert all(torch.equal(a, b) for a, b in zip(align(given, now), given, strict=True))
        a, b = align.penalties(given, now, student), daso.penalties(daso(given, now), now, student)
        assert a == b and len(a) == (i / 4 >= 0.4)
    assert not build("daso_align(0.0)").penalties(given, now, student)


def test_the_penaltys_gradient_is_that_of_the_slow_loop_in_the_students_features():
    policy, lists, now = build("daso_align(temperature=0.5)"), Lists(256), step(0)
    policy(PseudoLabels.of(probs(0)), now)
    lists.push(now.anchors(), now.anchor_labels)
    strong = random(5, N, D).requires_grad_()
    policy.penalties(PseudoLabels.of(probs(0)), now, Student(torch.zeros(N, C), strong))[0].backward()
    for n, d in ((0, 0), (7, 1), (29, 2)):
        moved = strong.detach().double().repeat(2, 1, 1)
        moved[0, n, d] += 1e-4
        moved[1, n, d] -= 1e-4
        up, down = (slow_penalty(now.features, m, lists.prototypes(), 0.5) for m in moved)
        assert np.isclose(strong.grad[n, d], (up - down) / 2e-4, atol=1e-5)


def test_the_penalty_has_no_gradient_in_the_steps_features():
    policy, now = build("daso_align"), step(0, features=random(1, N, D).requires_grad_())
    policy(PseudoLabels.of(probs(0)), now)
    strong = random(2, N, D).requires_grad_()
    policy.penalties(PseudoLabels.of(probs(0)), now, Student(torch.zeros(N, C), strong))[0].backward()
    assert strong.grad.abs().sum() > 0 and now.features.grad is None


@pytest.mark.parametrize(("tau", "start"), [(0.85, 0.3), (0.6, 0.8), (-1.0, 0.0)])
def test_templates_equal_a_slow_loop(tau, start):
    policy, lists = build(f"template_threshold({tau}, start={start}, queue=5) | template_label"), Lists(5)
    only, seen = build(f"template_threshold({tau}, start={start}, queue=5)"), set()
    for i in range(10):
        now, given = step(i, i / 9, classes=C if i > 5 else C - 1), PseudoLabels(probs(i), probs(20 + i)[:, 0])
        lists.push(now.anchors(), now.anchor_labels)
        ready = now.progress >= start and all(lists.of)
        pseudo, kept = policy(given, now).check(), only(given, now)
        assert torch.equal(kept.probs, given.probs) and torch.equal(kept.weight, pseudo.weight)
        for feature, row, weight, before in zip(now.features.double().numpy(), *pseudo, given.weight, strict=True):
            cosine = cosines(feature, lists.prototypes())
            distance = [np.linalg.norm(feature - p) for p in lists.prototypes()]
            agree, close = cosine.argmax() == np.argmin(distance), cosine.max() >= tau
            seen |= {(ready, bool(agree), bool(close))}
            assert weight == (before if ready and agree and close else 0)
            assert row.tolist() == [float(c == cosine.argmax()) for c in range(C)]
    assert {(True, True, True), (True, False, True), (False, True, True)} <= seen
    assert tau < 0 or (True, True, False) in seen  # each reason to drop occurred alone


def test_template_label_needs_template_threshold_before_it():
    for text in ("template_label", "template_label | template_threshold", "daso | template_label"):
        with pytest.raises(PolicyError):
            build(text)


@pytest.mark.parametrize("text", ["daso", "daso_align", "template_threshold | template_label"])
def test_evaluation_changes_nothing(text):
    policy = build(text)
    for i in range(3):
        policy(PseudoLabels.of(probs(i)), step(i))
    before, given = {key: value.clone() for key, value in policy.state_dict().items()}, PseudoLabels.of(probs(9))
    assert all(torch.equal(a, b) for a, b in zip(policy.eval()(given, None), given, strict=True))
    assert all(torch.equal(before[key], value) for key, value in policy.state_dict().items())
