"""The exponential moving average of a network, which teaches and is evaluated."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class Ema(Generic[N]):
    """Averages parameters and floating-point buffers (BatchNorm statistics too); integer buffers are copied.

    After step t (from 0) the decay is min(1 - 1/(t + 1), `decay`), so the first update makes it equal to the network.
    The published code averages the integer batch counter too, which nothing reads.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self._pairs = _pairs(self.network, network, floating=True)
        self._copied = _pairs(self.network, network, floating=False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold the network's present state in, after optimizer step `step`."""
        weight = 1 - min(1 - 1 / (step + 1), self.decay)
        torch._foreach_lerp_(*self._pairs, weight)
        torch._foreach_copy_(*self._copied)


def _pairs(average: nn.Module, network: nn.Module, floating: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Tensors of the average and of the network, in one order; the network's are live."""

    def tensors(module: nn.Module) -> list[Tensor]:
        return [t.detach() for t in (*module.parameters(), *module.buffers()) if t.is_floating_point() is floating]

    return tensors(average), tensors(network)
