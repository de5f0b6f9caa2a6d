"""A policy is a chain of rules that refine and weight pseudo-labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import NamedTuple, Self, TypeVar, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from seval.errors import PolicyError
from seval.text import short

R = TypeVar("R", bound="Rule")


class PseudoLabels(NamedTuple):
    """What each rule of a policy receives and returns."""

    probs: Tensor  # (N, C), rows on the simplex
    weight: Tensor  # (N,), >= 0; 1 before any threshold rule

    @classmethod
    def of(cls, probs: Tensor) -> Self:
        """Pseudo-labels with weight 1."""
        return cls(probs, torch.ones_like(probs[:, 0]))

    def repeat(self, copies: int) -> Self:
        """The same pseudo-labels once per view, one view after another: (copies N, C) and (copies N,)."""
        return type(self)(self.probs.repeat(copies, 1), self.weight.repeat(copies)) if copies > 1 else self

    def check(self) -> Self:
        """Raise `ValueError` unless rows lie on the simplex and weights are >= 0. For tests, not for every step."""
        sums = self.probs.sum(1)
        if self.probs.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-5) or self.weight.min() < 0:
            raise ValueError("pseudo-labels must have rows on the simplex and weights >= 0")
        return self


def tally(labels: Tensor, num_classes: int, kept: Tensor | None = None) -> Tensor:
    """(C,) int64: how many labels (N,) are each class; with `kept` (N,) bool, of those.

    `torch.bincount` would make a GPU wait, because it asks for the largest label.
    """
    ones = torch.ones_like(labels) if kept is None else kept.to(labels.dtype)
    return labels.new_zeros(num_classes).scatter_add_(0, labels, ones)


class HeldOut(NamedTuple):
    """Predictions on the held-out split, already refined by the earlier rules of the policy."""

    probs: Tensor  # (K, C) float64
    labels: Tensor  # (K,)


class Facts(NamedTuple):
    """What a rule is given when it is built."""

    num_classes: int
    class_counts: Tensor  # (C,) labeled images of each class
    num_unlabeled: int
    num_held_out: int = 0
    feature_dim: int = 0
    num_evaluations: int = 0  # number of calls of `refresh` in the run; 0 if unknown
    head: str = "linear"  # name of the head whose policy this is
    artifacts: Mapping[str, np.ndarray] = {}  # saved by this head's policy in the prerequisite run
    before: tuple["Rule", ...] = ()  # the rules before this one in its policy

    @classmethod
    def of(cls, class_counts: ArrayLike, num_unlabeled: int, num_held_out: int = 0, feature_dim: int = 0) -> Self:
        """Facts for a training loop of your own, where `class_counts` can be a list. Raises `PolicyError`.

        Rules that are fitted, such as SEVAL's, need `num_held_out`; rules that use features need `feature_dim`.
        """
        try:
            counts = torch.as_tensor(np.asarray(class_counts, np.float32))
        except (TypeError, ValueError):
            counts = torch.empty(0)
        if counts.ndim != 1 or len(counts) < 2 or not (counts.isfinite() & (counts > 0)).all():
            raise PolicyError(
                f"class_counts is {short(class_counts)}; expected (C,) counts of labeled images: a number above 0 for "
                "each of two or more classes"
            )
        return cls(len(counts), counts, num_unlabeled, num_held_out, feature_dim)

    @property
    def prior(self) -> Tensor:
        """(C,) shares of the classes among the labeled images."""
        return self.class_counts / self.class_counts.sum()

    @property
    def rank(self) -> Tensor:
        """(C,) each class's place by labeled images, from 0 for the most frequent; of equal classes the first is."""
        return self.class_counts.argsort(descending=True, stable=True).argsort()

    def previous(self, kind: type[R], name: str = "") -> tuple[R, ...]:
        """The earlier rules of type `kind` in the same policy. This is the only way for a rule to access another.

        The result is a tuple, so that PyTorch does not register the rules as submodules and save their state twice.
        With `name`, the name of the rule in policies, the rule is required: raises `PolicyError` if there is none.
        """
        found = tuple(rule for rule in self.before if isinstance(rule, kind))
        if name and not found:
            raise PolicyError(
                f"a rule needs the rule {name!r} before it in the policy, but there is none; write {name} first"
            )
        return found


def _no_features() -> Tensor:
    raise PolicyError("a rule of this policy uses features; build its steps with all fields of Step, not by Step.of")


def _no_network(*_: object) -> Tensor:
    raise PolicyError(
        "a rule of this policy asks the network; give Step its fields `blank` and `bias`, or do not use it"
    )


class Step(NamedTuple):
    """What a rule is given about a training step."""

    index: Tensor  # (N,) positions of the images in the unlabeled set
    features: Tensor  # (N, D) of the teacher's view
    anchors: Callable[[], Tensor]  # (B, D) averaged network's features of labeled images, computed when called
    anchor_labels: Tensor  # (B,)
    progress: float  # in [0, 1]
    logits: Mapping[str, tuple[Tensor, ...]] = {}  # (N, C) by head, of each unlabeled view; without gradient
    blank: Callable[[str, float | None], Tensor] = _no_network  # as in `Asked`, of the trained network
    bias: Callable[[str], Tensor] = _no_network

    @classmethod
    def of(cls, index: Tensor, progress: float) -> Self:
        """A step for policies that use no features and ask the network nothing."""
        return cls(index, torch.empty(len(index), 0), _no_features, torch.empty(0), progress)


class Asked(NamedTuple):
    """What a rule may ask of the averaged network at an evaluation. Called, it predicts, as any function may do.

    `blank(head, value)` is (C,): the logits of a head, in evaluation mode, for an image whose normalized pixels all
    have that value; a black image where it is None. `bias(head)` is (C,): the bias of the head's classifier.
    """

    predict: Callable[[], Tensor]  # (M, C) probabilities of the unlabeled images, by the rule's head
    blank: Callable[[str, float | None], Tensor]
    bias: Callable[[str], Tensor]

    def __call__(self) -> Tensor:
        return self.predict()


class Student(NamedTuple):
    """What a penalty is given about a view that is trained on; gradients flow through it."""

    logits: Tensor  # (N, C)
    features: Tensor  # (N, D)
    view: int = -1  # its place among the unlabeled views, as in `Step.logits`


class Margins(NamedTuple):
    """Log offsets (C,) that the losses add to the logits of labeled and of unlabeled images; None adds nothing."""

    labeled: Tensor | None = None
    unlabeled: Tensor | None = None


class Rule(nn.Module):
    """One stage of a policy: changes `probs`, `weight` or neither, never both. Its statistics are buffers.

    A rule never sees the configuration, the network, the logger, the device or the number of steps. In evaluation mode
    (`policy.eval()`), `step` is None, and `forward` must not change statistics or draw random numbers. In training,
    random numbers come from PyTorch's global generator.
    """

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo

    def margins(self, progress: float) -> Margins:
        """What the losses of this step add to the logits; asked after `forward`. A penalty gets the plain logits."""
        return Margins()

    @property
    def adjusts(self) -> bool:
        """Whether it adjusts what the network says at test time, or what it learns to say, by log offsets."""
        return type(self).offsets is not Rule.offsets or type(self).margins is not Rule.margins

    @property
    def penalizes(self) -> bool:
        """Whether `penalty` must be called. This needs an algorithm that trains on an unmixed view (`has_student`)."""
        return type(self).penalty is not Rule.penalty

    def penalty(self, pseudo: PseudoLabels, step: Step, student: Student) -> Tensor | None:
        """An extra loss of this rule; `pseudo` is the result of the whole policy."""
        return None

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        """Update slow statistics at an evaluation; return values to log. `predict()`: (M, C) on unlabeled images.

        In a run, `predict` is `Asked`.
        """
        return {}

    def offsets(self) -> dict[str, Tensor]:
        """Learned log offsets (C,) to subtract from test logits, by name."""
        return {}

    def artifact(self) -> dict[str, np.ndarray]:
        """Arrays to save for a later run that depends on this one."""
        return {}


class Policy(nn.Sequential):
    """A chain of rules; `text` is its canonical spelling."""

    text: str = ""

    def __iter__(self) -> Iterator[Rule]:
        return cast(Iterator[Rule], super().__iter__())

    @torch.no_grad()
    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        for rule in self:
            pseudo = rule(pseudo, step)
        return pseudo

    def margins(self, progress: float) -> Margins:
        """The sums of the margins of all rules."""
        parts = [rule.margins(progress) for rule in self]
        return Margins(*(_sum(offsets) for offsets in zip(*parts, strict=True))) if parts else Margins()

    def penalties(self, pseudo: PseudoLabels, step: Step, student: Student) -> list[Tensor]:
        """The extra losses of all rules."""
        found = (rule.penalty(pseudo, step, student) for rule in self if rule.penalizes)
        return [penalty for penalty in found if penalty is not None]

    @torch.no_grad()
    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        """Refresh each rule on held-out predictions that the earlier rules have refined."""
        log: dict[str, float] = {}
        training = self.training
        self.eval()
        for rule in self:
            log |= rule.refresh(held_out, predict, progress)
            if held_out is not None:
                held_out = held_out._replace(probs=rule(PseudoLabels.of(held_out.probs), None).probs)
        self.train(training)
        return log

    def offsets(self) -> dict[str, Tensor]:
        """The learned test-time offsets of all rules."""
        return _merge(rule.offsets() for rule in self)

    def artifact(self) -> dict[str, np.ndarray]:
        """The artifacts of all rules, in one mapping."""
        return _merge(rule.artifact() for rule in self)


def _sum(offsets: Iterable[Tensor | None]) -> Tensor | None:
    given = [offset for offset in offsets if offset is not None]
    return reduce(torch.add, given) if given else None


def _merge(parts: Iterator[dict]) -> dict:
    """Merge mappings. Raises `PolicyError` if two rules use the same name."""
    merged: dict = {}
    for part in parts:
        if twice := merged.keys() & part.keys():
            raise PolicyError(f"two rules of a policy both learn {', '.join(sorted(twice))}; use only one of them")
        merged |= part
    return merged
