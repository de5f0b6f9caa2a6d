"""The objective of the published search for the offsets pi."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

ABSENT_LOSS = 2.0  # the published loss of a class without held-out samples


def published_loss(z: Floats, y: Ints, group: Ints) -> tuple[Callable[[Floats], float], Callable[[Floats], Floats]]:
    """Return the published objective of pi (G,), and of many pi (n, G), which is the same but for rounding.

    It is the class-averaged cross-entropy, divided by C once more. The tolerance of the search is in these units.
    One evaluation costs one matrix-vector product. Many together read the matrix once, and multiply samples of a class
    in fours before they take the logarithm.
    """
    classes = z.shape[1]
    count = np.bincount(y, minlength=classes)
    weight = 1 / count[y] / classes**2
    shifted = z - z.max(axis=1, keepdims=True)
    exp_z = np.exp(shifted) @ np.eye(group.max() + 1)[group]  # (N, G)
    share = np.bincount(group, count > 0) / classes**2
    constant = ABSENT_LOSS * np.mean(count == 0) - weight @ shifted[np.arange(y.size), y]
    place = np.arange(y.size) - np.searchsorted(np.sort(y), np.sort(y))  # of each sample within its class
    in_four = place < (count // 4 * 4)[np.sort(y)]
    by_class = np.argsort(y, kind="stable")
    order = np.append(by_class[in_four].reshape(-1, 4).T, by_class[~in_four])
    fours = np.count_nonzero(in_four) // 4
    ordered, weight_of_product = exp_z[order], weight[order[3 * fours :]]

    def loss(pi: Floats) -> float:
        return weight @ np.log(exp_z @ (1 / pi)) + share @ np.log(pi) + constant

    def losses(pi: Floats) -> Floats:
        with np.errstate(all="ignore"):  # a product that is out of range gives no finite value
            total = ordered @ (1 / pi).T
            product = total[3 * fours :]
            product[:fours] *= np.multiply.reduce(total[: 3 * fours].reshape(3, fours, len(pi)))
            return weight_of_product @ np.log(product, out=product) + np.log(pi) @ share + constant

    return loss, losses
