"""Nelder-Mead against SciPy's: the same points in the same order, to the bit."""

import numpy as np
import pytest
from scipy.optimize import minimize

from seval.policy.fits import TOLERANCE, _nelder_mead_offsets, fit_offsets, fit_thresholds
from seval.policy.objective import published_loss
from seval.policy.simplex import MARGIN, nelder_mead, nelder_mead_scalar
from tests.policy.problems import HARD, HARD_NAMES, absent, problem

LOW, HIGH = 1e-3, 3.0


def scipy_search(loss, start, frozen=0, limit=None, low=LOW, high=HIGH):
    """SciPy's result, with the frozen variables ahead of the others."""
    box = [(1.0, 1.0)] * frozen + [(low, high)] * len(start)
    options = {} if limit is None else {"maxfev": limit, "maxiter": limit}
    start = np.append(np.ones(frozen), start)
    search = {"method": "Nelder-Mead", "bounds": box, "tol": TOLERANCE, "options": options}
    return minimize(lambda x: loss(x[frozen:]), start, **search).x[frozen:]


def bowl(seed, size, step=0.0, far=0.0):
    """A badly scaled quadratic function; its values are multiples of `step`, which makes many of them equal."""
    rng = np.random.default_rng(seed)
    target, scale = rng.uniform(0.3, 2.0, size) + far, 10.0 ** rng.uniform(-3, 0, size)

    def loss(x):
        value = float(scale @ (x - target) ** 2)
        return np.floor(value / step) * step if step else value

    return loss


def traced(loss):
    points = []

    def record(x):
        points.append(x.copy())
        return loss(x)

    return record, points


@pytest.mark.parametrize("step", [0.0, 1e-9, 1e-4, 1e-2])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13])
def test_the_points_are_those_of_scipy(size, step):
    for seed in range(4):
        frozen = (0, 1, size, 2 * size)[seed]
        loss = bowl(seed, size, step, far=(0, 0, 2, -1)[seed])
        start = np.random.default_rng(seed).uniform(0.2, 2.0, size)
        (theirs, expected), (ours, found) = traced(loss), traced(loss)
        best = scipy_search(theirs, start, frozen, limit=700)
        np.testing.assert_array_equal(
            nelder_mead(ours, start, LOW, HIGH, tolerance=TOLERANCE, frozen=frozen, limit=700), best
        )
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("step", [0.0, 1e-3])
def test_a_search_that_is_stopped_anywhere_returns_what_scipy_does(step):
    loss, start = bowl(3, 3, step), np.array([1.0, 0.5, 1.5])
    for limit in range(7, 100):  # also between the evaluations of an iteration, and within a shrink
        found = nelder_mead(loss, start, LOW, HIGH, tolerance=TOLERANCE, frozen=2, limit=limit)
        np.testing.assert_array_equal(found, scipy_search(loss, start, 2, limit))


@pytest.mark.parametrize("step", [0.0, 1e-9, 1e-3, 0.1])
def test_the_points_of_one_variable_are_those_of_scipy(step):
    for seed in range(30):
        loss, start = bowl(seed, 1, step, far=seed % 3 - 1), np.random.default_rng(seed).uniform(0.2, 2.0, 1)
        (theirs, expected), (ours, found) = traced(loss), traced(loss)
        best = scipy_search(theirs, start)
        arguments = (float(start[0]), LOW, HIGH)
        assert nelder_mead_scalar(lambda x, f=ours: f(np.array([x])), *arguments, tolerance=TOLERANCE) == best[0]
        np.testing.assert_array_equal(found, expected)


def shared(seed, classes, samples, size):
    """The published objective and its form for many points, with `size` groups."""
    logits, labels = problem(seed, classes, samples)
    return published_loss(logits, labels, np.arange(classes) * size // classes)


@pytest.mark.parametrize(("classes", "samples", "size"), [(20, 50, 20), (40, 300, 40), (60, 200, 30)])
def test_many_points_have_the_values_of_each(classes, samples, size):
    loss, losses = shared(0, classes, samples, size)
    points = np.random.default_rng(0).uniform(LOW, HIGH, (9, size))
    np.testing.assert_allclose(losses(points), [loss(x) for x in points], rtol=0, atol=MARGIN / 50)


@pytest.mark.parametrize("margin", [MARGIN, 1e-9, 1e-7])
@pytest.mark.parametrize("step", [0.0, 1e-13, 1e-9])
@pytest.mark.parametrize("size", [16, 24])
def test_looking_ahead_changes_nothing(size, step, margin, monkeypatch):
    monkeypatch.setattr("seval.policy.simplex.MARGIN", margin)  # a wide one, so that errors could decide often
    smooth, _ = shared(size, size, 20 * size, size)
    rng, together = np.random.default_rng(size), []

    def loss(x):
        return np.floor(smooth(x) / step) * step if step else smooth(x)

    def losses(points):
        together.append(len(points))
        return np.array([loss(x) for x in points]) + rng.choice([-0.45 * margin, 0.45 * margin], len(points))

    single, points = traced(loss)
    for limit in (200, 1500):
        together.clear(), points.clear()
        search = {"tolerance": TOLERANCE, "frozen": size, "limit": limit, "losses": losses}
        found = nelder_mead(single, np.ones(size), LOW, HIGH, **search)
        np.testing.assert_array_equal(found, scipy_search(loss, np.ones(size), size, limit))
        assert together and (limit == 200 or len(points) < limit)


@pytest.mark.parametrize(("name", "logits", "labels"), HARD, ids=HARD_NAMES)
def test_offsets_are_those_of_scipy(name, logits, labels):
    size = logits.shape[1]
    loss, _ = published_loss(logits, labels, np.arange(size))
    np.testing.assert_array_equal(fit_offsets(logits, labels), scipy_search(loss, np.ones(size), size))


@pytest.mark.parametrize("missing", [[], [2, 17]])
@pytest.mark.parametrize(
    ("classes", "samples", "size", "limit"),
    [(24, 20, 24, 2500), (100, 700, 100, 1200), (200, 500, 40, 2000), (200, 400, 200, 900)],
)
def test_offsets_of_many_classes_are_those_of_scipy(classes, samples, size, limit, missing):
    logits, labels = absent(*problem(1, classes, max(samples, classes)), missing)
    logits, labels = logits[-samples:], labels[-samples:]
    group = np.arange(classes) * size // classes
    loss, _ = published_loss(logits, labels, group)
    found = _nelder_mead_offsets(logits, labels, group, LOW, HIGH, limit)
    np.testing.assert_array_equal(found, scipy_search(loss, np.ones(size), size, limit))


@pytest.mark.parametrize("target", [0.6, 0.8, 0.95])
def test_thresholds_are_those_of_scipy(target, monkeypatch):
    def reference(loss, start, low, high, tolerance):
        assert tolerance == TOLERANCE
        return scipy_search(lambda x: loss(x[0]), np.array([start]), low=low, high=high)[0]

    for seed in range(10):
        logits, labels = problem(seed, classes=8, samples=300, margin=1.5)
        arguments = {"target": target, "class_counts": np.geomspace(300, 15, 8)}
        found = fit_thresholds(logits, labels, **arguments).tau
        with monkeypatch.context() as patch:
            patch.setattr("seval.policy.fits.nelder_mead_scalar", reference)
            expected = fit_thresholds(logits, labels, **arguments).tau
        np.testing.assert_array_equal(found, expected)
        assert expected.any() or target == 0.6
