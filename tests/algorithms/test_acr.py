from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from seval.algorithms import ALGORITHMS
from seval.data.loader import Batch
from tests.algorithms.slow import (
    COUNTS,
    FACTS,
    LOG_PRIOR,
    SIDE,
    C,
    Linear,
    N,
    batch,
    entropy,
    hard,
    head,
    labeled,
    mean,
    same,
    softmax,
)


class SlowAcr:
    """ACR, an image at a time."""

    def __init__(self, tau: float = 2.0, threshold: float = 0.95, start: float = 0.01, momentum: float = 0.99) -> None:
        self.fixed = self.dynamic = tau
        self.threshold, self.start, self.momentum = threshold, start, momentum
        prior = [float(n / COUNTS.sum()) for n in COUNTS]
        ranks = [sum(q > p for q in prior) for p in prior]
        self.anchors = [np.array(a) for a in (prior, [1 / C] * C, [sorted(prior)[rank] for rank in ranks])]
        self.u, self.sums, self.steps = np.full(C, 1 / C), np.zeros(3), 0
        self.ways = set()  # (learner, confident when adjusted, confident on its own)

    def losses(self, net: Linear, given: Batch, weight: float) -> dict[str, Tensor]:
        found = {}
        for name, tau, offset in (("f", self.dynamic, 0.0), ("g", self.fixed, LOG_PRIOR)):
            losses = []
            for weak, *strong in zip(*given.views, strict=True):
                own, adjusted = softmax(net.logits(weak, name)), softmax(net.logits(weak, "f") - tau * LOG_PRIOR)
                ways = [bool(p.max() >= self.threshold) for p in (adjusted, own)]
                self.ways.add((name, *ways))
                losses += [any(ways) * entropy(hard(int(adjusted.argmax())), net.logits(x, name)) for x in strong]
            found |= {f"{name}/unlabeled": weight * mean(losses), f"{name}/labeled": labeled(net, given, name, offset)}
        return found

    def observe(self, net: Linear, weak: Tensor, progress: float) -> None:
        if progress < self.start:
            return
        self.steps += 1
        rows = [softmax(net.logits(x, "g")) for x in weak]
        labels = [int(p.argmax()) for p in rows if p.max() >= self.threshold]
        if labels:
            share = np.array([labels.count(c) / len(labels) for c in range(C)])
            self.u = self.momentum * self.u + (1 - self.momentum) * share
            pairs = [(p * np.log(p / q)).sum() + (q * np.log(q / p)).sum() for p in [self.u] for q in self.anchors]
            self.sums = self.sums + np.array(pairs) / 2

    def refresh(self) -> float:
        if self.steps:
            exp = np.exp(self.sums / self.steps)
            self.dynamic, self.sums, self.steps = float(self.fixed * exp[0] / exp.sum()), np.zeros(3), 0
        return self.dynamic


def test_acr_equals_a_slow_loop_over_several_evaluations():
    """The third batch before each evaluation has no confident image."""
    net, heads = Linear(), [head("one_hot", "f"), head("one_hot", "g", "logit_adjusted")]
    arguments = {"tau": 1.5, "threshold": 0.8, "start": 0.2, "momentum": 0.7}
    fast, slow, seen = ALGORITHMS.known["acr"](FACTS, 2.0, **arguments), SlowAcr(**arguments), []
    for i, progress in enumerate((0.0, 0.1, 0.19, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)):
        given = batch("acr", seed=i, scale=0.0 if i % 3 == 2 else 1.5)
        same(fast.losses(net, Linear(9), given, heads, progress), slow.losses(net, given, 2.0), net)
        slow.observe(net, given.views[0], progress)
        if i % 3 == 2:
            seen.append(slow.refresh())
            for _ in range(2):  # without steps it stays
                assert math.isclose(fast.refresh()["acr_tau"], seen[-1], rel_tol=1e-5)
    assert seen[0] == 1.5 and len(set(seen)) == 3
    assert len(slow.ways) == 8  # both heads met every case


@pytest.mark.parametrize(("label", "below"), [(0, True), (2, False)])  # the most frequent and the rarest
def test_acr_tau_leaves_a_third_on_a_long_stream_of_one_class(label, below):
    """Distances that are lost between evaluations would keep it there."""
    net, heads, given = Linear(), [head("one_hot", "f"), head("one_hot", "g")], batch("acr")
    fast, slow = ALGORITHMS.known["acr"](FACTS, 1.0), SlowAcr()
    pool = 9 * torch.randn(200, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    image = max(pool, key=lambda x: softmax(net.logits(x, "g"))[label])
    given = given._replace(views=(image.expand(N, 1, SIDE, SIDE), *given.views[1:]))
    with torch.no_grad():
        for _ in range(150):
            fast.losses(net, net, given, heads, 0.5)
            slow.observe(net, given.views[0][:1], 0.5)
    tau = fast.refresh()["acr_tau"]
    assert slow.u.argmax() == label and math.isclose(tau, slow.refresh(), rel_tol=1e-4)
    assert abs(tau - 2 / 3) > 0.2 and (tau < 2 / 3) == below
