"""What a reader may conclude from means over a few seeds: tests and rank correlation as functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from scipy.special import stdtr, stdtrit

LEVEL = 0.05  # of significance: of twenty equal means, one is called different by chance
FEWEST = 3  # seeds on each side; two have one degree of freedom, with which nearly nothing ever differs
#: Seeds of every reported number; papers of this field say so once or not at all.
REPORTED_SEEDS = 3

K = TypeVar("K", bound=Hashable)


class Sample(NamedTuple):
    """Mean, population standard deviation and number of runs, as papers of this field print them."""

    mean: float
    std: float
    n: int

    @property
    def error(self) -> float:
        """The squared standard error of the mean, from the unbiased variance; infinite for a single run."""
        return self.std**2 / (self.n - 1) if self.n > 1 else math.inf


class Welch(NamedTuple):
    """The difference of two means: p of the two-sided test, and the interval that covers it with 95 %."""

    difference: float
    p: float
    low: float
    high: float


def welch(one: Sample, other: Sample) -> Welch | None:
    """Welch's test of equal means, variances unknown and not assumed equal; None where a side has a single run.

    Where neither side varies, equal means have p = 1 and others p = 0.
    """
    if min(one.n, other.n) < 2:
        return None
    difference, errors = one.mean - other.mean, (one.error, other.error)
    total = sum(errors)
    if total == 0:
        return Welch(difference, float(difference == 0), difference, difference)
    # each share of the total, so that tiny errors do not vanish when squared
    freedom = 1 / sum((error / total) ** 2 / (n - 1) for error, n in zip(errors, (one.n, other.n), strict=True))
    half = float(stdtrit(freedom, 1 - LEVEL / 2)) * math.sqrt(total)
    p = 2 * float(stdtr(freedom, -abs(difference) / math.sqrt(total)))
    return Welch(difference, p, difference - half, difference + half)


class Paired(NamedTuple):
    """The mean difference of two samples over the same seeds, and Student's interval that covers it with 95 %."""

    difference: float
    low: float
    high: float
    n: int


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Paired | None:
    """Over the seeds that both have; None where there are none. Of one seed, the interval has no bounds."""
    differences = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
    if not differences:
        return None
    n, mean = len(differences), math.fsum(differences) / len(differences)
    if n == 1:
        return Paired(mean, -math.inf, math.inf, n)
    variance = math.fsum((difference - mean) ** 2 for difference in differences) / (n - 1)
    half = float(stdtrit(n - 1, 1 - LEVEL / 2)) * math.sqrt(variance / n)
    return Paired(mean, mean - half, mean + half, n)


def decided(found: Paired | None) -> str:
    """Whether the first is larger: `holds`, `does not hold` (it is smaller) or `undecided`."""
    if found is None or found.n < FEWEST or found.low <= 0 <= found.high:
        return "undecided"
    return "holds" if found.low > 0 else "does not hold"


def bootstrapped(pairs: Sequence[tuple[Sequence[float], float]], draws: int = 2000) -> tuple[float, float] | None:
    """The 95 % interval of Kendall's tau of means over seeds, each (values of the seeds, the other side's number).

    By the percentiles of draws with replacement from the seeds of each mean; the other side is taken as exact. Draws
    are seeded, so that a page is written alike each time. None where no draw has a tau.
    """
    random, taus = Random(0), []
    for _ in range(draws):
        means = [math.fsum(random.choices(values, k=len(values))) / len(values) for values, _ in pairs]
        taus.append(kendall(means, [other for _, other in pairs]))
    known = sorted(tau for tau in taus if tau is not None)
    return (known[int(0.025 * len(known))], known[int(0.975 * len(known))]) if known else None


def verdict(ours: Sample, reported: Sample) -> str:
    """`agrees`, `differs` (by Welch's test) or, where a side has fewer than three runs, `too few seeds`."""
    found = welch(ours, reported)
    if found is None or min(ours.n, reported.n) < FEWEST:
        return "too few seeds"
    return "differs" if found.p < LEVEL else "agrees"


class Ranks(NamedTuple):
    """The best and the second of a column, and all that the test cannot tell from the best, itself included."""

    best: set
    second: set
    tied: set


def ranks(samples: Mapping[K, Sample]) -> Ranks:
    """Who is best by its mean. Samples of fewer than three runs take no part, nor does a column of one sample."""
    known = {key: sample for key, sample in samples.items() if sample.n >= FEWEST}
    if len(known) < 2:
        return Ranks(set(), set(), set())
    order = sorted({sample.mean for sample in known.values()}, reverse=True)
    best, second = ({key for key, sample in known.items() if sample.mean in means} for means in (order[:1], order[1:2]))
    top = known[min(best, key=lambda key: known[key].std)]
    tied = {key for key, sample in known.items() if not differs(sample, top)}
    return Ranks(best, second if len(best) == 1 else set(), tied | best)


def differs(one: Sample, other: Sample) -> bool:
    """Whether the test tells the two means apart."""
    found = welch(one, other)
    return found is not None and found.p < LEVEL


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Kendall's rank correlation tau-b, which allows for ties; None where a side is constant or has under two values.

    Raises `ValueError` if the lengths differ.
    """
    pairs = list(zip(one, other, strict=True))
    signs = [
        (_sign(a - c), _sign(b - d)) for place, (a, b) in enumerate(pairs) for c, d in pairs[:place]
    ]  # of every two rows, how each side orders them
    ordered = [sum(sign[side] != 0 for sign in signs) for side in (0, 1)]
    if not all(ordered):
        return None
    return sum(a * b for a, b in signs) / math.sqrt(ordered[0] * ordered[1])


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
