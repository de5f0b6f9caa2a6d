"""Algorithms that ask for one prediction under two views, and supervised learning, which asks for none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from seval.algorithms.base import Algorithm, Distance, Head, Losses, step_of
from seval.data.loader import Batch
from seval.losses import ramp, soft_cross_entropy, squared_error
from seval.models.network import Network
from seval.policy.base import Facts, PseudoLabels, Step, Student


class Supervised(Algorithm):
    """The labeled loss alone."""

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        features, losses = net.features(batch.images), {}
        for head in heads:
            losses |= head.losses(net.classify(features, head.name).float(), batch.labels, progress)
        return losses


class FixMatch(Algorithm):
    """Pseudo-labels of the weak view supervise the strong one (Sohn et al., arXiv 2001.07685).

    One forward pass sees labeled, weak and strong images together, so BatchNorm does too. The loss is averaged over
    the whole unlabeled batch, kept or not, and its weight rises linearly over the share `ramp` of training.
    """

    views = ("weak", "strong")
    teaching = -2  # the view whose predictions are the pseudo-labels of the last one
    has_student = True
    distance: Distance = staticmethod(soft_cross_entropy)

    def __init__(self, facts: Facts, unlabeled_weight: float, ramp: float = 0.0) -> None:
        super().__init__(facts, unlabeled_weight)
        self.ramp = ramp

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        features = net.features(torch.cat([batch.images, *batch.views]))
        sizes = [len(batch.images), *map(len, batch.views)]
        _, *seen = features.split(sizes)
        step = step_of(teacher, batch, seen[self.teaching], progress)
        losses = {}
        for head in heads:
            labeled, *views = net.classify(features, head.name).float().split(sizes)
            pseudo = head.pseudo_labels(PseudoLabels.of(views[self.teaching].detach().softmax(1)), step)
            losses |= self.head_losses(head, labeled, Student(views[-1], seen[-1]), pseudo, step)
            losses |= self.more_losses(head, views)
        return losses

    def head_losses(self, head: Head, labeled: Tensor, student: Student, pseudo: PseudoLabels, step: Step) -> Losses:
        """All losses of a head: of labels, of the student against the pseudo-labels, and of the policy's rules."""
        weight = self.unlabeled_weight * ramp(step.progress, self.ramp)
        losses = head.losses(
            labeled, step.anchor_labels, step.progress, student.logits, pseudo, weight=weight, distance=self.distance
        )
        return losses | head.penalties(pseudo, step, student)

    def more_losses(self, head: Head, views: Sequence[Tensor]) -> Losses:
        """Losses of an algorithm's own on a head's logits (N, C) of each unlabeled view."""
        return {}


class PseudoLabel(FixMatch):
    """A view's own confident predictions are its labels (Lee, ICML Workshop 2013); weight ramped up as in DASO."""

    views = ("weak",)
    teaching = -1

    def __init__(self, facts: Facts, unlabeled_weight: float, ramp: float = 0.4) -> None:
        super().__init__(facts, unlabeled_weight, ramp)


class MeanTeacher(FixMatch):
    """The averaged network's prediction of one weak view is the target of the other (Tarvainen & Valpola, 1703.01780).

    The teacher predicts with its averaged BatchNorm statistics; the published code lets it use those of the batch.
    """

    views = ("weak", "weak")
    distance: Distance = staticmethod(squared_error)

    def __init__(self, facts: Facts, unlabeled_weight: float, ramp: float = 0.4) -> None:
        super().__init__(facts, unlabeled_weight, ramp)

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        view, other = batch.views
        features, known = net.features(torch.cat([batch.images, view])), len(batch.images)
        with torch.no_grad():
            taught = teacher.features(other)
        step = step_of(teacher, batch, taught, progress)
        losses = {}
        for head in heads:
            labeled, own = net.classify(features, head.name).float().split([known, len(view)])
            with torch.no_grad():
                predicted = teacher.classify(taught, head.name).float().softmax(1)
            pseudo = head.pseudo_labels(PseudoLabels.of(predicted), step)
            losses |= self.head_losses(head, labeled, Student(own, features[known:]), pseudo, step)
        return losses


def mutual_information(p: Tensor, q: Tensor) -> Tensor:
    """Of the classes that two views' predictions (N, C) give to the same images, in nats (IIC, arXiv 1807.06653)."""
    joint = p.T @ q
    joint = ((joint + joint.T) / (2 * joint.sum())).clamp_min(torch.finfo(joint.dtype).eps)
    rows, columns = joint.sum(1, keepdim=True), joint.sum(0, keepdim=True)
    return (joint * (joint.log() - rows.log() - columns.log())).sum()


class Usadtm(FixMatch):
    """Semantic aggregation: the plain, weak and strong views tell much of one another's class (Han et al., 2010.05517).

    Its labels by template matching are the rules `template_threshold | template_label` of the policy.
    """

    views = ("eval", "weak", "strong")

    def __init__(self, facts: Facts, unlabeled_weight: float, information: float = 0.1) -> None:
        super().__init__(facts, unlabeled_weight)
        self.information = information

    def more_losses(self, head: Head, views: Sequence[Tensor]) -> Losses:
        plain, weak, strong = (logits.softmax(1) for logits in views)
        pairs = ((plain, weak), (plain, strong), (weak, strong))
        shared = reduce(torch.add, (mutual_information(*pair) for pair in pairs))
        return {f"{head.name}/information": -self.information * shared / 3}
