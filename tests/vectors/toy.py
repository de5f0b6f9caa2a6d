"""The small network and the twelve batches that every algorithm of `methods.npz` was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from tests.vectors.driving import Batch, Facts, Solver

STEPS = 12
NUM_UNLABELED = 200
CLASSIFIERS = ("linear", "balanced", "rotation")

Arrays = Mapping[str, np.ndarray]


class Toy(nn.Module):
    """Features 4 tanh(W x + b) of all pixels x, and three linear classifiers."""

    def __init__(self, v: Arrays) -> None:
        super().__init__()
        self.encoder = _linear(v, "encoder")
        self.classifiers = nn.ModuleDict({name: _linear(v, name) for name in CLASSIFIERS})
        self.register_buffer(
            "steps", torch.zeros((), dtype=torch.int64)
        )  # such as BatchNorm has; the average copies it

    def features(self, images: Tensor) -> Tensor:
        return 4 * torch.tanh(self.encoder(images.flatten(1)))

    def classify(self, features: Tensor, head: str) -> Tensor:
        return self.classifiers[head](features)

    def groups(self, features: Tensor, head: str) -> Tensor:
        return self.classify(features, head).unsqueeze(0)

    def cuts(self, head: str) -> tuple[int, ...]:
        return (0,)


def _linear(v: Arrays, name: str) -> nn.Linear:
    weight, bias = (torch.tensor(v[f"net/{name}_{part}"]) for part in ("weight", "bias"))
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    return layer


def means(net: nn.Module) -> list[float]:
    """The mean of each parameter: weight and bias of the encoder, then of each classifier."""
    layers = [net.encoder, *(net.classifiers[name] for name in CLASSIFIERS)]
    return [p.detach().double().mean().item() for layer in layers for p in (layer.weight, layer.bias)]


def facts(v: Arrays) -> Facts:
    return Facts(10, torch.tensor(v["class_counts"]).float(), NUM_UNLABELED, feature_dim=8)


def batches(v: Arrays, views: Sequence[int], rows: int = 32) -> Iterator[Batch]:
    """Of the weak, strong, strong and plain view of each unlabeled image, those numbered in `views`."""
    for step in range(STEPS):
        images = torch.tensor(v["batches/images"][step]).float()
        seen = tuple(torch.tensor(v["batches/views"][step, view, :rows]).float() for view in views)
        labels, index = (torch.tensor(v[f"batches/{key}"][step]).long() for key in ("labels", "index"))
        yield Batch((images,), labels, seen, index[:rows])


def solver(ema_decay: float = 0.9, ema_step: Callable[[int], int] = int) -> Solver:
    return Solver(lambda step: 0.05, ema_decay, ema_step=ema_step)
