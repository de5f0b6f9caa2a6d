"""Algorithms that ask for one prediction under two views: supervised learning (none) and FixMatch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seval.data.loader import Batch
from seval.losses import LabeledLoss, soft_cross_entropy
from seval.models.network import Network
from seval.policy.base import Policy, PseudoLabels, Step


class Head(NamedTuple):
    """A classifier's name, its loss on labels, and what makes its pseudo-labels."""

    name: str
    labeled_loss: LabeledLoss
    policy: Policy


class Supervised:
    """The labeled loss alone."""

    views: tuple[str, ...] = ()  # of the unlabeled images

    def __init__(self, unlabeled_weight: float = 0.0) -> None:
        self.unlabeled_weight = unlabeled_weight

    def losses(
        self, net: Network, teacher: nn.Module, batch: Batch, heads: Sequence[Head], progress: float
    ) -> dict[str, Tensor]:
        """The step's losses by name; their sum is minimized."""
        features = net.features(batch.images)
        return {
            f"{head.name}/labeled": head.labeled_loss(net.classify(features, head.name), batch.labels) for head in heads
        }


class FixMatch(Supervised):
    """Pseudo-labels of the weak view supervise the strong one (Sohn et al., arXiv 2001.07685).

    One forward pass sees labeled, weak and strong images together, so BatchNorm does too. The loss is averaged over
    the whole unlabeled batch, kept or not.
    """

    views = ("weak", "strong")

    def losses(
        self, net: Network, teacher: nn.Module, batch: Batch, heads: Sequence[Head], progress: float
    ) -> dict[str, Tensor]:
        labeled, unlabeled = len(batch.images), len(batch.index)
        sizes = (labeled, unlabeled, unlabeled)
        features = net.features(torch.cat([batch.images, *batch.views]))
        anchors, weak_features, _ = features.detach().split(sizes)
        step = Step(batch.index, weak_features, anchors, batch.labels, progress)
        losses = {}
        for head in heads:
            logits, weak, strong = net.classify(features, head.name).float().split(sizes)
            with torch.no_grad():
                pseudo = head.policy(PseudoLabels.of(weak.softmax(1)), step)
            losses[f"{head.name}/labeled"] = head.labeled_loss(logits, batch.labels)
            losses[f"{head.name}/unlabeled"] = (
                self.unlabeled_weight * (pseudo.weight * soft_cross_entropy(strong, pseudo.probs)).mean()
            )
            for i, penalty in enumerate(head.policy.penalties(pseudo, step, strong)):
                losses[f"{head.name}/penalty{i}"] = penalty
        return losses
