"""Rules that set the weights by confidence (THA in the paper)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.policy.base import Facts, HeldOut, PseudoLabels, Rule, Step, Student, tally
from seval.policy.refinement import align, divide


def above(probs: Tensor, tau: Tensor | float) -> Tensor:
    """1 if the largest probability of a row is at least tau (of its class), else 0: (N, C), scalar or (C,) -> (N,)."""
    confidence, label = probs.max(dim=1)
    return (confidence >= (tau[label] if isinstance(tau, Tensor) else tau)).to(probs.dtype)


class Threshold(Rule):
    """FixMatch's fixed threshold (Sohn et al., arXiv 2001.07685): keep pseudo-labels with confidence >= tau."""

    def __init__(self, facts: Facts, tau: float = 0.95) -> None:
        super().__init__()
        if not 0 <= tau <= 1:
            raise PolicyError(f"threshold tau is {tau:g}, but must be between 0 and 1")
        self.tau = tau

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(weight=pseudo.weight * above(pseudo.probs, self.tau))


def flexible_thresholds(tau: float, counts: Tensor) -> Tensor:
    """(C,) thresholds of FlexMatch, Eq. 7, 11 and 12: tau * beta / (2 - beta); beta is the class's learning status.

    counts (C + 1,): images never predicted confidently, then images whose last confident prediction is each class.
    """
    beta = counts[1:] / counts.max()
    return tau * beta / (2 - beta)


class FlexMatch(Threshold):
    """Curriculum pseudo-labeling (Zhang et al., arXiv 2110.08263): better learned classes get higher thresholds.

    The learning status of a class is the number of unlabeled images whose last confident prediction is this class,
    divided by the largest such number or, if that is larger, by the number of images never predicted confidently.
    """

    def __init__(self, facts: Facts, tau: float = 0.95) -> None:
        super().__init__(facts, tau)
        self.num_classes = facts.num_classes
        self.label = nn.Buffer(torch.full((facts.num_unlabeled,), -1))  # last confident prediction

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        counts = tally(self.label + 1, self.num_classes + 1)
        weight = above(pseudo.probs, flexible_thresholds(self.tau, counts.to(pseudo.probs.dtype)))
        if step is not None:
            confidence, label = pseudo.probs.max(1)
            place = torch.where(confidence >= self.tau, step.index, len(self.label))  # the unsure write behind the end
            self.label.copy_(F.pad(self.label, (0, 1)).index_copy_(0, place, label)[:-1])
        return pseudo._replace(weight=pseudo.weight * weight)


def share(values: Tensor) -> Tensor:
    """Divide values >= 0 by their sum; values that are not finite count as 0."""
    values = torch.where(values.isfinite(), values, 0.0)
    return values / values.sum()


def fairness(logits: Tensor, kept: Tensor, mean_probs: Tensor, histogram: Tensor) -> Tensor:
    """FreeMatch's self-adaptive class fairness, Eq. 11: sum of share(mean / histogram) log share(mean_s / histogram_s).

    logits (N, C) belong to the strong views, of which those that are kept (N,) bool count; 0 if none is kept.
    mean_probs and histogram (C,) are running averages.
    """
    order = (~kept).byte().argsort(stable=True)  # the kept rows first: their sum is rounded as if there were no others
    kept, number = kept[order], kept.sum()
    probs = logits.index_select(0, order).softmax(1) * kept[:, None]
    counts = tally(probs.argmax(1), probs.shape[1], kept)
    scaled = probs.sum(0) / number.clamp_min(1) * torch.where(counts > 0, number / counts, 0.0)
    own = share(torch.where(number > 0, scaled, 1.0))  # without any, a number whose gradient is finite
    found = (share(mean_probs / histogram) * torch.log(own + 1e-12)).sum()
    return torch.where(number > 0, found, 0.0)


class FreeMatch(Rule):
    """Self-adaptive thresholds and class fairness (Wang et al., arXiv 2205.07246).

    The global threshold is the running mean confidence. Each class multiplies it by its running mean probability over
    the largest running mean probability. `fairness` weights the penalty on the strong views' mean prediction.
    """

    def __init__(self, facts: Facts, momentum: float = 0.999, fairness: float = 0.001) -> None:
        super().__init__()
        self.momentum, self.fairness = momentum, fairness
        uniform = torch.full((facts.num_classes,), 1 / facts.num_classes)
        self.confidence = nn.Buffer(uniform[0].clone())
        self.mean_probs = nn.Buffer(uniform.clone())
        self.histogram = nn.Buffer(uniform.clone())

    @property
    def penalizes(self) -> bool:
        return self.fairness > 0

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is not None:
            confidence, label = pseudo.probs.max(1)
            histogram = tally(label, pseudo.probs.shape[1]) / len(label)
            news = (confidence.mean(), pseudo.probs.mean(0), histogram)
            for old, new in zip((self.confidence, self.mean_probs, self.histogram), news, strict=True):
                old.lerp_(new.to(old.dtype), 1 - self.momentum)
        tau = self.confidence * self.mean_probs / self.mean_probs.max()
        return pseudo._replace(weight=pseudo.weight * above(pseudo.probs, tau))

    def penalty(self, pseudo: PseudoLabels, step: Step, student: Student) -> Tensor | None:
        return self.fairness * fairness(student.logits, pseudo.weight > 0, self.mean_probs, self.histogram)


def soft_weights(confidence: Tensor, mean: Tensor, variance: Tensor, sigmas: float) -> Tensor:
    """SoftMatch's truncated Gaussian (Eq. 7), 1 above the mean confidence and falling below: (N,), two () -> (N,)."""
    return torch.exp(-((confidence - mean).clamp(max=0.0) ** 2) * sigmas**2 / (2 * variance))


class SoftMatch(Rule):
    """Weights from a truncated Gaussian with running mean and variance (Chen et al., arXiv 2301.10921).

    The confidence is taken from predictions aligned to the uniform distribution; the pseudo-labels are not aligned.
    """

    def __init__(self, facts: Facts, momentum: float = 0.999, sigmas: float = 2.0) -> None:
        super().__init__()
        self.momentum, self.sigmas = momentum, sigmas
        self.mean_probs = nn.Buffer(torch.zeros(facts.num_classes))
        self.mean = nn.Buffer(torch.tensor(1 / facts.num_classes))
        self.variance = nn.Buffer(torch.tensor(1.0))

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is not None:
            news = pseudo.probs.mean(0)
            self.mean_probs.copy_(torch.where(self.mean_probs.any(), self.mean_probs, news))  # start with the first
            self.mean_probs.lerp_(news, 1 - self.momentum)
        uniform = torch.full_like(self.mean_probs, 1 / len(self.mean_probs))
        confidence = align(pseudo.probs, uniform, self.mean_probs).max(1).values
        if step is not None and len(confidence) > 1:  # one image has no variance
            self.mean.lerp_(confidence.mean(), 1 - self.momentum)
            self.variance.lerp_(confidence.var(), 1 - self.momentum)
        weight = soft_weights(confidence, self.mean, self.variance, self.sigmas)
        return pseudo._replace(weight=pseudo.weight * weight.to(pseudo.weight.dtype))


def adaptive_thresholds(probs: Tensor, head: int, tau: float, old: Tensor) -> Tensor:
    """Adsh's thresholds (C,), from predictions (M, C) on all unlabeled images.

    rho is the share of the predictions of class `head` with confidence >= tau. Every other class gets the threshold
    that keeps the same share of its predictions, but at most tau; a rank at one half is rounded to the even one, as in
    Adsh's own code. A class without predictions keeps its `old` value.
    """
    confidence, label = probs.max(1)
    ours = confidence[label == head]
    if not len(ours):
        return old
    rho, found = float((ours >= tau).double().mean()), old.clone()
    for c in range(probs.shape[1]):
        ranked = confidence[label == c].sort(descending=True).values
        if c != head and len(ranked):
            found[c] = ranked[max(0, round(rho * len(ranked) - 1))].clamp(max=tau)
    return found


class Adsh(Threshold):
    """Adaptive class thresholds (Guo & Li, ICML 2022): keep the same share of every class as of the most frequent.

    Keeps a row if p / tau >= 1 for any class; `adsh_rectify` then makes the class with the largest p / tau the label.
    The thresholds are fitted at evaluations, on the averaged network's predictions.
    """

    def __init__(self, facts: Facts, tau: float = 0.95) -> None:
        super().__init__(facts, tau)
        self.head = int(facts.class_counts.argmax())
        self.thresholds = nn.Buffer(torch.full((facts.num_classes,), tau))

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        kept = (pseudo.probs >= self.thresholds).any(1)
        return pseudo._replace(weight=pseudo.weight * kept.to(pseudo.weight.dtype))

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        probs = predict().to(self.thresholds.device, self.thresholds.dtype)
        self.thresholds.copy_(adaptive_thresholds(probs, self.head, self.tau, self.thresholds))
        return {f"adsh_{stat}": float(getattr(self.thresholds, stat)()) for stat in ("min", "max")}


class AdshRectify(Rule):
    """Divide by the thresholds of the earlier rule `adsh`: the label is the class with the largest p / tau."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._source = facts.previous(Adsh, "adsh")

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo._replace(probs=divide(pseudo.probs, self._source[-1].thresholds))
