from __future__ import annotations

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seval.algorithms import ALGORITHMS
from seval.algorithms.base import Head
from seval.algorithms.consistency import mutual_information
from seval.algorithms.mixmatch import turned
from seval.build import check_penalties
from seval.data.loader import Batch, Sampler, class_weights
from seval.errors import ConfigError
from seval.losses import LABELED_LOSSES
from seval.models.network import CLASSIFIERS, Network
from seval.models.wide_resnet import WideResNet
from seval.policy.base import Facts
from seval.policy.language import build_policy

C, D, B, N, SIDE = 4, 6, 5, 12, 4
COUNTS = torch.tensor([200.0, 30, 8, 60])  # in no order
LOG_PRIOR = torch.log(COUNTS / COUNTS.sum())
FACTS = Facts(C, COUNTS, 100, feature_dim=D)
VIEWS = dict(supervised=(), pseudo_label=("weak",), mean_teacher=("weak",) * 2, mixmatch=("weak",) * 2)
VIEWS |= dict(fixmatch=("weak", "strong"), usadtm=("eval", "weak", "strong"))
VIEWS |= dict.fromkeys(("remixmatch", "acr"), ("weak", "strong", "strong"))


class Linear(nn.Module):
    """Features are linear in the image and logits in the features, so that each image can be seen on its own."""

    @torch.random.fork_rng()
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.map = nn.Parameter(torch.randn(SIDE * SIDE, D) / SIDE)
        self.heads = nn.ParameterDict({"f": torch.randn(D, C), "g": torch.randn(D, C), "rotation": torch.randn(D, 4)})

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.map

    def classify(self, features: Tensor, head: str) -> Tensor:
        return features @ self.heads[head]

    def logits(self, image: Tensor, head: str = "f") -> Tensor:
        """(C,) of one image."""
        return self.classify(self.features(image[None]), head)[0]


def batch(name: str, seed: int = 1, scale: float = 1.0, side: int = SIDE) -> Batch:
    g = torch.Generator().manual_seed(seed)
    views = tuple(scale * torch.randn(N, 1, side, side, generator=g) for _ in VIEWS[name])
    images, labels = torch.randn(B, 1, side, side, generator=g), torch.randint(C, (B,), generator=g)
    return Batch(images, labels, views, torch.randperm(100, generator=g)[:N])


def head(policy: str, name: str = "f", loss: str = "cross_entropy") -> Head:
    return Head(name, LABELED_LOSSES.build(loss, COUNTS), build_policy(policy, FACTS))


def softmax(z: Tensor) -> Tensor:
    return torch.exp(z - z.max()) / torch.exp(z - z.max()).sum()


def entropy(target: Tensor, z: Tensor) -> Tensor:
    """Cross-entropy of one row; the target is a constant."""
    return sum(-t * (z[c] - torch.logsumexp(z, 0)) for c, t in enumerate(target.tolist()))


def error(target: Tensor, z: Tensor) -> Tensor:
    return sum((t - softmax(z)[c]) ** 2 for c, t in enumerate(target.tolist())) / len(z)


def hard(label: int) -> Tensor:
    return torch.tensor([float(c == label) for c in range(C)])


def mean(values: list) -> Tensor:
    return sum(values) / len(values)


def labeled(net: Linear, given: Batch, name: str = "f", offset: Tensor | float = 0.0) -> Tensor:
    rows = zip(given.images, given.labels, strict=True)
    return mean([entropy(hard(y), net.logits(x, name) + offset) for x, y in rows])


def same(found: dict[str, Tensor], expected: dict[str, Tensor], net: nn.Module) -> None:
    """Equal losses, and equal gradients of their sum."""
    assert found.keys() == expected.keys()
    for name, loss in found.items():
        assert loss.shape == () and torch.allclose(loss, expected[name], rtol=1e-4, atol=1e-6), name
    weights = list(net.parameters())
    both = [torch.autograd.grad(sum(d.values()), weights, materialize_grads=True) for d in (found, expected)]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(*both, strict=True))


def test_views_are_the_published_ones():
    assert {name: algorithm.views for name, algorithm in ALGORITHMS.known.items()} == VIEWS


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["mixmatch", "remixmatch"])
def test_mixtures_equal_a_slow_loop(name, seed):
    net, given, copies = Linear(), batch(name), len(VIEWS[name])
    guessing, distance, alpha = (2, error, 0.6) if name == "mixmatch" else (1, entropy, 0.75)
    arguments = {"alpha": alpha} if name == "mixmatch" else {}  # the other's is the published one
    torch.manual_seed(seed)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    share, order = max(share, 1 - share), torch.randperm(B + copies * N).tolist()
    guesses = []
    for views in zip(*given.views[:guessing], strict=True):
        p = mean([softmax(net.logits(x)) for x in views])
        guesses.append(p**2 / sum(p**2))
    rows = [*given.images, *(x for view in given.views for x in view)]
    aims = [*map(hard, given.labels), *guesses * copies]
    zs = [net.logits(share * x + (1 - share) * rows[j]) for x, j in zip(rows, order, strict=True)]
    aims = [share * t + (1 - share) * aims[j] for t, j in zip(aims, order, strict=True)]
    expected = {
        "f/labeled": mean([entropy(t, z) for t, z in zip(aims[:B], zs[:B], strict=True)]),
        "f/unlabeled": 7 * 0.4 * mean([distance(t, z) for t, z in zip(aims[B:], zs[B:], strict=True)]),
    }
    if name == "remixmatch":
        first = given.views[1]
        around = [(hard(k), x.rot90(k, (1, 2))) for x, k in zip(first, torch.randint(4, (N,)).tolist(), strict=True)]
        expected["rotation"] = 0.5 * mean([entropy(t, net.logits(x, "rotation")) for t, x in around])
        expected["f/pre_mixup"] = (
            0.5 * 0.4 * mean([entropy(t, net.logits(x)) for t, x in zip(guesses, first, strict=True)])
        )
    torch.manual_seed(seed)
    algorithm = ALGORITHMS.known[name](FACTS, 7.0, ramp=0.5, **arguments)
    same(algorithm.losses(net, Linear(9), given, [head("sharpen(0.5)")], 0.2), expected, net)


def test_images_are_turned_one_by_one():
    images, turns = torch.arange(2.0 * 8 * 9).view(8, 2, 3, 3), torch.tensor([0, 1, 2, 3, 3, 0, 2, 1])
    by_hand = [torch.rot90(image, k, (1, 2)) for image, k in zip(images, turns.tolist(), strict=True)]
    assert torch.equal(turned(images, turns), torch.stack(by_hand))


def test_a_penalty_on_a_view_that_is_only_mixed_is_refused():
    with pytest.raises(ConfigError, match="mixmatch"):
        check_penalties("mixmatch", [head("sharpen").policy, head("daso(alignment=1.0)").policy])
    check_penalties("mixmatch", [head("daso(alignment=0.0)").policy])
    check_penalties("fixmatch", [head("daso(alignment=1.0)").policy])


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


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_backbone_keeps_weights_and_statistics_bit_for_bit(frozen):
    torch.manual_seed(0)
    net = Network(WideResNet(10, 1, 0, 1), {"f": "linear"}, C, frozen=frozen).train()
    before, algorithm = deepcopy(net.state_dict()), ALGORITHMS.known["supervised"](FACTS, 1.0)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1, 0.9, weight_decay=0.01)
    for seed in range(2):
        optimizer.zero_grad()
        algorithm.losses(net, net, batch("supervised", seed, side=8), [head("")], 0.0)["f/labeled"].backward()
        optimizer.step()
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]) == (frozen and key.startswith("backbone.")), key


def test_class_weights_make_every_class_equally_likely():
    counts, g = (64, 7, 16, 0, 1, 3), torch.Generator().manual_seed(0)
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    labels = labels[torch.randperm(len(labels), generator=g)]
    weights, draws = class_weights(labels), 64 * 400
    sampler = Sampler(size=len(labels), batch=64, generator=g, weights=weights)
    times = torch.bincount(torch.cat([next(sampler) for _ in range(400)]), minlength=len(labels))
    for c, n in enumerate(counts):
        assert math.isclose(float(weights[labels == c].sum()), n > 0, abs_tol=1e-12)
        for chance, seen in ((0.2 * (n > 0), times[labels == c].sum()), *((0.2 / n, t) for t in times[labels == c])):
            assert abs(float(seen) - chance * draws) <= 5 * math.sqrt(draws * chance * (1 - chance))


@pytest.mark.parametrize("scale", [30.0, 7.0])
def test_a_cosine_classifier_is_scale_times_cosine_without_bias(scale):
    torch.manual_seed(0)
    classifier, features = CLASSIFIERS.known["cosine"](D, C, scale=scale), 3 * torch.randn(N, D)
    ((w, got),) = [(p.detach(), classifier(features).detach()) for p in classifier.parameters()]
    for i in range(N):
        for c in range(C):
            cosine = sum(features[i] * w[c]) / math.sqrt(sum(features[i] ** 2) * sum(w[c] ** 2))
            assert math.isclose(float(got[i, c]), scale * float(cosine), rel_tol=1e-4, abs_tol=1e-5)
