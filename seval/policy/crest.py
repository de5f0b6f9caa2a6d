"""CReST: at the end of a run, select unlabeled images and their pseudo-labels as labels for the next generation."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from seval.errors import PolicyError
from seval.policy.base import Facts, HeldOut, Rule


def select(probs: Tensor, class_counts: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Select, for each class c, the most confident floor(mu_c m_c) of the m_c images predicted as c.

    probs: (M, C). mu_c = (n_c' / largest n)^power for labeled counts n, where c' is the class with the rank of c when
    counted from the rarest class: the rarest class keeps everything. Returns (indices, labels).
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
    """Class-rebalancing self-training (Wei et al., arXiv 2102.09559). Does not change pseudo-labels.

    At the end of the run, images are selected by the averaged network's unrefined predictions. The run that depends on
    this one adds them to its labels.
    """

    def __init__(self, facts: Facts, power: float = 1 / 3) -> None:
        super().__init__()
        if power < 0:
            raise PolicyError(f"crest power is {power:g}, but must be at least 0, which selects everything")
        self.power, self.class_counts = power, facts.class_counts.cpu()
        self.selection = (torch.empty(0, dtype=torch.int64),) * 2

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
