"""What a training step needs of a machine, counted from its network, and how long a card should take for that."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from seval.algorithms import ALGORITHMS
from seval.build import build_network
from seval.config import load
from seval.data import hdf5
from seval.defaults import Node
from seval.errors import DataError
from seval.policy.base import Facts

EFFICIENCY = 0.7  # the share of its peak rates that a card is assumed to reach
LAUNCH = 10e-6  # seconds in which the host is assumed to start one kernel
OTHERS = 400  # kernels of a step besides those of the network: views, rules, losses, optimizer, average
SETS = {  # (channels, side, images kept on the device) where the set is not prepared on this machine
    "cifar10": (3, 32, 50_000),
    "cifar100": (3, 32, 50_000),
    "fashion_mnist": (1, 28, 60_000),
    "stl10": (3, 96, 105_000),
    "small_imagenet127": (3, 32, 1_281_167),
    "small_imagenet127_64": (3, 64, 1_281_167),
}


class Card(NamedTuple):
    """Peak rates from a card's data sheet: dense floating-point operations and bytes of memory, each per second."""

    name: str
    float32: float  # of convolutions, so with TF32 where the card has it
    bfloat16: float
    bandwidth: float


CARDS = {
    "v100": Card("V100", 15.7e12, 15.7e12, 900e9),
    "t4": Card("T4", 8.1e12, 8.1e12, 320e9),
    "2080": Card("RTX 2080 Ti", 13.4e12, 13.4e12, 616e9),
    "3090": Card("RTX 3090", 35.6e12, 71e12, 936e9),
    "4090": Card("RTX 4090", 82.6e12, 165e12, 1008e9),
    "a40": Card("A40", 74.8e12, 150e12, 696e9),
    "l40": Card("L40S", 183e12, 362e12, 864e9),
    "a100": Card("A100", 156e12, 312e12, 1555e9),
    "h100": Card("H100", 495e12, 989e12, 3350e9),
    "h200": Card("H200", 495e12, 989e12, 4800e9),
    "cpu": Card("CPU core", 90e9, 90e9, 30e9),
}


class Needs(NamedTuple):
    """Of one training step; all but the kernels is proportional to the number of images."""

    operations: list[tuple[float, float]]  # (floating-point operations, bytes) of each kernel
    saved: float  # bytes kept for the backward pass
    weights: float  # bytes

    def seconds(self, card: Card, precision: str) -> float:
        """At `EFFICIENCY`, each kernel limited by arithmetic or by memory, and all by how fast the host starts them."""
        peak = getattr(card, precision)
        busy = sum(max(flops / peak, moved / card.bandwidth) for flops, moved in self.operations) / EFFICIENCY
        return busy if card is CARDS["cpu"] else max(busy, LAUNCH * (OTHERS + len(self.operations)))


def card_of(text: str) -> Card:
    """The card that a site asks for, by its name in `gres` or `constraint`; an A100 where it names none of `CARDS`."""
    return next((card for name, card in CARDS.items() if name != "cpu" and name in text.lower()), CARDS["a100"])


def needs(cfg: Node) -> Needs:
    """Of a step of the configured run, for its network and the images that go through it forwards and backwards."""
    model, (channels, side, _) = cfg.MODEL.clone(), stored(cfg)
    side = cfg.DATASET.RESOLUTION or cfg.DATASET.CROP or side
    half = cfg.SOLVER.PRECISION == "bfloat16"
    counted = _counted(model.NAME, model.DEPTH, model.WIDTH, channels, side)
    images, size = step_images(cfg), 0.5 if half else 1.0
    return Needs(
        [(flops * images, moved * images * size) for flops, moved in counted.operations],
        counted.saved * images * size,
        counted.weights,
    )


def memory(cfg: Node) -> float:
    """Bytes that a GPU needs: weights, gradient, momentum and average, what is kept for backward, and the images.

    Twice what is kept for backward, for the gradients on their way and the workspace of the convolutions, and 0.5 GB
    for CUDA. An estimate, not a measurement.
    """
    need, (channels, side, number) = needs(cfg), stored(cfg)
    return 4 * need.weights + 2 * need.saved + number * channels * side**2 + 0.5e9


def step_images(cfg: Node) -> int:
    """How many images a step sends through the network."""
    algorithm = ALGORITHMS.build(cfg.ALGORITHM.NAME, Facts.of([1, 1], 1), 1.0)
    labeled, ratio = len(algorithm.labeled_views), cfg.SOLVER.UNLABELED_BATCH_RATIO
    return cfg.SOLVER.IMS_PER_BATCH * (labeled + ratio * len(algorithm.views))


def stored(cfg: Node) -> tuple[int, int, int]:
    """(channels, side, images on the device) of the data set: of the prepared file if it is here, else of `SETS`."""
    found = _stored(hdf5.data_file(cfg.DATASET.NAME, cfg.DATASET.ROOT))
    return found or SETS.get(cfg.DATASET.NAME, (3, cfg.DATASET.DECODED_SIZE, 0))


@lru_cache
def _stored(file: Path) -> tuple[int, int, int] | None:
    try:
        images = hdf5.read(file, in_blocks=True)
    except (DataError, OSError, MemoryError):
        return None
    if images.train.offsets is not None:  # decoded as they are needed
        return None
    _, channels, side, _ = images.train.content.shape
    return channels, side, sum(len(part.labels) for part in images.parts.values())


@lru_cache
def _counted(name: str, depth: int, width: int, channels: int, side: int) -> Needs:
    """Of one image, in float32."""
    model = ["MODEL.NAME", name, "MODEL.DEPTH", depth, "MODEL.WIDTH", width]
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = tensor, storage.nbytes()
        return tensor

    with torch.device("meta"):
        net = build_network(load((), model), 1, channels).backbone
        with _Counter() as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
            net(torch.empty(2, channels, side, side)).sum().backward()
    weights = sum(parameter.nbytes for parameter in net.parameters())
    saved = sum(size for _, size in kept.values()) - weights
    return Needs([(flops / 2, moved / 2) for flops, moved in counter.operations], max(0, saved) / 2, weights)


class _Counter(TorchDispatchMode):
    """Notes the floating-point operations and the bytes of each kernel that is called inside; views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view:
            formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
            flops = formula(*args, **kwargs, out_val=result) if formula else 0
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.operations.append((flops, sum(tensor.nbytes for tensor in tensors)))
        return result
