"""A policy: pseudo-labels travel through a chain of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Self, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from seval.errors import PolicyError

R = TypeVar("R", bound="Rule")


class PseudoLabels(NamedTuple):
    """What travels through a policy."""

    probs: Tensor  # (N, C), rows on the simplex
    weight: Tensor  # (N,), >= 0; 1 before any threshold rule

    @classmethod
    def of(cls, probs: Tensor) -> Self:
        """Pseudo-labels of full weight."""
        return cls(probs, torch.ones_like(probs[:, 0]))

    def repeat(self, copies: int) -> Self:
        """The same pseudo-labels for each of several views in turn: (copies N, C) and (copies N,)."""
        return type(self)(self.probs.repeat(copies, 1), self.weight.repeat(copies)) if copies > 1 else self

    def check(self) -> Self:
        """Raise unless rows lie on the simplex and weights are not negative; for tests and new rules, not the step."""
        sums = self.probs.sum(1)
        if self.probs.min() < 0 or not torch.allclose(sums, torch.ones_like(sums), atol=1e-5) or self.weight.min() < 0:
            raise ValueError("pseudo-labels must have rows on the simplex and weights >= 0")
        return self


class HeldOut(NamedTuple):
    """Predictions on the held-out split, refined by the rules before the one that sees them."""

    probs: Tensor  # (K, C) float64
    labels: Tensor  # (K,)


class Facts(NamedTuple):
    """What a rule may know when it is built."""

    num_classes: int
    class_counts: Tensor  # (C,) labeled images of each class
    num_unlabeled: int
    num_held_out: int = 0
    feature_dim: int = 0
    num_evaluations: int = 0  # that `refresh` will see; 0 where it is not known
    artifacts: Mapping[str, np.ndarray] = {}  # what the prerequisite run's policy of this head left
    before: tuple[Rule, ...] = ()  # the rules before this one in its policy

    def previous(self, kind: type[R], name: str = "") -> tuple[R, ...]:
        """The rules of that kind before this one in its policy: the only way for a rule to reach another.

        A tuple, so that PyTorch does not take them for parts of the rule that keeps them, and save their state twice.
        A rule that needs one gives the `name` that policies use for it. Then no such rule raises `PolicyError`.
        """
        found = tuple(rule for rule in self.before if isinstance(rule, kind))
        if name and not found:
            raise PolicyError(
                f"a rule reads what {name!r} before it has learned, but there is none; write {name} first"
            )
        return found


class Step(NamedTuple):
    """What a rule may know of a training step."""

    index: Tensor  # (N,) which unlabeled images these are
    features: Tensor  # (N, D) of the teacher's view
    anchors: Callable[[], Tensor]  # (B, D) the averaged network's features of the labeled images, computed when asked
    anchor_labels: Tensor  # (B,)
    progress: float  # in [0, 1]


class Student(NamedTuple):
    """What a penalty may know of the view that is trained on; gradients flow through it."""

    logits: Tensor  # (N, C)
    features: Tensor  # (N, D)


class Rule(nn.Module):
    """One stage of a policy: changes `probs` or `weight`, never both. Its statistics are buffers.

    A rule never sees the configuration, the network, the logger, the device or the number of steps. In evaluation
    mode (`policy.eval()`) `forward` must not change statistics, draws nothing, and `step` is None. What it draws in
    training comes from PyTorch's global generator.
    """

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        raise NotImplementedError

    @property
    def penalizes(self) -> bool:
        """Whether `penalty` is to be asked for, which needs an algorithm that trains on a view as it is."""
        return type(self).penalty is not Rule.penalty

    def penalty(self, pseudo: PseudoLabels, step: Step, student: Student) -> Tensor | None:
        """An extra loss that belongs to the rule; `pseudo` has passed through the whole policy."""
        return None

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        """Re-estimate slow statistics at an evaluation and return what to log; `predict` is (M, C) on the unlabeled."""
        return {}

    def offsets(self) -> dict[str, Tensor]:
        """Learned log offsets (C,) to subtract from test logits, by name."""
        return {}

    def artifact(self) -> dict[str, np.ndarray]:
        """What a later run may stand on."""
        return {}


class Policy(nn.Sequential):
    """A chain of rules; `text` is its canonical form."""

    text: str = ""

    def __iter__(self) -> Iterator[Rule]:
        return cast(Iterator[Rule], super().__iter__())

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        for rule in self:
            pseudo = rule(pseudo, step)
        return pseudo

    def penalties(self, pseudo: PseudoLabels, step: Step, student: Student) -> list[Tensor]:
        """The rules' extra losses."""
        found = (rule.penalty(pseudo, step, student) for rule in self if rule.penalizes)
        return [penalty for penalty in found if penalty is not None]

    @torch.no_grad()
    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        """Refresh each rule on held-out predictions that passed through the rules before it."""
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
        """Every learned test-time offset."""
        return _merge(rule.offsets() for rule in self)

    def artifact(self) -> dict[str, np.ndarray]:
        """Every rule's artifact, in one mapping."""
        return _merge(rule.artifact() for rule in self)


def _merge(parts: Iterator[dict]) -> dict:
    """One mapping of all; two rules that use one name are a mistake in the policy."""
    merged: dict = {}
    for part in parts:
        twice = merged.keys() & part.keys()
        if twice:
            raise PolicyError(f"two rules of one policy both learn {', '.join(sorted(twice))}; use each only once")
        merged |= part
    return merged
