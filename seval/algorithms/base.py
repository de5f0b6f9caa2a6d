"""What an algorithm is: how a batch, a network and its heads become losses."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seval.data.loader import Batch
from seval.losses import LabeledLoss, soft_cross_entropy
from seval.models.network import Network
from seval.policy.base import Facts, Policy, PseudoLabels, Step, Student

#: Takes logits (N, C) and target probabilities (N, C), returns the distance of each row (N,).
Distance = Callable[[Tensor, Tensor], Tensor]
#: Scalars by name; a step minimizes their sum.
Losses = dict[str, Tensor]


class Head(NamedTuple):
    """A classifier's name, its labeled loss and the weight of that, and the policy that makes its pseudo-labels."""

    name: str
    labeled_loss: LabeledLoss
    policy: Policy
    labeled_weight: float = 1.0

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
        per_kept: bool = False,
    ) -> Losses:
        """By name: the loss of `labeled` logits (B, C) and, if given, the loss of `unlabeled` logits (k N, C).

        Labels are (B,) or, for mixed images, probabilities (B, C). The N pseudo-labels are the targets of each of the
        k views. `weight` multiplies the unlabeled loss. The policy's margins are added to the logits first.
        """
        margins = self.policy.margins(progress)
        labeled = labeled if margins.labeled is None else labeled + margins.labeled
        losses = {f"{self.name}/labeled": self.labeled_weight * self.labeled_loss(labeled, labels, progress)}
        if unlabeled is not None and pseudo is not None:
            unlabeled = unlabeled if margins.unlabeled is None else unlabeled + margins.unlabeled
            taught = pseudo.repeat(len(unlabeled) // len(pseudo.weight))
            losses[f"{self.name}/unlabeled"] = weight * consistency(unlabeled, taught, distance, per_kept)
        return losses

    def penalties(self, pseudo: PseudoLabels, step: Step, *students: Student) -> Losses:
        """By name: the extra losses of the policy's rules, each the mean over the views that are trained on."""
        found = zip(*(self.policy.penalties(pseudo, step, student) for student in students), strict=True)
        return {f"{self.name}/penalty{i}": reduce(torch.add, views) / len(views) for i, views in enumerate(found)}


def consistency(
    logits: Tensor, pseudo: PseudoLabels, distance: Distance = soft_cross_entropy, per_kept: bool = False
) -> Tensor:
    """The mean weighted distance of logits (N, C) to their pseudo-labels.

    The mean includes dropped images; with `per_kept`, the sum is divided by the sum of the weights instead.
    """
    distances = pseudo.weight * distance(logits, pseudo.probs)
    return distances.sum() / pseudo.weight.sum().clamp_min(1e-6) if per_kept else distances.mean()


class Algorithm(nn.Module):
    """Turns a batch into losses. An algorithm's statistics are buffers, so that they are saved with the run."""

    views: tuple[str, ...] = ()  # of the unlabeled images
    labeled_views: tuple[str, ...] = ("weak",)  # of the labeled images
    balanced = False  # whether it calls `Batch.balanced`
    resized_first = False  # whether RandAugment sees images at the size that the network sees, not as they are stored
    num_heads = 0  # how many heads it needs; 0 is any number
    has_student = False  # whether it trains on an unmixed view, which a rule's penalty needs
    rotates = False  # whether it turns views by a right angle, so that they must be square

    def __init__(self, facts: Facts, unlabeled_weight: float) -> None:
        super().__init__()
        self.unlabeled_weight = unlabeled_weight

    @classmethod
    def extra_modules(cls, feature_dim: int) -> dict[str, nn.Module]:
        """Modules to train besides the classifiers of the heads, by name; each takes features (N, feature_dim)."""
        return {}

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        """The losses of a step by name; their sum is minimized. `teacher` is the averaged network."""
        raise NotImplementedError

    def predict(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Choose the logits (N, C) to evaluate from the logits of all heads; here those of the last head."""
        return logits[list(logits)[-1]]

    def refresh(self) -> dict[str, float]:
        """Update slow statistics at an evaluation; return values to log."""
        return {}


def step_of(
    net: Network,
    teacher: Network,
    batch: Batch,
    features: Tensor,
    progress: float,
    logits: Mapping[str, Sequence[Tensor]] | None = None,
) -> Step:
    """What the rules are given about a training step.

    `features` (N, D) are from the view that teaches, `logits` (N, C) by head from every unlabeled view.
    """

    @cache
    @torch.no_grad()
    def anchors() -> Tensor:
        return teacher.features(batch.images).float()

    @cache
    def blank(value: float | None) -> dict[str, Tensor]:
        return net.blank(batch.images[0], batch.black if value is None else value)

    seen = {head: tuple(view.detach() for view in views) for head, views in (logits or {}).items()}
    return Step(
        batch.index,
        features.detach().float(),
        anchors,
        batch.labels,
        progress,
        seen,
        lambda head, value: blank(value)[head],
        lambda head: net.bias(head),
    )
