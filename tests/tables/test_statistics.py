"""Tests and rank correlation, beside those of SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from repro.tables.statistics import Sample, kendall, ranks, verdict, welch


def sample(values: np.ndarray) -> Sample:
    return Sample(float(values.mean()), float(values.std()), len(values))


@pytest.mark.parametrize("seed", range(40))
def test_welch_is_scipys_on_the_values_themselves(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = (rng.normal(rng.normal(80, 1), rng.uniform(0.01, 3), rng.integers(2, 7)) for _ in range(2))
    found, expected = welch(sample(one), sample(other)), stats.ttest_ind(one, other, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found is not None and found.difference == pytest.approx(one.mean() - other.mean())
    assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high), rel=1e-6)
    swapped = welch(sample(other), sample(one))
    assert swapped is not None and swapped.p == pytest.approx(found.p) and swapped.low == pytest.approx(-found.high)
    assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


@pytest.mark.parametrize("scale", [1e-150, 1e-12, 1.0, 1e12])
def test_the_unit_does_not_matter(scale: float) -> None:
    found = welch(Sample(2 * scale, 0.4 * scale, 3), Sample(scale, 0.6 * scale, 3))
    assert found is not None and found.p == pytest.approx(welch(Sample(2, 0.4, 3), Sample(1, 0.6, 3)).p)


def test_without_spread_only_equal_means_are_equal() -> None:
    assert welch(Sample(80.0, 0.0, 3), Sample(80.0, 0.0, 3)) == (0.0, 1.0, 0.0, 0.0)
    assert welch(Sample(81.0, 0.0, 3), Sample(80.0, 0.0, 3)) == (1.0, 0.0, 1.0, 1.0)
    found = welch(Sample(81.0, 0.0, 3), Sample(80.0, 1.0, 3))
    expected = stats.ttest_1samp([80.0 - math.sqrt(1.5), 80.0, 80.0 + math.sqrt(1.5)], 81.0)
    assert found is not None and found.p == pytest.approx(expected.pvalue)


def test_verdicts() -> None:
    reported = Sample(82.8, 0.56, 3)
    assert verdict(Sample(82.1, 0.5, 3), reported) == "agrees"
    assert verdict(Sample(79.0, 0.5, 3), reported) == "differs"
    for n in (1, 2):
        assert verdict(Sample(20.0, 0.1, n), reported) == verdict(reported, Sample(20.0, 0.1, n)) == "too few seeds"
    assert welch(Sample(20.0, 0.0, 1), reported) is None


def test_of_equal_means_about_one_in_twenty_differs() -> None:
    rng = np.random.default_rng(0)
    pairs = [(sample(rng.normal(size=3)), sample(rng.normal(size=3))) for _ in range(4000)]
    share = np.mean([verdict(*pair) == "differs" for pair in pairs])
    assert 0.02 < share < 0.055  # Welch's test is careful where samples are small


def test_ranks() -> None:
    column = {
        "best": Sample(82.0, 0.5, 3),
        "close": Sample(81.8, 0.5, 3),
        "same": Sample(81.8, 0.1, 4),
        "far": Sample(70.0, 0.5, 3),
        "lucky": Sample(99.0, 0.0, 1),
    }
    found = ranks(column)
    assert found == ({"best"}, {"close", "same"}, {"best", "close", "same"})
    assert ranks({"twin": column["best"], **column}) == ({"best", "twin"}, set(), {"best", "twin", "close", "same"})
    apart = ranks({"best": column["best"], "far": column["far"]})
    assert apart == ({"best"}, {"far"}, {"best"}), "the second is marked, but it is not as good"
    assert ranks({"only": column["best"], "lucky": column["lucky"]}) == (set(), set(), set()) == ranks({})


@pytest.mark.parametrize("seed", range(30))
def test_kendall_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 6, (2, int(rng.integers(3, 15)))).astype(float)  # with ties
    expected = stats.kendalltau(one, other).statistic
    found = kendall(one.tolist(), other.tolist())
    assert found is None if math.isnan(expected) else found == pytest.approx(expected)


def test_kendall_of_an_order() -> None:
    assert kendall([1, 2, 3], [10, 20, 30]) == 1 and kendall([1, 2, 3], [3, 2, 1]) == -1
    assert kendall([1, 1, 1], [1, 2, 3]) is None and kendall([], []) is None and kendall([1], [1]) is None
    with pytest.raises(ValueError):
        kendall([1, 2], [1])
