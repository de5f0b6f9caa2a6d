"""Claims of a table: differences over the same seeds, and what they decide, on records whose answers are known."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from scipy import stats

from repro.tables import claims, statistics
from repro.tables.statistics import bootstrapped, decided, kendall, paired
from repro.tables.table import Table
from seval.errors import ConfigError

PAGE = """
folder: tiny
protocol: last
seeds: [0, 1, 2, 3, 4]
columns: {plain: {}, turned: {set: [DATASET.REVERSE_UL_DISTRIBUTION, True]}}
rows:
  FixMatch: {config: fixmatch}
  SEVAL: {config: fixmatch_seval, offset: seval, cells: {turned: null}}
claims:
  - {says: SEVAL is better, paper: Table 2, more: SEVAL, less: FixMatch}
"""


def table(tmp_path, text: str = PAGE) -> Table:
    (tmp_path / "claimed.yaml").write_text(text)
    return Table.read(tmp_path / "claimed.yaml")


def judged(monkeypatch, table: Table, numbers: dict[tuple[str, str], dict[int, float]]) -> list[str]:
    """The verdicts where the cells have these numbers."""
    monkeypatch.setattr("repro.tables.table.Cell.values", lambda cell: numbers.get((cell.row, cell.column), {}))
    return [decided(claim.found()) for claim in claims.claims(table, list(table.cells()))]


def noisy(mean: float, seed: int, n: int = 5, spread: float = 0.5) -> dict[int, float]:
    random = Random(seed)
    return {k: mean + random.gauss(0, spread) for k in range(n)}


def test_the_interval_is_that_of_students_paired_test():
    one, other = noisy(71, 1, 7), noisy(70, 2, 7)
    found = paired(one, other)
    expected = stats.ttest_rel(list(one.values()), list(other.values()))
    low, high = expected.confidence_interval(0.95)
    assert np.allclose(found, (np.mean(list(one.values())) - np.mean(list(other.values())), low, high, 7), atol=1e-12)
    assert (decided(found) == "holds") == (expected.pvalue < 0.05)


def test_only_seeds_that_both_sides_have_are_paired():
    found = paired({0: 1.0, 1: 2.0, 5: 90.0}, {0: 0.0, 1: 1.5, 7: -50.0})
    assert found.n == 2 and math.isclose(found.difference, 0.75)
    assert paired({0: 1.0}, {1: 1.0}) is None and paired({0: 1.0}, {0: 3.0})[:3] == (-2.0, -math.inf, math.inf)


@pytest.mark.parametrize(
    "more, less, verdict",
    [
        (noisy(73, 1), noisy(70, 2), "holds"),
        (noisy(70, 1), noisy(73, 2), "does not hold"),
        (noisy(70, 1), noisy(70, 2), "undecided"),
        (noisy(73, 1, 2, 0.01), noisy(70, 2, 2, 0.01), "undecided"),  # too few seeds for a true difference
        ({}, noisy(70, 2), "undecided"),
        (dict.fromkeys(range(3), 70.0), dict.fromkeys(range(3), 70.0), "undecided"),
        (dict.fromkeys(range(3), 71.0), dict.fromkeys(range(3), 70.0), "holds"),
    ],
)
def test_a_true_difference_is_found_and_a_null_one_is_not(tmp_path, monkeypatch, more, less, verdict):
    numbers = {("SEVAL", "plain"): more, ("FixMatch", "plain"): less}
    assert judged(monkeypatch, table(tmp_path), numbers) == [verdict]  # the column `turned` has no cell of SEVAL


def test_of_many_null_claims_about_one_in_twenty_is_decided():
    verdicts = [decided(paired(noisy(70, 2 * k), noisy(70, 2 * k + 1))) for k in range(400)]
    assert 8 <= 400 - verdicts.count("undecided") <= 36


def test_sides_may_be_other_columns_and_other_readings(tmp_path, monkeypatch):
    text = PAGE.replace(
        "more: SEVAL, less: FixMatch",
        "more: {row: FixMatch, column: turned, offset: logit_adjusted}, less: {row: FixMatch, column: plain}",
    )
    (claim,) = claims.claims(read := table(tmp_path, text), cells := list(read.cells()))
    assert (claim.more.column, claim.more.reading.offset, claim.less.reading.offset) == (
        "turned",
        "logit_adjusted",
        "none",
    )
    assert claim.column == "turned, plain" and claim.more.runs == cells[1].runs
    numbers = {("FixMatch", "turned"): noisy(80, 1), ("FixMatch", "plain"): noisy(70, 2)}
    assert judged(monkeypatch, read, numbers) == ["holds"]


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("more: SEVAL,", "more: SEVALL,", "unknown row in more of claim 1.*did you mean 'SEVAL'"),
        ("more: SEVAL,", "", "claim 1 of table claimed has no 'more'"),
        ("more: SEVAL,", "more: {row: SEVAL, offset: sevall},", "unknown offset in more of claim 1"),
        ("paper:", "papers:", "unknown key in claim 1.*did you mean 'paper'"),
        ("less: FixMatch", "less: FixMatch, columns: [plane]", "unknown column in claim 1.*did you mean 'plain'"),
        ("claims:\n  - {says", "claims:\n  {says", "claims in .* must be a list"),
    ],
)
def test_a_claim_about_what_is_not_there_is_an_error(tmp_path, old, new, words):
    with pytest.raises(ConfigError, match=words):
        claims.claims(read := table(tmp_path, PAGE.replace(old, new)), list(read.cells()))


def test_the_page_has_every_claim_with_its_numbers(tmp_path, monkeypatch):
    read = table(tmp_path)
    numbers = {("SEVAL", "plain"): {0: 72.0, 1: 73.0, 2: 74.0}, ("FixMatch", "plain"): {0: 70.0, 1: 71.0, 2: 71.0}}
    monkeypatch.setattr("repro.tables.table.Cell.values", lambda cell: numbers.get((cell.row, cell.column), {}))
    text = "\n".join(claims.report(read, list(read.cells())))
    line = next(line for line in text.splitlines() if "SEVAL is better" in line)
    assert [part.strip() for part in line.split("|")[1:-1]] == [
        "SEVAL is better", "Table 2", "plain", "+2.33", "+0.90 to +3.77", "3", "**holds**",
    ]  # fmt: skip
    assert claims.report(table(tmp_path, PAGE.partition("claims:")[0]), []) == []


def test_the_interval_of_a_rank_correlation_covers_it_and_shrinks_with_the_noise():
    reported = [float(k) for k in range(8)]

    def interval(spread: float) -> tuple[float, float]:
        return bootstrapped([(list(noisy(k, int(10 * k), 3, spread).values()), k) for k in reported], 300)

    low, high = interval(2.0)
    assert -1 <= low < high <= 1 and interval(0.01) == (1.0, 1.0) and interval(2.0) == (low, high)
    means = [statistics.math.fsum(noisy(k, int(10 * k), 3, 2.0).values()) for k in reported]
    assert low <= kendall(means, reported) <= high
    assert bootstrapped([([1.0, 2.0], 5.0), ([1.0], 5.0)], 10) is None and statistics.FEWEST == 3
