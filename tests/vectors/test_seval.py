"""SEVAL: its fits, what its rules keep from evaluation to evaluation, and its replay of the authors' curricula."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from seval.policy.language import build_policy
from seval.policy.seval import fit_offsets, fit_thresholds, neighbors, published
from tests.settings import ROOT
from tests.vectors.driving import Batch, Facts, HeldOut, Policy, assemble, stacked
from tests.vectors.loading import digest, uses

CASES = ["c10_estim", "c10_onerun", "c20_grouped"]
#: The authors' curricula by their names in the vectors.
CURRICULA = {
    "cifar10_500": "cifar10_l_500_100_ul_4000_100_seed_79",
    "cifar10_1500": "cifar10_l_1500_100_ul_3000_100_seed_79",
    "cifar100_50": "cifar100_l_50_10_ul_400_10_seed_79",
    "cifar100_150": "cifar100_l_150_10_ul_300_10_seed_79",
    "stl10_450": "stl10_l_450_20_ul_-1_-1_seed_79",
    "aves_in": "aves_l_-1_-1_ul_-1_-1_seed_79_in",
}


def close(ours: object, theirs: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def adjusted(logits: np.ndarray, pi: np.ndarray) -> np.ndarray:
    return logits - np.log(pi)


@pytest.mark.parametrize("case", CASES)
@uses("seval", "{case}/*")
def test_a_run_of_evaluations(v, case):
    logits, labels, counts = (v[f"{case}/{key}"] for key in ("logits", "labels", "train_counts"))
    groups_pi, groups_tau, target, decay_pi, decay_tau = v[f"{case}/groups_target_decays"].tolist()
    groups_pi, groups_tau, num_classes = int(groups_pi), int(groups_tau), logits.shape[2]
    facts = Facts(num_classes, torch.tensor(counts).float(), 1, num_held_out=len(labels))
    refine = f"seval_refine(decay={decay_pi}, groups={groups_pi})"
    policy = build_policy(f"{refine} | seval_threshold({target}, decay={decay_tau}, groups={groups_tau})", facts)
    before = np.ones(num_classes)
    for event, z in enumerate(logits):
        held_out = HeldOut(torch.tensor(z).double().softmax(1), torch.tensor(labels.astype(np.int64)))
        policy.refresh(held_out, lambda: None, 1.0)
        learned = policy.artifact()
        pi = fit_offsets(z, labels, groups=neighbors(num_classes, groups_pi))
        close(pi, v[f"{case}/pi_fit"][event])
        close(learned["pi_fitted"][-1], v[f"{case}/pi_current"][event])
        close(learned["pi_smoothed"][-1], v[f"{case}/pi_smoothed"][event])
        close(learned["tau_fitted"][-1], v[f"{case}/tau_fit"][event])
        close(learned["tau_smoothed"][-1], v[f"{case}/tau_smoothed"][event])
        assert learned["tau_rare"][-1].tolist() == v[f"{case}/rare"][event].tolist()
        # the thresholds are fitted on predictions that this evaluation's offsets refined, before the rare rule
        z = adjusted(z, decay_pi * before + (1 - decay_pi) * pi)
        balanced = len(set(np.bincount(labels))) == 1
        weights = None if balanced else counts
        fit = fit_thresholds(z, labels, target=target, class_counts=weights, groups=neighbors(num_classes, groups_tau))
        close(fit.tau, v[f"{case}/tau_fit"][event])
        confidence, label = torch.tensor(z).softmax(1).max(1)
        above = label[confidence > torch.tensor(fit.tau)[label]]
        selected = torch.bincount(above, minlength=num_classes)
        assert selected.tolist() == v[f"{case}/selected"][event].tolist()
        before = learned["pi_smoothed"][-1]


def logits_by_formula(
    stream: int, event: int, labels: np.ndarray, num_classes: int, noise: float, gain: float, drop: float, tilt: float
) -> np.ndarray:
    rs = np.random.RandomState(1000 * stream + event)
    z = rs.randn(len(labels), num_classes) * noise + gain * (1 - drop * event) * np.eye(num_classes)[labels]
    return (z + np.linspace(tilt, -tilt, num_classes)).astype(np.float32)


def ten_classes(event: int) -> tuple[np.ndarray, np.ndarray]:
    """(logits, labels) of a long tail."""
    labels = np.repeat(np.arange(10), [250, 149, 89, 53, 32, 19, 11, 6, 4, 2])
    return logits_by_formula(7, event, labels, 10, 1.5, 3.0, 0.02, 1.5), labels


def many_classes(num_classes: int, event: int) -> tuple[np.ndarray, np.ndarray]:
    """(logits, labels) with as many of each class."""
    labels = np.repeat(np.arange(num_classes), {100: 9, 127: 10, 200: 12}[num_classes])
    return logits_by_formula(8, event, labels, num_classes, 2.2, 6.0, 0.0, 1.0), labels


@uses("seval", "formula_check_sha256")
def test_the_inputs_of_the_fits_are_those_of_the_vectors(v):
    made = [digest(ten_classes(5)[0].tobytes()), digest(many_classes(200, 1)[0].tobytes())]
    assert made == v["formula_check_sha256"].tolist()


@uses("seval", "tau_c10/*")
def test_thresholds_of_ten_classes(v):
    counts = [250, 150, 90, 54, 32, 19, 12, 7, 4, 3]
    for event, (tau, rare) in enumerate(zip(v["tau_c10/tau"], v["tau_c10/rare"], strict=True)):
        fit = fit_thresholds(*ten_classes(event), target=0.75, class_counts=counts, groups=neighbors(10, 5))
        close(fit.tau, tau)
        assert fit.rare.tolist() == rare.tolist()


@pytest.mark.parametrize("num_classes, groups, target", [(100, 4, 0.5), (127, 10, 0.65), (200, 20, 0.9)])
@uses("seval", "tau_c{num_classes}/*")
def test_thresholds_of_many_classes(v, num_classes, groups, target):
    case = f"tau_c{num_classes}"
    for event, (tau, rare) in enumerate(zip(v[f"{case}/tau"], v[f"{case}/rare"], strict=True)):
        fit = fit_thresholds(*many_classes(num_classes, event), target=target, groups=neighbors(num_classes, groups))
        close(fit.tau, tau)
        assert fit.rare.tolist() == rare.tolist()


def replaying(num_classes: int, arrays: dict[str, np.ndarray]) -> Facts:
    return Facts(num_classes, torch.ones(num_classes), 1, artifacts=arrays)


@uses("seval", "step/*")
def test_a_step_under_given_offsets_and_thresholds(v):
    given = {f"{name}_smoothed": v[f"step/{name}"][None].copy() for name in ("pi", "tau")}
    facts, rules = replaying(10, given), "seval_refine | seval_threshold | one_hot"
    pieces = assemble("fixmatch", {"linear": ("cross_entropy", rules)}, facts)
    pieces.heads[0].policy.refresh(None, lambda: None, 1.0)
    labeled, weak, strong = (torch.tensor(v[f"step/{key}_logits"]) for key in ("labeled", "weak", "strong"))
    labels = torch.tensor(v["step/labels"].astype(np.int64))
    batch = Batch((labeled,), labels, (weak, strong), torch.arange(len(weak)))
    losses = pieces.algorithm.losses(LOGITS, LOGITS, batch, pieces.heads, 0.5)
    close([losses["linear/labeled"].item(), losses["linear/unlabeled"].item()], v["step/losses"], 1e-6)
    kept = stacked(pieces.seen["linear"], "kept")[0]
    np.testing.assert_array_equal(kept, v["step/weight"])
    np.testing.assert_array_equal(stacked(pieces.seen["linear"], "label")[0], v["step/label"])


#: A network whose images are their own logits.
LOGITS = SimpleNamespace(
    features=lambda images: images,
    classify=lambda features, head: features,
    groups=lambda features, head: features.unsqueeze(0),
    cuts=lambda head: (0,),
)


def replay(curriculum: str, decays: list[float]) -> tuple[Policy, dict[str, np.ndarray]]:
    """SEVAL's rules on one of the authors' curricula, and its rows."""
    rows = published(ROOT / "tests" / "curricula" / CURRICULA[curriculum])
    text = f"seval_refine(decay={decays[0]}) | seval_threshold(decay={decays[1]})"
    return build_policy(text, replaying(rows["pi_smoothed"].shape[1], rows)), rows


def in_force(policy: Policy) -> tuple[Tensor, Tensor, Tensor]:
    """The rules' pi, the pi of the test-time offset, tau."""
    refine, threshold = policy
    return refine.smoothed, policy.offsets()["seval"].exp(), threshold.smoothed


@pytest.mark.parametrize("curriculum", CURRICULA)
@uses("seval", "replay/rows", "replay/{curriculum}_*")
def test_replay_of_the_published_curricula(v, curriculum):
    decays = v[f"replay/{curriculum}_decays"].tolist()
    policy, arrays = replay(curriculum, decays)
    length = len(arrays["pi_smoothed"])
    rows = [int(row) for row in v["replay/rows"] if row < length]
    assert len(rows) == len(v[f"replay/{curriculum}_pi"])
    for i, row in enumerate(rows):
        policy.refresh(None, lambda: None, (row + 1) / length)
        pi, current, tau = in_force(policy)
        close(pi, v[f"replay/{curriculum}_pi"][i], 1e-6)
        close(current, v[f"replay/{curriculum}_pi_current"][i], 5e-4)
        close(tau, v[f"replay/{curriculum}_tau"][i], 1e-6)


@uses("seval", "replay/steps", "replay/row_in_force")
def test_the_row_that_acts_at_a_step(v):
    period, (policy, arrays) = 500, replay("cifar10_500", [0.999, 0.999])
    last, expected = (
        period * len(arrays["tau_smoothed"]),
        dict(zip(v["replay/steps"], v["replay/row_in_force"], strict=True)),
    )
    for step in range(max(expected) + 1):  # an evaluation follows every `period` steps
        if step in expected:
            row = expected[step]
            pi, _, tau = in_force(policy)
            close(pi, np.ones(10) if row < 0 else arrays["pi_smoothed"][row], 1e-6)
            close(tau, np.full(10, 0.95) if row < 0 else arrays["tau_smoothed"][row], 1e-6)
        if (step + 1) % period == 0:
            policy.refresh(None, lambda: None, (step + 1) / last)
