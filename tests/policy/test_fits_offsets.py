"""The fit of offsets against a slow, literal implementation of the published procedure, an independent optimizer and
answers known by hand."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from seval.policy.fits import fit_offsets
from tests.policy.problems import HARD, HARD_NAMES, absent, problem

LOW, HIGH = 1e-3, 3.0


def slow_objective(logits, labels, alpha, pi):
    """Minus the mean over classes of m_c, one class and one sample at a time."""
    classes = logits.shape[1]
    score = np.full(classes, -2.0)
    for c in range(classes):
        rows = logits[labels == c]
        if len(rows):
            refined = alpha * (rows - np.log(pi))
            top = refined.max(axis=1)
            log_likelihood = refined[:, c] - top - np.log(np.exp(refined - top[:, None]).sum(axis=1))
            score[c] = log_likelihood.sum() / (len(rows) * classes)
    return -score.mean()


def slow_offsets(logits, labels, groups, **options):
    """Nelder-Mead over one alpha and one pi per group, neighboring classes sharing a group."""
    number = groups.max() + 1

    def objective(x):
        return slow_objective(logits, labels, x[:number][groups], x[number:][groups])

    box = [(1, 1)] * number + [(LOW, HIGH)] * number
    search = minimize(objective, np.ones(2 * number), method="Nelder-Mead", bounds=box, tol=1e-7, options=options)
    return search.x[number:][groups]


def loss_of_present(logits, labels, pi):
    """Class-averaged cross-entropy with the classes without samples taken out of the softmax."""
    present = np.unique(labels)
    refined = torch.as_tensor((logits - np.log(pi))[:, present])
    log_p = torch.log_softmax(refined, dim=1).numpy()[np.arange(len(labels)), np.searchsorted(present, labels)]
    return -np.mean([log_p[labels == c].mean() for c in present])


def centered(pi):
    return np.log(pi) - np.log(pi).mean()


@pytest.mark.parametrize("classes", range(4, 11))
def test_nelder_mead_offsets_are_the_published_ones(classes):
    logits, labels = problem(seed=classes, classes=classes, samples=60 * classes)
    expected = slow_offsets(logits, labels, np.arange(classes))
    np.testing.assert_allclose(fit_offsets(logits, labels), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("missing", [[2], [0, 4]])
def test_nelder_mead_offsets_are_the_published_ones_with_absent_classes(missing):
    logits, labels = absent(*problem(seed=1, classes=5, samples=200), missing)
    expected = slow_offsets(logits, labels, np.arange(5))
    np.testing.assert_allclose(fit_offsets(logits, labels), expected, rtol=0, atol=1e-6)


def test_nelder_mead_offsets_are_the_published_ones_in_groups():
    logits, labels = problem(seed=3, classes=24, samples=400)
    groups = np.arange(24) // 2
    expected = slow_offsets(logits, labels, groups)
    np.testing.assert_allclose(fit_offsets(logits, labels, groups=groups), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "logits", "labels"), HARD, ids=HARD_NAMES)
def test_exact_offsets_are_never_worse_than_published_ones(name, logits, labels):
    exact = fit_offsets(logits, labels, solver="exact")
    published = fit_offsets(logits, labels)
    for pi in (exact, published):
        assert pi.min() >= LOW and pi.max() <= HIGH
    loss = loss_of_present(logits, labels, exact)
    assert loss <= loss_of_present(logits, labels, published) + 1e-9
    if len(np.unique(labels)) == logits.shape[1]:
        one = np.ones(logits.shape[1])
        assert slow_objective(logits, labels, one, exact) <= slow_objective(logits, labels, one, published) + 1e-9


@pytest.mark.parametrize(("name", "logits", "labels"), HARD, ids=HARD_NAMES)
def test_exact_offsets_reach_the_loss_of_an_independent_optimizer(name, logits, labels):
    present = np.unique(labels)
    samples, reach = len(labels), np.log(HIGH / LOW)
    z = logits[:, present]
    own = np.searchsorted(present, labels)
    weight = 1 / np.bincount(own)[own] / len(present)

    def loss_and_slope(u):
        log_p = torch.log_softmax(torch.as_tensor(z - u), dim=1).numpy()
        residual = np.exp(log_p)
        residual[np.arange(samples), own] -= 1
        return -weight @ log_p[np.arange(samples), own], -weight @ residual

    search = minimize(
        loss_and_slope,
        np.zeros(len(present)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-reach / 2, reach / 2)] * len(present),
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000},
    )
    exact = fit_offsets(logits, labels, solver="exact")
    assert loss_of_present(logits, labels, exact) <= search.fun + 1e-9


def test_exact_offsets_are_stationary():
    logits, labels = problem(seed=5)
    pi = fit_offsets(logits, labels, solver="exact")
    p = torch.softmax(torch.as_tensor(logits - np.log(pi)), dim=1).numpy()
    weight = 1 / np.bincount(labels)[labels] / 10
    # Refined predictions are balanced: each class gets its share of the class-averaged probability mass.
    np.testing.assert_allclose(weight @ p, 0.1, atol=1e-10)


def test_the_solvers_agree_up_to_a_factor():
    logits, labels = problem(seed=6)
    exact, published = (fit_offsets(logits, labels, solver=solver) for solver in ("exact", "nelder-mead"))
    np.testing.assert_allclose(centered(exact), centered(published), atol=1e-4)


def test_exact_offsets_of_a_known_problem():
    # One sample per class, the same logits for each: the refined prediction must be uniform, hence pi = exp(logits).
    bias = np.array([0.5, -0.2, 0.1, -0.4])
    pi = fit_offsets(np.tile(bias, (4, 1)), np.arange(4), solver="exact")
    np.testing.assert_allclose(pi, np.exp(bias - bias.mean()), rtol=1e-10)


def test_exact_offsets_have_geometric_mean_one_or_move_into_the_bounds():
    bias = np.array([3.0, 0.0, 0.0, 0.0])  # centered: 2.25 for the first class, above log 3
    pi = fit_offsets(np.tile(bias, (4, 1)), np.arange(4), solver="exact")
    np.testing.assert_allclose(pi, HIGH * np.exp(bias - 3), rtol=1e-10)
    bias = np.array([0.0, 0.0, 9.0])  # more than log(HIGH / LOW) apart
    pi = fit_offsets(np.tile(bias, (3, 1)), np.arange(3), solver="exact")
    np.testing.assert_allclose(pi, [LOW, LOW, HIGH], rtol=1e-10)
    logits, labels = problem(seed=2, prior=0.3)
    assert np.log(fit_offsets(logits, labels, solver="exact")).mean() == pytest.approx(0, abs=1e-12)


def test_an_absent_class_leaves_the_others_alone():
    logits, labels = absent(*problem(seed=9, classes=6, samples=300), missing=[2])
    present = [0, 1, 3, 4, 5]
    pi = fit_offsets(logits, labels, solver="exact")
    alone = fit_offsets(logits[:, present], np.searchsorted(present, labels), solver="exact")
    np.testing.assert_allclose(pi[present], alone, rtol=1e-9)
    assert np.log(pi[2]) == pytest.approx(np.log(alone).mean())
    assert np.ptp(np.log(alone)) > 0.5
    published = fit_offsets(logits, labels)
    assert published[2] > 2.9 and published[present].max() < 0.01  # what the exact solver avoids


@pytest.mark.parametrize("solver", ["exact", "nelder-mead"])
def test_groups_share_an_offset(solver):
    logits, labels = problem(seed=4, classes=6)
    groups = np.array([7, 7, 3, 3, -1, 3])
    pi = fit_offsets(logits, labels, groups=groups, solver=solver)
    assert pi[0] == pi[1] and pi[2] == pi[3] == pi[5]
    assert len(set(pi)) == 3
    np.testing.assert_array_equal(
        fit_offsets(logits, labels, groups=np.arange(6), solver=solver), fit_offsets(logits, labels, solver=solver)
    )


def test_a_shared_offset_keeps_its_absent_class_in_the_softmax():
    logits, labels = absent(*problem(seed=4, classes=6), missing=[1])
    groups = np.arange(6) // 2
    exact = fit_offsets(logits, labels, groups=groups, solver="exact")
    published = fit_offsets(logits, labels, groups=groups)
    np.testing.assert_allclose(centered(exact), centered(published), atol=1e-4)


@pytest.mark.parametrize("groups", [np.arange(8), np.arange(8) // 2])
@pytest.mark.parametrize(("solver", "tolerance"), [("exact", 1e-9), ("nelder-mead", 1e-4)])
def test_permuting_classes_permutes_the_offsets(groups, solver, tolerance):
    logits, labels = problem(seed=10, classes=8)
    order = np.random.default_rng(0).permutation(8)
    pi = fit_offsets(logits, labels, groups=groups, solver=solver)
    permuted = fit_offsets(logits[:, order], np.argsort(order)[labels], groups=groups[order], solver=solver)
    np.testing.assert_allclose(centered(permuted), centered(pi)[order], atol=tolerance)


@pytest.mark.parametrize(("solver", "tolerance"), [("exact", 1e-9), ("nelder-mead", 1e-5)])
def test_offsets_ignore_a_constant_added_to_a_row_and_repeated_samples(solver, tolerance):
    logits, labels = problem(seed=11, classes=5, samples=100)
    pi = fit_offsets(logits, labels, solver=solver)
    constants = np.random.default_rng(0).normal(scale=100, size=(100, 1))
    shifted = fit_offsets(logits + constants, labels, solver=solver)
    np.testing.assert_allclose(centered(shifted), centered(pi), atol=tolerance)
    twice = fit_offsets(np.tile(logits, (2, 1)), np.tile(labels, 2), solver=solver)
    np.testing.assert_allclose(centered(twice), centered(pi), atol=tolerance)


def test_an_offset_in_the_logits_comes_back():
    logits, labels = problem(seed=12, classes=5)
    bias = np.array([0.3, -0.2, 0.5, 0.0, -0.6])
    pi, biased = (fit_offsets(z, labels, solver="exact") for z in (logits, logits + bias))
    np.testing.assert_allclose(centered(biased), centered(pi) + bias, atol=1e-9)


def test_start_outside_the_bounds():
    logits, labels = problem(seed=13, classes=4)
    for solver in ("exact", "nelder-mead"):
        pi = fit_offsets(logits, labels, bounds=(0.01, 0.5), solver=solver)
        assert pi.min() >= 0.01 and pi.max() <= 0.5
