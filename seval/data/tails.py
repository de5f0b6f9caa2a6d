"""Long tails: how many images each class has, and which classes are frequent among the unlabeled images."""

import numpy as np


def long_tail(head: int, factor: float, *, num_classes: int, reverse: bool = False) -> list[int]:
    """Images of each class in a long tail from `head` down to `head / factor`; reversed, the last class has most."""
    if num_classes == 1:
        return [head]
    # Rounding here decides about single images: keep the order of the floating-point operations.
    counts = [int(head * (1 / factor) ** (k / (num_classes - 1))) for k in range(num_classes)]
    return counts[::-1] if reverse else counts


def by_powers(head: int, factor: float, *, num_classes: int) -> list[int]:
    """The long tail as USB and ACR compute it; it can differ from `long_tail` by an image."""
    mu = np.power(1 / factor, 1 / (num_classes - 1))
    return [int(head * np.power(mu, k)) for k in range(num_classes - 1)] + [int(head / factor)]


def ranks(num_classes: int, shape: str = "long_tail", *, reverse: bool = False) -> list[int]:
    """Each class's rank by number of images, 0 for the most frequent, where the counts have that shape.

    Of ten classes, counted from 1, the ranks are

        long_tail   1 2 3 4 5 6 7 8 9 10
        middle      9 7 5 3 1 2 4 6 8 10    the most frequent class is in the middle
        head_tail   1 3 5 7 9 10 8 6 4 2    the most frequent classes are at both ends

    as SimPro (Du, Han and Huang, ICML 2024) has the last two. `reverse` turns any of them round.
    """
    falling = list(range(num_classes))
    ahead, behind = falling[::2], falling[1::2]
    found = {"long_tail": falling, "middle": ahead[::-1] + behind, "head_tail": ahead + behind[::-1]}[shape]
    return found[::-1] if reverse else found
