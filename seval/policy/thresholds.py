"""Rules that set the weights (the paper's THA)."""

from __future__ import annotations

from torch import Tensor

from seval.policy.base import Facts, PolicyError, PseudoLabels, Rule, Step


def above(probs: Tensor, tau: Tensor | float) -> Tensor:
    """1 where a row's largest probability reaches tau, or tau of its class, else 0: (N, C), scalar or (C,) -> (N,)."""
    confidence, label = probs.max(dim=1)
    return (confidence >= (tau[label] if isinstance(tau, Tensor) else tau)).to(probs.dtype)


class Threshold(Rule):
    """FixMatch's fixed threshold (Sohn et al., arXiv 2001.07685): keep what is at least tau confident."""

    def __init__(self, facts: Facts, tau: float = 0.95) -> None:
        super().__init__()
        if not 0 <= tau <= 1:
            raise PolicyError(f"threshold tau is {tau:g}, but a confidence lies between 0 and 1")
        self.tau = tau

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(weight=pseudo.weight * above(pseudo.probs, self.tau))
