"""CCL, an algorithm with two heads, estimated class priors and two contrastive losses."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seval.algorithms.base import Algorithm, Head, Losses, step_of
from seval.algorithms.contrast import reliable_loss, sharpened, smoothed_loss
from seval.data.loader import Batch
from seval.errors import RecipeError
from seval.losses import as_probs
from seval.models.network import Network
from seval.policy.base import Facts, PseudoLabels, Student

PROJECTED = 256  # dimensions of the contrastive space
LEAST = 1.5  # least weight of the unlabeled losses


def projection(features: int) -> nn.Module:
    """Features (N, D) to the contrastive space (N, 256), before they are scaled to length 1."""
    layers = nn.Linear(features, features), nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, PROJECTED)
    return nn.Sequential(*layers)


class Ccl(Algorithm):
    """Continuous contrastive learning (Zhou et al., NeurIPS 2024, arXiv 2410.06109), as published in its code.

    Both heads learn one pseudo-label P: the softmax of the mean of f_s - log((1 - rho) pi + rho pi_a) + log pi_u and
    f_b + tau/2 log pi_u on the weak view, where rho is the unlabeled share of a batch. It is kept where it is confident
    (m), and is reliable where the logsumexp of that mean is at least `energy` (e). From the share `start` of training
    on, every `upbatch` steps, the priors pi_u and pi_a move toward the sums of e P and m P since the last move; they
    keep `alpha` and `beta` of themselves. The losses are lambda1 times those of both heads, with unlabeled weight
    max(1.5, mu) and tau log pi_a on the second head's unlabeled logits, (1 - lambda1) `reliable_loss`, and lambda2
    `smoothed_loss`.

    `centers` 'ones' labels each class center with all classes, as the code does; 'classes' with its own, as the paper.
    `fuse` 'probs' is the mean of both softmaxes instead (Eq. 15). Our choices: counting begins at `start`, and a
    projection's BatchNorm sees the `sim` and all unlabeled views at once.
    """

    views = ("weak", "strong", "strong")
    labeled_views = ("weak", "sim", "sim")
    num_heads = 2
    has_student = True

    def __init__(
        self,
        facts: Facts,
        unlabeled_weight: float,
        tau: float = 2.0,
        threshold: float = 0.95,
        energy: float = 8.75,
        lambda1: float = 0.7,
        lambda2: float = 1.0,
        alpha: float = 0.5,
        beta: float = 0.5,
        start: float = 0.01,
        upbatch: int = 500,
        centers: str = "ones",
        fuse: str = "logits",
    ) -> None:
        super().__init__(facts, unlabeled_weight)
        if upbatch < 1:
            raise RecipeError(f"ccl: upbatch is {upbatch}, but must be at least 1 step")
        for name, given, known in (("centers", centers, ("ones", "classes")), ("fuse", fuse, ("logits", "probs"))):
            if given not in known:
                raise RecipeError(f"ccl: {name} is {given!r}, but must be one of {', '.join(known)}")
        self.tau, self.threshold, self.energy, self.lambda1, self.lambda2 = tau, threshold, energy, lambda1, lambda2
        self.start, self.upbatch, self.fuse = start, upbatch, fuse
        prior, c = facts.prior, facts.num_classes
        self.prior = nn.Buffer(prior, persistent=False)
        self.centers = nn.Buffer(torch.ones(c, c) if centers == "ones" else torch.eye(c), persistent=False)
        self.momentum = nn.Buffer(torch.tensor([[alpha], [beta]]), persistent=False)
        self.priors = nn.Buffer(torch.stack([torch.full_like(prior, 1 / c), prior]))  # (2, C): pi_u, pi_a
        self.counts = nn.Buffer(torch.ones(2, c))  # of reliable and of kept images since the last move, plus 1
        self.steps = nn.Buffer(torch.zeros((), dtype=torch.int64))  # since the start of counting

    @classmethod
    def extra_modules(cls, feature_dim: int) -> dict[str, nn.Module]:
        return {"projection": projection(feature_dim), "centers": projection(feature_dim)}

    def losses(self, net: Network, teacher: Network, batch: Batch, heads: Sequence[Head], progress: float) -> Losses:
        known, n = len(batch.labels), len(batch.index)
        features = net.features(torch.cat([*batch.labeled, *batch.views]))
        seen = features[3 * known :].split(n)
        logits = {head.name: net.classify(features, head.name).float() for head in heads}
        views = {name: each[3 * known :].split(n) for name, each in logits.items()}
        step, losses = step_of(net, teacher, batch, seen[0], progress, views), {}
        standard, balanced = (views[head.name][0].detach() for head in heads)
        probs, energy = self.predicted(standard, balanced, n / (n + known))
        kept, reliable = (mask.to(probs.dtype) for mask in (probs.amax(1) >= self.threshold, energy >= self.energy))
        weight = self.unlabeled_weight * max(LEAST, n / known)
        for head, margin in zip(heads, (0.0, self.tau * self.priors[1].log()), strict=True):
            labeled, learner = logits[head.name][:known], logits[head.name][-2 * n :] + margin
            pseudo = head.policy(PseudoLabels(probs, kept), step)
            found = head.losses(labeled, batch.labels, progress, learner, pseudo, weight=weight)
            students = [Student(views[head.name][i], seen[i], i) for i in (1, 2)]
            losses |= {name: self.lambda1 * loss for name, loss in found.items()}
            losses |= head.penalties(pseudo, step, *students)
        if progress >= self.start:
            self.observe(probs, torch.stack([reliable, kept]))
        taught = sharpened(probs) * reliable[:, None]
        return losses | self.contrast(net, heads[-1].name, features[known:], batch.labels, taught)

    def predicted(self, standard: Tensor, balanced: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Probabilities (N, C) and logsumexp (N,) from both heads' logits (N, C); `share` of a batch is unlabeled."""
        log_unlabeled, mixture = self.priors[0].log(), self.prior.lerp(self.priors[1], share)
        both = torch.stack([standard - mixture.log() + log_unlabeled, balanced + self.tau / 2 * log_unlabeled])
        logits = both.mean(0)
        return logits.softmax(1) if self.fuse == "logits" else both.softmax(2).mean(0), logits.logsumexp(1)

    def observe(self, probs: Tensor, masks: Tensor) -> None:
        """Count probs (N, C) by both masks (2, N), and move the priors where that is due, without asking a GPU."""
        self.steps += 1
        self.counts += masks @ probs
        due, shares = self.steps % self.upbatch == 0, self.counts / self.counts.sum(1, keepdim=True)
        self.priors.copy_(torch.where(due, shares.lerp(self.priors, self.momentum), self.priors))
        self.counts.copy_(torch.where(due, 1.0, self.counts))

    def contrast(self, net: Network, head: str, features: Tensor, labels: Tensor, taught: Tensor) -> Losses:
        """Both contrastive losses, of features of two `sim` and three unlabeled views and labels `taught` (N, C)."""
        centers = net.classify(net.weight(head), "centers")
        points = F.normalize(torch.cat([centers, net.classify(features, "projection")]).float())
        given = torch.cat([self.centers, as_probs(labels, len(self.prior)).repeat(2, 1)])
        members, views = points.split([len(given), 3 * len(taught)])
        strong, everyone = views[len(taught) :], torch.cat([given, taught, taught])
        reliable = reliable_loss(torch.cat([members, strong]), everyone, len(centers))
        smoothed = smoothed_loss(views.unflatten(0, (3, -1)), members, given)
        return {"reliable": (1 - self.lambda1) * reliable, "smoothed": self.lambda2 * smoothed}

    def refresh(self) -> dict[str, float]:
        distances = (self.priors - self.prior).abs().sum(1) / 2  # from the labeled prior, in [0, 1]
        return {"ccl_unlabeled": float(distances[0]), "ccl_all": float(distances[1])}
