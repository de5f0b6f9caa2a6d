"""CoSSL: a classifier that is trained apart, on features in balance, teaches the network."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from seval.algorithms.base import Head, Losses, step_of
from seval.algorithms.consistency import FixMatch
from seval.data.loader import Batch
from seval.errors import RecipeError
from seval.models.network import Network
from seval.policy.base import Facts, PseudoLabels, Student


class CoSSL(FixMatch):
    """Co-learning of a representation and a balanced classifier (Fan, Dai & Schiele, arXiv 2112.04564).

    Until the share `start` of training, the first head and the backbone learn as in FixMatch with two strong views.
    Then the second head h teaches: `h.policy` makes the pseudo-labels of both strong views from h(f(weak view)), where
    f are the features of the averaged network in evaluation mode. h itself learns from the share `start - warm` on,
    from such features of a class-balanced labeled batch, blended as in `blended`; its loss does not reach the backbone.
    Evaluated are the first head before `start`, and h after it.

    Departures: published is a new h, which is first trained alone for 10 of 500 epochs, on features extracted once,
    where rare classes are filled up with mixtures of similar features. Here h, new as well, is trained for as long
    (`warm`) on the blended features while FixMatch goes on. Published are optimizers of their own, both Adam with
    different weight decay; here all share one.
    """

    num_heads = 2
    balanced = True

    def __init__(
        self,
        facts: Facts,
        unlabeled_weight: float,
        start: float = 0.8,
        blend: float = 0.6,
        warm: float = 0.02,
        ramp: float = 0.0,
    ) -> None:
        super().__init__(facts, unlabeled_weight, ramp, strong=2)
        if not (0 <= warm <= start <= 1 and 0 <= blend <= 1):
            raise RecipeError(
                f"cossl: start is {start:g}, warm {warm:g} and blend {blend:g}; all must be between 0 and 1, and warm, "
                "the share of training before start in which the second head learns, at most start"
            )
        self.start, self.blend, self.first = start, blend, start - warm
        counts = facts.class_counts
        self.chance = nn.Buffer(1 - counts / counts.max(), persistent=False)  # (C,) that an image is blended
        self.labeled_share = float(counts.sum() / (counts.sum() + facts.num_unlabeled))
        self.teaches = nn.Buffer(torch.tensor(False))  # whether the second head does yet

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        student, expert = heads
        if progress < self.first:
            return super().losses(net, teacher, batch, [student], progress)
        images, labels = batch.balanced()
        with torch.no_grad():
            seen = teacher.features(torch.cat([batch.images, batch.views[0], images])).float()
            known, weak, features = seen.split([len(batch.images), len(batch.index), len(labels)])
            features = self.blended(features, labels, known, weak)
        losses = expert.losses(net.classify(features, expert.name).float(), labels, progress)
        if progress < self.start:
            return losses | super().losses(net, teacher, batch, [student], progress)
        self.teaches.fill_(True)
        return losses | self.taught(net, teacher, batch, heads, weak, progress)

    def blended(self, features: Tensor, labels: Tensor, known: Tensor, unknown: Tensor) -> Tensor:
        """Each feature x of `features` (B, D) as it is or as lambda x + (1 - lambda) x', with lambda from U(blend, 1).

        It is blended with probability (n_1 - n) / n_1, for n labeled images of its class in `labels` (B,) and n_1 of
        the largest. x' is drawn from `known` (K, D), which are labeled, and `unknown` (M, D), in such shares that all
        images of both sets are equally likely.
        """
        size, device = len(features), features.device
        chosen, share, which = torch.rand(3, size, 1, device=device)
        other = torch.where(
            which < self.labeled_share,
            known[torch.randint(len(known), (size,), device=device)],
            unknown[torch.randint(len(unknown), (size,), device=device)],
        )
        kept = 1 - (1 - self.blend) * share * (chosen < self.chance[labels, None])
        return other.lerp(features, kept)

    def taught(
        self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], weak: Tensor, progress: float
    ) -> Losses:
        """The losses of the first head, which the second teaches; `weak` (N, D) are the averaged network's features.

        The weak views do not pass through the trained network, so that its BatchNorm does not see them.
        """
        student, expert = heads
        features = net.features(torch.cat([batch.images, *batch.views[1:]]))
        sizes = [len(batch.images), *map(len, batch.views[1:])]
        groups = net.groups(features, student.name).float()
        labeled, *views = groups.mean(0).split(sizes)
        step = step_of(net, teacher, batch, weak, progress, {student.name: views})
        predicted = net.classify(weak, expert.name).detach().float().softmax(1)
        pseudo = expert.policy(PseudoLabels.of(predicted), step)
        students = [Student(*seen, i) for i, seen in enumerate(zip(views, features.split(sizes)[1:], strict=True))]
        taught = student._replace(policy=expert.policy)
        among = groups[:, len(labeled) :], net.cuts(student.name)
        return self.head_losses(taught, labeled, students, pseudo, step, among)

    def predict(self, logits: Mapping[str, Tensor]) -> Tensor:
        first, second = logits.values()
        return torch.where(self.teaches, second, first)
