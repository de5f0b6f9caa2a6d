"""The two fits against a slow, literal implementation of the published procedure, an independent optimizer and
answers known by hand."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from seval.policy.fits import ThresholdFit, fit_offsets, fit_thresholds

LOW, HIGH = 1e-3, 3.0


def problem(seed, classes=10, samples=400, imbalance=20.0, margin=2.0, scale=1.5, prior=0.7):
    """Logits (N, C) of a classifier biased towards frequent classes, long-tailed labels (N,) without absent classes."""
    rng = np.random.default_rng(seed)
    frequency = imbalance ** -np.linspace(0, 1, classes)
    labels = rng.choice(classes, samples, p=frequency / frequency.sum())
    labels[:classes] = np.arange(classes)
    logits = scale * rng.normal(size=(samples, classes)) + prior * np.log(frequency)
    logits[np.arange(samples), labels] += margin
    return logits, labels


def absent(logits, labels, missing):
    kept = ~np.isin(labels, missing)
    return logits[kept], labels[kept]


def separable(seed, classes=6, samples=120):
    logits, labels = problem(seed, classes, samples)
    logits[np.arange(samples), labels] = logits.max(axis=1) + 5
    return logits, labels


def hard_problems():
    """Pairs (name, logits, labels): common, extreme and degenerate held-out sets."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        classes = int(rng.integers(2, 9))
        yield f"random {seed}", *problem(seed, classes, int(rng.integers(20, 300)), imbalance=10 ** rng.uniform(0, 2.5))
    for seed in range(6):
        yield f"saturated {seed}", *problem(seed, 5, 120, scale=40.0, margin=60.0, prior=20.0)
        yield f"uninformative {seed}", *problem(seed, 5, 120, scale=0.05, margin=0.0, prior=0.0)
        yield f"biased beyond the bounds {seed}", *problem(seed, 4, 80, prior=8.0)
        yield f"separable {seed}", *separable(seed)
        yield f"absent {seed}", *absent(*problem(seed, 6, 150), missing=[seed])
    yield "two absent", *absent(*problem(7, 7, 150), missing=[0, 5])
    yield "one class only", *absent(*problem(8, 4, 100), missing=[0, 1, 3])
    yield "one sample", np.array([[0.3, -1.0, 2.0]]), np.array([0])


HARD = list(hard_problems())
HARD_NAMES = [name for name, *_ in HARD]


# --- the published procedure, written out -----------------------------------------------------------------------


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
    """|A(threshold) - target| with all weights 1."""
    predicted = logits.argmax(axis=1)
    # An exact threshold is a confidence: another formula for softmax would differ by rounding and keep that sample.
    confidence = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    kept = np.isin(predicted, members) & (confidence > threshold)
    return abs((predicted == labels)[kept].sum() / (kept.sum() + 1e-6) - target)


def loss_of_present(logits, labels, pi):
    """Class-averaged cross-entropy with the classes without samples taken out of the softmax."""
    present = np.unique(labels)
    refined = torch.as_tensor((logits - np.log(pi))[:, present])
    log_p = torch.log_softmax(refined, dim=1).numpy()[np.arange(len(labels)), np.searchsorted(present, labels)]
    return -np.mean([log_p[labels == c].mean() for c in present])


def centered(pi):
    return np.log(pi) - np.log(pi).mean()


# --- offsets ----------------------------------------------------------------------------------------------------


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


# --- thresholds -------------------------------------------------------------------------------------------------


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
        assert (gaps[grid < tau[c] - 1e-9] > found).all()


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
        logits[:, 0] = 1
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


# --- both -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["exact", "nelder-mead"])
def test_tensors_are_welcome_and_nothing_is_changed(solver):
    logits, labels = problem(seed=7, classes=4, samples=100)
    logits = logits.astype(np.float32)
    tensors = torch.tensor(logits), torch.tensor(labels)
    np.testing.assert_array_equal(fit_offsets(*tensors, solver=solver), fit_offsets(logits, labels, solver=solver))
    from_tensors = fit_thresholds(*tensors, target=0.8, class_counts=torch.tensor([9, 5, 3, 2]), solver=solver)
    from_arrays = fit_thresholds(logits, labels, target=0.8, class_counts=[9, 5, 3, 2], solver=solver)
    np.testing.assert_array_equal(from_tensors.tau, from_arrays.tau)
    assert from_tensors.tau.dtype == np.float64 and from_tensors.rare.dtype == bool
    np.testing.assert_array_equal(tensors[0], logits)


BAD_INPUTS = {
    "logits has shape": {"logits": np.zeros(4)},
    "two or more classes": {"logits": np.zeros((4, 1))},
    "held-out set is empty": {"logits": np.zeros((0, 3)), "labels": np.zeros(0, dtype=int)},
    r"labels is int64 \(3,\)": {"labels": np.array([0, 1, 2])},
    "labels is float64": {"labels": np.array([0.0, 1, 2, 1])},
    "labels span -1..2": {"labels": np.array([0, -1, 2, 1])},
    r"labels span 0..3; expected 0..2": {"labels": np.array([0, 3, 2, 1])},
    "1 of 4 rows of logits are NaN or infinite": {"logits": np.eye(4, 3) + np.diag([np.nan, 0, 0, 0])[:, :3]},
    "2 of 4 rows": {"logits": np.array([[0, 0, np.inf], [0, 0, 0], [0, 0, 0], [-np.inf, 0, 0]])},
    r"groups is int64 \(2,\)": {"groups": np.array([0, 1])},
    "groups is float64": {"groups": np.array([0.0, 1, 2])},
    "solver is 'newton'": {"solver": "newton"},
}


@pytest.mark.parametrize("message", BAD_INPUTS)
def test_bad_inputs_are_refused(message):
    arguments = {"logits": np.eye(4, 3), "labels": np.array([0, 1, 2, 1])} | BAD_INPUTS[message]
    with pytest.raises(ValueError, match=message):
        fit_offsets(**arguments)
    with pytest.raises(ValueError, match=message):
        fit_thresholds(**arguments, target=0.8)


@pytest.mark.parametrize("bounds", [(0, 3), (-1, 3), (3, 1e-3), (1e-3, np.inf), (np.nan, 3)])
def test_bad_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="bounds is"):
        fit_offsets(np.eye(3), np.arange(3), bounds=bounds)


@pytest.mark.parametrize("target", [-0.1, 75, np.nan])
def test_bad_targets_are_refused(target):
    with pytest.raises(ValueError, match="target is"):
        fit_thresholds(np.eye(3), np.arange(3), target=target)


@pytest.mark.parametrize("counts", [[1, 2], [1, 0, 2], [1, np.nan, 2], [3, -1, 2]])
def test_bad_class_counts_are_refused(counts):
    with pytest.raises(ValueError, match="class_counts is"):
        fit_thresholds(np.eye(3), np.arange(3), target=0.8, class_counts=counts)
