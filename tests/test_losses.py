from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seval.losses import LABELED_LOSSES, ramp, soft_cross_entropy, squared_error

C, B = 5, 24
COUNTS = torch.tensor([20.0, 400, 3, 60, 150])  # in no order; class 2 is the rarest
RAREST, BEFORE, AFTER = 2, 0.3, 0.9  # of deferred re-weighting
#: Every deterministic loss, with settings of its own, and the progress it is asked at.
CASES = [
    ("cross_entropy", BEFORE),
    ("logit_adjusted", BEFORE),
    ("logit_adjusted(0.4)", BEFORE),
    ("class_balanced", BEFORE),
    ("class_balanced(0.9)", BEFORE),
    ("ldam", BEFORE),
    ("ldam", AFTER),
    ("ldam(0.3, 10.0, 0.99, 0.5)", BEFORE),
    ("ldam(0.3, 10.0, 0.99, 0.5)", AFTER),
]


def drawn(seed: int = 0, n: int = B) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, among them every class."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.arange(C), torch.randint(C, (n - C,), generator=g)])
    return 3 * torch.randn(n, C, generator=g), labels


def soft(seed: int = 1, n: int = B) -> torch.Tensor:
    return torch.randn(n, C, generator=torch.Generator().manual_seed(seed)).softmax(1)


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return F.one_hot(labels, C).float()


def nll(row: np.ndarray) -> np.ndarray:
    """(C,): -log softmax of each class."""
    return math.log(sum(math.exp(z) for z in row)) - row


def effective(counts: np.ndarray, beta: float) -> np.ndarray:
    raw = [(1 - beta) / (1 - beta**n) for n in counts]
    return np.array([len(raw) * w / sum(raw) for w in raw])


def slow(text: str, logits: torch.Tensor, labels: torch.Tensor, progress: float, counts: torch.Tensor) -> float:
    """The loss from its definition, a row at a time, in double precision."""
    name, _, given = text.removesuffix(")").partition("(")
    given = [float(value) for value in given.split(",")] if given else []
    rows, n = logits.numpy().astype(float), counts.numpy().astype(float)
    total = weight = 0.0
    for z, y in zip(rows, labels.tolist(), strict=True):
        w = 1.0
        match name:
            case "logit_adjusted":
                z = z + (given or [1.0])[0] * np.log(n / n.sum())
            case "class_balanced":
                w = effective(n, (given or [0.999])[0])[y]
            case "ldam":
                margin, scale, beta, start = given or (0.5, 30.0, 0.9999, 0.8)
                z = z.copy()
                z[y] -= scale * margin * n[y] ** -0.25 / max(m**-0.25 for m in n)
                w = effective(n, beta)[y] if progress >= start else 1.0
        total, weight = total + w * nll(z)[y], weight + w
    return total / (weight if name == "ldam" else len(rows))


@pytest.mark.parametrize(("text", "progress"), CASES)
def test_labeled_losses_equal_a_slow_loop(text, progress):
    logits, labels = drawn()
    got = LABELED_LOSSES.build(text, COUNTS)(logits, labels, progress)
    assert got.shape == () and math.isclose(float(got), slow(text, logits, labels, progress, COUNTS), rel_tol=1e-5)


@pytest.mark.parametrize(("text", "progress"), CASES)
def test_integer_labels_and_their_one_hot_rows_give_equal_losses(text, progress):
    logits, labels = drawn()
    loss = LABELED_LOSSES.build(text, COUNTS)
    assert torch.allclose(loss(logits, labels, progress), loss(logits, one_hot(labels), progress), rtol=1e-5)


@pytest.mark.parametrize(("text", "progress"), CASES)
def test_relabeling_the_classes_leaves_the_loss(text, progress):
    logits, labels = drawn()
    order = torch.randperm(C, generator=torch.Generator().manual_seed(2))
    plain = LABELED_LOSSES.build(text, COUNTS)(logits, labels, progress)
    permuted = LABELED_LOSSES.build(text, COUNTS[order])(logits[:, order], torch.argsort(order)[labels], progress)
    assert not torch.equal(order, torch.arange(C)) and torch.allclose(plain, permuted, rtol=1e-5)


@pytest.mark.parametrize("text", ["cross_entropy", "logit_adjusted", "class_balanced"])
def test_the_loss_of_mixed_labels_is_the_mixture_of_the_losses_of_labels(text):
    logits, _ = drawn()
    loss, probs = LABELED_LOSSES.build(text, COUNTS), soft()
    by_hand = 0.0
    for i in range(B):
        for c in range(C):
            by_hand += float(probs[i, c] * loss(logits[i : i + 1], torch.tensor([c]), BEFORE)) / B
    assert math.isclose(float(loss(logits, probs, BEFORE)), by_hand, rel_tol=1e-5)


@pytest.mark.parametrize("name", LABELED_LOSSES.known)
@pytest.mark.parametrize("progress", [BEFORE, AFTER])
def test_gradients_are_finite_and_not_all_zero(name, progress):
    for labels in (drawn()[1], soft()):
        for scale in (1.0, 200.0):
            logits = (scale * drawn()[0]).requires_grad_()
            torch.manual_seed(0)
            (gradient,) = torch.autograd.grad(LABELED_LOSSES.build(name, COUNTS)(logits, labels, progress), logits)
            assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("text", ["class_balanced", "class_balanced(0.9)", "bernoulli_balanced", "logit_adjusted"])
def test_with_uniform_counts_balanced_losses_are_cross_entropy(text):
    logits, labels = drawn()
    loss, plain = (LABELED_LOSSES.build(t, torch.full((C,), 37.0)) for t in (text, "cross_entropy"))
    assert torch.allclose(loss(logits, labels, BEFORE), plain(logits, labels, BEFORE), rtol=1e-6)


def test_with_uniform_counts_deferred_weights_change_nothing():
    loss = LABELED_LOSSES.build("ldam", torch.full((C,), 37.0))
    assert torch.allclose(loss(*drawn(), BEFORE), loss(*drawn(), AFTER), rtol=1e-6)


def test_class_balanced_divides_by_the_batch_and_not_by_its_weights():
    """A batch of the rarest class alone costs its weight times cross-entropy; a normalizing mean would cancel it."""
    logits, _ = drawn()
    labels = torch.full((B,), RAREST)
    ratio = LABELED_LOSSES.build("class_balanced", COUNTS)(logits, labels, 0.0) / F.cross_entropy(logits, labels)
    assert math.isclose(float(ratio), effective(COUNTS.numpy().astype(float), 0.999)[RAREST], rel_tol=1e-5)
    assert ratio > 2


def test_class_balanced_weights_sum_to_the_number_of_classes():
    one_each = torch.zeros(C, C), torch.arange(C)
    assert math.isclose(
        float(LABELED_LOSSES.build("class_balanced", COUNTS)(*one_each, 0.0)), math.log(C), rel_tol=1e-5
    )


def test_ldam_lowers_the_rarest_class_by_margin_times_scale():
    logits, _ = drawn()
    labels = torch.full((B,), RAREST)
    for text, lowered in (("ldam", 15.0), ("ldam(scale=1.0)", 0.5), ("ldam(margin=0.2)", 6.0), ("ldam(0.0)", 0.0)):
        expected = F.cross_entropy(logits - lowered * one_hot(labels), labels)
        assert torch.allclose(LABELED_LOSSES.build(text, COUNTS)(logits, labels, BEFORE), expected, rtol=1e-5)


def test_ldam_margins_fall_with_the_fourth_root_of_the_count():
    """Two equal logits: the loss is softplus(margin)."""
    loss = LABELED_LOSSES.build("ldam", torch.tensor([1.0, 16.0]))
    for label, margin in ((0, 15.0), (1, 7.5)):
        got = float(loss(torch.zeros(1, 2), torch.tensor([label]), BEFORE))
        assert math.isclose(got, math.log1p(math.exp(margin)), rel_tol=1e-6)


def test_ldam_weighs_classes_from_start_on_and_not_before():
    loss = LABELED_LOSSES.build("ldam(start=0.5)", COUNTS)
    by_progress = [float(loss(*drawn(), progress)) for progress in (0.0, 0.499, 0.5, 1.0)]
    assert by_progress[0] == by_progress[1] != by_progress[2] == by_progress[3]


def test_ldam_weights_are_normalized_by_those_of_the_batch():
    """In a batch of one class they cancel."""
    logits, _ = drawn()
    for label in range(C):
        labels, loss = torch.full((B,), label), LABELED_LOSSES.build("ldam", COUNTS)
        assert torch.allclose(loss(logits, labels, BEFORE), loss(logits, labels, AFTER), rtol=1e-5)


@pytest.mark.parametrize("labels", ["integer", "one_hot"])
def test_bernoulli_balanced_is_cross_entropy_weighted_by_the_rarest_count_in_expectation(labels):
    logits, integer = drawn()
    times = 8000
    given = integer if labels == "integer" else one_hot(integer)
    torch.manual_seed(0)
    repeated = given.repeat(times, *[1] * (given.ndim - 1))
    got = float(LABELED_LOSSES.build("bernoulli_balanced", COUNTS)(logits.repeat(times, 1), repeated, BEFORE))
    mean = variance = 0.0
    for z, y in zip(logits.numpy().astype(float), integer.tolist(), strict=True):
        chance = float(COUNTS.min() / COUNTS[y])
        mean += chance * nll(z)[y] / B
        variance += chance * (1 - chance) * nll(z)[y] ** 2 / B**2 / times
    assert abs(got - mean) < 4 * math.sqrt(variance) < 0.05 * mean


def test_bernoulli_balanced_draws_anew_and_always_keeps_the_rarest():
    loss, (logits, labels) = LABELED_LOSSES.build("bernoulli_balanced", COUNTS), drawn()
    torch.manual_seed(0)
    assert len({float(loss(logits, labels, BEFORE)) for _ in range(20)}) > 1
    rare = torch.full((B,), RAREST)
    assert torch.allclose(loss(logits, rare, BEFORE), F.cross_entropy(logits, rare))


def test_bernoulli_balanced_divides_by_the_whole_batch():
    """Each image is in or out; the part that is in is not averaged over itself."""
    loss, logits = LABELED_LOSSES.build("bernoulli_balanced", torch.tensor([1.0, 2.0])), torch.zeros(4, 2)
    torch.manual_seed(0)
    seen = {round(4 * float(loss(logits, torch.ones(4, dtype=torch.int64), 0.0)) / math.log(2), 4) for _ in range(200)}
    assert seen == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_soft_cross_entropy_and_squared_error_equal_a_slow_loop():
    (logits, _), probs = drawn(), soft()
    entropy, error = soft_cross_entropy(logits, probs), squared_error(logits, probs)
    assert entropy.shape == error.shape == (B,)
    for i, (z, p) in enumerate(zip(logits.numpy().astype(float), probs.numpy().astype(float), strict=True)):
        q = np.exp(-nll(z))
        assert math.isclose(float(entropy[i]), sum(p[c] * nll(z)[c] for c in range(C)), rel_tol=1e-5)
        assert math.isclose(float(error[i]), sum((p[c] - q[c]) ** 2 for c in range(C)) / C, rel_tol=1e-4)


def test_unlabeled_losses_are_least_where_the_prediction_is_the_target():
    logits = drawn()[0].requires_grad_()
    probs = logits.detach().softmax(1)
    assert squared_error(logits, probs).abs().max() < 1e-12
    for loss in (soft_cross_entropy, squared_error):
        (gradient,) = torch.autograd.grad(loss(logits, probs).sum(), logits)
        assert gradient.abs().max() < 1e-6


def test_the_ramp_is_linear_then_one():
    for progress, length, expected in [(0, 0.4, 0), (0.1, 0.4, 0.25), (0.4, 0.4, 1), (0.9, 0.4, 1), (0.5, 1, 0.5)]:
        assert math.isclose(ramp(progress, length), expected)
    assert ramp(0.0, 0.0) == ramp(1.0, 0.0) == 1.0
