"""The contrastive losses against slow loops over pairs, written from the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seval.algorithms.contrast import class_probs, kernel, propagated, reliable_loss, sharpened, smoothed_loss

C, K, N, M = 4, 5, 6, 9  # classes, dimensions, unlabeled images, members (of which C are centers)


def points(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, K, generator=g, dtype=torch.float64), dim=-1).requires_grad_()


def labels(centers: str = "ones") -> Tensor:
    first = torch.ones(C, C) if centers == "ones" else torch.eye(C)
    rest = torch.randn(M - C, C, generator=torch.Generator().manual_seed(5)).double().softmax(1)
    return torch.cat([first, rest])


def near(a: Tensor, b: Tensor) -> Tensor:
    return torch.exp(sum(x * y for x, y in zip(a, b, strict=True)) / 0.1)


def shares(scores: list[Tensor]) -> list[Tensor]:
    return [score / sum(scores) for score in scores]


def slow_probs(point: Tensor, members: list[Tensor], given: Tensor) -> list[Tensor]:
    """Eq. 16 in Eq. 10, for one point."""
    scores = []
    for y in range(C):
        pairs = list(zip(members, given[:, y], strict=True))
        scores.append(sum(near(point, z) * p for z, p in pairs) / sum(p for _, p in pairs))
    return shares(scores)


def slow_propagated(found: list[list[Tensor]], view: Tensor) -> list[list[Tensor]]:
    """Eq. 21 as a series: the sum over k of 0.2^k G^k 0.8 A."""
    similarity = [shares([torch.exp((a * b).sum()) for b in view]) for a in view]
    term, total = [[0.8 * p for p in row] for row in found], [[0.8 * p for p in row] for row in found]
    for _ in range(25):
        pairs = [list(zip(weights, term, strict=True)) for weights in similarity]
        term = [[0.2 * sum(g * row[y] for g, row in each) for y in range(C)] for each in pairs]
        total = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(total, term, strict=True)]
    return total


def entropy(p: list, q: list) -> Tensor:
    return -sum(a * torch.log(b) for a, b in zip(p, q, strict=True))


def same(fast: Tensor, slow: Tensor, *inputs: Tensor) -> None:
    assert fast.shape == () and math.isclose(fast.item(), slow.item(), rel_tol=1e-9)
    both = [torch.autograd.grad(loss, inputs, materialize_grads=True) for loss in (fast, slow)]
    assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-9) for a, b in zip(*both, strict=True))


@pytest.mark.parametrize("centers", ["ones", "classes"])
def test_the_smoothed_loss_is_that_of_slow_loops(centers):
    views, members, given = points(3, N), points(M, seed=1), labels(centers)
    slow = []
    for view in views:
        slow.append(slow_propagated([slow_probs(point, [*members], given) for point in view], view))
    losses = []
    for weak, first, second in zip(*slow, strict=True):
        target = shares([p.detach() ** 4 for p in weak])
        middle = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
        losses.append((entropy(target, first) + entropy(target, second) + entropy(middle, middle)) / 3)
    loss = smoothed_loss(views, members, given)
    same(loss, sum(losses) / N, views, members)
    (gradient,) = torch.autograd.grad(smoothed_loss(views, members.detach(), given), views)
    assert (gradient[0] == 0).all() and (gradient[1:] != 0).any()  # the weak view only teaches


@pytest.mark.parametrize("centers", ["ones", "classes"])
def test_the_reliable_loss_is_that_of_slow_loops_over_those_that_take_part(centers):
    members, given = points(M, seed=1), labels(centers)
    given[[5, 8]] = 0
    taking = [i for i in range(M) if i not in (5, 8)]
    losses = []
    for i in taking[C:]:
        others = [j for j in taking if j != i]
        found = slow_probs(members[i], [members[j] for j in others], given[others])
        losses.append(entropy([*given[i]], found))
    same(reliable_loss(members, given, C), sum(losses) / len(losses), members)
    same(reliable_loss(members, given, C), reliable_loss(members[taking], given[taking], C), members)


def test_class_probs_of_members_leave_out_what_they_say_of_themselves():
    members, given = points(M, seed=1), labels()
    similarity = kernel(members, members) * (1 - torch.eye(M))
    found = class_probs(similarity, given, given)
    for i in range(M):
        others = [j for j in range(M) if j != i]
        expected = slow_probs(members[i], [members[j] for j in others], given[others])
        assert torch.allclose(found[i], torch.stack(expected), rtol=1e-9)


def test_propagation_is_the_inverse_of_equation_21_and_keeps_rows_on_the_simplex():
    views = points(3, 40).detach()
    found = torch.rand(3, 40, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found /= found.sum(2, keepdim=True)
    probs = propagated(found, views)
    for view, each, expected in zip(views, found, probs, strict=True):
        similarity = torch.exp(view @ view.T)
        similarity /= similarity.sum(1, keepdim=True)
        assert torch.allclose(torch.linalg.solve(torch.eye(40) - 0.2 * similarity, 0.8 * each), expected, atol=1e-10)
    assert torch.allclose(probs.sum(2), torch.ones(3, 40, dtype=torch.float64), atol=1e-10)


def test_where_all_features_are_equal_every_class_is_as_likely():
    given, alike = labels("classes"), points(1)
    views, members = alike.expand(3, N, K), alike.expand(M, K)
    assert math.isclose(smoothed_loss(views, members, given).item(), math.log(C), rel_tol=1e-9)
    assert math.isclose(reliable_loss(members, given, C).item(), math.log(C), rel_tol=1e-9)


def test_sharpened_is_the_fourth_power():
    assert torch.allclose(sharpened(torch.tensor([[0.5, 0.25, 0.25]])), torch.tensor([[16.0, 1, 1]]) / 18)
