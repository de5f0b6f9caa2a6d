"""Rules that refine the probabilities (PLR in the paper)."""

import torch
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.policy.base import Facts, PseudoLabels, Rule, Step

LONGEST_WINDOW = 100_000  # batches


def divide(probs: Tensor, offset: Tensor) -> Tensor:
    """Turn rows softmax(z) into rows softmax(z - log offset): (N, C), (C,) -> (N, C).

    Rows are scaled by the ratio of the row sums, so that an offset of 1 for all classes returns identical bits.
    """
    divided = probs / offset
    return divided * (probs.sum(1, keepdim=True) / divided.sum(1, keepdim=True))


class LogitAdjust(Rule):
    """softmax(z - tau log prior), with the class prior of the labels: post-hoc logit adjustment of pseudo-labels.

    Menon et al., arXiv 2007.07314; on pseudo-labels as "FixMatch w/ LA" of SEVAL, arXiv 2407.05370.
    """

    def __init__(self, facts: Facts, tau: float = 1.0) -> None:
        super().__init__()
        prior = facts.prior
        self.offset = nn.Buffer(prior**tau, persistent=False)

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=divide(pseudo.probs, self.offset))


def align(probs: Tensor, target: Tensor, running: Tensor) -> Tensor:
    """Multiply each class by target / running mean, then normalize the rows: (N, C), two (C,) -> (N, C)."""
    return divide(probs, (running + 1e-6) / (target + 1e-6))


class Align(Rule):
    """Distribution alignment: scale predictions so that their running mean approaches the class prior of the labels.

    As in ReMixMatch (Berthelot et al., arXiv 1911.09785). The prior to the power `temperature`, normalized, is used by
    CReST+ (Wei et al., arXiv 2102.09559). The mean is over the last `window` batches, including the current batch.
    """

    def __init__(self, facts: Facts, temperature: float = 1.0, window: int = 128) -> None:
        super().__init__()
        if not 1 <= window <= LONGEST_WINDOW:
            raise PolicyError(f"align window is {window}, but must be 1 (the current batch) to {LONGEST_WINDOW}")
        target = facts.prior**temperature
        self.target = nn.Buffer(target / target.sum(), persistent=False)
        self.means = nn.Buffer(torch.zeros(window, facts.num_classes))  # of the last batches, as a ring
        self.seen = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is not None:
            place = (self.seen % len(self.means)).unsqueeze(0)  # as a number it would be read back
            self.means.index_copy_(0, place, pseudo.probs.mean(0, keepdim=True).to(self.means.dtype))
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
    """Put the whole mass of a row on its largest entry; the first if several are equal: (N, C) -> (N, C)."""
    return torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1.0)


class OneHot(Rule):
    """Hard pseudo-labels."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=one_hot(pseudo.probs))
