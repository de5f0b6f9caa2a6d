"""Which images a run is given, as pure index arithmetic: long tails, hold-outs, and the protocols of the field.

`DATASET.PROTOCOL` names the published code whose splits of CIFAR-like sets are drawn, index by index:

    seval   balanced validation images are taken off first; then a pool of labels and one without, each thinned to its
            long tail. Each step draws from its own random stream, fresh from the seed.
    usb     no validation; each class is shuffled, by one random stream of the seed, and gives its labeled, then its
            unlabeled images. Where an imbalance ratio is 1, the head count is the total over the classes.
    acr     no validation and no shuffling, so no seed: the first images of each class in file order are labeled, and
            they are among the unlabeled ones too.

`DATASET.UL_SHAPE` says which classes are frequent among the unlabeled images; see seval/data/tails.py.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seval.data.hold_out import NONE, hold_out, join, members_of, shuffled
from seval.data.image_set import ImageSet
from seval.data.own_set import require_own
from seval.data.tails import by_powers, long_tail, ranks
from seval.defaults import Node, node_of, own_node
from seval.errors import ConfigError


class Splits(NamedTuple):
    """Indices int64 into the training images; disjoint, except that protocol acr repeats the labeled ones as unlabeled.

    `unlabeled` are indices into the set's own unlabeled images if it has any.
    """

    labeled: np.ndarray
    unlabeled: np.ndarray
    held_out: np.ndarray = NONE  # what learning rules fit on; empty where HELD_OUT is none
    valid: np.ndarray = NONE  # class-balanced


def split_of(images: ImageSet, cfg: Node) -> Splits:
    """The splits of an image set, as `split` draws them."""
    own, pool = images.unlabeled, None
    if own is not None:  # batch 1 has the training classes, other batches have others
        pool = own.batch == 1 if own.batch is not None else np.ones(len(own.labels), bool)
    return split(images.train.labels, cfg, pool=pool, batch=images.train.batch, class_names=images.class_names)


def split(
    labels: np.ndarray,
    cfg: Node,
    *,
    pool: np.ndarray | None = None,
    batch: np.ndarray | None = None,
    class_names: Sequence[str] = (),
) -> Splits:
    """The splits of `cfg.SEED` over training `labels` (N,).

    pool (M,) bool says which images of a set's own unlabeled part are of the training classes; batch (N,) numbers the
    published files that images came in, and is 2 for the validation images of a set that is not built in. The names of
    Semi-Aves' classes hold their published numbers; without names, labels are taken for these. Raises `ConfigError`
    where a class has too few images.
    """
    labels = np.asarray(labels)
    if node_of(cfg.DATASET.NAME) == "OWN":
        splits = _own(labels, cfg, pool, batch)
    elif pool is not None:
        splits = _with_own_pool(labels, cfg, np.asarray(pool))
    elif batch is not None:
        splits = _by_batch(labels, cfg, np.asarray(batch))
    else:
        splits = (_seval if cfg.DATASET.PROTOCOL == "seval" else _from_all)(labels, cfg)
    if cfg.DATASET.HELD_OUT == "darp":
        return _first_of_each_class(labels, splits, cfg)
    if cfg.DATASET.HELD_OUT == "labeled":
        labeled, held_out = hold_out(labels, splits.labeled, cfg, class_names)
        return splits._replace(labeled=labeled, held_out=held_out)
    if cfg.DATASET.HELD_OUT == "valid":
        if not len(splits.valid):
            raise ConfigError(
                f"DATASET.HELD_OUT is valid, but there are no validation images (DATASET.NUM_VALID "
                f"{cfg.DATASET.NUM_VALID}, DATASET.PROTOCOL {cfg.DATASET.PROTOCOL}); set it to labeled"
            )
        return splits._replace(held_out=splits.valid, valid=NONE)
    return splits


def manifest(splits: Splits, labels: np.ndarray, pool_labels: np.ndarray | None = None) -> dict[str, dict[str, object]]:
    """By split: images of every class, and the SHA-256 of its indices as little-endian int64. Fit for JSON.

    Images of unknown class are counted under `unknown`.
    """
    pools = {"unlabeled": labels if pool_labels is None else pool_labels}
    num_classes = int(np.max(labels)) + 1
    return {
        name: described(indices, pools.get(name, labels), num_classes) for name, indices in splits._asdict().items()
    }


def described(indices: np.ndarray, labels: np.ndarray, num_classes: int) -> dict[str, object]:
    """The same of one split, whose `indices` are those of `labels`."""
    of = np.asarray(labels)[indices]
    return {
        "class_counts": np.bincount(of[of >= 0], minlength=num_classes).tolist(),
        "unknown": int(np.count_nonzero(of < 0)),
        "sha256": hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest(),
    }


def _seval(labels: np.ndarray, cfg: Node) -> Splits:
    tail, num_classes = own_node(cfg), int(labels.max()) + 1
    head = tail.NUM_LABELED_HEAD
    n = long_tail(head, tail.IMB_FACTOR_L, num_classes=num_classes)
    falling = long_tail(tail.NUM_UNLABELED_HEAD, tail.IMB_FACTOR_UL, num_classes=num_classes)
    rank = _unlabeled_ranks(num_classes, cfg)
    m = [falling[r] for r in rank]
    # the labeled pool is set aside whole, however few of its images are kept
    _require_room(labels, cfg, n, [head if u else k for k, u in zip(n, m, strict=True)], m)
    train, valid = _validation(labels, cfg)
    members = shuffled(members_of(labels, train), cfg.SEED)
    labeled = [i[:head] for i in members]
    unlabeled = [i[head : head + tail.NUM_UNLABELED_HEAD] for i in members]
    if tail.IMB_FACTOR_L > 1:
        labeled = _thin(labeled, n, cfg.SEED)
    if tail.IMB_FACTOR_UL > 1:
        order = np.argsort(rank)  # the most frequent class is drawn first
        unlabeled = _thin([unlabeled[c] for c in order], falling, cfg.SEED)
    return Splits(join(labeled), join(unlabeled), valid=valid)


def _from_all(labels: np.ndarray, cfg: Node) -> Splits:
    """Protocols usb and acr."""
    usb, tail, members = cfg.DATASET.PROTOCOL == "usb", own_node(cfg), _whole_classes(labels, cfg)

    def counts(key: str, factor: float) -> list[int]:
        total = usb and factor == 1
        head = _share(f"DATASET.{node_of(cfg.DATASET.NAME)}.{key}", tail[key], len(members)) if total else tail[key]
        return by_powers(head, factor, num_classes=len(members))

    n = counts("NUM_LABELED_HEAD", tail.IMB_FACTOR_L)
    falling = counts("NUM_UNLABELED_HEAD", tail.IMB_FACTOR_UL)
    m = [falling[r] for r in _unlabeled_ranks(len(members), cfg)]
    _require_room(labels, cfg, n, n, m)
    # the unlabeled images begin after the labeled ones, except in acr, which repeats these
    drawn = list(zip(members, n, m, strict=True))
    return Splits(join(i[:k] for i, k, _ in drawn), join(i[k * usb : k + u] for i, k, u in drawn))


def _unlabeled_ranks(num_classes: int, cfg: Node) -> list[int]:
    return ranks(num_classes, cfg.DATASET.UL_SHAPE, reverse=cfg.DATASET.REVERSE_UL_DISTRIBUTION)


def _whole_classes(labels: np.ndarray, cfg: Node) -> list[np.ndarray]:
    """All images of each class, shuffled for protocol usb, in file order for acr."""
    members = members_of(labels)
    return shuffled(members, cfg.SEED) if cfg.DATASET.PROTOCOL == "usb" else members


def _with_own_pool(labels: np.ndarray, cfg: Node, pool: np.ndarray) -> Splits:
    """STL-10, with a long tail of labels beside its unlabeled images; Semi-Aves, whose labels are all used."""
    own, num_classes = own_node(cfg), int(labels.max()) + 1
    if node_of(cfg.DATASET.NAME) == "AVES":
        return Splits(np.arange(len(labels)), np.flatnonzero(pool | (own.UL_SOURCE == "all")))
    published, unlabeled = cfg.DATASET.PROTOCOL == "seval", np.arange(len(pool))
    tail = long_tail if published else by_powers
    counts = tail(own.NUM_LABELED_HEAD, own.IMB_FACTOR_L, num_classes=num_classes)
    _require_room(labels, cfg, counts, counts, [0] * num_classes)
    if not published:
        return Splits(join(i[:n] for i, n in zip(_whole_classes(labels, cfg), counts, strict=True)), unlabeled)
    labeled, valid = _validation(labels, cfg)
    if own.IMB_FACTOR_L > 1:
        labeled = join(_thin(members_of(labels, labeled), counts, cfg.SEED))
    return Splits(labeled, unlabeled, valid=valid)


def _by_batch(labels: np.ndarray, cfg: Node, batch: np.ndarray) -> Splits:
    """Small-ImageNet-127: the labels of the first published file, or a tenth of each class at random."""
    chosen = batch == 1
    if cfg.DATASET.IMAGENET.LABELED != "batch_1":
        members = shuffled(members_of(labels), cfg.SEED)
        chosen = np.isin(np.arange(len(labels)), join(m[: round(len(m) / 10)] for m in members))
    return Splits(np.flatnonzero(chosen), np.flatnonzero(~chosen))


def _own(labels: np.ndarray, cfg: Node, pool: np.ndarray | None, batch: np.ndarray | None) -> Splits:
    """A set that is not built in.

    As given, where NUM_LABELED_HEAD is 0: all its labels, its own unlabeled images, its own validation images; of a set
    without these, NUM_VALID balanced ones are taken off the labels. Otherwise a long tail is drawn from its training
    images as from those of CIFAR-10, by any protocol. The unlabeled images are drawn, too, where NUM_UNLABELED_HEAD is
    above 0, and are the set's own where it is 0.
    """
    tail, batch = own_node(cfg), np.ones(len(labels)) if batch is None else batch
    train, own_valid = np.flatnonzero(batch != 2), np.flatnonzero(batch == 2)
    of, num_classes = labels[train], int(labels.max()) + 1
    require_own(cfg, np.bincount(of, minlength=num_classes), len(own_valid) > 0)
    if tail.NUM_LABELED_HEAD:
        drawn = (_seval if cfg.DATASET.PROTOCOL == "seval" else _from_all)(of, cfg)
    else:
        labeled, valid = _validation(of, cfg)
        drawn = Splits(labeled, NONE, valid=valid)
    splits = Splits(*(train[indices] for indices in drawn))
    if pool is not None and not tail.NUM_UNLABELED_HEAD:
        splits = splits._replace(unlabeled=np.arange(len(pool)))
    return splits._replace(valid=own_valid) if len(own_valid) else splits


def _validation(labels: np.ndarray, cfg: Node) -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) indices, class after class in the order of a shuffle."""
    if cfg.DATASET.NUM_VALID <= 0:
        return np.arange(len(labels)), NONE
    members = shuffled(members_of(labels), cfg.SEED)
    per_class = _share("DATASET.NUM_VALID", cfg.DATASET.NUM_VALID, len(members))
    return join(m[per_class:] for m in members), join(m[:per_class] for m in members)


def _first_of_each_class(labels: np.ndarray, splits: Splits, cfg: Node) -> Splits:
    """Hold out as for DARP's estimate: the first labels of each class or, if a class has no more, validation images."""
    number, fewest = cfg.DATASET.HELD_OUT_PER_CLASS, {}
    for part, spare in (("labeled", 1), ("valid", 0)):
        members = members_of(labels, getattr(splits, part))
        fewest[part] = min(map(len, members))
        if number and fewest[part] >= number + spare:
            rest, first = join(m[number:] for m in members), join(m[:number] for m in members)
            return splits._replace(**{part: rest, "held_out": first})
    raise ConfigError(
        f"DATASET.HELD_OUT is darp and the rarest class has {fewest['labeled']} labels, every class {fewest['valid']} "
        f"validation images, but DATASET.HELD_OUT_PER_CLASS is {number}; set it to 10, as published, or fewer, and "
        "DATASET.NUM_VALID to as many for every class"
    )


def _thin(members: list[np.ndarray], counts: list[int], seed: int) -> list[np.ndarray]:
    """The first `counts[i]` images of the shuffled `members[i]`."""
    return [m[:count] for m, count in zip(shuffled(members, seed), counts, strict=True)]


def _require_room(labels: np.ndarray, cfg: Node, labeled: list[int], pools: list[int], unlabeled: list[int]) -> None:
    """Raise `ConfigError` where a class gets no label, or has fewer images than are needed."""
    name, own = f"DATASET.{node_of(cfg.DATASET.NAME)}", own_node(cfg)
    keys = {"DATASET.NUM_VALID": cfg.DATASET.NUM_VALID} | {f"{name}.{k}": v for k, v in own.items() if "NUM_" in k}
    for key, given in keys.items():
        if given < 0:
            raise ConfigError(f"{key} is {given}, but must not be negative")
    published = cfg.DATASET.PROTOCOL == "seval"
    valid = _share("DATASET.NUM_VALID", cfg.DATASET.NUM_VALID, len(labeled)) if published else 0
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


def _share(key: str, total: int, num_classes: int) -> int:
    """An equal share of the `total` images for every class. Raises `ConfigError` where images would be left over."""
    share, rest = divmod(total, num_classes)
    if rest:
        raise ConfigError(
            f"{key} is {total}, but must be a multiple of {num_classes}, the number of classes: "
            f"{share * num_classes} or {(share + 1) * num_classes}"
        )
    return share
