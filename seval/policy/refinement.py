"""Rules that refine the probabilities (the paper's PLR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seval.errors import PolicyError
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
        self.offset = nn.Buffer(prior**tau, persistent=False)

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=divide(pseudo.probs, self.offset))


def align(probs: Tensor, target: Tensor, running: Tensor) -> Tensor:
    """Rows scaled class by class by target / running mean, then normalized: (N, C), two (C,) -> (N, C)."""
    return divide(probs, (running + 1e-6) / (target + 1e-6))


class Align(Rule):
    """Distribution alignment: scale predictions as if their running mean were the labeled prior.

    ReMixMatch (Berthelot et al., arXiv 1911.09785); the prior to the power `temperature`, normalized, is CReST+'s (Wei
    et al., arXiv 2102.09559). The mean is over the last `window` batches, this one included.
    """

    def __init__(self, facts: Facts, temperature: float = 1.0, window: int = 128) -> None:
        super().__init__()
        if window < 1:
            raise PolicyError(f"align window is {window}, but at least the present batch must be in it")
        target = (facts.class_counts / facts.class_counts.sum()) ** temperature
        self.target = nn.Buffer(target / target.sum(), persistent=False)
        self.means = nn.Buffer(torch.zeros(window, facts.num_classes))  # of the last batches, in turn
        self.seen = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is not None:
            self.means[self.seen % len(self.means)] = pseudo.probs.mean(0)
            self.seen += 1
        running = self.means.sum(0) / self.seen.clamp(1, len(self.means))
        aligned = align(pseudo.probs, self.target, running)
        return pseudo._replace(probs=torch.where(self.seen > 0, aligned, pseudo.probs))


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Rows proportional to probs^(1/T): (N, C) -> (N, C)."""
    powered = probs ** (1 / temperature)
    return powered / powered.sum(1, keepdim=True)


class Sharpen(Rule):
    """Sharpening of MixMatch (Berthelot et al., arXiv 1905.02249)."""

    def __init__(self, facts: Facts, temperature: float = 0.5) -> None:
        super().__init__()
        if temperature <= 0:
            raise PolicyError(f"sharpen temperature is {temperature:g}, but must be above 0; below 1 sharpens")
        self.temperature = temperature

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=sharpen(pseudo.probs, self.temperature))


def one_hot(probs: Tensor) -> Tensor:
    """All of a row's mass on its largest entry, the first one of several: (N, C) -> (N, C)."""
    return torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1.0)


class OneHot(Rule):
    """Hard pseudo-labels."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=one_hot(pseudo.probs))
