"""Algorithms that make the predictions on two views agree, and supervised learning."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from seval.algorithms.base import Algorithm, Distance, Head, Losses, step_of
from seval.data.loader import Batch
from seval.errors import RecipeError
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
    mean over the unlabeled batch, kept or not; with `normalize='kept'` it is divided by the sum of the weights. Its
    weight rises linearly over the share `ramp` of training. With `strong` strong views, each learns the pseudo-labels;
    with `strong_labels`, a strong view of the labeled images learns their labels, too.

    A head whose classifier has several groups of classes learns a label in each group that contains it.
    """

    views = ("weak", "strong")
    teaching = -2  # index of the view that makes the pseudo-labels; the last view learns them
    has_student = True
    distance: Distance = staticmethod(soft_cross_entropy)

    def __init__(
        self,
        facts: Facts,
        unlabeled_weight: float,
        ramp: float = 0.0,
        strong: int = 1,
        normalize: str = "batch",
        strong_labels: bool = False,
    ) -> None:
        super().__init__(facts, unlabeled_weight)
        if not 1 <= strong <= 8 or normalize not in ("batch", "kept"):
            raise RecipeError(
                f"strong is {strong} and normalize {normalize!r}, but must be 1 to 8 strong views, and batch or kept"
            )
        self.ramp, self.strong, self.per_kept = ramp, strong, normalize == "kept"
        self.views = (*self.views[:-1], *self.views[-1:] * strong)
        self.teaching -= strong - 1
        self.labeled_views = ("weak", "strong") if strong_labels else ("weak",)
        self.rank = nn.Buffer(facts.rank, persistent=False)

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        features = net.features(torch.cat([*batch.labeled, *batch.views]))
        sizes = [len(batch.labels) * len(batch.labeled), *map(len, batch.views)]
        _, *seen = features.split(sizes)
        grouped = {head.name: net.groups(features, head.name).float() for head in heads}
        plain = {name: (found.mean(0) if len(found) > 1 else found[0]).split(sizes) for name, found in grouped.items()}
        step = step_of(net, teacher, batch, seen[self.teaching], progress, {name: z[1:] for name, z in plain.items()})
        losses = {}
        for head in heads:
            labeled, *views = plain[head.name]
            pseudo = head.policy(PseudoLabels.of(views[self.teaching].detach().softmax(1)), step)
            students = [Student(*seen_as, i) for i, seen_as in enumerate(zip(views, seen, strict=True))][-self.strong :]
            groups = grouped[head.name][:, -self.strong * len(pseudo.weight) :], net.cuts(head.name)
            losses |= self.head_losses(head, labeled, students, pseudo, step, groups)
            losses |= self.more_losses(head, views)
        return losses

    def head_losses(
        self,
        head: Head,
        labeled: Tensor,
        students: Sequence[Student],
        pseudo: PseudoLabels,
        step: Step,
        groups: tuple[Tensor, tuple[int, ...]] | None = None,
    ) -> Losses:
        """All losses of a head: on labels, of the students against the pseudo-labels, and from the policy's rules.

        `groups` are the students' logits (G, k N, C) by group of classes, and the rank of the first class of each.
        """
        weight, labels = self.unlabeled_weight * ramp(step.progress, self.ramp), step.anchor_labels
        learner, taught = by_group(*groups, self.rank, pseudo) if groups else (students[-1].logits, pseudo)
        losses = head.losses(
            labeled,
            torch.cat([labels] * (len(labeled) // len(labels))),
            step.progress,
            learner,
            taught,
            weight=weight,
            distance=self.distance,
            per_kept=self.per_kept,
        )
        return losses | head.penalties(pseudo, step, *students)

    def more_losses(self, head: Head, views: Sequence[Tensor]) -> Losses:
        """Further losses of an algorithm, from a head's logits (N, C) on each unlabeled view."""
        return {}


def by_group(logits: Tensor, cuts: tuple[int, ...], rank: Tensor, pseudo: PseudoLabels) -> tuple[Tensor, PseudoLabels]:
    """Logits (G, k N, C) as rows, and a pseudo-label for each: of weight 0 in groups that its class is not in.

    Group g has the classes whose rank (C,) is at least cuts[g]. Weights are multiplied by G, so that a mean over the
    rows is the mean over images of the sum over groups.
    """
    number, copies = len(logits), logits.shape[1] // len(pseudo.weight)
    if number == 1:
        return logits[0], pseudo
    within = torch.stack([rank >= cut for cut in cuts])[:, pseudo.probs.argmax(1)]  # (G, N)
    weight = (number * pseudo.weight * within).repeat(1, copies).flatten()
    return logits.flatten(0, 1), PseudoLabels(pseudo.probs.repeat(number * copies, 1), weight)


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
        step = step_of(net, teacher, batch, taught, progress)
        losses = {}
        for head, probs in zip(heads, predicted, strict=True):
            labeled, own = net.classify(features, head.name).float().split([known, len(view)])
            pseudo = head.policy(PseudoLabels.of(probs), step)
            losses |= self.head_losses(head, labeled, [Student(own, features[known:])], pseudo, step)
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
