"""Which images a run is given, as pure index arithmetic: long tails, hold-outs, and the protocols of the field.

`DATASET.PROTOCOL` names the published code whose splits of CIFAR-like sets are drawn, index by index:

    seval   balanced validation images are taken off first; then a pool of labels and one without, each thinned to its
            long tail. Each step draws from its own random stream, fresh from the seed.
    usb     no validation; each class is shuffled, by one random stream of the seed, and gives its labeled, then its
            unlabeled images. Where an imbalance ratio is 1, the head count is the total over the classes.
    acr     no validation and no shuffling, so no seed: the first images of each class in file order are labeled, and
            they are among the unlabeled ones too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from seval.defaults import Node, node_of, own_node
from seval.errors import ConfigError


class Splits(NamedTuple):
    """Indices int64 into the training images; disjoint, except that protocol acr repeats the labeled ones as unlabeled.

    `unlabeled` are indices into the set's own unlabeled images where it has such.
    """

    labeled: np.ndarray
    unlabeled: np.ndarray
    held_out: np.ndarray  # what learning rules fit on; empty where HELD_OUT is none
    valid: np.ndarray  # class-balanced


def long_tail(head: int, factor: float, *, num_classes: int, reverse: bool = False) -> list[int]:
    """Images of each class in a long tail from `head` down to `head / factor`; reversed, the last class has most."""
    if num_classes == 1:
        return [head]
    # Rounding here decides about single images: keep the order of the floating-point operations.
    counts = [int(head * (1 / factor) ** (k / (num_classes - 1))) for k in range(num_classes)]
    return counts[::-1] if reverse else counts


def split(labels: np.ndarray, cfg: Node, *, pool: np.ndarray | None = None, batch: np.ndarray | None = None) -> Splits:
    """The splits of `cfg.SEED` over training `labels` (N,).

    pool (M,) bool are the images of a set's own unlabeled part, true where they are of the training classes; batch
    (N,) numbers the published files that images came in. Raises `ConfigError` where a class has too few images.
    """
    labels = np.asarray(labels)
    if pool is not None:
        labeled, unlabeled, valid = _with_own_pool(labels, cfg, np.asarray(pool))
    elif batch is not None:
        labeled, unlabeled, valid = _by_batch(labels, cfg, np.asarray(batch))
    else:
        labeled, unlabeled, valid = (_seval if cfg.DATASET.PROTOCOL == "seval" else _from_all)(labels, cfg)
    held_out = _none()
    if cfg.DATASET.HELD_OUT == "labeled":
        labeled, held_out = _hold_out(labels, labeled, cfg)
    elif cfg.DATASET.HELD_OUT == "valid":
        if not len(valid):
            raise ConfigError(
                f"DATASET.HELD_OUT is valid, but there are no validation images (DATASET.NUM_VALID "
                f"{cfg.DATASET.NUM_VALID}, DATASET.PROTOCOL {cfg.DATASET.PROTOCOL}); set it to labeled"
            )
        held_out, valid = valid, held_out
    return Splits(labeled, unlabeled, held_out, valid)


def manifest(splits: Splits, labels: np.ndarray, pool_labels: np.ndarray | None = None) -> dict[str, dict[str, object]]:
    """By split: images of every class, and the SHA-256 of its indices as little-endian int64. Fit for JSON.

    Images of unknown class are counted under `unknown`.
    """
    num_classes = int(np.max(labels)) + 1
    described = {}
    for name, indices in splits._asdict().items():
        of = np.asarray(pool_labels if name == "unlabeled" and pool_labels is not None else labels)[indices]
        described[name] = {
            "class_counts": np.bincount(of[of >= 0], minlength=num_classes).tolist(),
            "unknown": int(np.count_nonzero(of < 0)),
            "sha256": hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
        }
    return described


def _seval(labels: np.ndarray, cfg: Node) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tail, classes, seed = own_node(cfg), range(int(labels.max()) + 1), cfg.SEED
    reverse = cfg.DATASET.REVERSE_UL_DISTRIBUTION
    labeled_counts = long_tail(tail.NUM_LABELED_HEAD, tail.IMB_FACTOR_L, num_classes=len(classes))
    unlabeled_counts = long_tail(tail.NUM_UNLABELED_HEAD, tail.IMB_FACTOR_UL, num_classes=len(classes), reverse=reverse)
    # the labeled pool is set aside whole, however few of it are kept
    pools = [tail.NUM_LABELED_HEAD if m else n for n, m in zip(labeled_counts, unlabeled_counts, strict=True)]
    _require_room(labels, cfg, labeled_counts, pools, unlabeled_counts)
    train, valid = _validation(labels, cfg)
    members, head = _shuffled(labels, train, classes, seed), tail.NUM_LABELED_HEAD
    labeled = _join(m[:head] for m in members)
    unlabeled = _join(m[head : head + tail.NUM_UNLABELED_HEAD] for m in members)
    if tail.IMB_FACTOR_L > 1:
        labeled = _thin(labels, labeled, classes, labeled_counts, seed)
    if tail.IMB_FACTOR_UL > 1:
        order = slice(None, None, -1 if reverse else 1)  # the most frequent class is drawn first
        unlabeled = _thin(labels, unlabeled, classes[order], unlabeled_counts[order], seed)
    return labeled, unlabeled, valid


def _from_all(labels: np.ndarray, cfg: Node) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Protocols usb and acr."""
    usb, tail, num_classes = cfg.DATASET.PROTOCOL == "usb", own_node(cfg), int(labels.max()) + 1
    counts = _totals_or_tail if usb else _by_powers
    n = counts(tail.NUM_LABELED_HEAD, tail.IMB_FACTOR_L, num_classes=num_classes)
    m = counts(tail.NUM_UNLABELED_HEAD, tail.IMB_FACTOR_UL, num_classes=num_classes)
    m = m[::-1] if cfg.DATASET.REVERSE_UL_DISTRIBUTION else m
    _require_room(labels, cfg, n, n, m)
    # the unlabeled images begin after the labeled ones, except in acr, which repeats these
    drawn = list(zip(_whole_classes(labels, cfg), n, m, strict=True))
    return _join(i[:k] for i, k, _ in drawn), _join(i[k * usb : k + u] for i, k, u in drawn), _none()


def _whole_classes(labels: np.ndarray, cfg: Node) -> list[np.ndarray]:
    """All images of each class, shuffled for protocol usb, in file order for acr."""
    classes = range(int(labels.max()) + 1)
    if cfg.DATASET.PROTOCOL == "usb":
        return _shuffled(labels, np.arange(len(labels)), classes, cfg.SEED)
    return [np.flatnonzero(labels == c) for c in classes]


def _with_own_pool(labels: np.ndarray, cfg: Node, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """STL-10, with a long tail of labels beside its unlabeled images; Semi-Aves, whose labels are all used."""
    name, own = node_of(cfg.DATASET.NAME), own_node(cfg)
    if name == "AVES":
        return np.arange(len(labels)), np.flatnonzero(pool | (own.UL_SOURCE == "all")), _none()
    classes = range(int(labels.max()) + 1)
    published = cfg.DATASET.PROTOCOL == "seval"
    tail = long_tail if published else _by_powers
    counts = tail(own.NUM_LABELED_HEAD, own.IMB_FACTOR_L, num_classes=len(classes))
    _require_room(labels, cfg, counts, counts, [0] * len(classes))
    if published:
        train, valid = _validation(labels, cfg)
        labeled = _thin(labels, train, classes, counts, cfg.SEED) if own.IMB_FACTOR_L > 1 else train
    else:
        labeled = _join(i[:n] for i, n in zip(_whole_classes(labels, cfg), counts, strict=True))
        valid = _none()
    return labeled, np.arange(len(pool)), valid


def _by_batch(labels: np.ndarray, cfg: Node, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small-ImageNet-127: the labels of the first published file, or a tenth of each class at random."""
    if cfg.DATASET.IMAGENET.LABELED == "batch_1":
        chosen = batch == 1
    else:
        chosen = np.zeros(len(labels), bool)
        for members in _shuffled(labels, np.arange(len(labels)), range(int(labels.max()) + 1), cfg.SEED):
            chosen[members[: round(len(members) / 10)]] = True
    return np.flatnonzero(chosen), np.flatnonzero(~chosen), _none()


def _validation(labels: np.ndarray, cfg: Node) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) indices, class after class in the order of a shuffle."""
    everything, num_classes = np.arange(len(labels)), int(labels.max()) + 1
    per_class = cfg.DATASET.NUM_VALID // num_classes
    if cfg.DATASET.NUM_VALID <= 0:
        return everything, _none()
    members = _shuffled(labels, everything, range(num_classes), cfg.SEED)
    return _join(m[per_class:] for m in members), _join(m[:per_class] for m in members)


def _hold_out(labels: np.ndarray, labeled: np.ndarray, cfg: Node) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): int(n * portion) of each class, or equally many of each class.

    As published: a long tail comes class by class in random order, so the first ones are taken; Semi-Aves shuffles
    each class; where equally many are taken of each class, all images are shuffled at once.
    """
    dataset, classes = cfg.DATASET, range(int(labels.max()) + 1)
    if dataset.HELD_OUT_PER_CLASS:
        order = np.random.RandomState(cfg.SEED).permutation(labeled)
        members = [order[labels[order] == c] for c in classes]
    elif node_of(dataset.NAME) == "AVES":
        members = _shuffled(labels, labeled, classes, cfg.SEED)
    else:
        members = [labeled[labels[labeled] == c] for c in classes]
    counts = [dataset.HELD_OUT_PER_CLASS or int(len(m) * dataset.HELD_OUT_PORTION) for m in members]
    for c, (m, count) in enumerate(zip(members, counts, strict=True)):
        if len(m) <= count:
            raise ConfigError(
                f"holding out {count} labels of class {c} leaves none of its {len(m)}; "
                "lower DATASET.HELD_OUT_PER_CLASS or set DATASET.HELD_OUT_PORTION"
            )
    pairs = list(zip(members, counts, strict=True))
    return _join(m[count:] for m, count in pairs), _join(m[:count] for m, count in pairs)


def _shuffled(labels: np.ndarray, indices: np.ndarray, classes: Iterable[int], seed: int) -> list[np.ndarray]:
    """For each of `classes` in turn, its members among `indices`, shuffled by one random stream, fresh from `seed`."""
    rng = np.random.RandomState(seed)
    members = [indices[labels[indices] == c] for c in classes]
    for m in members:
        rng.shuffle(m)
    return members


def _thin(
    labels: np.ndarray, indices: np.ndarray, classes: Iterable[int], counts: Sequence[int], seed: int
) -> np.ndarray:
    """The first `counts[rank]` of the shuffled members of `classes[rank]`, class after class."""
    members = _shuffled(labels, indices, classes, seed)
    return _join(m[:count] for m, count in zip(members, counts, strict=True))


def _by_powers(head: int, factor: float, *, num_classes: int) -> list[int]:
    """The long tail as USB and ACR compute it; it can differ from `long_tail` by an image."""
    mu = np.power(1 / factor, 1 / (num_classes - 1))
    return [int(head * np.power(mu, k)) for k in range(num_classes - 1)] + [int(head / factor)]


def _totals_or_tail(head: int, factor: float, *, num_classes: int) -> list[int]:
    return [head // num_classes] * num_classes if factor == 1 else _by_powers(head, factor, num_classes=num_classes)


def _require_room(labels: np.ndarray, cfg: Node, labeled: list[int], pools: list[int], unlabeled: list[int]) -> None:
    """Raise `ConfigError` where a class gets no label, or has fewer images than are needed."""
    name, own = f"DATASET.{node_of(cfg.DATASET.NAME)}", own_node(cfg)
    keys = {"DATASET.NUM_VALID": cfg.DATASET.NUM_VALID} | {f"{name}.{k}": v for k, v in own.items() if "NUM_" in k}
    for key, given in keys.items():
        if given < 0:
            raise ConfigError(f"{key} is {given}, but must not be negative")
    valid = cfg.DATASET.NUM_VALID // len(labeled) if cfg.DATASET.PROTOCOL == "seval" else 0
    for c, (has, n, pool, m) in enumerate(zip(np.bincount(labels), labeled, pools, unlabeled, strict=True)):
        if not n:
            raise ConfigError(
                f"class {c} gets no labels; raise {name}.NUM_LABELED_HEAD ({own.NUM_LABELED_HEAD}) "
                f"or lower {name}.IMB_FACTOR_L ({own.IMB_FACTOR_L:g})"
            )
        if has < valid + pool + m:
            raise ConfigError(
                f"class {c} has {has} training images, but {valid} for validation, {pool} for labels and {m} unlabeled "
                f"are needed; lower DATASET.NUM_VALID, {name}.NUM_LABELED_HEAD or {name}.NUM_UNLABELED_HEAD"
            )


def _none() -> np.ndarray:
    return np.empty(0, np.int64)


def _join(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([_none(), *parts])
