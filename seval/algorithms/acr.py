"""ACR, an algorithm with two heads that are trained together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seval.algorithms.base import Algorithm, Head, Losses, step_of
from seval.data.loader import Batch
from seval.models.network import Network
from seval.policy.base import Facts, PseudoLabels, Student, tally


def distance(p: Tensor, q: Tensor) -> Tensor:
    """The mean of the Kullback-Leibler divergences in both directions: two (..., C) -> (...)."""
    return 0.5 * ((p - q) * (p.log() - q.log())).sum(-1)


def adjustment_scale(distances: Tensor, tau: float) -> float:
    """tau * softmax(distances)[0]: larger if the pseudo-labels are distributed less like the labels.

    distances (3,): from the pseudo-labels' distribution to the labeled prior, the uniform and the reversed prior.
    """
    return tau * float(distances.softmax(0)[0])


class Acr(Algorithm):
    """Adaptive consistency regularizer (Wei & Gan, arXiv 2303.04035).

    Both heads learn from the first head's predictions on the weak view, adjusted by tau times the log labeled prior.
    For the first head, tau depends on the pseudo-labels' distribution and is updated at evaluations; for the second it
    is fixed. A label is kept if the adjusted or the learning head's prediction is confident. The second is evaluated.
    """

    views = ("weak", "strong", "strong")
    num_heads = 2
    has_student = True

    def __init__(
        self,
        facts: Facts,
        unlabeled_weight: float,
        tau: float = 2.0,
        threshold: float = 0.95,
        start: float = 0.01,
        momentum: float = 0.99,
    ) -> None:
        super().__init__(facts, unlabeled_weight)
        self.tau, self.threshold, self.start, self.momentum = tau, threshold, start, momentum
        prior = facts.prior
        rank = prior.argsort(descending=True, stable=True)
        reverse = prior[rank.flip(0)][rank.argsort()]
        uniform = torch.full_like(prior, 1 / len(prior))
        self.log_prior = nn.Buffer(prior.log(), persistent=False)
        self.anchors = nn.Buffer(torch.stack([prior, uniform, reverse]), persistent=False)
        self.distribution = nn.Buffer(uniform.clone())  # of the balanced head's confident labels
        self.distances = nn.Buffer(torch.zeros(3))  # to the anchors, summed since the last evaluation
        self.steps = nn.Buffer(torch.zeros((), dtype=torch.int64))  # since the last evaluation
        self.adaptive_tau = nn.Buffer(torch.tensor(tau))

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        features, n = net.features(torch.cat([batch.images, *batch.views])), len(batch.index)
        sizes = [len(batch.images), n, 2 * n]
        _, weak, strong = features.split(sizes)
        step = step_of(net, teacher, batch, weak, progress)
        logits = {head.name: net.classify(features, head.name).float().split(sizes) for head in heads}
        standard, balanced = (logits[head.name][1].detach() for head in heads)
        taught, losses = self.teach(standard, balanced, progress), {}
        for head, pseudo in zip(heads, taught, strict=True):
            labeled, _, learner = logits[head.name]
            pseudo = head.policy(pseudo, step)
            losses |= head.losses(labeled, batch.labels, progress, learner, pseudo, weight=self.unlabeled_weight)
            losses |= head.penalties(pseudo, step, Student(learner[:n], strong[:n]))
        return losses

    def teach(self, standard: Tensor, balanced: Tensor, progress: float) -> tuple[PseudoLabels, PseudoLabels]:
        """The pseudo-labels of both heads, from their logits (N, C) on the weak view."""
        own = balanced.softmax(1)
        if progress >= self.start:
            self.observe(own)
        taught = []
        for tau, learner in ((self.adaptive_tau, standard.softmax(1)), (self.tau, own)):
            adjusted = (standard - tau * self.log_prior).softmax(1)
            kept = torch.maximum(adjusted.max(1).values, learner.max(1).values) >= self.threshold
            taught.append(PseudoLabels(adjusted, kept.to(adjusted.dtype)))
        return taught[0], taught[1]

    def observe(self, probs: Tensor) -> None:
        """Add the balanced head's confident predictions of this step to its running distribution."""
        confidence, label = probs.max(1)
        counts = tally(label, probs.shape[1], confidence >= self.threshold)
        total, old = counts.sum(), self.distribution
        self.steps += 1
        new = torch.where(total > 0, old.lerp(counts / total.clamp_min(1), 1 - self.momentum), old)
        self.distances += torch.where(total > 0, distance(new, self.anchors), 0.0)
        self.distribution.copy_(new)

    def refresh(self) -> dict[str, float]:
        if self.steps:
            self.adaptive_tau.fill_(adjustment_scale(self.distances / self.steps, self.tau))
            self.distances.zero_()
            self.steps.zero_()
        return {"acr_tau": float(self.adaptive_tau)}
