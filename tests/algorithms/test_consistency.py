from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seval.algorithms import ALGORITHMS
from seval.algorithms.consistency import mutual_information
from tests.algorithms.slow import (
    FACTS,
    LOG_PRIOR,
    C,
    Linear,
    N,
    batch,
    entropy,
    error,
    hard,
    head,
    labeled,
    mean,
    same,
    softmax,
)


@pytest.mark.parametrize(("name", "share"), [("fixmatch", 1.0), ("pseudo_label", 0.25)])
def test_confident_labels_of_one_view_hard_or_soft_teach_the_last_one(name, share):
    """At progress 0.1 a loss ramped over 0.4 of training has a quarter of its weight. Each head has its own policy."""
    net, given, expected = Linear(), batch(name), {}
    heads = [head("threshold(0.6) | one_hot", "f", "logit_adjusted(0.5)"), head("threshold(0.8)", "g")]
    for key, bar, offset in (("f", 0.6, 0.5 * LOG_PRIOR), ("g", 0.8, 0.0)):
        losses = []
        for weak, learner in zip(given.views[0], given.views[-1], strict=True):
            p = softmax(net.logits(weak, key))
            aim = hard(int(p.argmax())) if key == "f" else p
            losses.append((p.max() >= bar) * entropy(aim, net.logits(learner, key)))
        assert 0 < sum(loss != 0 for loss in losses) < N
        expected |= {f"{key}/labeled": labeled(net, given, key, offset), f"{key}/unlabeled": 3 * share * mean(losses)}
    same(ALGORITHMS.known[name](FACTS, 3.0).losses(net, Linear(9), given, heads, 0.1), expected, net)


def test_mean_teacher_is_drawn_to_what_the_teacher_says_of_the_other_view():
    net, teacher, given = Linear(), Linear(9), batch("mean_teacher")
    pairs = zip(*given.views, strict=True)
    losses = [error(softmax(teacher.logits(other)), net.logits(view)) for view, other in pairs]
    expected = {"f/labeled": labeled(net, given), "f/unlabeled": 3 * 0.4 * mean(losses)}
    found = ALGORITHMS.known["mean_teacher"](FACTS, 3.0, ramp=0.5).losses(net, teacher, given, [head("")], 0.2)
    assert torch.autograd.grad(sum(found.values()), teacher.map, retain_graph=True, allow_unused=True) == (None,)
    same(found, expected, net)


def information(xs: list[Tensor], ys: list[Tensor]) -> Tensor:
    joint = sum(torch.outer(x, y) for x, y in zip(xs, ys, strict=True))
    joint = (joint + joint.T) / (joint + joint.T).sum()
    cells = [(joint[i, j], joint[i].sum() * joint[:, j].sum()) for i in range(C) for j in range(C)]
    return sum(p * torch.log(p / q) for p, q in cells)


def test_usadtm_is_fixmatch_and_the_mean_information_of_three_pairs():
    net, given = Linear(), batch("usadtm")
    plain, weak, strong = ([softmax(net.logits(x)) for x in view] for view in given.views)
    rows = zip(weak, given.views[2], strict=True)
    kept = [(p.max() >= 0.6) * entropy(hard(int(p.argmax())), net.logits(x)) for p, x in rows]
    pairs = mean([information(plain, weak), information(plain, strong), information(weak, strong)])
    expected = {"f/labeled": labeled(net, given), "f/unlabeled": 2 * mean(kept), "f/information": -0.1 * pairs}
    heads = [head("threshold(0.6) | one_hot")]
    same(ALGORITHMS.known["usadtm"](FACTS, 2.0).losses(net, Linear(9), given, heads, 0.2), expected, net)


def test_mutual_information_is_zero_of_constants_log_c_of_agreement_and_symmetric():
    g = torch.Generator().manual_seed(0)
    p, q = (torch.randn(20, C, generator=g).softmax(1) for _ in range(2))
    assert mutual_information(p[:1].expand(20, C), p[:1].expand(20, C)).abs() < 1e-6
    balanced = torch.eye(C).repeat(5, 1)
    assert math.isclose(float(mutual_information(balanced, balanced)), math.log(C), abs_tol=1e-4)
    assert torch.allclose(mutual_information(p, q), mutual_information(q, p), atol=1e-7)
    assert torch.allclose(mutual_information(p, q), information([*p], [*q]), atol=1e-6)
