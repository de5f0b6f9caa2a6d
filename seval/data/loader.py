"""Images on the device, or on their way to it, and the endless, resumable stream of batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seval.data.augment import VIEWS, evaluation, normalize, resize
from seval.data.decode import Decoder
from seval.data.image_set import Encoded, Joined
from seval.errors import ConfigError


class Streamed:
    """The encoded images of a split: stands where a tensor of images would, and decodes them when they are needed.

    `index` (N,) says which images of `source` they are; `crop` and `resolution` are those of the evaluation view.
    """

    def __init__(
        self,
        source: Encoded | Joined,
        index: np.ndarray,
        decoder: Decoder,
        device: torch.device,
        crop: int = 0,
        resolution: int = 0,
    ) -> None:
        self.source, self.index, self.decoder, self.device = source, index, decoder, device
        self.crop, self.resolution = crop, resolution

    def __len__(self) -> int:
        return len(self.index)

    def batches(self, positions: Iterable[Tensor]) -> Iterator[Tensor]:
        """For each (B,) positions in the split, in turn, the images (B, 3, H, W) uint8 on the device.

        Positions are taken ahead of what is yielded. Raises `DataError` for an image that is damaged.
        """
        for images in self.decoder.stream(self.source, (self.index[batch.numpy()] for batch in positions)):
            yield torch.from_numpy(images).to(self.device)

    def with_others(self, others: Streamed, positions: np.ndarray) -> Streamed:
        """These images and, after them, those at `positions` of another split."""
        index = np.concatenate([self.index, len(self.source) + others.index[positions]])
        source = Joined(self.source, others.source)
        return Streamed(source, index, self.decoder, self.device, self.crop, self.resolution)

    def split(self, batch: int) -> Iterator[Tensor]:
        """The evaluation views of all images in order, `batch` at a time: what a tensor's `split` gives."""
        for images in self.batches(torch.arange(len(self)).split(batch)):
            yield evaluation(images, self.crop, self.resolution)


class Images(NamedTuple):
    """A set of images as it lies on the device, or as it is streamed to it."""

    images: Tensor | Streamed  # (N, c, H, W) uint8
    labels: Tensor  # (N,) int64, on the device


class Batch(NamedTuple):
    """What a training step sees; images are normalized float32."""

    images: Tensor  # (B, c, H, W) labeled, weak view
    labels: Tensor  # (B,)
    views: tuple[Tensor, ...]  # of the unlabeled images, each (mu B, c, H, W), in the algorithm's order
    index: Tensor  # (mu B,) which unlabeled images these are


class IndexStream:
    """Batches of indices from one fresh permutation after another, across their borders, as published.

    With `weights` (size,) each index is drawn with replacement in proportion to its own.
    """

    def __init__(self, size: int, batch: int, generator: torch.Generator, weights: Tensor | None = None) -> None:
        if size < 1:
            raise ConfigError(
                "a split that training draws from has no images; raise the set's NUM_LABELED_HEAD or NUM_UNLABELED_HEAD"
            )
        self.size, self.batch, self.generator, self.weights = size, batch, generator, weights
        self.pending = torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> IndexStream:
        return self

    def __next__(self) -> Tensor:
        """(batch,) int64."""
        if self.weights is not None:
            return torch.multinomial(self.weights, self.batch, replacement=True, generator=self.generator)
        while len(self.pending) < self.batch:
            self.pending = torch.cat([self.pending, torch.randperm(self.size, generator=self.generator)])
        head, self.pending = self.pending[: self.batch], self.pending[self.batch :]
        return head

    def twin(self) -> IndexStream:
        """Another stream that goes on as this one will."""
        twin = IndexStream(self.size, self.batch, torch.Generator(), self.weights)
        twin.load_state_dict(self.state_dict())
        return twin

    def state_dict(self) -> dict[str, Tensor]:
        return {"pending": self.pending.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.pending = state["pending"]
        self.generator.set_state(state["generator"])


class Feed:
    """Endless batches of a split: which images, (B,), and their pixels, (B, c, H, W), on the device.

    Encoded images are decoded ahead of need: a twin of the stream says what to decode, while the stream itself stands
    where training does and is all that is saved.
    """

    def __init__(self, images: Images, batch: int, order: torch.Generator, weights: Tensor | None = None) -> None:
        self.images, self.device = images.images, images.labels.device
        self.stream = IndexStream(len(images.labels), batch, order, weights)
        self.decoded: Iterator[Tensor] | None = None  # begins with the first batch

    def __next__(self) -> tuple[Tensor, Tensor]:
        if isinstance(self.images, Tensor):
            index = next(self.stream).to(self.device)
            return index, self.images[index]
        if self.decoded is None:
            self.decoded = self.images.batches(self.stream.twin())
        return next(self.stream).to(self.device), next(self.decoded)

    def state_dict(self) -> dict[str, Tensor]:
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.stream.load_state_dict(state)
        self.decoded = None


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
        crop: int = 0,
        resolution: int = 0,
        sampler: str = "random",
    ) -> None:
        self.geometry, self.resolution = (padding, cutout, crop), resolution
        device = labeled.labels.device
        self.labels, self.views, self.mean, self.std = labeled.labels, views, mean, std
        weights = class_weights(labeled.labels) if sampler == "class_aware" else None
        self.feeds = {"labeled": Feed(labeled, batch, generator(seed, "labeled order"), weights)}
        if views:
            self.feeds["unlabeled"] = Feed(unlabeled, ratio * batch, generator(seed, "unlabeled order"))
        self.view_generators = {name: generator(seed, name, device) for name in ("labeled view", "unlabeled views")}

    def __next__(self) -> Batch:
        index, pixels = next(self.feeds["labeled"])
        images, labels = self._view("weak", pixels, "labeled view"), self.labels[index]
        if not self.views:
            return Batch(images, labels, (), index[:0])
        index, pixels = next(self.feeds["unlabeled"])
        return Batch(images, labels, tuple(self._view(name, pixels, "unlabeled views") for name in self.views), index)

    def _view(self, name: str, pixels: Tensor, stream: str) -> Tensor:
        view = VIEWS[name](pixels, self.view_generators[stream], *self.geometry)
        return normalize(resize(view, self.resolution), self.mean, self.std)

    def state_dict(self) -> dict:
        return {
            "streams": {name: feed.state_dict() for name, feed in self.feeds.items()},
            "views": {name: g.get_state() for name, g in self.view_generators.items()},
        }

    def load_state_dict(self, state: dict) -> None:
        for name, feed in self.feeds.items():
            feed.load_state_dict(state["streams"][name])
        for name, g in self.view_generators.items():
            g.set_state(state["views"][name])


def class_weights(labels: Tensor) -> Tensor:
    """(N,) float64 on the CPU: 1 / images of each one's class, which makes every class as likely as any other."""
    labels = labels.cpu()
    return 1.0 / torch.bincount(labels).double()[labels]


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The random stream of that name: streams of different names or seeds are independent."""
    words = np.random.SeedSequence([seed % 2**32, *name.encode()]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed((int(words[0]) << 31) ^ int(words[1]))
