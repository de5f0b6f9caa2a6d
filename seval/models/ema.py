"""The exponential moving average of a network. It is evaluated, and it is the teacher in some algorithms."""

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class Ema(Generic[N]):
    """Averages parameters and floating-point buffers, including BatchNorm statistics; copies integer buffers.

    After step t (from 0) the decay is min(1 - 1/(t + 1), `decay`), so the first update copies the network.
    The published code also averages the integer batch counter, which is never read.
    """

    def __init__(self, network: N, decay: float) -> None:
        self.network = deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self._averaged = _tensors(self.network, floating=True), _tensors(network, floating=True)
        self._copied = _tensors(self.network, floating=False), _tensors(network, floating=False)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the network's current state to the average, after optimizer step `step`."""
        weight = 1 - min(1 - 1 / (step + 1), self.decay)
        if self._averaged[0]:  # PyTorch refuses empty lists
            torch._foreach_lerp_(*self._averaged, weight)
        if self._copied[0]:
            torch._foreach_copy_(*self._copied)


def _tensors(module: nn.Module, floating: bool) -> list[Tensor]:
    """Its parameters and buffers, sharing memory with it, in an order that is the same for every copy."""
    return [t.detach() for t in (*module.parameters(), *module.buffers()) if t.is_floating_point() is floating]
