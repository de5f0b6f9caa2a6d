"""A backbone's training pass as a CUDA graph: one launch in place of hundreds of small kernels, with the same results.

The graph holds the kernels of the usual pass, forward and backward, in the same order. It reads and writes memory at
fixed places, so weights, BatchNorm statistics and the images must stay where they are: only their values change.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seval.errors import one_line

#: Takes a module and sample arguments, returns what may be called in the module's place.
Capture = Callable[[nn.Module, tuple[Tensor, ...]], Callable[[Tensor], Tensor]]


class Pass(nn.Module):
    """A backbone under autocast, whose cache of cast weights must be off in a graph; each weight is used once anyway.

    It is a module of its own for every graph, since capturing replaces `forward`.
    """

    def __init__(self, backbone: nn.Module, half: bool) -> None:
        super().__init__()
        self.backbone, self.half_precision = backbone, half

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half_precision, cache_enabled=False):
            return self.backbone(images)


def cuda_graphs(module: nn.Module, sample: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor]:
    """The module with its forward and backward passes as CUDA graphs, in its mode and for such arguments."""
    graphed: Any = torch.cuda.make_graphed_callables(module, sample)
    return graphed


class Captured:
    """Features of a backbone in training mode, by a graph for each shape of images that it is called with.

    Where a graph cannot be made, it says so once and computes as usual from then on. So does each pass that begins
    before the backward pass of the one before, whose activations the graph still holds.
    """

    def __init__(self, backbone: nn.Module, half: bool, capture: Capture = cuda_graphs) -> None:
        self.backbone, self.half, self.capture = backbone, half, capture
        self.graphs: dict[tuple, Callable[[Tensor], Tensor]] = {}
        self.failed = self.pending = False

    def __call__(self, images: Tensor) -> Tensor:
        """(N, c, H, W) -> (N, feature_dim)."""
        shape = (images.shape, images.stride(), images.dtype)
        if shape not in self.graphs and not self.failed and not self.pending:
            self._add(shape, images)
        if self.pending or shape not in self.graphs:
            return Pass(self.backbone, self.half)(images)
        features = self.graphs[shape](images).clone()  # the next pass overwrites what the graph returns
        self.pending = True
        features.register_hook(self._done)
        return features

    def _done(self, _: Tensor) -> None:
        self.pending = False

    def _add(self, shape: tuple, images: Tensor) -> None:
        """Capture a graph for images like these. The passes that warm up leave no trace in statistics or generators."""
        before = [buffer.clone() for buffer in self.backbone.buffers()]
        try:
            with torch.random.fork_rng([images.device] if images.is_cuda else []):
                self.graphs[shape] = self.capture(Pass(self.backbone, self.half), (images.clone(),))
        except RuntimeError as error:  # also a lack of memory
            self.failed = True
            print(f"the network is not captured as a CUDA graph ({one_line(error)}); training goes on", file=sys.stderr)
        with torch.no_grad():
            for buffer, value in zip(self.backbone.buffers(), before, strict=True):
                buffer.copy_(value)
