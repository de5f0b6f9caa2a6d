"""SEVAL's two fits on held-out logits: class offsets pi (Eq. 6) and confidence thresholds tau (Eq. 7, 25, 26).

Each fit has two solvers: "nelder-mead" repeats the iterations of the published code; "exact" finds the optimum.
"""

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from seval.errors import one_line
from seval.policy.objective import Floats, Ints, published_loss
from seval.policy.simplex import nelder_mead, nelder_mead_scalar

SOLVERS = ("nelder-mead", "exact")
TOLERANCE = 1e-7  # of Nelder-Mead, in the variables and in the objective
FEWEST_SAMPLES = 10  # a group with fewer held-out samples is rare
FEWEST_SHARE = 0.1  # a group is also rare if its predictions weigh at most this part of an even share
TINY = 1e-6  # gives an empty selection accuracy 0, as published
EQUAL = 1e-9  # accuracies closer than this are equal: weighted sums round


class ThresholdFit(NamedTuple):
    """Confidence thresholds tau (C,) in [0, 1], and rare (C,): the classes whose group has too few samples to fit."""

    tau: Floats
    rare: NDArray[np.bool_]


def fit_offsets(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    bounds: tuple[float, float] = (1e-3, 3.0),
    solver: str = "nelder-mead",
) -> Floats:
    """Return the offsets pi (C,) with which softmax(logits - log pi) fits the held-out labels best.

    The loss is the cross-entropy averaged within each class, then over classes, as in the published code. (Eq. 6 of
    the paper averages over samples.) Multiplying pi by a common factor does not change the loss. Therefore:

    - "nelder-mead" returns the factor at which the published search happens to stop; it starts from all ones and has
      SciPy's default limits. The offset of a class without samples grows, and the others fall to the lower bound.
    - "exact" returns the minimum over all pi with max(pi) / min(pi) <= bounds[1] / bounds[0], which is what the bounds
      mean when the factor is free. The geometric mean of the offsets (one per group) is 1, or as close to 1 as the
      bounds allow. The offset of a group without samples would go to infinity, which removes it from the softmax.
      The other groups are fitted in that limit, and this group gets their geometric mean, that is, no offset.

    Args:
        logits: (N, C) held-out logits, array or CPU tensor.
        labels: (N,) true classes, integers in 0..C-1.
        groups: (C,) integers; classes with equal values share one offset. None: each class has its own.
        bounds: least and largest offset, both positive.
        solver: "nelder-mead" or "exact".

    Raises `ValueError` if an argument is malformed, not finite or out of range.
    """
    z, y, group = _checked(logits, labels, groups, solver)
    low, high = bounds
    if not 0 < low < high < np.inf:
        raise ValueError(f"bounds is {bounds}; expected 0 < low < high < infinity: an offset enters as its logarithm")
    fit = _nelder_mead_offsets if solver == "nelder-mead" else _exact_offsets
    return fit(z, y, group, low, high)[group]


def fit_thresholds(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    target: float,
    class_counts: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    solver: str = "nelder-mead",
) -> ThresholdFit:
    """Return thresholds above which the predictions of each group of classes reach the target accuracy.

    tau minimizes |A(tau) - target| over [0, 1]. A(tau) is the weighted share of correct predictions among those of the
    group with confidence > tau. A group that is accurate enough without a threshold gets 0. (Eq. 7, 25 and 26 of the
    paper's second version print this condition the other way round.) A rare group also gets 0: its predictions weigh
    at most a tenth of an even share, or its classes have fewer than 10 held-out samples (appendix C.2).

    |A(tau) - target| is a step function. "nelder-mead" starts from 0.95, as published, and can stop on a plateau.
    "exact" tries every step, with A of an empty selection 0 and the plain quotient else. Of equally good thresholds it
    returns the smallest, which keeps the most samples.

    Args:
        logits, labels, groups, solver: as in `fit_offsets`, the logits already refined by the offsets.
        target: target accuracy, a share in [0, 1].
        class_counts: (C,) training samples per class. A held-out sample has the weight largest count / count of its
            class (appendix C.1). None: all weights are 1.

    Raises `ValueError` as `fit_offsets` does.
    """
    z, y, group = _checked(logits, labels, groups, solver)
    if not 0 <= target <= 1:
        raise ValueError(f"target is {target}; expected a share in [0, 1], such as 0.75")
    number = group.max() + 1
    weight = np.ones(y.size) if class_counts is None else _sample_weights(y, class_counts, z.shape[1])
    predicted = z.argmax(axis=1)
    correct = (predicted == y).astype(np.float64)
    confidence = 1 / np.exp(z - z.max(axis=1, keepdims=True)).sum(axis=1)  # = max softmax
    into = group[predicted]
    total = TINY + np.bincount(into, weight, number)
    accuracy = np.bincount(into, weight * correct, number) / total
    rare = total <= FEWEST_SHARE * weight.sum() / number
    rare |= np.bincount(group[y], minlength=number) < FEWEST_SAMPLES
    order = np.lexsort((confidence, into))
    edges = np.searchsorted(into[order], np.arange(number + 1))
    tau = np.zeros(number)
    for g in np.flatnonzero(~rare & (accuracy < target)):
        mine = order[edges[g] : edges[g + 1]]
        tau[g] = _threshold(confidence[mine], weight[mine], correct[mine], target, solver)
    return ThresholdFit(tau[group], rare[group])


def _nelder_mead_offsets(z: Floats, y: Ints, group: Ints, low: float, high: float, limit: int | None = None) -> Floats:
    """The published search: G scales frozen at 1 by their bounds, then G offsets, from all ones. Returns pi (G,)."""
    number = group.max() + 1
    loss, losses = published_loss(z, y, group)
    start = np.full(number, np.clip(1.0, low, high))
    return nelder_mead(loss, start, low, high, tolerance=TOLERANCE, frozen=number, limit=limit, losses=losses)


def _exact_offsets(z: Floats, y: Ints, group: Ints, low: float, high: float) -> Floats:
    """Minimize the loss of the groups with samples over log pi. Returns pi (G,)."""
    seen = np.unique(group[y])
    kept = np.isin(group, seen)
    z = z[:, kept]
    exp_z = np.exp(z - z.max(axis=1, keepdims=True)) @ np.eye(group.max() + 1)[np.ix_(group[kept], seen)]
    count = np.bincount(y)
    weight = 1 / count[y] / np.count_nonzero(count)
    u = np.zeros(group.max() + 1)
    share = np.bincount(group[y], weight).astype(np.float64)[seen]
    u[seen] = _newton(exp_z, weight, share, reach=np.log(high / low))
    u += max(0.0, np.log(low) - u.min()) - max(0.0, u.max() - np.log(high))
    return np.clip(np.exp(u), low, high)  # only rounding is left to clip


def _newton(exp_z: Floats, weight: Floats, share: Floats, reach: float) -> Floats:
    """Minimize weight @ log(exp_z @ exp(-u)) + share @ u over u (G,) with max(u) - min(u) <= reach; mean(u) is 0.

    A shift brings every such u into the box |u| <= reach / 2. This is projected Newton in that box; coordinates that
    push against a bound are left out of the step. exp_z is (N, G); weight (N,) and share (G,) each sum to 1.
    """

    def evaluate(u: Floats) -> tuple[float, Floats]:
        terms = exp_z * np.exp(-u)
        total = terms.sum(axis=1, keepdims=True)
        return weight @ np.log(total[:, 0]) + share @ u, terms / total

    half, slack = reach / 2, 1e-14  # slack: near the optimum, rounding hides changes of the value
    u = np.zeros(share.size)
    value, p = evaluate(u)
    for _ in range(200):
        mass = weight @ p
        slope = share - mass
        free = ~((u >= half) & (slope < 0) | (u <= -half) & (slope > 0))
        steepest = np.abs(slope[free]).max(initial=0)
        if steepest < 1e-13:
            break
        hessian = np.diag(mass + 1e-3 * steepest) - (p.T * weight) @ p  # damped: no curvature if separable
        if free.all():
            hessian += 1 / share.size  # the free common factor has no curvature and no slope
        step = np.zeros_like(u)
        step[free] = -np.linalg.solve(hessian[np.ix_(free, free)], slope[free])
        step *= min(1, 2 / np.abs(step).max())  # over a distance of 1 the curvature changes by a factor of e
        for shrink in 0.5 ** np.arange(40):
            trial = np.clip(u + shrink * step, -half, half)
            new_value, new_p = evaluate(trial)
            if new_value <= value + min(0, 1e-4 * slope @ (trial - u)) + slack:
                break
        if np.abs(trial - u).max() < 1e-11:
            break
        u, value, p = trial, new_value, new_p
    return u - u.mean()


def _threshold(confidence: Floats, weight: Floats, correct: Floats, target: float, solver: str) -> float:
    """Minimize |A(th) - target| over th in [0, 1] for samples (n,) sorted by confidence."""
    kept, right = np.cumsum([weight[::-1], (weight * correct)[::-1]], axis=1)[:, ::-1]  # from each sample upwards
    tiny = TINY if solver == "nelder-mead" else 0.0  # it would favor the larger of two selections, or the smaller
    gaps = np.append(np.abs(right / (tiny + kept) - target), target)

    if solver == "nelder-mead":
        edges, values = confidence.tolist(), gaps.tolist()
        return nelder_mead_scalar(lambda th: values[bisect_right(edges, th)], 0.95, 0.0, 1.0, tolerance=TOLERANCE)
    steps = np.append(0, confidence)  # the objective changes only here
    found = gaps[np.searchsorted(confidence, steps, side="right")]
    return steps[np.argmax(found <= found.min() + EQUAL)]  # the first of the best


def _checked(logits: ArrayLike, labels: ArrayLike, groups: ArrayLike | None, solver: str) -> tuple[Floats, Ints, Ints]:
    """Return logits (N, C), labels (N,) and the group of each class (C,), numbered from 0 in the order of values."""
    z, y = _array("logits", logits, np.float64), _array("labels", labels)
    if z.ndim != 2 or z.shape[1] < 2:
        raise ValueError(f"logits has shape {z.shape}; expected (N, C): a row per held-out sample, two or more classes")
    samples, classes = z.shape
    group = np.arange(classes) if groups is None else _array("groups", groups)
    if samples == 0:
        problem = "the held-out set is empty; hold out at least one labeled sample, better 10 per class"
    elif y.shape != (samples,) or not np.issubdtype(y.dtype, np.integer):
        problem = (
            f"labels is {y.dtype} {y.shape}; expected integers ({samples},): one class index per row of logits; "
            "try np.searchsorted(classes, labels), with the classes in the order of the columns"
        )
    elif y.min() < 0 or y.max() >= classes:
        problem = f"labels span {y.min()}..{y.max()}; expected 0..{classes - 1}: are unlabeled samples among them?"
    elif not np.isfinite(z).all():
        bad = np.count_nonzero(~np.isfinite(z).all(axis=1))
        problem = (
            f"{bad} of {samples} rows of logits are NaN or infinite; expected finite rows: did training diverge? "
            "Of probabilities that can be 0, take np.log(probs.clip(1e-6))"
        )
    elif z.min() >= 0 and np.allclose(z.sum(axis=1), 1):
        problem = "logits are probabilities: all rows are >= 0 and sum to 1; pass np.log(probs.clip(1e-6))"
    elif group.shape != (classes,) or not np.issubdtype(group.dtype, np.integer):
        problem = f"groups is {group.dtype} {group.shape}; expected integers ({classes},): the group of each class"
    elif solver not in SOLVERS:
        problem = f"solver is {solver!r}; expected one of {SOLVERS}"
    else:
        return z, y.astype(np.intp), np.unique(group, return_inverse=True)[1]
    raise ValueError(problem)


def _array(name: str, value: ArrayLike, dtype: type | None = None) -> NDArray:
    try:
        return np.asarray(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError) as error:  # a ragged list, text, a tensor on a GPU
        raise ValueError(f"{name} cannot be read as an array of numbers: {one_line(error)}") from None


def _sample_weights(y: Ints, class_counts: ArrayLike, classes: int) -> Floats:
    counts = _array("class_counts", class_counts, np.float64)
    if counts.shape != (classes,) or not np.isfinite(counts).all() or counts[y].min() <= 0:
        raise ValueError(
            f"class_counts is {counts}; expected ({classes},) finite numbers, positive for each class with held-out "
            "samples: count the training part of the same split"
        )
    return counts.max() / counts[y]
