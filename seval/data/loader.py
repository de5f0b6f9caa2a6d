"""Images on the device, or decoded on their way to it, and the endless, resumable batches drawn from them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import tee
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from seval.data.augment import Geometry, black, normalize
from seval.data.decode import Decoder
from seval.data.image_set import EncodedImages, Joined
from seval.errors import ConfigError


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device. For a GPU it is pinned in memory first, so that nothing waits for it.

    PyTorch keeps that memory for later calls, and reuses it once the GPU has read it.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


@dataclass(frozen=True, eq=False)
class Images(ABC):
    """The images of a split, uint8 (N, c, H, W), and their labels int64 (N,) on the device."""

    labels: Tensor

    @abstractmethod
    def batches(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each (B,) positions in the split, in turn: the same and their images (B, c, H, W), on the device.

        Positions may be taken ahead of what is yielded. Raises `DataError` for an image that is damaged.
        """

    @abstractmethod
    def followed_by(self, others: Self, positions: Tensor, labels: Tensor) -> Self:
        """These images and, after them, those at `positions` (M,) of another split, with `labels` (M,) for those."""

    @abstractmethod
    def evaluated(self, geometry: Geometry, batch: int) -> Self:
        """The evaluation views of these images, made `batch` at a time."""

    def in_order(self, batch: int) -> Iterator[Tensor]:
        """All images from the first to the last, `batch` at a time."""
        for _, images in self.batches(torch.arange(len(self.labels)).split(batch)):
            yield images


@dataclass(frozen=True, eq=False)
class HeldImages(Images):
    """Images that are on the device, all of them."""

    pixels: Tensor  # (N, c, H, W) uint8

    def batches(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for positions in order:
            positions = sent(positions, self.pixels.device)
            yield positions, self.pixels[positions]

    def followed_by(self, others: Self, positions: Tensor, labels: Tensor) -> Self:
        chosen = others.pixels[positions.to(self.pixels.device)]
        return replace(self, labels=torch.cat([self.labels, labels]), pixels=torch.cat([self.pixels, chosen]))

    def evaluated(self, geometry: Geometry, batch: int) -> Self:
        if not (geometry.crop or geometry.resolution):
            return self
        return replace(self, pixels=torch.cat([geometry.evaluation(part) for part in self.pixels.split(batch)]))


@dataclass(frozen=True, eq=False, kw_only=True)
class LazyImages(Images):
    """Encoded images, which are decoded when they are needed."""

    source: EncodedImages
    index: np.ndarray  # (N,) which images of the source they are
    decoder: Decoder
    geometry: Geometry | None = None  # of the evaluation views; None for the images as they were decoded

    def batches(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        order, ahead = tee(order)
        decoded = self.decoder.batches(self.source, (self.index[positions.numpy()] for positions in ahead))
        for positions, content in zip(order, decoded, strict=False):  # the order may have no end
            images = sent(torch.from_numpy(content), self.labels.device)
            yield sent(positions, self.labels.device), self.geometry.evaluation(images) if self.geometry else images

    def followed_by(self, others: Self, positions: Tensor, labels: Tensor) -> Self:
        index = np.concatenate([self.index, len(self.source) + others.index[positions.numpy()]])
        source, labels = Joined(self.source, others.source), torch.cat([self.labels, labels])
        return replace(self, labels=labels, source=source, index=index)

    def evaluated(self, geometry: Geometry, batch: int) -> Self:
        return replace(self, geometry=geometry)


def _none_balanced() -> tuple[Tensor, Tensor]:
    raise RuntimeError("this batch has no class-balanced images; set `balanced` of the algorithm, or of the Loader")


class Batch(NamedTuple):
    """What a training step sees; images are normalized float32."""

    labeled: tuple[Tensor, ...]  # views of the labeled images, each (B, c, H, W), in the algorithm's order
    labels: Tensor  # (B,)
    views: tuple[Tensor, ...]  # of the unlabeled images, each (mu B, c, H, W), in the algorithm's order
    index: Tensor  # (mu B,) which unlabeled images these are
    black: Tensor | float = 0.0  # (c, 1, 1): what a black pixel is, normalized
    #: Draws B labeled images, all classes equally likely, when it is called: weak views (B, c, H, W) and labels (B,).
    balanced: Callable[[], tuple[Tensor, Tensor]] = _none_balanced

    @property
    def images(self) -> Tensor:
        """The first view of the labeled images."""
        return self.labeled[0]


class Sampler:
    """Batches of positions from one fresh permutation after another, across their borders, as published.

    With `weights` (size,) each position is drawn with replacement in proportion to its weight.
    """

    def __init__(self, *, size: int, batch: int, generator: torch.Generator, weights: Tensor | None = None) -> None:
        if size < 1:
            raise ConfigError(
                "a split that training draws from has no images; raise the set's NUM_LABELED_HEAD or NUM_UNLABELED_HEAD"
            )
        self.size, self.batch, self.generator, self.weights = size, batch, generator, weights
        self.pending = torch.empty(0, dtype=torch.int64)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Tensor:
        """(batch,) int64."""
        if self.weights is not None:
            return torch.multinomial(self.weights, self.batch, replacement=True, generator=self.generator)
        while len(self.pending) < self.batch:
            self.pending = torch.cat([self.pending, torch.randperm(self.size, generator=self.generator)])
        head, self.pending = self.pending[: self.batch], self.pending[self.batch :]
        return head

    def twin(self) -> Self:
        """Another sampler, which will draw what this sampler will draw."""
        twin = type(self)(size=self.size, batch=self.batch, generator=torch.Generator(), weights=self.weights)
        twin.load_state_dict(self.state_dict())
        return twin

    def state_dict(self) -> dict[str, Tensor]:
        return {"pending": self.pending.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.pending = state["pending"]
        self.generator.set_state(state["generator"])


class Feed:
    """Endless batches of a split: which images, (B,), and their pixels, (B, c, H, W), on the device.

    Images are taken ahead of need: a twin of the sampler says which, while the sampler itself counts only the batches
    that training has seen, and is all that is saved.
    """

    def __init__(self, images: Images, batch: int, order: torch.Generator, weights: Tensor | None = None) -> None:
        self.images = images
        self.sampler = Sampler(size=len(images.labels), batch=batch, generator=order, weights=weights)
        self.ahead: Iterator[tuple[Tensor, Tensor]] | None = None  # begins with the first batch

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self.ahead is None:
            self.ahead = self.images.batches(self.sampler.twin())
        next(self.sampler)
        return next(self.ahead)

    def state_dict(self) -> dict[str, Tensor]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.sampler.load_state_dict(state)
        self.ahead = None


class Loader:
    """Labeled and unlabeled batches with their augmented views, made on the device."""

    def __init__(
        self,
        *,
        labeled: Images,
        unlabeled: Images,
        labeled_views: tuple[str, ...],
        views: tuple[str, ...],
        batch: int,
        ratio: int,
        geometry: Geometry,
        mean: Tensor,
        std: Tensor,
        seed: int,
        sampler: str = "random",
        beta: float = 1.0,
        balanced: bool = False,
    ) -> None:
        self.labels, self.labeled_views, self.views = labeled.labels, labeled_views, views
        self.geometry, self.mean, self.std = geometry, mean, std
        self.black = black(mean, std)
        weights = class_weights(labeled.labels, beta) if sampler == "class_aware" else None
        self.feeds = {"labeled": Feed(labeled, batch, generator(seed, "labeled order"), weights)}
        if views:
            self.feeds["unlabeled"] = Feed(unlabeled, ratio * batch, generator(seed, "unlabeled order"))
        if balanced:
            self.feeds["balanced"] = Feed(
                labeled, batch, generator(seed, "balanced order"), class_weights(labeled.labels)
            )
        names = ("labeled view", "unlabeled views", *(["balanced view"] if balanced else []))
        self.view_generators = {name: generator(seed, name, labeled.labels.device) for name in names}

    def __next__(self) -> Batch:
        index, pixels = next(self.feeds["labeled"])
        labeled, labels = self._views(self.labeled_views, pixels, "labeled view"), self.labels[index]
        if not self.views:
            return Batch(labeled, labels, (), index[:0], self.black)
        index, pixels = next(self.feeds["unlabeled"])
        more = [self._balanced] if "balanced" in self.feeds else []
        return Batch(labeled, labels, self._views(self.views, pixels, "unlabeled views"), index, self.black, *more)

    def _balanced(self) -> tuple[Tensor, Tensor]:
        index, pixels = next(self.feeds["balanced"])
        return self._views(("weak",), pixels, "balanced view")[0], self.labels[index]

    def _views(self, names: tuple[str, ...], pixels: Tensor, stream: str) -> tuple[Tensor, ...]:
        views = (self.geometry.view(name, pixels, self.view_generators[stream]) for name in names)
        return tuple(normalize(view, self.mean, self.std) for view in views)

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


def class_weights(labels: Tensor, beta: float = 1.0) -> Tensor:
    """(N,) float64 on the CPU: (1 - beta) / (1 - beta**n) for an image of a class of n; 1 / n where beta is 1.

    At 1 all classes are equally likely, at 0 all images. The published sampler's beta is 0.999.
    """
    labels = labels.cpu()
    counts = torch.bincount(labels).double()[labels]
    return 1.0 / counts if beta == 1 else (1 - beta) / (1 - beta**counts)


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """The random stream of that name; streams of different names or seeds are independent."""
    words = np.random.SeedSequence([seed % 2**32, *name.encode()]).generate_state(2, np.uint32)
    return torch.Generator(device).manual_seed((int(words[0]) << 31) ^ int(words[1]))
