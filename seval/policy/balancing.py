"""Rules that weight pseudo-labels by class, so that all classes count equally (LTL in the paper)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.losses import effective_number_weights
from seval.policy.base import Facts, HeldOut, PseudoLabels, Rule, Step


class BernoulliBalance(Rule):
    """Keeps a random part of the pseudo-labels, more and more balanced by class (ABC, Lee et al., arXiv 2110.10368).

    At progress e, a pseudo-label of class c is kept with probability 1 - e (1 - min(n) / n_c); n are labeled counts.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        counts = facts.class_counts
        self.chance = nn.Buffer((counts[counts > 0].min() / counts.clamp_min(1)).clamp(max=1), persistent=False)

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is None:
            return pseudo
        chance = 1 - step.progress * (1 - self.chance[pseudo.probs.argmax(1)])
        return pseudo._replace(weight=pseudo.weight * torch.bernoulli(chance).to(pseudo.weight.dtype))


class GroupWeight(Rule):
    """CPE's weights (Ma et al., arXiv 2312.15702): 1 for head, 2 for medium and 3 for tail classes.

    Medium classes begin at rank `medium` by labeled images, tail classes at rank `tail`. This is CPE's loss with one
    classifier in place of the class-wise ones: each label is learned once in every group that contains its class.
    """

    def __init__(self, facts: Facts, medium: int, tail: int) -> None:
        super().__init__()
        if not 0 < medium <= tail < facts.num_classes:
            raise PolicyError(
                f"group_weight({medium}, {tail}) of {facts.num_classes} classes; cuts must be 0 < medium <= tail < C"
            )
        rank = facts.rank
        self.groups = nn.Buffer(1.0 + (rank >= medium) + (rank >= tail), persistent=False)

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(weight=pseudo.weight * self.groups[pseudo.probs.argmax(1)])


class Saw(Rule):
    """Smoothed adaptive weighting (Lai et al., ICML 2022): class weights from effective numbers of pseudo-labels.

    The last prediction of each unlabeled image is counted at every evaluation, and the counts are scaled to the whole
    unlabeled set. beta = (N - 1) / N, with N the mean count. The weights have mean 1 over the classes.
    """

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.label = nn.Buffer(torch.full((facts.num_unlabeled,), -1))  # last prediction of each image
        self.class_weights = nn.Buffer(torch.ones(facts.num_classes))

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        label = pseudo.probs.argmax(1)
        if step is not None:
            self.label[step.index] = label
        return pseudo._replace(weight=pseudo.weight * self.class_weights[label].to(pseudo.weight.dtype))

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        seen = self.label[self.label >= 0]
        if len(seen):
            counts = torch.bincount(seen, minlength=len(self.class_weights)).double() * (len(self.label) / len(seen))
            mean = float(counts.mean())
            self.class_weights.copy_(effective_number_weights(counts, max(mean - 1, 0) / mean))
        return {f"saw_{stat}": float(getattr(self.class_weights, stat)()) for stat in ("min", "max")}
