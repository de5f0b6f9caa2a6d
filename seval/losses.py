"""Losses of logits, as pure functions, and the labeled losses a head can name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seval.recipes import Kind

#: Of logits (B, C), labels (B,) or, of mixed images, probabilities (B, C), and progress in [0, 1].
LabeledLoss = Callable[[Tensor, Tensor, float], Tensor]


def soft_cross_entropy(logits: Tensor, probs: Tensor) -> Tensor:
    """H(probs, softmax(logits)) of each row: two (N, C) -> (N,)."""
    return -(probs * F.log_softmax(logits, dim=1)).sum(dim=1)


def squared_error(logits: Tensor, probs: Tensor) -> Tensor:
    """Mean over classes of the squared difference of probs and softmax(logits): two (N, C) -> (N,)."""
    return (logits.softmax(1) - probs).square().mean(1)


def as_probs(labels: Tensor, num_classes: int) -> Tensor:
    """(B, C) float: probabilities as they are, labels (B,) as one-hot rows."""
    return labels if labels.is_floating_point() else F.one_hot(labels, num_classes).float()


def ramp(progress: float, length: float) -> float:
    """From 0 at the start linearly to 1 after the share `length` of training; 1 throughout where that is 0."""
    return min(progress / length, 1.0) if length else 1.0


def cross_entropy(class_counts: Tensor) -> LabeledLoss:
    """Mean cross-entropy."""
    return lambda logits, labels, progress: F.cross_entropy(logits, labels)


def logit_adjusted(class_counts: Tensor, tau: float = 1.0) -> LabeledLoss:
    """Mean cross-entropy of logits + tau log prior (logit adjustment in training, Menon et al., arXiv 2007.07314)."""
    offset = tau * torch.log(class_counts / class_counts.sum())
    return lambda logits, labels, progress: F.cross_entropy(logits + offset, labels)


def effective_number_weights(class_counts: Tensor, beta: float) -> Tensor:
    """(C,) weights (1 - beta) / (1 - beta^n), of mean 1 (class-balanced loss, Cui et al., arXiv 1901.05555).

    beta = 0 weighs all classes alike; an absent class weighs as one with a single image.
    """
    weights = (1 - beta) / (1 - beta ** class_counts.double().clamp_min(1))
    return (weights / weights.mean()).float()


def class_balanced(class_counts: Tensor, beta: float = 0.999) -> LabeledLoss:
    """Mean of the cross-entropies, each weighted by its class's inverse effective number (Cui et al., 1901.05555)."""
    weights = effective_number_weights(class_counts, beta)
    return lambda logits, labels, progress: F.cross_entropy(logits, labels, weights, reduction="sum") / len(labels)


def ldam(
    class_counts: Tensor, margin: float = 0.5, scale: float = 30.0, beta: float = 0.9999, start: float = 0.8
) -> LabeledLoss:
    """Label-distribution-aware margins, with deferred re-weighting (LDAM-DRW, Cao et al., arXiv 1906.07413).

    `scale` is that of the head's cosine classifier; a class's margin, in cosine, falls as n^(-1/4) from `margin` for
    the rarest. From the share `start` of training on, classes weigh by their effective numbers, and the loss is divided
    by the weights of the batch, as there.
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
    """Cross-entropy of a balanced random part of the batch, over the whole batch (ABC, Lee et al., arXiv 2110.10368).

    A label of class c takes part with probability min(n) / n_c, drawn anew at every step.
    """
    chance = (class_counts[class_counts > 0].min() / class_counts.clamp_min(1)).clamp(max=1)

    def loss(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
        taken = torch.bernoulli(as_probs(labels, len(chance)) @ chance)
        return (taken * F.cross_entropy(logits, labels, reduction="none")).mean()

    return loss


LABELED_LOSSES = Kind(
    "labeled loss",
    {
        "cross_entropy": cross_entropy,
        "logit_adjusted": logit_adjusted,
        "class_balanced": class_balanced,
        "ldam": ldam,
        "bernoulli_balanced": bernoulli_balanced,
    },
    given=1,
)
