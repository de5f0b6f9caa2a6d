"""What an algorithm is: how a batch, a network and its heads become losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seval.data.loader import Batch
from seval.losses import LabeledLoss, soft_cross_entropy
from seval.models.network import Network
from seval.policy.base import Facts, Policy, PseudoLabels, Step, Student

#: Of logits (N, C) and target probabilities (N, C), for each row (N,).
Distance = Callable[[Tensor, Tensor], Tensor]
#: Scalars by name; a step minimizes their sum.
Losses = dict[str, Tensor]


class Head(NamedTuple):
    """A classifier's name, its loss on labels, and what makes its pseudo-labels."""

    name: str
    labeled_loss: LabeledLoss
    policy: Policy

    @torch.no_grad()
    def pseudo_labels(self, teacher: PseudoLabels, step: Step) -> PseudoLabels:
        """The teacher's predictions, refined and weighted by the policy."""
        return self.policy(teacher, step)

    def losses(
        self,
        labeled: Tensor,
        labels: Tensor,
        progress: float,
        unlabeled: Tensor | None = None,
        pseudo: PseudoLabels | None = None,
        *,
        weight: float = 1.0,
        distance: Distance = soft_cross_entropy,
    ) -> Losses:
        """By name, the loss of `labeled` logits (B, C) and, where there are any, that of `unlabeled` logits (k N, C).

        Labels are (B,) or, of mixed images, probabilities (B, C). The N pseudo-labels are the targets of k views in
        turn; `weight` is that of the unlabeled loss.
        """
        losses = {f"{self.name}/labeled": self.labeled_loss(labeled, labels, progress)}
        if unlabeled is not None and pseudo is not None:
            copies = len(unlabeled) // len(pseudo.weight)
            losses[f"{self.name}/unlabeled"] = weight * consistency(unlabeled, pseudo.repeat(copies), distance)
        return losses

    def penalties(self, pseudo: PseudoLabels, step: Step, student: Student) -> Losses:
        """By name, the extra losses of the policy's rules."""
        found = self.policy.penalties(pseudo, step, student)
        return {f"{self.name}/penalty{i}": penalty for i, penalty in enumerate(found)}


def consistency(logits: Tensor, pseudo: PseudoLabels, distance: Distance = soft_cross_entropy) -> Tensor:
    """The mean weighted distance of logits (N, C) to their pseudo-labels, over kept and dropped images alike."""
    return (pseudo.weight * distance(logits, pseudo.probs)).mean()


class Algorithm(nn.Module):
    """Algorithms that keep statistics keep them as buffers."""

    views: tuple[str, ...] = ()  # of the unlabeled images
    labeled_views: tuple[str, ...] = ("weak",)  # of the labeled images
    num_heads = 0  # exactly how many it needs; 0 is any number
    has_student = False  # whether it trains on a view as it is, which a rule's penalty needs

    def __init__(self, facts: Facts, unlabeled_weight: float) -> None:
        super().__init__()
        self.unlabeled_weight = unlabeled_weight

    @classmethod
    def extra_modules(cls, feature_dim: int) -> dict[str, nn.Module]:
        """What it trains besides the heads' classifiers, by name; each takes features (N, feature_dim)."""
        return {}

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        """The step's losses. `teacher` is the averaged network."""
        raise NotImplementedError

    def predict(self, logits: Mapping[str, Tensor]) -> Tensor:
        """The logits (N, C) that are evaluated, of those of every head by name: the last head's."""
        return logits[list(logits)[-1]]

    def refresh(self) -> dict[str, float]:
        """Re-estimate slow statistics at an evaluation and return what to log."""
        return {}


def step_of(teacher: Network, batch: Batch, features: Tensor, progress: float) -> Step:
    """What the rules may know of a training step; `features` (N, D) are those of the view that teaches."""

    @cache
    @torch.no_grad()
    def anchors() -> Tensor:
        return teacher.features(batch.images).float()

    return Step(batch.index, features.detach().float(), anchors, batch.labels, progress)
