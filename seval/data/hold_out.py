"""Which labels are held out of training, for the rules that fit on them."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from seval.defaults import Node, node_of
from seval.errors import ConfigError, DataError
from seval.text import short

NONE = np.empty(0, np.int64)


def hold_out(
    labels: np.ndarray, labeled: np.ndarray, cfg: Node, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out): int(n * portion) of each class, or equally many of each class.

    As published: a long tail comes class by class in random order, so its first images are taken; Semi-Aves shuffles
    each class, in the order of the published numbers; ImageNet-127, where equally many are taken of each class,
    shuffles all images at once. A set that is not built in shuffles each class.
    """
    dataset, own = cfg.DATASET, node_of(cfg.DATASET.NAME)
    if own == "IMAGENET" and dataset.HELD_OUT_PER_CLASS:
        labeled = np.random.RandomState(cfg.SEED).permutation(labeled)
    members = members_of(labels, labeled)
    if own == "AVES":
        order = _by_published_number(class_names, len(members))
        in_order = shuffled([members[c] for c in order], cfg.SEED)
        members = [in_order[place] for place in np.argsort(order)]
    if own == "OWN":
        members = shuffled(members, cfg.SEED)
    counts = [dataset.HELD_OUT_PER_CLASS or int(len(m) * dataset.HELD_OUT_PORTION) for m in members]
    pairs = list(zip(members, counts, strict=True))
    for c, (m, count) in enumerate(pairs):
        if len(m) <= count:
            raise ConfigError(
                f"holding out {count} labels of class {c} leaves none of its {len(m)}; "
                "lower DATASET.HELD_OUT_PER_CLASS or set DATASET.HELD_OUT_PORTION"
            )
    if not any(counts):
        raise ConfigError(
            f"DATASET.HELD_OUT_PORTION {dataset.HELD_OUT_PORTION:g} holds out no label of any class, as the largest "
            f"has {max(map(len, members))}; raise it, or set DATASET.HELD_OUT_PER_CLASS"
        )
    return join(m[count:] for m, count in pairs), join(m[:count] for m, count in pairs)


def _by_published_number(class_names: Sequence[str], number: int) -> list[int]:
    """The classes in the order of the numbers in their names, `species N`; in their own order without names."""
    found = [re.fullmatch(r"species (\d{1,9})", name) for name in class_names]
    numbers = [int(name[1]) for name in found if name] if class_names else list(range(number))
    if len(set(numbers)) != number:
        raise DataError(
            f"{number} classes of Semi-Aves must have names 'species N' with their published numbers, but have "
            f"{short(tuple(class_names))}; prepare the set again"
        )
    return sorted(range(number), key=numbers.__getitem__)


def members_of(labels: np.ndarray, indices: np.ndarray | None = None) -> list[np.ndarray]:
    """The images of each class, in the order of `indices`; by default all of them, in file order."""
    indices = np.arange(len(labels)) if indices is None else indices
    of, num_classes = labels[indices], int(labels.max()) + 1
    order = np.argsort(of, kind="stable")  # one pass, for sets of thousands of classes
    return np.split(indices[order], np.searchsorted(of[order], np.arange(1, num_classes)))


def shuffled(members: list[np.ndarray], seed: int) -> list[np.ndarray]:
    """Each class in turn, shuffled by one random stream, fresh from `seed`."""
    rng = np.random.RandomState(seed)
    return [rng.permutation(m) for m in members]


def join(parts: Iterable[np.ndarray]) -> np.ndarray:
    """One array of indices; empty for no parts."""
    return np.concatenate([NONE, *parts])
