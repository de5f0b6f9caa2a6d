"""Four classes and 61 unlabeled images, for the tests of rules that refine predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seval.policy.base import Facts, Policy, PseudoLabels, Step
from seval.policy.language import build_policy

C, M = 4, 61  # classes, unlabeled images
COUNTS = torch.tensor([400.0, 50, 200, 100])
ORDER = torch.tensor([2, 0, 3, 1])


def probs(seed: int = 0, n: int = M, scale: float = 1.0, classes: int = C) -> Tensor:
    return (scale * torch.randn(n, classes, generator=torch.Generator().manual_seed(seed))).softmax(1)


def build(text: str, counts: Tensor = COUNTS, artifacts: Mapping = {}, held_out: int = 9, size: int = M) -> Policy:
    return build_policy(text, Facts(len(counts), counts, size, held_out, artifacts=artifacts))


def step(index: Sequence[int] | Tensor = range(M), progress: float = 0.5) -> Step:
    index = torch.as_tensor(index)
    return Step(
        index, torch.zeros(len(index), 1), lambda: torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), progress
    )


def evaluate(policy: Policy, pseudo: PseudoLabels) -> PseudoLabels:
    """Its output in evaluation, which must leave its state."""
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    after = policy.eval()(pseudo, None)
    assert all(torch.equal(before[key], value) for key, value in policy.state_dict().items())
    policy.train()
    return after
