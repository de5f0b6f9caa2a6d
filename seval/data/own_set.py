"""What the settings of a set that is not built in must be, and what to say of its splits."""

import numpy as np

from seval.data.image_set import ImageSet
from seval.defaults import Node, node_of, own_node
from seval.errors import ConfigError
from seval.text import printable

FEWEST = 10  # held-out images of a class below which SEVAL takes it for rare, as in seval/policy/fits.py
_LARGE = 4e9  # bytes of an evaluation that are worth a word


def draws_unlabeled(cfg: Node) -> bool:
    """Whether unlabeled images are drawn from the training images although the set may have a part of its own."""
    return node_of(cfg.DATASET.NAME) == "OWN" and own_node(cfg).NUM_UNLABELED_HEAD > 0


def require_own(cfg: Node, counts: np.ndarray, has_valid: bool) -> None:
    """Raise `ConfigError` where the labels `counts` (C,), or the settings, of a set that is not built in do not do."""
    tail, dataset = own_node(cfg), cfg.DATASET
    if len(counts) < 2:
        raise ConfigError(f"{dataset.NAME} has one class only; nothing can be learned without a second one")
    if not counts.min():
        none = np.flatnonzero(counts == 0)
        raise ConfigError(
            f"{len(none)} classes of {dataset.NAME} have no labeled training image (the first is class {none[0]}); "
            "add labels or leave these classes out, and prepare the set again"
        )
    if has_valid and dataset.NUM_VALID:
        raise ConfigError(f"{dataset.NAME} has its own validation images; set DATASET.NUM_VALID to 0")
    if not tail.NUM_LABELED_HEAD and (tail.NUM_UNLABELED_HEAD or dataset.PROTOCOL != "seval"):
        raise ConfigError(
            f"DATASET.OWN.NUM_LABELED_HEAD is 0, so {dataset.NAME} is used as it is; to draw a long tail from it (with "
            f"DATASET.PROTOCOL {dataset.PROTOCOL}), set NUM_LABELED_HEAD; otherwise set NUM_UNLABELED_HEAD to 0 and "
            "DATASET.PROTOCOL to seval"
        )
    too_many = dataset.NUM_VALID // len(counts)
    if not tail.NUM_LABELED_HEAD and counts.min() <= too_many:
        raise ConfigError(
            f"DATASET.NUM_VALID {dataset.NUM_VALID} takes {too_many} images of every class, but class "
            f"{counts.argmin()} of {dataset.NAME} has {counts.min()}; lower it, or set it to 0"
        )


def notes(images: ImageSet, held_out: np.ndarray) -> list[str]:
    """What a user should know of a set that is not built in, given the indices of its held-out images; a line each."""
    found, number = [], images.num_classes
    if len(held_out):
        counts = np.bincount(images.train.labels[held_out], minlength=number)
        few = np.argsort(counts, kind="stable")[: np.count_nonzero(counts < FEWEST)]
        if len(few):
            shown = ", ".join(f"{printable(images.class_names[c])} {counts[c]}" for c in few[:5])
            more = f" and {len(few) - 5} more" if len(few) > 5 else ""
            found.append(
                f"{len(few)} of {number} classes have fewer than {FEWEST} held-out images ({shown}{more}); SEVAL fits "
                "no threshold to a class, or a group of classes, with so few: add labels, or let more classes share one"
            )
    largest = max(len(part.labels) for part in images.parts.values())
    # Two matrices of class by class, the logits of a split with a copy, and the held-out ones as the fits copy them.
    if (needed := 16 * number**2 + number * (8 * largest + 40 * len(held_out))) > _LARGE:
        found.append(
            f"{number} classes: an evaluation needs about {needed / 1e9:.0f} GB of memory; see docs/own_data.md"
        )
    return found
