"""The fit of thresholds against a slow, literal implementation of the published procedure and answers known by hand."""

import numpy as np
import pytest
from scipy.optimize import minimize

from seval.policy.fits import ThresholdFit, fit_thresholds
from tests.policy.problems import HARD, HARD_NAMES, problem


def slow_thresholds(logits, labels, target, class_counts, groups):
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    weight = 1 / (class_counts / class_counts.max())[labels]
    number = groups.max() + 1
    tau, rare = np.zeros(len(groups)), np.zeros(len(groups), dtype=bool)
    for g in range(number):
        members = np.flatnonzero(groups == g)

        def accuracy(threshold, members=members):
            selected = correct = 0.0
            for i in range(len(labels)):
                if predicted[i] in members and confidence[i] > threshold:
                    selected += weight[i]
                    correct += weight[i] * (predicted[i] == labels[i])
            return correct / (selected + 1e-6)

        mine = np.isin(predicted, members)
        if weight[mine].sum() + 1e-6 <= weight.sum() / number / 10 or np.isin(labels, members).sum() < 10:
            rare[members] = True
        elif accuracy(-1) < target:
            search = minimize(
                lambda th, accuracy=accuracy: abs(accuracy(th[0]) - target),
                [0.95],
                method="Nelder-Mead",
                bounds=[(0, 1)],
                tol=1e-7,
            )
            tau[members] = search.x[0]
    return tau, rare


def accuracy_gap(logits, labels, members, threshold, target):
    """|A(threshold) - target| with all weights 1; A of nothing is 0."""
    predicted = logits.argmax(axis=1)
    # An exact threshold is a confidence: another formula for softmax would differ by rounding and keep that sample.
    confidence = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    kept = np.isin(predicted, members) & (confidence > threshold)
    return abs((predicted == labels)[kept].sum() / max(kept.sum(), 1) - target)


@pytest.mark.parametrize("seed", range(8))
def test_nelder_mead_thresholds_are_the_published_ones(seed):
    logits, labels = problem(seed, classes=6, samples=200, margin=1.5)
    counts = np.array([320.0, 150, 77, 40, 19, 7])
    for groups, target, class_counts in [
        (np.arange(6), 0.75, None),
        (np.arange(6) // 2, 0.9, counts),
        (np.arange(6), 0.95, counts),
    ]:
        fit = fit_thresholds(logits, labels, target=target, class_counts=class_counts, groups=groups)
        weights = np.ones(6) if class_counts is None else counts
        tau, rare = slow_thresholds(logits, labels, target, weights, groups)
        np.testing.assert_allclose(fit.tau, tau, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(fit.rare, rare)


@pytest.mark.parametrize(("name", "logits", "labels"), HARD, ids=HARD_NAMES)
@pytest.mark.parametrize("target", [0.5, 0.75, 0.95])
def test_exact_thresholds_are_never_worse_than_published_ones(name, logits, labels, target):
    exact, published = (
        fit_thresholds(logits, labels, target=target, solver=solver) for solver in ("exact", "nelder-mead")
    )
    np.testing.assert_array_equal(exact.rare, published.rare)
    for tau in (exact.tau, published.tau):
        assert tau.min() >= 0 and tau.max() <= 1
    for c in np.flatnonzero(published.tau + exact.tau):
        gaps = [accuracy_gap(logits, labels, [c], fit.tau[c], target) for fit in (exact, published)]
        assert gaps[0] <= gaps[1] + 1e-9


def test_exact_thresholds_beat_a_fine_grid_and_keep_the_most_samples():
    logits, labels = problem(seed=3, classes=4, samples=400, margin=1.0)
    tau = fit_thresholds(logits, labels, target=0.8, solver="exact").tau
    assert tau.max() > 0
    for c in np.flatnonzero(tau):
        found = accuracy_gap(logits, labels, [c], tau[c], 0.8)
        grid = np.linspace(0, 1, 1001)
        gaps = np.array([accuracy_gap(logits, labels, [c], th, 0.8) for th in grid])
        assert found <= gaps.min() + 1e-12
        assert (gaps[grid < tau[c] - 1e-9] > found + 1e-9).all()


@pytest.mark.parametrize("target, kept", [(0.75, 600), (0.7, 600), (0.76, 300), (0.9, 300), (1.0, 300)])
def test_of_equally_good_thresholds_the_exact_one_keeps_the_most(target, kept):
    """Accuracy is 1/2 without a threshold and 1 with any from 0.6 up; both are equally far off 0.75."""
    confidence = np.r_[1 - 10 ** np.linspace(-1, -6, 300), np.full(300, 0.6)]
    labels = np.repeat([0, 1], 300)
    tau = fit_thresholds(two_class_logits(confidence, 0), labels, target=target, solver="exact").tau[0]
    assert tau == pytest.approx(0 if kept == 600 else 0.6)
    assert np.count_nonzero(confidence > tau + 1e-12) == kept


@pytest.mark.parametrize("seed", range(6))
def test_weights_that_round_do_not_hide_equal_accuracies(seed):
    """A tail of right predictions above all wrong ones: every threshold in it has accuracy 1, the lowest keeps most."""
    rng = np.random.default_rng(seed)
    confidence = np.r_[rng.uniform(0.8, 0.99, 90), rng.uniform(0.55, 0.7, 60)]
    labels = np.repeat([0, 1], [90, 60])
    fit = fit_thresholds(two_class_logits(confidence, 0), labels, target=0.99, class_counts=[370, 130], solver="exact")
    assert fit.tau[0] == pytest.approx(confidence[90:].max())


def two_class_logits(confidence, predicted):
    """Logits (n, 2) with these confidences, each in (0.5, 1)."""
    confidence = np.asarray(confidence)
    logits = np.zeros((len(confidence), 2))
    logits[np.arange(len(confidence)), predicted] = np.log(confidence / (1 - confidence))
    return logits


def test_exact_threshold_known_by_hand():
    # Into class 0: 6 of 12 correct, 6 of 7 without the five least confident. Into class 1: 12 of 16, 0 of 4 above 0.9.
    confidence = [0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9, 0.92]
    correct = np.array([0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 1, 1], dtype=bool)
    into_1 = 12
    logits = two_class_logits(confidence + [0.9] * into_1, [0] * 12 + [1] * into_1)
    labels = np.r_[np.where(correct, 0, 1), np.ones(into_1, dtype=int)]
    labels = np.r_[labels, [0] * 4]  # ten samples of class 0 in all, the last four taken for class 1
    logits = np.r_[logits, two_class_logits([0.95] * 4, [1] * 4)]
    assert (labels == 0).sum() == 10
    fit = fit_thresholds(logits, labels, target=6 / 7, solver="exact")
    assert isinstance(fit, ThresholdFit)
    np.testing.assert_allclose(fit.tau, [0.75, 0], atol=1e-12)
    assert not fit.rare.any()
    assert fit_thresholds(logits, labels, target=0.5, solver="exact").tau[0] == 0


@pytest.mark.parametrize("solver", ["exact", "nelder-mead"])
def test_samples_weigh_by_the_inverse_of_their_class_count(solver):
    # Half of the predictions into each class are right. Weighted 1 : 3, class 0 is at 1/4 and class 1 at 3/4.
    logits = two_class_logits([0.7] * 40, [0] * 20 + [1] * 20)
    labels = np.tile([0, 1], 20)
    fit = fit_thresholds(logits, labels, target=0.7, class_counts=[300, 100], solver=solver)
    assert fit.tau[0] > 0 or solver == "exact"
    assert fit.tau[1] == 0
    both = fit_thresholds(logits, labels, target=0.7, solver="nelder-mead")
    assert (both.tau > 0).all()


@pytest.mark.parametrize("solver", ["exact", "nelder-mead"])
def test_an_accurate_classifier_needs_no_threshold(solver):
    logits, labels = problem(seed=1, classes=5, imbalance=1.0, margin=30.0)
    fit = fit_thresholds(logits, labels, target=0.95, solver=solver)
    np.testing.assert_array_equal(fit.tau, 0)
    np.testing.assert_array_equal(fit.rare, False)


def test_the_target_is_reached_where_samples_are_many():
    logits, labels = problem(seed=2, classes=4, samples=20_000, imbalance=1.0, margin=1.5, prior=0.0)
    for solver, tolerance in (("exact", 1e-4), ("nelder-mead", 3e-3)):
        tau = fit_thresholds(logits, labels, target=0.8, solver=solver).tau
        assert (tau > 0).all()
        for c in range(4):
            assert accuracy_gap(logits, labels, [c], tau[c], 0.8) < tolerance


@pytest.mark.parametrize("solver", ["exact", "nelder-mead"])
def test_few_held_out_samples_are_rare(solver):
    counts = [250, 149, 89, 53, 32, 19, 11, 6, 4, 2]
    labels = np.repeat(np.arange(10), counts)
    logits = 3 * np.eye(10)[labels] + np.random.default_rng(0).normal(size=(len(labels), 10))
    weights = {"class_counts": counts, "target": 0.99, "solver": solver}
    pairs = fit_thresholds(logits, labels, groups=np.arange(10) // 2, **weights)
    np.testing.assert_array_equal(np.flatnonzero(pairs.rare), [8, 9])  # 4 + 2 < 10 <= 11 + 6
    np.testing.assert_array_equal(pairs.tau[8:], 0)
    np.testing.assert_array_equal(np.flatnonzero(fit_thresholds(logits, labels, **weights).rare), [7, 8, 9])


@pytest.mark.parametrize("solver", ["exact", "nelder-mead"])
def test_few_predictions_are_rare(solver):
    # 1000 samples and 2 groups: a group needs more than 1000 / 2 / 10 = 50 predictions.
    labels = np.arange(1000) % 2
    for into_1, rare in [(0, True), (49, True), (51, False)]:
        logits = np.zeros((1000, 2))
        logits[:, 0] = 1.5
        logits[np.flatnonzero(labels == 0)[:into_1], 1] = 2
        fit = fit_thresholds(logits, labels, target=0.9, solver=solver)
        np.testing.assert_array_equal(fit.rare, [False, rare])
        assert not rare or fit.tau[1] == 0


@pytest.mark.parametrize("solver", ["exact", "nelder-mead"])
def test_permuting_classes_and_groups_permutes_the_thresholds(solver):
    logits, labels = problem(seed=5, classes=8, samples=500)
    counts = np.geomspace(300, 15, 8)
    rng = np.random.default_rng(1)
    for groups in (np.arange(8), np.arange(8) // 2):
        order, names = rng.permutation(8), rng.permutation(8)
        fit = fit_thresholds(logits, labels, target=0.9, class_counts=counts, groups=groups, solver=solver)
        permuted = fit_thresholds(
            logits[:, order],
            np.argsort(order)[labels],
            target=0.9,
            class_counts=counts[order],
            groups=names[groups[order]],
            solver=solver,
        )
        np.testing.assert_allclose(permuted.tau, fit.tau[order], atol=1e-9)
        np.testing.assert_array_equal(permuted.rare, fit.rare[order])


@pytest.mark.parametrize("solver", ["exact", "nelder-mead"])
def test_thresholds_ignore_row_constants_and_the_unit_of_the_counts(solver):
    logits, labels = problem(seed=6, classes=5)
    counts = np.geomspace(300, 15, 5)
    fit = fit_thresholds(logits, labels, target=0.9, class_counts=counts, solver=solver)
    constants = np.random.default_rng(0).normal(scale=10, size=(len(labels), 1))
    same = fit_thresholds(logits + constants, labels, target=0.9, class_counts=7 * counts, solver=solver)
    np.testing.assert_allclose(same.tau, fit.tau, atol=1e-9)
