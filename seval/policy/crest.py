"""CReST: at its end a run picks unlabeled images, and their pseudo-labels, as labels of the next generation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from seval.errors import PolicyError
from seval.policy.base import Facts, HeldOut, PseudoLabels, Rule, Step


def select(probs: Tensor, class_counts: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """(indices, labels) of the most confident floor(mu_c n_c) of the n_c images predicted as each class c.

    probs (M, C); mu_c = (n of the class as far from the other end of the ranking / largest n)^power, by labeled counts
    n: of the rarest class all, of the most frequent one the least.
    """
    rank = class_counts.argsort(descending=True, stable=True)
    rates = (class_counts.double()[rank.flip(0)] / class_counts.max())[rank.argsort()] ** power
    confidence, label = probs.max(1)
    chosen = []
    for c, rate in enumerate(rates.tolist()):
        members = torch.nonzero(label == c).flatten()
        order = confidence[members].argsort(descending=True, stable=True)
        chosen.append(members[order[: int(rate * len(members) + 1e-6)]])
    index = torch.cat(chosen)
    return index, label[index]


class Crest(Rule):
    """Class-rebalancing self-training (Wei et al., arXiv 2102.09559); changes no pseudo-label.

    The run that stands on this one adds the selection to its labels. It is made from the averaged network's plain
    predictions at the end.
    """

    def __init__(self, facts: Facts, power: float = 1 / 3) -> None:
        super().__init__()
        if power < 0:
            raise PolicyError(f"crest power is {power:g}, but must be at least 0, which selects everything")
        self.power, self.class_counts = power, facts.class_counts.cpu()
        self.selection = (torch.empty(0, dtype=torch.int64),) * 2

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        return pseudo

    def refresh(self, held_out: HeldOut | None, predict: Callable[[], Tensor], progress: float) -> dict[str, float]:
        if progress < 1:
            return {}
        self.selection = select(predict().cpu(), self.class_counts, self.power)
        return {"crest_selected": float(len(self.selection[0]))}

    def artifact(self) -> dict[str, np.ndarray]:
        return dict(zip(("selected", "selected_labels"), (part.numpy() for part in self.selection), strict=True))

    def get_extra_state(self) -> tuple[Tensor, ...]:
        return self.selection

    def set_extra_state(self, state: tuple[Tensor, ...]) -> None:
        self.selection = tuple(state)
