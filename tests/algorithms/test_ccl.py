"""CCL against a slow loop over images, and what is known of it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seval.algorithms import ALGORITHMS
from seval.algorithms.ccl import Ccl, projection
from seval.algorithms.contrast import reliable_loss, smoothed_loss
from seval.data.loader import Batch
from seval.errors import RecipeError
from tests.algorithms.slow import (
    COUNTS,
    FACTS,
    LOG_PRIOR,
    SIDE,
    B,
    C,
    D,
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

K = 7


class Net(Linear):
    """With projections, which are linear too."""

    @torch.random.fork_rng()
    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.heads |= {name: torch.randn(D, K) for name in ("projection", "centers")}

    def weight(self, head: str) -> Tensor:
        return self.heads[head].T

    def point(self, image: Tensor) -> Tensor:
        return F.normalize(self.classify(self.features(image[None]), "projection")[0], dim=0)

    def center(self, c: int) -> Tensor:
        return F.normalize(self.heads["g"][:, c] @ self.heads["centers"], dim=0)


def given_batch(seed: int = 1, scale: float = 1.0) -> Batch:
    g = torch.Generator().manual_seed(100 + seed)
    plain = batch("ccl", seed, scale)
    return plain._replace(labeled=(plain.images, *(torch.randn(B, 1, SIDE, SIDE, generator=g) for _ in range(2))))


class SlowCcl:
    """CCL, an image at a time; only its contrastive losses are those of tests/algorithms/test_contrast.py."""

    def __init__(
        self, tau, threshold, energy, lambda1, lambda2, alpha, beta, start, upbatch, centers="ones", fuse="logits"
    ) -> None:
        self.__dict__.update({key: value for key, value in locals().items() if key != "self"})
        self.prior = COUNTS / COUNTS.sum()
        self.unlabeled, self.all = torch.full((C,), 1 / C), self.prior.clone()
        self.sums, self.steps, self.ways = torch.ones(2, C), 0, set()

    def label(self, net: Net, image: Tensor, count: int = N) -> tuple[Tensor, bool, bool]:
        share = count / (count + B)
        mixture = (1 - share) * self.prior + share * self.all
        standard = net.logits(image, "f") - mixture.log() + self.unlabeled.log()
        balanced = net.logits(image, "g") + self.tau / 2 * self.unlabeled.log()
        fused = ((standard + balanced) / 2).detach()
        probs = softmax(fused) if self.fuse == "logits" else (softmax(standard) + softmax(balanced)).detach() / 2
        kept, reliable = bool(probs.max() >= self.threshold), bool(-torch.logsumexp(fused, 0) <= -self.energy)
        self.ways.add((kept, reliable))
        return probs, kept, reliable

    def losses(self, net: Net, given: Batch, weight: float) -> dict[str, Tensor]:
        labels, found = [self.label(net, image) for image in given.views[0]], {}
        for name, offset, margin in (("f", 0.0, 0.0), ("g", self.tau * LOG_PRIOR, self.tau * self.all.log())):
            losses = []
            for (probs, kept, _), *strong in zip(labels, *given.views[1:], strict=True):
                aim = hard(int(probs.argmax()))
                losses += [kept * entropy(aim, net.logits(x, name) + margin) for x in strong]
            found[f"{name}/unlabeled"] = self.lambda1 * weight * max(1.5, N / B) * mean(losses)
            found[f"{name}/labeled"] = self.lambda1 * labeled(net, given, name, offset)
        self.seen = labels
        return found | self.contrast(net, given, labels)

    def contrast(self, net: Net, given: Batch, labels: list) -> dict[str, Tensor]:
        rows = [(net.center(c), torch.ones(C) if self.centers == "ones" else hard(c)) for c in range(C)]
        rows += [
            (net.point(x), hard(int(y))) for view in given.labeled[1:] for x, y in zip(view, given.labels, strict=True)
        ]
        points, known = (torch.stack(part) for part in zip(*rows, strict=True))
        views = torch.stack([torch.stack([net.point(x) for x in view]) for view in given.views])
        for view in given.views[1:]:
            for (probs, _, reliable), image in zip(labels, view, strict=True):
                rows += [(net.point(image), probs**4 / (probs**4).sum())] if reliable else []
        members, targets = (torch.stack(part) for part in zip(*rows, strict=True))
        return {
            "reliable": (1 - self.lambda1) * reliable_loss(members, targets, C),
            "smoothed": self.lambda2 * smoothed_loss(views, points, known),
        }

    def observe(self, progress: float) -> None:
        """The statistics of the last step."""
        if progress < self.start:
            return
        self.steps += 1
        for probs, kept, reliable in self.seen:
            self.sums[0] += reliable * probs
            self.sums[1] += kept * probs
        if self.steps % self.upbatch == 0:
            self.unlabeled = self.alpha * self.unlabeled + (1 - self.alpha) * self.sums[0] / self.sums[0].sum()
            self.all = self.beta * self.all + (1 - self.beta) * self.sums[1] / self.sums[1].sum()
            self.sums = torch.ones(2, C)


ARGUMENTS = dict(
    tau=1.5, threshold=0.6, energy=2.2, lambda1=0.6, lambda2=0.8, alpha=0.3, beta=0.8, start=0.2, upbatch=3
)
HEADS = [head("one_hot", "f"), head("one_hot", "g", "logit_adjusted(1.5)")]


@pytest.mark.parametrize("options", [{}, {"centers": "classes"}, {"fuse": "probs"}], ids=str)
def test_ccl_equals_a_slow_loop_over_several_moves_of_the_priors(options):
    net, arguments = Net(), ARGUMENTS | options
    fast, slow, moved = ALGORITHMS.known["ccl"](FACTS, 2.0, **arguments), SlowCcl(**arguments), []
    for i, progress in enumerate((0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)):
        given = given_batch(i)
        same(fast.losses(net, Linear(9), given, HEADS, progress), slow.losses(net, given, 2.0), net)
        slow.observe(progress)
        assert torch.allclose(fast.priors, torch.stack([slow.unlabeled, slow.all]), rtol=1e-5)
        moved.append(fast.priors[0].tolist())
        log = fast.refresh()
        for name, prior in (("ccl_unlabeled", slow.unlabeled), ("ccl_all", slow.all)):
            assert math.isclose(log[name], float((prior - slow.prior).abs().sum() / 2), rel_tol=1e-4, abs_tol=1e-6)
    assert [moved[i] != moved[i - 1] for i in range(1, 9)] == [False] * 3 + [True, False, False, True, False]
    assert len(slow.ways) == 4  # kept or not, reliable or not


def test_the_unlabeled_losses_weigh_at_least_one_and_a_half():
    """However few unlabeled images a batch has; with more than that, as many as there are for each label."""
    net, given = Net(), given_batch()
    arguments = ARGUMENTS | {"threshold": 0.0}
    for count in (B, 12):
        few = given._replace(views=tuple(view[:count] for view in given.views), index=given.index[:count])
        found = Ccl(FACTS, 1.0, **arguments).losses(net, net, few, HEADS, 0.0)
        label = SlowCcl(**arguments)
        rows = [
            entropy(hard(int(label.label(net, weak, count)[0].argmax())), net.logits(image, "f"))
            for weak, *strong in zip(*few.views, strict=True)
            for image in strong
        ]
        assert math.isclose(found["f/unlabeled"].item(), 0.6 * max(1.5, count / B) * mean(rows).item(), rel_tol=1e-5)


def test_with_nothing_confident_and_no_contrast_only_the_labels_teach():
    net, given = Net(), given_batch()
    found = Ccl(FACTS, 1.0, threshold=1.1, lambda1=1.0, lambda2=0.0).losses(net, net, given, HEADS, 0.5)
    expected = {"f/labeled": labeled(net, given, "f"), "g/labeled": labeled(net, given, "g", 1.5 * LOG_PRIOR)}
    zeros = {name: torch.zeros((), requires_grad=True) for name in found.keys() - expected.keys()}
    assert sorted(zeros) == ["f/unlabeled", "g/unlabeled", "reliable", "smoothed"]
    same(found, expected | zeros, net)


def test_priors_find_the_unlabeled_classes_of_a_stream_that_the_heads_know():
    """Of right and confident predictions, whatever prior they carry, the estimate is the stream's distribution."""
    algorithm = Ccl(FACTS, 1.0, energy=-100.0, upbatch=2, alpha=0.5)
    labels = torch.tensor([3] * 6 + [1] * 4 + [0] * 2)
    for _ in range(60):
        probs, _ = algorithm.predicted(50 * torch.eye(C)[labels], 50 * torch.eye(C)[labels], 0.5)
        algorithm.observe(probs, torch.ones(2, N))
    expected = (2 * torch.tensor([2.0, 4, 0, 6]) + 1) / (2 * N + C)  # one image of each class is added at each move
    assert torch.allclose(algorithm.priors, expected.expand(2, C), atol=1e-4)


def test_statistics_resume_bit_for_bit():
    whole, net = Ccl(FACTS, 1.0, **ARGUMENTS), Net()
    for i in range(4):
        whole.losses(net, net, given_batch(i), HEADS, 0.5)
    broken = Ccl(FACTS, 1.0, **ARGUMENTS)
    broken.load_state_dict({key: value.clone() for key, value in whole.state_dict().items()})
    for i in range(4, 8):
        both = [each.losses(net, net, given_batch(i), HEADS, 0.5) for each in (whole, broken)]
        assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    assert whole.state_dict().keys() == {"priors", "counts", "steps"}
    assert all(torch.equal(value, broken.state_dict()[key]) for key, value in whole.state_dict().items())


def test_the_projection_is_a_hidden_layer_with_batch_norm():
    layers = projection(128)
    assert [type(layer).__name__ for layer in layers] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert layers(torch.randn(3, 128)).shape == (3, 256) and layers[0].out_features == 128
    assert list(Ccl.extra_modules(16)) == ["projection", "centers"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ccl(centers='both')", "centers is 'both', but must be one of ones, classes"),
        ("ccl(fuse='mean')", "fuse is 'mean', but must be one of logits, probs"),
        ("ccl(upbatch=0)", "upbatch is 0, but must be at least 1 step"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(text, words):
    with pytest.raises(RecipeError, match=words):
        ALGORITHMS.build(text, FACTS, 1.0)
