"""Losses as pure functions of logits, and the labeled losses that a head can name."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seval.errors import RecipeError
from seval.recipes import Kind

#: Takes logits (B, C), labels (B,) (for mixed images: probabilities (B, C)) and progress in [0, 1].
LabeledLoss = Callable[[Tensor, Tensor, float], Tensor]


def soft_cross_entropy(logits: Tensor, probs: Tensor) -> Tensor:
    """H(probs, softmax(logits)) of each row: two (N, C) -> (N,)."""
    return -(probs * F.log_softmax(logits, dim=1)).sum(dim=1)


def squared_error(logits: Tensor, probs: Tensor) -> Tensor:
    """Mean over classes of the squared difference of probs and softmax(logits): two (N, C) -> (N,)."""
    return (logits.softmax(1) - probs).square().mean(1)


def as_probs(labels: Tensor, num_classes: int) -> Tensor:
    """(B, C) float: probabilities are returned unchanged, labels (B,) as one-hot rows."""
    return labels if labels.is_floating_point() else F.one_hot(labels, num_classes).float()


def ramp(progress: float, length: float) -> float:
    """Rises linearly from 0 to 1 over the first share `length` of training, then stays 1; always 1 if `length` is 0."""
    return min(progress / length, 1.0) if length else 1.0


def cross_entropy(class_counts: Tensor) -> LabeledLoss:
    """Mean cross-entropy."""
    return lambda logits, labels, progress: F.cross_entropy(logits, labels)


def logit_adjusted(class_counts: Tensor, tau: float = 1.0) -> LabeledLoss:
    """Mean cross-entropy of logits + tau log prior (logit adjustment in training, Menon et al., arXiv 2007.07314)."""
    offset = tau * torch.log(class_counts / class_counts.sum())
    return lambda logits, labels, progress: F.cross_entropy(logits + offset, labels)


def effective_number_weights(class_counts: Tensor, beta: float) -> Tensor:
    """(C,) weights (1 - beta) / (1 - beta^n), scaled to mean 1 (class-balanced loss, Cui et al., arXiv 1901.05555).

    beta = 0 gives all classes the same weight. A class without images gets the weight of a class with one image.
    Raises `RecipeError` unless 0 <= beta < 1.
    """
    if not 0 <= beta < 1:
        raise RecipeError(f"beta is {beta:g}, but must be at least 0 and below 1")
    weights = (1 - beta) / (1 - beta ** class_counts.double().clamp_min(1))
    return (weights / weights.mean()).float()


def class_balanced(class_counts: Tensor, beta: float = 0.999) -> LabeledLoss:
    """Mean cross-entropy, weighted by the inverse effective number of each class (Cui et al., arXiv 1901.05555)."""
    weights = effective_number_weights(class_counts, beta)
    return lambda logits, labels, progress: F.cross_entropy(logits, labels, weights, reduction="sum") / len(labels)


def ldam(
    class_counts: Tensor, margin: float = 0.5, scale: float = 30.0, beta: float = 0.9999, start: float = 0.8
) -> LabeledLoss:
    """Label-distribution-aware margins, with deferred re-weighting (LDAM-DRW, Cao et al., arXiv 1906.07413).

    `scale` must be the scale of the head's cosine classifier. The margin of a class, in units of the cosine, is
    proportional to n^(-1/4); the rarest class has `margin`. After the share `start` of training, classes are weighted
    by inverse effective number. The loss is divided by the sum of the weights in the batch, as published.
    """
    margins = class_counts.clamp_min(1) ** -0.25
    margins = scale * margin * margins / margins.max()
    deferred = effective_number_weights(class_counts, beta)

    def loss(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
        probs = as_probs(labels, len(margins))
        weights = probs * (deferred if progress >= start else torch.ones_like(deferred))
        return -(weights * F.log_softmax(logits - margins * probs, 1)).sum() / weights.sum()

    return loss


def bernoulli_balanced(class_counts: Tensor) -> LabeledLoss:
    """Cross-entropy of a balanced random part of the batch, over the batch size (ABC, Lee et al., arXiv 2110.10368).

    A label of class c takes part with probability min(n) / n_c, drawn anew at every step.
    """
    chance = (class_counts[class_counts > 0].min() / class_counts.clamp_min(1)).clamp(max=1)

    def loss(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
        taken = torch.bernoulli(as_probs(labels, len(chance)) @ chance)
        return (taken * F.cross_entropy(logits, labels, reduction="none")).mean()

    return loss


_LOSSES = (cross_entropy, logit_adjusted, class_balanced, ldam, bernoulli_balanced)
LABELED_LOSSES = Kind("labeled loss", {loss.__name__: loss for loss in _LOSSES}, given=1)
