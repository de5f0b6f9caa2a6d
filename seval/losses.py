"""Losses of logits, as pure functions, and the labeled losses a head can name."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seval.policy.base import parse_call

LabeledLoss = Callable[[Tensor, Tensor], Tensor]


def soft_cross_entropy(logits: Tensor, probs: Tensor) -> Tensor:
    """H(probs, softmax(logits)) of each row: two (N, C) -> (N,)."""
    return -(probs * F.log_softmax(logits, dim=1)).sum(dim=1)


def cross_entropy(class_counts: Tensor) -> LabeledLoss:
    """Mean cross-entropy."""
    return lambda logits, labels: F.cross_entropy(logits, labels)


def logit_adjusted(class_counts: Tensor, tau: float = 1.0) -> LabeledLoss:
    """Mean cross-entropy of logits + tau log prior (logit adjustment in training, Menon et al., arXiv 2007.07314)."""
    offset = tau * torch.log(class_counts / class_counts.sum())
    return lambda logits, labels: F.cross_entropy(logits + offset, labels)


LABELED_LOSSES = {"cross_entropy": cross_entropy, "logit_adjusted": logit_adjusted}


def build_labeled_loss(text: str, class_counts: Tensor) -> LabeledLoss:
    """The loss named in a configuration, such as `logit_adjusted(1.0)`; `class_counts` (C,) are the labeled ones."""
    call = parse_call(text, LABELED_LOSSES, kind="labeled loss", skip=1)
    return LABELED_LOSSES[call.name](class_counts, **call.arguments)
