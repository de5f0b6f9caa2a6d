"""Rules that use features, with a class-balanced queue: DASO's semantic pseudo-labels and USADTM's templates."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.losses import soft_cross_entropy
from seval.policy.base import Facts, PseudoLabels, Rule, Step, Student, tally

LONGEST_QUEUE = 10_000


class FeatureQueue(nn.Module):
    """A first-in, first-out queue of the last `size` features of each class; the prototype of a class is their mean."""

    def __init__(self, num_classes: int, size: int, feature_dim: int) -> None:
        super().__init__()
        self.features = nn.Buffer(torch.zeros(num_classes, size, feature_dim))
        self.count = nn.Buffer(torch.zeros(num_classes, dtype=torch.int64))  # features pushed so far

    def push(self, features: Tensor, labels: Tensor) -> None:
        """Add features (B, D) with labels (B,); later rows count as newer."""
        same = F.one_hot(labels, len(self.count))
        rows, size = torch.arange(len(labels), device=labels.device), self.features.shape[1]
        place = (self.count[labels] + same.cumsum(0)[rows, labels] - 1) % size
        slot = labels * size + place
        newest = ((slot[:, None] == slot) * rows).amax(1)  # rows that share a slot all write the newest of them
        self.features[labels, place] = features[newest].to(self.features.dtype)
        self.count += same.sum(0)

    def prototypes(self) -> Tensor:
        """(C, D) mean features; zero for a class without features."""
        return self.features.sum(1) / self.count.clamp(1, self.features.shape[1])[:, None]


def similarity(features: Tensor, prototypes: Tensor, temperature: float = 1.0) -> Tensor:
    """Cosine similarity divided by the temperature: (N, D), (C, D) -> (N, C)."""
    return F.normalize(features) @ F.normalize(prototypes).T / temperature


class Semantic(Rule):
    """A rule that uses similarities to class prototypes: means of the averaged network's features of labeled images."""

    def __init__(self, facts: Facts, queue: int, start: float) -> None:
        super().__init__()
        if not 0 <= start < 1:
            raise PolicyError(f"start is {start:g}, but must be a share of training, at least 0 and below 1")
        if not 1 <= queue <= LONGEST_QUEUE:
            raise PolicyError(f"queue is {queue}, but must be a number of features between 1 and {LONGEST_QUEUE}")
        self.start = start
        self.queue = FeatureQueue(facts.num_classes, queue, facts.feature_dim)

    def observe(self, step: Step) -> bool:
        """Add this step's labeled features to the queue. Returns whether the rule is active yet."""
        self.queue.push(step.anchors(), step.anchor_labels)
        return step.progress >= self.start


class DasoAlign(Semantic):
    """DASO's semantic alignment alone (Oh et al., arXiv 2106.05682, Eq. 6): a penalty; pseudo-labels do not change.

    After the share `start` of training, the strong view's similarities to the prototypes are pulled to the weak view's.
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
    """DASO's pseudo-labels, Eq. 4 and 5: the more frequent the predicted class, the larger the semantic share.

    probs, semantic: (N, C). distribution: (C,) of the pseudo-labels so far; flattened by the temperature, maximum 1.
    """
    share = ((distribution / distribution.max()) ** (1 / temperature))[probs.argmax(1)][:, None]
    return (1 - share) * probs + share * semantic


class Daso(DasoAlign):
    """Distribution-aware semantics-oriented pseudo-labels with semantic alignment (Oh et al., arXiv 2106.05682).

    The distribution counts the final pseudo-labels, confident or not, of the last complete window of `window` steps.
    `flatness` is T_dist in the paper.
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
            raise PolicyError(f"daso has flatness {flatness:g} and window {window}, but both must be positive")
        self.flatness, self.window = flatness, window
        self.distribution = nn.Buffer(torch.full((facts.num_classes,), 1 / facts.num_classes))
        self.counts = nn.Buffer(torch.zeros(facts.num_classes, dtype=torch.int64))  # in this window
        self.steps = nn.Buffer(torch.zeros((), dtype=torch.int64))

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is None:
            return pseudo  # no features, so no semantic labels
        probs = pseudo.probs
        if self.observe(step):
            probs = blend(probs, self.semantic(step.features).softmax(1), self.distribution, self.flatness)
        self.counts += tally(probs.argmax(1), len(self.counts))
        self.steps += 1
        full = self.steps % self.window == 0  # a tensor: nothing waits for the device
        self.distribution.copy_(torch.where(full, self.counts / self.counts.sum(), self.distribution))
        self.counts.mul_(~full)
        return pseudo._replace(probs=probs)


class TemplateThreshold(Semantic):
    """Deformable template matching (USADTM, Han et al., arXiv 2010.05517): keep images whose nearest templates agree.

    The nearest template must be the same by cosine and by distance, with a cosine of at least tau. `template_label`
    then makes it the label. Templates are prototypes of the averaged network; the paper uses the trained network.
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
    """The class of the nearest template by cosine, as a hard label. Uses the templates of `template_threshold`."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._source = facts.previous(TemplateThreshold, "template_threshold")

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is None:
            return pseudo
        nearest = similarity(step.features, self._source[-1].queue.prototypes()).argmax(1)
        return pseudo._replace(probs=F.one_hot(nearest, pseudo.probs.shape[1]).to(pseudo.probs.dtype))
