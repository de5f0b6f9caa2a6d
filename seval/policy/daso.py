"""Rules on features: DASO's semantic pseudo-labels and USADTM's templates, over a class-balanced queue."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.losses import soft_cross_entropy
from seval.policy.base import Facts, PseudoLabels, Rule, Step, Student


class FeatureQueue(nn.Module):
    """The last features of each class, first in first out, as many of every class; a prototype is their mean."""

    def __init__(self, num_classes: int, size: int, feature_dim: int) -> None:
        super().__init__()
        self.features = nn.Buffer(torch.zeros(num_classes, size, feature_dim))
        self.count = nn.Buffer(torch.zeros(num_classes, dtype=torch.int64))  # ever pushed

    def push(self, features: Tensor, labels: Tensor) -> None:
        """Add features (B, D) of labels (B,), of which the later ones are the newer."""
        same = F.one_hot(labels, len(self.count))
        rank = same.cumsum(0)[torch.arange(len(labels), device=labels.device), labels] - 1  # among those of its class
        newest = rank >= same.sum(0)[labels] - self.features.shape[1]  # so that no place is written twice
        place = (self.count[labels] + rank) % self.features.shape[1]
        self.features[labels[newest], place[newest]] = features[newest].to(self.features.dtype)
        self.count += same.sum(0)

    def prototypes(self) -> Tensor:
        """(C, D) means; zero for a class without features."""
        return self.features.sum(1) / self.count.clamp(1, self.features.shape[1])[:, None]


def similarity(features: Tensor, prototypes: Tensor, temperature: float = 1.0) -> Tensor:
    """Cosines over the temperature: (N, D), (C, D) -> (N, C)."""
    return F.normalize(features) @ F.normalize(prototypes).T / temperature


class Semantic(Rule):
    """A rule on similarities to class prototypes: means of the averaged network's features of labeled images."""

    def __init__(self, facts: Facts, queue: int, start: float) -> None:
        super().__init__()
        if not 0 <= start < 1:
            raise PolicyError(f"start is {start:g}, but is a share of training, at least 0 and below 1")
        self.start = start
        self.queue = FeatureQueue(facts.num_classes, queue, facts.feature_dim)

    def observe(self, step: Step) -> bool:
        """Take in this step's labeled features; whether the rule acts yet."""
        self.queue.push(step.anchors(), step.anchor_labels)
        return step.progress >= self.start


class DasoAlign(Semantic):
    """DASO's semantic alignment alone (Oh et al., arXiv 2106.05682, Eq. 6): a penalty, and no change of pseudo-labels.

    The strong view's similarities to the prototypes are drawn to the weak view's, from the share `start` of training.
    """

    def __init__(
        self, facts: Facts, alignment: float = 1.0, temperature: float = 0.05, start: float = 0.02, queue: int = 256
    ) -> None:
        super().__init__(facts, queue, start)
        self.alignment, self.temperature = alignment, temperature

    @property
    def penalizes(self) -> bool:
        return self.alignment > 0

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is not None:
            self.observe(step)
        return pseudo

    def semantic(self, features: Tensor) -> Tensor:
        """(N, C) logits of the similarity classifier."""
        return similarity(features, self.queue.prototypes(), self.temperature)

    def penalty(self, pseudo: PseudoLabels, step: Step, student: Student) -> Tensor | None:
        if step.progress < self.start:
            return None
        target = self.semantic(step.features.detach()).softmax(1)
        return self.alignment * soft_cross_entropy(self.semantic(student.features.float()), target).mean()


def blend(probs: Tensor, semantic: Tensor, distribution: Tensor, temperature: float) -> Tensor:
    """DASO's pseudo-labels, Eq. 4 and 5: the more frequent the predicted class, the more of the semantic one.

    probs, semantic (N, C); distribution (C,) of the pseudo-labels so far, flattened by the temperature, largest made 1.
    """
    share = ((distribution / distribution.max()) ** (1 / temperature))[probs.argmax(1)][:, None]
    return (1 - share) * probs + share * semantic


class Daso(DasoAlign):
    """Distribution-aware semantics-oriented pseudo-labels, and their semantic alignment (Oh et al., arXiv 2106.05682).

    The distribution is that of the final labels of the last full `window` steps, confident or not; `flatness` is the
    paper's T_dist.
    """

    def __init__(
        self,
        facts: Facts,
        flatness: float = 1.0,
        alignment: float = 1.0,
        temperature: float = 0.05,
        start: float = 0.02,
        queue: int = 256,
        window: int = 100,
    ) -> None:
        super().__init__(facts, alignment, temperature, start, queue)
        if flatness <= 0 or window < 1:
            raise PolicyError(f"daso flatness is {flatness:g} and window {window}, but both must be positive")
        self.flatness, self.window = flatness, window
        self.distribution = nn.Buffer(torch.full((facts.num_classes,), 1 / facts.num_classes))
        self.counts = nn.Buffer(torch.zeros(facts.num_classes, dtype=torch.int64))  # of this window
        self.steps = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is None:
            return pseudo  # without features there are no semantic labels
        probs = pseudo.probs
        if self.observe(step):
            probs = blend(probs, self.semantic(step.features).softmax(1), self.distribution, self.flatness)
        self.counts += torch.bincount(probs.argmax(1), minlength=len(self.counts))
        self.steps += 1
        full = self.steps % self.window == 0  # without waiting for the device to say so
        self.distribution.copy_(torch.where(full, self.counts / self.counts.sum(), self.distribution))
        self.counts.mul_(~full)
        return pseudo._replace(probs=probs)


class TemplateThreshold(Semantic):
    """Deformable template matching (USADTM, Han et al., arXiv 2010.05517): keep where the nearest templates agree.

    The nearest template must be the same by cosine and by distance, and its cosine at least tau. `template_label` then
    makes it the label. The templates are prototypes of the averaged network; those of the paper are the trained one's.
    """

    def __init__(self, facts: Facts, tau: float = 0.85, start: float = 0.002, queue: int = 256) -> None:
        super().__init__(facts, queue, start)
        self.tau = tau

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is None:
            return pseudo
        acts, prototypes = self.observe(step), self.queue.prototypes()
        cosine, nearest = similarity(step.features, prototypes).max(1)
        agree = (cosine >= self.tau) & (nearest == torch.cdist(step.features, prototypes).argmin(1))
        kept = agree & self.queue.count.all() & acts
        return pseudo._replace(weight=pseudo.weight * kept.to(pseudo.weight.dtype))


class TemplateLabel(Rule):
    """The class of the nearest template, by cosine, as a hard label; templates of `template_threshold` before it."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._source = facts.previous(TemplateThreshold, "template_threshold")

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is None:
            return pseudo
        nearest = similarity(step.features, self._source[-1].queue.prototypes()).argmax(1)
        return pseudo._replace(probs=F.one_hot(nearest, pseudo.probs.shape[1]).to(pseudo.probs.dtype))
