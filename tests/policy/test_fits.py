"""What the two fits take and refuse."""

import numpy as np
import pytest
import torch

from seval.policy.fits import fit_offsets, fit_thresholds
from tests.policy.problems import problem


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
    "logits are probabilities: .* pass np.log": {"logits": np.full((4, 3), 1 / 3)},
    "labels is <U3 .*try np.searchsorted": {"labels": np.array(["cat", "dog", "cat", "cow"])},
    "logits cannot be read as an array of numbers: .*'none'": {"logits": [["none", 1.0]] * 4},
    "logits cannot be read as an array of numbers: .*inhomogeneous": {"logits": [[1.0, 2.0], [1.0]]},
    "logits cannot be read as an array of numbers: .*grad": {"logits": torch.ones(4, 3, requires_grad=True)},
    r"2 of 4 rows .* that can be 0, take np.log\(probs": {"logits": np.diag([-np.inf, -np.inf, 0, 0])[:, :3]},
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
        fit_offsets(3 * np.eye(3), np.arange(3), bounds=bounds)


@pytest.mark.parametrize("target", [-0.1, 75, np.nan])
def test_bad_targets_are_refused(target):
    with pytest.raises(ValueError, match="target is"):
        fit_thresholds(3 * np.eye(3), np.arange(3), target=target)


@pytest.mark.parametrize("counts", [[1, 2], [1, 0, 2], [1, np.nan, 2], [3, -1, 2]])
def test_bad_class_counts_are_refused(counts):
    with pytest.raises(ValueError, match="class_counts is"):
        fit_thresholds(3 * np.eye(3), np.arange(3), target=0.8, class_counts=counts)
