"""Images on the device and the endless, resumable stream of batches drawn from them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seval.data.augment import VIEWS, normalize


class Images(NamedTuple):
    """A set of images as it lies on the device."""

    images: Tensor  # (N, c, H, W) uint8
    labels: Tensor  # (N,) int64


class Batch(NamedTuple):
    """What a training step sees; images are normalized float32."""

    images: Tensor  # (B, c, H, W) labeled, weak view
    labels: Tensor  # (B,)
    views: tuple[Tensor, ...]  # of the unlabeled images, each (mu B, c, H, W), in the algorithm's order
    index: Tensor  # (mu B,) which unlabeled images these are


class IndexStream:
    """Batches of indices from one fresh permutation after another, across their borders, as published."""

    def __init__(self, size: int, batch: int, generator: torch.Generator) -> None:
        if size < 1:
            raise ValueError("a stream of batches needs at least one image")
        self.size, self.batch, self.generator = size, batch, generator
        self.pending = torch.empty(0, dtype=torch.int64)

    def __next__(self) -> Tensor:
        """(batch,) int64."""
        while len(self.pending) < self.batch:
            self.pending = torch.cat([self.pending, torch.randperm(self.size, generator=self.generator)])
        head, self.pending = self.pending[: self.batch], self.pending[self.batch :]
        return head

    def state_dict(self) -> dict[str, Tensor]:
        return {"pending": self.pending.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.pending = state["pending"]
        self.generator.set_state(state["generator"])


class Loader:
    """Labeled and unlabeled batches with their augmented views, made on the device."""

    def __init__(
        self,
        labeled: Images,
        unlabeled: Images,
        views: tuple[str, ...],
        batch: int,
        ratio: int,
        mean: Tensor,
        std: Tensor,
        seed: int,
        padding: int = 4,
        cutout: int = 16,
    ) -> None:
        self.padding, self.cutout = padding, cutout
        device = labeled.images.device
        self.labeled, self.unlabeled, self.views, self.mean, self.std = labeled, unlabeled, views, mean, std
        self.labeled_stream = IndexStream(len(labeled.labels), batch, generator(seed, "labeled order"))
        self.unlabeled_stream = None
        if views:
            order = generator(seed, "unlabeled order")
            self.unlabeled_stream = IndexStream(len(unlabeled.labels), ratio * batch, order)
        self.view_generators = {name: generator(seed, name, device) for name in ("labeled view", "unlabeled views")}

    def __next__(self) -> Batch:
        device = self.labeled.images.device
        index = next(self.labeled_stream).to(device)
        images = self._view("weak", self.labeled.images[index], "labeled view")
        labels = self.labeled.labels[index]
        if self.unlabeled_stream is None:
            return Batch(images, labels, (), index[:0])
        index = next(self.unlabeled_stream).to(device)
        pixels = self.unlabeled.images[index]
        return Batch(images, labels, tuple(self._view(name, pixels, "unlabeled views") for name in self.views), index)

    def _view(self, name: str, pixels: Tensor, stream: str) -> Tensor:
        view = VIEWS[name](pixels, self.view_generators[stream], self.padding, self.cutout)
        return normalize(view, self.mean, self.std)

    def state_dict(self) -> dict:
        streams = {"labeled": self.labeled_stream, "unlabeled": self.unlabeled_stream}
        return {
            "streams": {name: stream.state_dict() for name, stream in streams.items() if stream},
            "views": {name: g.get_state() for name, g in self.view_generators.items()},
        }

    def load_state_dict(self, state: dict) -> None:
        self.labeled_stream.load_state_dict(state["streams"]["labeled"])
        if self.unlabeled_stream:
            self.unlabeled_stream.load_state_dict(state["streams"]["unlabeled"])
        for name, g in self.view_generators.items():
            g.set_state(state["views"][name].cpu())


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The random stream of that name: streams of different names or seeds are independent."""
    words = np.random.SeedSequence([seed % 2**32, *name.encode()]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed((int(words[0]) << 31) ^ int(words[1]))
