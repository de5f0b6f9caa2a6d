"""FixMatch's newer arguments and what rules add to its losses, an image at a time, and the laws of both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seval.algorithms import ALGORITHMS
from seval.algorithms.base import Head, Losses
from seval.algorithms.consistency import FixMatch, by_group
from seval.data.loader import Batch
from seval.errors import PolicyError, RecipeError
from seval.losses import LABELED_LOSSES
from seval.policy.base import Facts, PseudoLabels
from seval.policy.language import build_policy
from tests.algorithms.slow import (
    COUNTS,
    FACTS,
    LOG_PRIOR,
    SIDE,
    B,
    C,
    Linear,
    N,
    entropy,
    hard,
    labeled,
    mean,
    same,
    softmax,
)
from tests.policy import slow_rules as slow

PRIOR = (COUNTS / COUNTS.sum()).tolist()


class Biased(Linear):
    """It has a bias, and answers what rules ask."""

    def classify(self, features: Tensor, head: str) -> Tensor:
        return super().classify(features, head) + self.bias(head)

    def bias(self, head: str) -> Tensor:
        return torch.linspace(-1, 2, C) * (1 if head == "f" else -1)

    @torch.no_grad()
    def blank(self, like: Tensor, color: Tensor | float) -> dict[str, Tensor]:
        return {head: self.logits(torch.zeros_like(like) + color, head) for head in ("f", "g")}


def given(seed: int = 1, strong: int = 1, labels: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    images, *views = (torch.randn(n, 1, SIDE, SIDE, generator=g) for n in (B, *[N] * (1 + strong)))
    more = tuple(torch.randn(B, 1, SIDE, SIDE, generator=g) for _ in range(labels - 1))
    return Batch(
        (images, *more), torch.randint(C, (B,), generator=g), tuple(views), torch.randperm(100, generator=g)[:N], -1.5
    )


def head(policy: str, name: str = "f", loss: str = "cross_entropy", counts: Tensor = COUNTS, weight: float = 1) -> Head:
    facts = Facts(C, counts, 100, head=name)
    return Head(name, LABELED_LOSSES.build(loss, counts), build_policy(policy, facts), weight)


def losses(text: str, net: Linear, batch: Batch, heads: list[Head], progress: float = 0.5, weight: float = 1) -> Losses:
    return ALGORITHMS.build(text, FACTS, weight).losses(net, Linear(9), batch, heads, progress)


def rows(net: Linear, images: Tensor, name: str = "f") -> list[list[float]]:
    return [net.logits(x, name).tolist() for x in images]


def unlabeled(net: Linear, batch: Batch, targets: list, weights: list, margin: list | float = 0.0, name="f") -> list:
    """The weighted distances of all strong views, view by view."""
    rows, z = [*zip(targets, weights, strict=True)] * (len(batch.views) - 1), torch.cat(batch.views[1:])
    moved = [net.logits(x, name) + torch.tensor(margin) for x in z]
    return [w * entropy(torch.tensor(t), z) for (t, w), z in zip(rows, moved, strict=True)]


@pytest.mark.parametrize("strong", [1, 2, 3])
@pytest.mark.parametrize("normalize", ["batch", "kept"])
@pytest.mark.parametrize("labels", [1, 2])
def test_strong_views_labeled_views_and_the_divisor(strong, normalize, labels):
    net, batch = Linear(), given(2, strong, labels)
    text = f"fixmatch(strong={strong}, normalize={normalize!r}, strong_labels={labels == 2})"
    q = [softmax(net.logits(x)) for x in batch.views[0]]
    weights = [float(p.max() >= 0.6) * (1 + 2 * (p.argmax() == 2) + (p.argmax() in (1,))) for p in q]  # ranks 0 3 1 2
    terms = unlabeled(net, batch, [hard(int(p.argmax())).tolist() for p in q], weights)
    whole = sum(terms) / (strong * sum(weights) if normalize == "kept" else strong * N)
    halves = [labeled(net, batch._replace(labeled=(view,)), offset=0.5 * LOG_PRIOR) for view in batch.labeled]
    expected = {"f/labeled": 0.25 * mean(halves), "f/unlabeled": 3 * whole}
    each = head("threshold(0.6) | one_hot | group_weight(2, 3)", loss="logit_adjusted(0.5)", weight=0.25)
    assert 0 < sum(w > 0 for w in weights) < N
    same(losses(text, net, batch, [each], weight=3.0), expected, net)


def test_views_follow_the_arguments_and_the_class_keeps_its_own():
    found = ALGORITHMS.build("fixmatch(strong=3, strong_labels=True)", FACTS, 1.0)
    assert found.views == ("weak", "strong", "strong", "strong") and found.labeled_views == ("weak", "strong")
    assert FixMatch.views == ("weak", "strong") and FixMatch.labeled_views == ("weak",) and FixMatch.teaching == -2


@pytest.mark.parametrize("text", ["fixmatch(strong=0)", "fixmatch(strong=9)", "fixmatch(normalize='x')"])
def test_wrong_arguments(text):
    with pytest.raises(RecipeError, match="1 to 8 strong views, and batch or kept"):
        ALGORITHMS.build(text, FACTS, 1.0)


def test_with_nothing_kept_the_loss_over_kept_images_is_zero():
    found = losses("fixmatch(normalize='kept')", Linear(), given(), [head("threshold(1.0)")])
    assert found["f/unlabeled"] == 0


def test_kept_of_one_group_is_the_mean_over_kept_images_and_equal_weights_cancel():
    net, batch, bar = Linear(), given(3), 0.6
    plain = losses("fixmatch", net, batch, [head(f"threshold({bar}) | one_hot")])["f/unlabeled"]
    kept = sum(softmax(net.logits(x)).max() >= bar for x in batch.views[0])
    one = losses("fixmatch(normalize='kept')", net, batch, [head(f"threshold({bar}) | one_hot")])["f/unlabeled"]
    assert torch.allclose(one, plain * N / kept, rtol=1e-6)
    batch = batch._replace(views=(batch.views[0][:1].repeat(N, 1, 1, 1), batch.views[1]))  # all of one class
    found = losses("fixmatch(normalize='kept')", net, batch, [head("one_hot | group_weight(1, 2)")])["f/unlabeled"]
    assert torch.allclose(found, losses("fixmatch", net, batch, [head("one_hot")])["f/unlabeled"], rtol=1e-6)


def test_debias_in_training():
    net, text, rule = Linear(), "debias(0.4, 0.8) | threshold(0.6) | one_hot", slow.Debias(C, 0.4, 0.8)
    each = head(text, loss="logit_adjusted(0.5)")
    for seed in range(4):
        batch = given(seed)
        q = rule.step(rows(net, batch.views[0]))
        terms = unlabeled(net, batch, [slow.one_hot(p) for p in q], [max(p) >= 0.6 for p in q], rule.margin())
        expected = {"f/labeled": labeled(net, batch, offset=0.5 * LOG_PRIOR), "f/unlabeled": 2 * mean(terms)}
        same(losses("fixmatch", net, batch, [each], weight=2.0), expected, net)


def test_simpro_in_training():
    net, rule = Linear(), slow.SimPro(COUNTS.tolist(), 2.0, 0.6, 0.9)
    each = head("simpro(2.0, 0.6) | threshold(0.6)", weight=0.125)
    for seed in range(6):
        batch = given(seed, 2, 2)
        q, weights = rule.step(rows(net, batch.views[0]), batch.labels.tolist())
        margin = rule.offset(rule.all)
        both = [labeled(net, batch._replace(labeled=(view,)), offset=torch.tensor(margin)) for view in batch.labeled]
        terms = unlabeled(net, batch, q, weights, margin)
        expected = {"f/labeled": 0.125 * mean(both), "f/unlabeled": mean(terms)}
        same(losses("fixmatch(strong=2, strong_labels=True)", net, batch, [each]), expected, net)
        if seed % 2:
            each.policy.refresh(None, lambda: None, 0.5)
            rule.period()


def test_adello_in_training():
    net, rule = Linear(), slow.FlexDA(COUNTS.tolist(), 0.1, 2.0, 0.8, 0.3)
    each = head("flexda(0.1, 2.0, 0.8, 0.3) | threshold(0.6) | one_hot")
    for seed in range(6):
        batch, u = given(seed, 2), seed / 5
        weak = rows(net, batch.views[0])
        rule.step(weak, u)
        q = [slow.softmax(z) for z in weak]
        margins, weights = (rule.labeled(u), rule.unlabeled(u)), [float(max(p) >= 0.6) for p in q]
        terms = unlabeled(net, batch, [slow.one_hot(p) for p in q], weights, margins[1])
        expected = {"f/labeled": labeled(net, batch, offset=torch.tensor(margins[0])), "f/unlabeled": 3 * mean(terms)}
        if u >= 0.3:
            soft = [[v ** (1 / rule.T) for v in p] for p in q]
            soft = [torch.tensor([v / sum(p) for v in p]) for p in soft]
            moved = [[net.logits(x) + torch.tensor(margins[1]) for x in view] for view in batch.views[1:]]
            rest = [[(1 - w) * entropy(t, z / rule.T) for w, t, z in zip(weights, soft, v, strict=True)] for v in moved]
            expected["f/penalty0"] = mean([mean(view) for view in rest])
        same(losses("fixmatch(strong=2)", net, batch, [each], u, weight=3.0), expected, net)


@pytest.mark.parametrize(("text", "color"), [("cdmad", 1.0), ("cdmad(value=-2.0)", -2.0), ("cdmad(black=True)", -1.5)])
def test_cdmad_in_training_asks_the_trained_network_of_each_head(text, color):
    net, batch, expected = Biased(), given(4, 2), {}
    heads = [head(text, name) for name in ("f", "g")]
    for u in (0.1, 0.6):
        for name in ("f", "g"):
            blank = net.logits(torch.full_like(batch.images[0], color), name).tolist()
            q = slow.cdmad(rows(net, batch.views[0], name), blank, u, 0.2)
            terms = unlabeled(net, batch, q, [1.0] * N, name=name)
            expected |= {f"{name}/labeled": labeled(net, batch, name), f"{name}/unlabeled": mean(terms)}
        same(losses("fixmatch(strong=2)", net, batch, heads, u), expected, net)


@pytest.mark.parametrize("strong", [1, 2])
def test_tras_in_training(strong):
    net, batch = Linear(), given(5, strong)
    heads = [head("logit_adjust | threshold(0.6) | one_hot"), head("tras(threshold=0.6, source='f')", "g")]
    plain = losses(f"fixmatch(strong={strong})", net, batch, heads[:1])
    terms = []
    for view in batch.views[1:]:
        targets, weights = slow.tras(rows(net, batch.views[0], "g"), rows(net, view), PRIOR, 0.6)
        rows_of = zip(view, targets, weights, strict=True)
        terms += [w * entropy(torch.tensor(t), net.logits(x, "g")) for x, t, w in rows_of]
    assert 0 < sum(weights) < N
    expected = plain | {
        "g/labeled": labeled(net, batch, "g"),
        "g/unlabeled": torch.tensor(0.0),
        "g/penalty0": mean(terms),
    }
    same(losses(f"fixmatch(strong={strong})", net, batch, heads), expected, net)
    penalty = losses(f"fixmatch(strong={strong})", net, batch, heads)["g/penalty0"]
    gradients = torch.autograd.grad(penalty, (net.heads["f"], net.heads["g"]), materialize_grads=True)
    assert [bool((gradient != 0).any()) for gradient in gradients] == [False, True]  # none through the target


def test_tras_needs_an_algorithm_that_gives_logits():
    batch = given()._replace(views=given().views[:1] * 2)
    with pytest.raises(PolicyError, match="the heads are none; the algorithm gives none"):
        losses("mean_teacher", Linear(), batch, [head("tras", "g")])


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        ("debias(strength=0.0)", 0.5),
        ("simpro(tau=0.0)", 0.5),
        ("flexda(floor=1.0, momentum=1.0, distill=1.0)", 0.5),
        ("flexda(momentum=1.0, distill=1.0)", 0.7),
        ("cdmad(start=0.6)", 0.5),
    ],
)
@pytest.mark.parametrize("strong", [1, 2])
def test_a_rule_that_adjusts_nothing_is_fixmatch_bit_for_bit(text, progress, strong):
    net, counts = Biased(), torch.full((C,), 16.0)
    for seed in range(3):
        each = [head(f"{rule}threshold(0.6) | one_hot", counts=counts) for rule in (f"{text} | ", "")]
        found, base = (losses(f"fixmatch(strong={strong})", net, given(seed, strong), [h], progress) for h in each)
        assert found.keys() == base.keys() and all(torch.equal(found[key], base[key]) for key in base)
        grads = [torch.autograd.grad(sum(d.values()), (net.map, net.heads["f"])) for d in (found, base)]
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_each_group_learns_the_labels_that_it_contains():
    rank, logits = torch.tensor([2, 0, 3, 1]), torch.randn(3, 2 * N, C, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(0, 2, N)
    pseudo = PseudoLabels((torch.randn(N, C, generator=torch.Generator().manual_seed(1))).softmax(1), weight)
    found, taught = by_group(logits, (0, 1, 3), rank, pseudo)
    place = 0
    for g, cut in enumerate((0, 1, 3)):
        for view in range(2):
            for n in range(N):
                label = int(pseudo.probs[n].argmax())
                assert torch.equal(found[place], logits[g, view * N + n])
                assert torch.equal(taught.probs[place], pseudo.probs[n])
                assert taught.weight[place] == 3 * weight[n] * (rank[label] >= cut)
                place += 1
    assert place == len(found) == len(taught.weight)
