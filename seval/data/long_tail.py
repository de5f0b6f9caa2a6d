"""Which training images a seed makes labeled, unlabeled, held out and validation: pure index arithmetic.

The procedure and the order of its random draws are the published ones, so equal seeds give equal indices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from yacs.config import CfgNode as Node

from seval.config import ConfigError, long_tail_of


class Splits(NamedTuple):
    """Disjoint int64 index arrays into the training images."""

    labeled: np.ndarray
    unlabeled: np.ndarray
    held_out: np.ndarray  # what learning rules fit on; empty where HELD_OUT is none
    valid: np.ndarray  # class-balanced


def class_counts(head: int, factor: float, num_classes: int, reverse: bool = False) -> list[int]:
    """Images of each class in a long tail from `head` down to `head / factor`; reversed, the last class leads."""
    if num_classes == 1:
        return [head]
    # Where this truncates decides single images: keep the order of its floating-point operations.
    counts = [int(head * (1 / factor) ** (k / (num_classes - 1))) for k in range(num_classes)]
    return counts[::-1] if reverse else counts


def split(labels: np.ndarray, cfg: Node) -> Splits:
    """The splits of `cfg.SEED` over training `labels` (N,).

    Every step draws from a fresh stream of the seed, as published.
    Raises `ConfigError` where a class has too few images for what is asked of it.
    """
    labels, tail, dataset = np.asarray(labels), long_tail_of(cfg), cfg.DATASET
    num_classes, seed = int(labels.max()) + 1, cfg.SEED
    classes, reverse = range(num_classes), dataset.REVERSE_UL_DISTRIBUTION
    labeled_counts = class_counts(tail.NUM_LABELED_HEAD, tail.IMB_FACTOR_L, num_classes)
    unlabeled_counts = class_counts(tail.NUM_UNLABELED_HEAD, tail.IMB_FACTOR_UL, num_classes, reverse)
    _check_room(labels, cfg, labeled_counts, unlabeled_counts)

    train, valid = np.arange(len(labels)), _join([])
    if dataset.NUM_VALID > 0:
        per_class = dataset.NUM_VALID // num_classes
        members = _shuffled(labels, train, classes, seed)
        train, valid = _join(m[per_class:] for m in members), _join(m[:per_class] for m in members)

    members, head = _shuffled(labels, train, classes, seed), tail.NUM_LABELED_HEAD
    labeled = _join(m[:head] for m in members)
    unlabeled = _join(m[head : head + tail.NUM_UNLABELED_HEAD] for m in members)

    if tail.IMB_FACTOR_L > 1:
        labeled = _thin(labels, labeled, classes, labeled_counts, seed)
    held_out = _join([])
    if dataset.HELD_OUT == "labeled":
        labeled, held_out = _hold_out(labels, labeled, num_classes, dataset.HELD_OUT_PORTION)
    elif dataset.HELD_OUT == "valid":
        if not len(valid):
            raise ConfigError(
                f"DATASET.HELD_OUT is valid, but DATASET.NUM_VALID {dataset.NUM_VALID} leaves no "
                f"validation images; set it to at least {num_classes}, or DATASET.HELD_OUT to labeled"
            )
        held_out, valid = valid, held_out
    if tail.IMB_FACTOR_UL > 1:
        order = slice(None, None, -1 if reverse else 1)  # the most frequent class is drawn first
        unlabeled = _thin(labels, unlabeled, classes[order], unlabeled_counts[order], seed)
    return Splits(labeled, unlabeled, held_out, valid)


def manifest(splits: Splits, labels: np.ndarray) -> dict[str, dict[str, object]]:
    """By split: images of every class, and the SHA-256 of its indices as little-endian int64. Fit for JSON."""
    labels = np.asarray(labels)
    num_classes = int(labels.max()) + 1
    return {
        name: {
            "class_counts": np.bincount(labels[indices], minlength=num_classes).tolist(),
            "sha256": hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        }
        for name, indices in splits._asdict().items()
    }


def _shuffled(labels: np.ndarray, indices: np.ndarray, classes: Iterable[int], seed: int) -> list[np.ndarray]:
    """For each of `classes` in turn, its members among `indices`, shuffled by one stream fresh from `seed`."""
    rng = np.random.RandomState(seed)
    members = [indices[labels[indices] == c] for c in classes]
    for m in members:
        rng.shuffle(m)
    return members


def _thin(labels: np.ndarray, indices: np.ndarray, classes: Iterable[int], counts: list[int], seed: int) -> np.ndarray:
    """The first `counts[rank]` of the shuffled members of `classes[rank]`, class after class."""
    members = _shuffled(labels, indices, classes, seed)
    return _join(m[:count] for m, count in zip(members, counts, strict=True))


def _hold_out(
    labels: np.ndarray, indices: np.ndarray, num_classes: int, portion: float
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): the first int(n * portion) of each class are held out; their order is random already."""
    kept, held_out = [], []
    for c in range(num_classes):
        members = indices[labels[indices] == c]
        count = int(len(members) * portion)  # below len(members), as portion is below 1 and no class is empty
        held_out.append(members[:count])
        kept.append(members[count:])
    return _join(kept), _join(held_out)


def _check_room(labels: np.ndarray, cfg: Node, labeled: list[int], unlabeled: list[int]) -> None:
    """Every class must have a label, and images for all that is asked of it; where not, raise `ConfigError`."""
    name, tail = f"DATASET.{cfg.DATASET.NAME.upper()}", long_tail_of(cfg)
    for key, given in (
        ("DATASET.NUM_VALID", cfg.DATASET.NUM_VALID),
        (f"{name}.NUM_LABELED_HEAD", tail.NUM_LABELED_HEAD),
        (f"{name}.NUM_UNLABELED_HEAD", tail.NUM_UNLABELED_HEAD),
    ):
        if given < 0:
            raise ConfigError(f"{key} is {given}, but must not be negative")
    valid = cfg.DATASET.NUM_VALID // len(labeled)
    for c, (has, n, m) in enumerate(zip(np.bincount(labels), labeled, unlabeled, strict=True)):
        if not n:
            raise ConfigError(
                f"class {c} gets no labels; raise {name}.NUM_LABELED_HEAD ({tail.NUM_LABELED_HEAD}) "
                f"or lower {name}.IMB_FACTOR_L ({tail.IMB_FACTOR_L:g})"
            )
        pool = tail.NUM_LABELED_HEAD if m else n  # the labeled pool is set aside whole, however few of it are kept
        if has < valid + pool + m:
            raise ConfigError(
                f"class {c} has {has} training images, but {valid} for validation, {pool} for labels and {m} unlabeled "
                f"are needed; lower DATASET.NUM_VALID, {name}.NUM_LABELED_HEAD or {name}.NUM_UNLABELED_HEAD"
            )


def _join(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *parts])
