"""Settings of splits, and the published procedure in plain loops."""

from __future__ import annotations

import numpy as np

from seval.config import load

BALANCED = np.random.RandomState(7).permutation(np.repeat(np.arange(10), 5000))  # CIFAR-10's counts, in no order
CIFAR100 = np.random.RandomState(8).permutation(np.repeat(np.arange(100), 500))


def config(**given: object):
    """A frozen configuration; keys of the long tail by their last name, others after DATASET."""
    pairs: list[object] = []
    for key, value in given.items():
        tail = key.startswith(("NUM_LABELED", "NUM_UNLABELED", "IMB"))
        pairs += [key if key == "SEED" else f"DATASET.CIFAR10.{key}" if tail else f"DATASET.{key}", value]
    return load(overrides=pairs)


def tail(labeled: int, unlabeled: int, factor: float, factor_unlabeled: float | None = None) -> dict[str, object]:
    return {
        "NUM_LABELED_HEAD": labeled,
        "NUM_UNLABELED_HEAD": unlabeled,
        "IMB_FACTOR_L": factor,
        "IMB_FACTOR_UL": factor if factor_unlabeled is None else factor_unlabeled,
    }


def published(labels, seed, n_valid, n1, m1, gamma_l, gamma_u, reverse=False, portion=None, falling=None):
    """The published procedure in plain loops over rows (index, label); returns lists of indices.

    falling: the classes of the unlabeled images, the most frequent first, where that is none of the published orders.
    """
    rows = [(i, int(y)) for i, y in enumerate(labels)]
    num_classes = max(y for _, y in rows) + 1

    def by_class(rows):
        found = {c: [] for c in range(num_classes)}
        for row in rows:
            found[row[1]].append(row)
        return found

    valid = []
    if n_valid > 0:
        rng, found, rest = np.random.RandomState(seed), by_class(rows), []
        for c in range(num_classes):
            order = list(range(len(found[c])))
            rng.shuffle(order)
            for place, position in enumerate(order):
                (valid if place < n_valid // num_classes else rest).append(found[c][position])
        rows = rest

    rng, found, labeled, unlabeled = np.random.RandomState(seed), by_class(rows), [], []
    for c in range(num_classes):
        order = list(range(len(found[c])))
        rng.shuffle(order)
        for place, position in enumerate(order):
            if place < n1:
                labeled.append(found[c][position])
            elif place < n1 + m1:
                unlabeled.append(found[c][position])

    def long_tailed(rows, head, gamma, classes):
        rng, found, kept = np.random.RandomState(seed), by_class(rows), []
        for rank, c in enumerate(classes):
            count = int(head * (1 / gamma) ** (rank / (num_classes - 1)))
            order = list(range(len(found[c])))
            rng.shuffle(order)
            for position in order[:count]:
                kept.append(found[c][position])
        return kept

    if gamma_l > 1:
        labeled = long_tailed(labeled, n1, gamma_l, list(range(num_classes)))
    held_out = []
    if portion is not None:
        found, labeled = by_class(labeled), []
        for c in range(num_classes):
            count = int(len(found[c]) * portion)
            held_out += found[c][:count]
            labeled += found[c][count:]
    if gamma_u > 1:
        classes = list(range(num_classes)) if falling is None else list(falling)
        if reverse:
            classes.reverse()
        unlabeled = long_tailed(unlabeled, m1, gamma_u, classes)
    return [[i for i, _ in rows] for rows in (labeled, unlabeled, held_out, valid)]
