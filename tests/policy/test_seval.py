from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from seval.errors import PolicyError, RecipeError
from seval.policy.base import Facts, HeldOut, Policy, PseudoLabels
from seval.policy.language import build_policy
from seval.policy.seval import Curriculum, fit_offsets, fit_thresholds, neighbors, published
from tests.policy.four_classes import probs
from tests.settings import ROOT

EXAMPLE = ROOT / "tests/curricula/cifar10_l_500_100_ul_4000_100_seed_79"
C = 4
COUNTS = torch.tensor([200.0, 80, 30, 12])
TEXT = "seval_refine(decay=0.5) | seval_threshold(0.8, decay=0.7, groups=2) | one_hot"


def held_out(seed: int, counts: tuple[int, ...] = (200, 80, 30, 12)) -> HeldOut:
    g = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(C), torch.tensor(counts))
    logits = 1.5 * torch.randn(len(labels), C, generator=g) + 2 * torch.nn.functional.one_hot(labels, C)
    return HeldOut((logits + COUNTS.log()).double().softmax(1), labels)


def estimate(text: str = TEXT, events: int = 5, **kwargs) -> Policy:
    policy = build_policy(text, Facts(C, COUNTS, 100, num_held_out=322))
    for i in range(events):
        policy.refresh(held_out(i, **kwargs), lambda: None, (i + 1) / events)
    return policy


def test_state_machine_equals_the_published_order_of_events():
    """pi, its moving average, tau on predictions refined by that average, its moving average, then the rare rule."""
    pi, tau = np.ones(C), np.full(C, 0.95)
    counts = COUNTS.numpy()
    policy = build_policy(TEXT, Facts(C, COUNTS, 100, num_held_out=322))
    for i in range(5):
        sample = held_out(i)
        z, y = np.log(sample.probs.numpy()), sample.labels.numpy()
        raw = fit_offsets(z, y)
        pi = 0.5 * pi + 0.5 * raw
        fit = fit_thresholds(
            log_softmax(z - np.log(pi.astype(np.float32)), 1),
            y,
            target=0.8,
            class_counts=counts,
            groups=np.array([0, 0, 1, 1]),
        )
        tau = 0.7 * tau + 0.3 * fit.tau
        pi[fit.rare], raw[fit.rare] = pi.min(), raw.min()
        policy.refresh(sample, lambda: None, (i + 1) / 5)
        assert np.allclose(policy[0].smoothed.numpy(), pi, rtol=1e-5) and np.allclose(policy[1].smoothed.numpy(), tau)
        assert np.allclose(policy.offsets()["seval"].exp().numpy(), raw, rtol=1e-5)
    assert policy.artifact()["tau_fitted"].shape == (5, C)


def test_rare_groups_take_the_strongest_boost_and_accept_everything():
    policy = estimate(events=1, counts=(200, 80, 5, 4))  # 9 < 10 held-out samples in the last group
    artifact = policy.artifact()
    assert artifact["tau_rare"].tolist() == [[False, False, True, True]] == artifact["pi_rare"].tolist()
    assert artifact["tau_fitted"][0, 2:].tolist() == [0, 0]
    assert np.allclose(artifact["tau_smoothed"][0, 2:], 0.7 * 0.95)
    for rows in ("pi_fitted", "pi_smoothed"):
        assert (artifact[rows][0, 2:] == artifact[rows][0].min()).all()


def test_tau_is_indexed_by_the_refined_pseudo_label():
    policy = estimate()
    policy[0].smoothed.copy_(torch.tensor([3.0, 1, 1, 0.01]))
    policy[1].smoothed.copy_(torch.tensor([0.0, 0.0, 0.0, 0.999]))
    probs = torch.tensor([[0.9, 0.04, 0.03, 0.03]])  # refined: class 3, with confidence 0.89
    pseudo = policy(PseudoLabels.of(probs), None)
    assert pseudo.probs.argmax() == 3 and pseudo.weight == 0


def test_replay_goes_through_the_states_of_the_estimate():
    first = estimate()
    replay = build_policy(TEXT, Facts(C, COUNTS, 100, artifacts=first.artifact()))
    again = build_policy(TEXT, Facts(C, COUNTS, 100, num_held_out=322))
    for i in range(5):
        again.refresh(held_out(i), lambda: None, (i + 1) / 5)
        replay.refresh(None, lambda: None, (i + 1) / 5)
        for a, b in zip(again[:2], replay[:2], strict=True):
            assert torch.equal(a.smoothed, b.smoothed) and torch.equal(a.fitted, b.fitted)
    for key, rows in first.artifact().items():
        assert np.array_equal(rows, replay.artifact()[key])


def test_a_replay_at_other_evaluations_is_refused():
    learned = estimate(events=5).artifact()
    assert build_policy(TEXT, Facts(C, COUNTS, 100, num_evaluations=5, artifacts=learned))
    with pytest.raises(PolicyError, match="has 5 rows, but this run has 4 evaluations"):
        build_policy(TEXT, Facts(C, COUNTS, 100, num_evaluations=4, artifacts=learned))


def test_without_labels_or_curriculum_it_says_what_to_do():
    with pytest.raises(PolicyError, match="estimate phase first"):
        build_policy(TEXT, Facts(C, COUNTS, 100))


def test_wrong_number_of_classes_is_refused():
    with pytest.raises(PolicyError, match=r"shape \(500, 10\)"):
        build_policy(TEXT, Facts(C, COUNTS, 100, artifacts=published(EXAMPLE)))


def test_smoothing_and_its_inverse():
    rng = np.random.default_rng(0)
    curriculum = Curriculum(np.ones(3), decay=0.9)
    rows = rng.uniform(0.1, 3, (20, 3))
    for row in rows:
        curriculum.append(row)
    by_hand = np.ones(3)
    for i, row in enumerate(rows):
        by_hand = 0.9 * by_hand + 0.1 * row
        assert np.allclose(curriculum.smoothed[i], by_hand)
    back = Curriculum.read({"pi_smoothed": curriculum.smoothed}, "pi", np.ones(3), 0.9)
    assert np.allclose(back.fitted, rows)


def test_the_authors_curriculum_is_read_and_replayed():
    """Row e acts from evaluation e on; recovered estimates lie in the search boxes they were found in."""
    arrays = published(EXAMPLE)
    text = "seval_refine(decay=0.999) | seval_threshold(0.75, decay=0.999, groups=5) | one_hot"
    policy = build_policy(text, Facts(10, torch.arange(10, 0, -1.0), 100, artifacts=arrays))
    assert torch.equal(policy[0].smoothed, torch.ones(10))
    policy.refresh(None, lambda: None, 0.5)
    assert np.allclose(policy[0].smoothed.numpy(), arrays["pi_smoothed"][249])
    policy.refresh(None, lambda: None, 1.0)
    known = [
        1.698,
        1.317,
        1.226,
        1.121,
        0.711,
        0.616,
        0.656,
        0.615,
        0.607,
        0.607,
    ]  # last row of pi, as the paper's file
    assert np.allclose(policy[0].smoothed.numpy(), known, atol=6e-4)
    known = [0.948, 0.948, 0.956, 0.956, 0.887, 0.887, 0.742, 0.742, 0.576, 0.576]
    assert np.allclose(policy[1].smoothed.numpy(), known, atol=6e-4)
    fitted = policy[1].curriculum.fitted
    assert fitted.min() > -1e-6 and fitted.max() < 1 + 1e-6
    assert np.abs(fitted[:, 8:]).max() < 1e-6  # 4 + 2 held-out images: rare at every evaluation
    pi = policy[0].curriculum.fitted  # float32 rows: the inverse is good to 1e-7 / (1 - 0.999)
    assert (pi[:, :8] > 0.001 - 5e-4).all() and (pi < 3 + 5e-4).all()
    offset = policy.offsets()["seval"]
    assert offset.isfinite().all() and offset[0] > offset[9]


def test_a_missing_curriculum_is_named(tmp_path):
    with pytest.raises(PolicyError, match="nothing_estim_pi.npy"):
        published(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("classes", "groups", "expected"),
    [(10, 0, list(range(10))), (10, 5, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]), (7, 3, [0, 0, 0, 1, 1, 1, 2])],
)
def test_groups_are_neighbors(classes, groups, expected):
    assert neighbors(classes, groups).tolist() == expected


@pytest.mark.parametrize("text", ["groups=6", "groups=2.5", "solver='exat'", "decay='a'", "decay=1e999"])
def test_bad_arguments_are_refused_before_the_first_step(text):
    with pytest.raises(RecipeError):
        build_policy(f"seval_refine({text})", Facts(10, torch.ones(10), 100, num_held_out=50))


def test_a_curriculum_that_is_not_above_zero_is_refused():
    with pytest.raises(PolicyError, match="above 0"):
        build_policy("seval_refine", Facts(2, torch.ones(2), 9, artifacts={"pi_smoothed": np.zeros((3, 2))}))


def test_groups_of_imagenet_127_are_the_published_ones():
    assert np.bincount(neighbors(127, 10)).tolist() == [13] * 9 + [10]


def test_seval_before_its_first_refresh_is_fixmatch_bit_for_bit():
    seval, fixmatch = (
        estimate(text, events=0) for text in ("seval_refine | seval_threshold | one_hot", "threshold(0.95) | one_hot")
    )
    for scale in (2.0, 6.0, 20.0):
        for a, b in zip(*(p(PseudoLabels.of(probs(n=200, scale=scale)), None) for p in (seval, fixmatch)), strict=True):
            assert torch.equal(a, b)
