"""Algorithms that make the predictions on two views agree, and supervised learning."""

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
    """Only the labeled loss."""

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        features, losses = net.features(batch.images), {}
        for head in heads:
            losses |= head.losses(net.classify(features, head.name).float(), batch.labels, progress)
        return losses


class FixMatch(Algorithm):
    """Pseudo-labels from the weak view supervise the strong view (Sohn et al., arXiv 2001.07685).

    One forward pass sees labeled, weak and strong images together, so they share BatchNorm statistics. The loss is the
    mean over the unlabeled batch, kept or not. Its weight rises linearly over the share `ramp` of training.
    """

    views = ("weak", "strong")
    teaching = -2  # index of the view that makes the pseudo-labels; the last view learns them
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
            pseudo = head.policy(PseudoLabels.of(views[self.teaching].detach().softmax(1)), step)
            losses |= self.head_losses(head, labeled, Student(views[-1], seen[-1]), pseudo, step)
            losses |= self.more_losses(head, views)
        return losses

    def head_losses(self, head: Head, labeled: Tensor, student: Student, pseudo: PseudoLabels, step: Step) -> Losses:
        """All losses of a head: on labels, of the student against the pseudo-labels, and from the policy's rules."""
        weight = self.unlabeled_weight * ramp(step.progress, self.ramp)
        losses = head.losses(
            labeled, step.anchor_labels, step.progress, student.logits, pseudo, weight=weight, distance=self.distance
        )
        return losses | head.penalties(pseudo, step, student)

    def more_losses(self, head: Head, views: Sequence[Tensor]) -> Losses:
        """Further losses of an algorithm, from a head's logits (N, C) on each unlabeled view."""
        return {}


class PseudoLabel(FixMatch):
    """A view learns its own confident predictions (Lee, ICML Workshop 2013); the weight is ramped up as in DASO."""

    views = ("weak",)
    teaching = -1

    def __init__(self, facts: Facts, unlabeled_weight: float, ramp: float = 0.4) -> None:
        super().__init__(facts, unlabeled_weight, ramp)


class MeanTeacher(FixMatch):
    """The averaged network's prediction on one weak view is the target of the other (Tarvainen & Valpola, 1703.01780).

    The teacher uses its averaged BatchNorm statistics; in the published code it uses those of the batch.
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
            predicted = [teacher.classify(taught, head.name).float().softmax(1) for head in heads]
        step = step_of(teacher, batch, taught, progress)
        losses = {}
        for head, probs in zip(heads, predicted, strict=True):
            labeled, own = net.classify(features, head.name).float().split([known, len(view)])
            pseudo = head.policy(PseudoLabels.of(probs), step)
            losses |= self.head_losses(head, labeled, Student(own, features[known:]), pseudo, step)
        return losses


def mutual_information(p: Tensor, q: Tensor) -> Tensor:
    """Mutual information, in nats, of predicted classes on two views of the images: two (N, C) (IIC, 1807.06653)."""
    joint = p.T @ q
    joint = ((joint + joint.T) / (2 * joint.sum())).clamp_min(torch.finfo(joint.dtype).eps)
    rows, columns = joint.sum(1, keepdim=True), joint.sum(0, keepdim=True)
    return (joint * (joint.log() - rows.log() - columns.log())).sum()


class Usadtm(FixMatch):
    """Semantic aggregation: high mutual information of plain, weak and strong views (Han et al., arXiv 2010.05517).

    Labels by template matching are a matter of the policy: `template_threshold | template_label`.
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
