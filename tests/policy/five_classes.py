"""Five classes, 60 unlabeled images and a stream of their predictions, for the tests of rules that set weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from seval.policy.base import Facts, Policy, PseudoLabels, Step
from seval.policy.language import build_policy

C, U, N = 5, 60, 16  # classes, unlabeled images, images a step
COUNTS, HEAD = (20.0, 5.0, 50.0, 10.0, 2.0), 2


def built(text: str, counts: Sequence[float] = COUNTS) -> Policy:
    return build_policy(text, Facts(C, torch.tensor(counts), U))


def drawn(seed: int, n: int = N, scale: float = 3.0) -> Tensor:
    """(n, C) predictions that favor the frequent classes."""
    noise = torch.randn(n, C, generator=torch.Generator().manual_seed(seed))
    return (scale * noise + 0.7 * torch.tensor(COUNTS).log()).softmax(1)


def stream() -> Iterator[tuple[Tensor, Tensor]]:
    """Predictions, unsure to sure, and the images they are of, which come back."""
    for i in range(30):
        yield drawn(i, scale=(1, 3, 9)[i % 3]), torch.randperm(U, generator=torch.Generator().manual_seed(i))[:N]


def rows(labels: Sequence[int], confidence: float | Tensor) -> Tensor:
    """A prediction of that confidence for each label; the other classes are alike."""
    q, hard = torch.as_tensor(confidence).reshape(-1, 1), torch.eye(C)[list(labels)]
    return torch.where(hard > 0, q, (1 - q) / (C - 1))


def at(index: Sequence[int] | Tensor, progress: float = 0.5) -> Step:
    none = torch.zeros(0, 2)
    return Step(torch.as_tensor(index), torch.zeros(len(index), 2), lambda: none, none[:, 0].long(), progress)


def train(policy: Policy, probs: Tensor, index: Sequence[int] | Tensor, progress: float = 0.5) -> np.ndarray:
    return policy.train()(PseudoLabels.of(probs), at(index, progress)).weight.numpy()


def evaluate(policy: Policy, probs: Tensor) -> np.ndarray:
    return policy.eval()(PseudoLabels.of(probs), None).weight.numpy()


def refresh(policy: Policy, predictions: Tensor | None = None) -> None:
    policy.refresh(None, lambda: predictions, 0.5)
