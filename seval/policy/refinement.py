"""Rules that refine the probabilities (the paper's PLR)."""

from __future__ import annotations

import torch
from torch import Tensor

from seval.policy.base import Facts, PseudoLabels, Rule, Step


def divide(probs: Tensor, offset: Tensor) -> Tensor:
    """Rows of softmax(z - log offset) from rows of softmax(z): two (N, C), (C,) -> (N, C).

    The factor is the ratio of the row sums, so that a uniform offset of 1 returns the very same bits.
    """
    divided = probs / offset
    return divided * (probs.sum(1, keepdim=True) / divided.sum(1, keepdim=True))


class LogitAdjust(Rule):
    """softmax(z - tau log prior), the prior being the labeled one (post-hoc logit adjustment of the pseudo-labels).

    Menon et al., arXiv 2007.07314; on pseudo-labels as "FixMatch w/ LA" of SEVAL, arXiv 2407.05370.
    """

    def __init__(self, facts: Facts, tau: float = 1.0) -> None:
        super().__init__()
        prior = facts.class_counts / facts.class_counts.sum()
        self.register_buffer("offset", prior**tau, persistent=False)

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=divide(pseudo.probs, self.offset))


def one_hot(probs: Tensor) -> Tensor:
    """All of a row's mass on its largest entry, the first one of several: (N, C) -> (N, C)."""
    return torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1.0)


class OneHot(Rule):
    """Hard pseudo-labels."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=one_hot(pseudo.probs))
