"""Rules that use what the network says of a blank image, its biases, or the predictions of another head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.losses import soft_cross_entropy
from seval.policy.base import Asked, Facts, HeldOut, PseudoLabels, Rule, Step, Student
from seval.policy.priors import shares
from seval.policy.refinement import divide
from seval.policy.thresholds import above


def asked(rule: Rule, predict: Callable[[], Tensor]) -> Asked:
    """What a rule may ask at an evaluation. Raises `PolicyError` where only predictions are given."""
    if not isinstance(predict, Asked):
        raise PolicyError(f"{type(rule).__name__} asks the network; give `refresh` an Asked, not only predictions")
    return predict


class Cdmad(Rule):
    """CDMAD (Lee & Kim, arXiv 2403.10391): q = softmax(z - r), with r the logits for an image without content.

    r is the classifier's bias. It is taken off the pseudo-labels from the share `start` of training on, and off the
    test logits (offset `cdmad`). The image is of one normalized `value`; with `black` it is black, as in LCGC (arXiv
    2504.06544). Here r is always computed in evaluation mode. In the authors' code, training computes it by a training
    pass of that one image, whose statistics enter BatchNorm's.
    """

    def __init__(self, facts: Facts, start: float = 0.2, value: float = 1.0, black: bool = False) -> None:
        super().__init__()
        shares(start=start)
        if black and value != 1.0:
            raise PolicyError(f"cdmad: the image is black and its value is {value:g}; give one of the two")
        self.start, self.value, self.head = start, None if black else value, facts.head
        self.blank = nn.Buffer(torch.zeros(facts.num_classes))  # r of the averaged network at the last evaluation
        self.acts = nn.Buffer(torch.tensor(False))  # whether that was after `start`

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is None:
            return pseudo._replace(probs=without(pseudo.probs, self.blank * self.acts))
        if step.progress < self.start:
            return pseudo
        return pseudo._replace(probs=without(pseudo.probs, step.blank(self.head, self.value)))

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        self.blank.copy_(asked(self, predict).blank(self.head, self.value))
        self.acts.fill_(progress >= self.start)
        return {"cdmad_norm": float((self.blank - self.blank.mean()).norm())}

    def offsets(self) -> dict[str, Tensor]:
        return {"cdmad": self.blank}


def without(probs: Tensor, logits: Tensor) -> Tensor:
    """Turn rows softmax(z) into rows softmax(z - logits): (N, C), (C,) -> (N, C)."""
    return divide(probs, (logits - logits.max()).exp().clamp_min(1e-30))


class ScThreshold(Rule):
    """SC-SSL's thresholds of one of its two adjusted heads (Tian et al., arXiv 2511.18773), from the paper alone.

    Head classes, the first half by rank, keep `top`. The others start at top - (c - 4)/10 min(gamma/50, 1) or, in the
    `expansive` head, at top - (c - 3)/5 min(gamma/20, 1). Every step lowers those whose bias in the classifier `of` is
    above `limit` by `drop`. Kept labels weigh `weight`. The bias is taken off test logits (offset `bias`).

    The paper chooses c from 4 (consistent) to 6 (reversed) by an estimate that it does not specify; here c and gamma,
    the unlabeled imbalance, are arguments. Nor does it say whether head classes are lowered (here: no) or how far (0).
    """

    def __init__(
        self,
        facts: Facts,
        expansive: bool = False,
        c: float = 4.0,
        gamma: float = 100.0,
        weight: float = 2.0,
        of: str = "balanced",
        top: float = 0.95,
        drop: float = 0.005,
        limit: float = 1.0,
    ) -> None:
        super().__init__()
        rank = facts.rank
        gap = (c - 3) / 5 * min(gamma / 20, 1) if expansive else (c - 4) / 10 * min(gamma / 50, 1)
        shares(top=top, drop=drop, lowest=top - gap)
        self.weight, self.of, self.drop, self.limit, self.head = weight, of, drop, limit, facts.head
        self.rare = nn.Buffer(rank >= facts.num_classes // 2, persistent=False)
        self.thresholds = nn.Buffer(torch.where(self.rare, top - gap, top))
        self.bias = nn.Buffer(torch.zeros(facts.num_classes))  # of the averaged network at the last evaluation

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        if step is not None:
            lowered = self.rare & (step.bias(self.of) > self.limit)
            self.thresholds.sub_(self.drop * lowered).clamp_(min=0)
        return pseudo._replace(weight=self.weight * pseudo.weight * above(pseudo.probs, self.thresholds))

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        self.bias.copy_(asked(self, predict).bias(self.head))
        return {f"sc_{stat}": float(getattr(self.thresholds, stat)()) for stat in ("min", "max")}

    def offsets(self) -> dict[str, Tensor]:
        return {"bias": self.bias}


class Tras(Rule):
    """TRAS (Wei et al., arXiv 2205.13358): this head learns another head's adjusted predictions on the same view.

    Where this head is confident on the weak view, the target of a strong view is softmax((z - T_c log pi) /
    temperature): z are logits of the head `source` on that view, c is this head's class, pi the labeled prior, and
    T_c = scale softmax(-log pi)_c + floor, so that rarer classes are adjusted more. Each strong view has a target of
    its own: this is a penalty, and the ordinary unlabeled loss of the head is 0. It begins at the share `start`.
    """

    def __init__(
        self,
        facts: Facts,
        scale: float = 2.0,
        floor: float = 2.0,
        threshold: float = 0.95,
        temperature: float = 2.0,
        start: float = 0.02,
        source: str = "linear",
    ) -> None:
        super().__init__()
        shares(threshold=threshold, start=start)
        if temperature <= 0:
            raise PolicyError(f"tras temperature is {temperature:g}, but must be above 0")
        self.threshold, self.temperature, self.start, self.source = threshold, temperature, start, source
        self.log_prior = nn.Buffer(facts.prior.log(), persistent=False)
        self.strength = nn.Buffer(scale * (-self.log_prior).softmax(0) + floor, persistent=False)  # T, (C,)
        self.kept = torch.empty(0)  # (N,) of this step

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        kept = pseudo.weight * above(pseudo.probs, self.threshold)
        if step is None:
            return pseudo._replace(weight=kept)
        self.kept = kept
        return pseudo._replace(weight=torch.zeros_like(kept))

    def penalty(self, pseudo: PseudoLabels, step: Step, student: Student) -> Tensor | None:
        if self.source not in step.logits:
            known = ", ".join(step.logits) or "none; the algorithm gives none"
            raise PolicyError(f"tras learns from the head {self.source!r}, but the heads are {known}")
        if step.progress < self.start:
            return None
        strength = self.strength[pseudo.probs.argmax(1)][:, None]
        adjusted = step.logits[self.source][student.view] - strength * self.log_prior
        return (self.kept * soft_cross_entropy(student.logits, (adjusted / self.temperature).softmax(1))).mean()
