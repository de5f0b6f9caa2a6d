"""CDMAD, SC-SSL's thresholds and TRAS against loops over images and classes, and their laws."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seval.errors import PolicyError, RecipeError
from seval.policy.base import Asked, Facts, Policy, PseudoLabels, Step, Student
from seval.policy.language import build_policy
from tests.policy import slow_rules as slow
from tests.policy.five_classes import COUNTS, C, at, built
from tests.policy.test_priors import N, close, logits

BLANK = torch.tensor([2.0, -1.0, 4.0, 0.5, -3.0])


def step(progress: float = 0.5, blank: Tensor = BLANK, bias: Tensor = BLANK, **given: object) -> Step:
    """What the network says of blank images moves with their value; only the balanced head has a bias."""
    biases = {"linear": torch.zeros(C), "balanced": bias}
    step = at(range(N), progress)._replace(blank=answer(blank), bias=lambda head: biases[head])
    return step._replace(**given)


def answer(blank: Tensor) -> Callable[[str, float | None], Tensor]:
    return lambda head, value: {"linear": 1.0, "balanced": -1.0}[head] * (7.0 if value is None else value) * blank


def asked(blank: Tensor = BLANK, bias: Tensor = BLANK) -> Asked:
    return Asked(lambda: torch.zeros(0, C), answer(blank), lambda head: {"linear": -bias, "balanced": bias}[head])


def of(text: str, head: str = "linear", counts: tuple[float, ...] = COUNTS, held_out: int = 0) -> Policy:
    return build_policy(text, Facts(len(counts), torch.tensor(counts), 60, held_out, head=head))


def probs(policy: Policy, z: Tensor, given: Step | None) -> Tensor:
    return policy.train(given is not None)(PseudoLabels.of(z.softmax(1)), given).probs


@pytest.mark.parametrize(
    ("text", "head", "r"),
    [("cdmad", "linear", 1.0), ("cdmad(value=0.5)", "balanced", -0.5), ("cdmad(0.2, black=True)", "linear", 7.0)],
)
def test_cdmad_takes_the_blank_logits_of_its_head_off_labels_and_test_logits(text, head, r):
    policy, r = of(text, head), r * BLANK
    for i, u in enumerate((0.0, 0.19, 0.2, 0.7)):
        found = policy.train()(PseudoLabels.of(logits(i).softmax(1)), step(u))
        assert close(found.probs, slow.cdmad(logits(i).tolist(), r.tolist(), u, 0.2)) and (found.weight == 1).all()
        assert torch.equal(found.probs, logits(i).softmax(1)) == (u < 0.2)
    assert torch.equal(policy.offsets()["cdmad"], torch.zeros(C))
    for u in (0.1, 0.2):
        logged = policy.refresh(None, asked(), u)
        assert torch.equal(policy.offsets()["cdmad"], r)  # always at test
        assert close(probs(policy, logits(9), None), slow.cdmad(logits(9).tolist(), r.tolist(), u, 0.2))
        assert close(logged["cdmad_norm"], (r - r.mean()).norm())


def test_cdmad_does_not_see_a_constant_added_to_all_reference_logits():
    for constant in (5.0, -40.0):
        shifted = step(blank=BLANK + constant)
        assert torch.allclose(probs(of("cdmad"), logits(0), shifted), probs(of("cdmad"), logits(0), step()), atol=1e-6)


def test_cdmad_makes_a_network_that_says_its_bias_alone_uniform():
    policy, z = of("cdmad"), BLANK.repeat(N, 1)
    policy.refresh(None, asked(), 0.5)
    for given in (step(), None):
        assert torch.allclose(probs(policy, z, given), torch.full((N, C), 1 / C), atol=1e-6)
    assert (z - policy.offsets()["cdmad"] == 0).all()


def test_cdmad_of_logits_far_apart_stays_on_the_simplex():
    for scale in (20.0, 100.0):
        PseudoLabels.of(probs(of("cdmad"), scale * logits(0), step(blank=scale * BLANK))).check()


@pytest.mark.parametrize("head", ["balanced", "expert"])
@pytest.mark.parametrize("c", [4.0, 5.0, 6.0])
@pytest.mark.parametrize("gamma", [100.0, 25.0, 10.0])
@pytest.mark.parametrize("counts", [COUNTS, (5.0, 40.0, 8.0, 10.0, 3.0, 100.0)])
def test_sc_thresholds_begin_as_in_the_paper(head, c, gamma, counts):
    expansive = head == "expert"
    policy = of(f"sc_threshold(expansive={expansive}, c={c}, gamma={gamma})", counts=counts)
    share, scale, shift = (1 / 5, 20, 3) if expansive else (1 / 10, 50, 4)
    assert close(policy[0].thresholds, slow.sc_thresholds([*counts], c, gamma, share, scale, shift))


def test_sc_threshold_published_values():
    starts = {}
    for c in (4.0, 5.0, 6.0):
        for expansive in (False, True):
            starts[c, expansive] = of(f"sc_threshold({expansive}, {c})")[0].thresholds.tolist()
    rare = {key: round(values[4], 4) for key, values in starts.items()}
    assert rare == {
        (4, False): 0.95,
        (5, False): 0.85,
        (6, False): 0.75,
        (4, True): 0.75,
        (5, True): 0.55,
        (6, True): 0.35,
    }
    assert all(close(values, [0.95, values[4], 0.95, values[4], values[4]]) for values in starts.values())


def test_sc_thresholds_of_rare_classes_fall_where_the_balanced_bias_is_large():
    policy, expected = of("sc_threshold(True, 6.0, drop=0.05, limit=1.0)", "expert"), [0.95, 0.35, 0.95, 0.35, 0.35]
    biases = [[2.0, 2, 2, 0, 1], [0.0, 3, 0, 3, 0.9], [0.0, 0, 0, 0, 1.1]] * 4
    for i, bias in enumerate(biases):
        z = logits(i, scale=1.0)
        found = policy.train()(PseudoLabels.of(z.softmax(1)), step(bias=torch.tensor(bias)))
        for k in (1, 3, 4):  # the head classes, 2 and 0, stay
            expected[k] = max(expected[k] - 0.05 * (bias[k] > 1.0), 0.0)
        assert close(policy[0].thresholds, expected)
        rows = z.softmax(1).tolist()
        assert found.weight.tolist() == [2.0 * (max(q) >= expected[q.index(max(q))]) for q in rows]
    assert expected[1] == 0 and 0 < found.weight.sum() < 2 * N


def test_sc_threshold_takes_the_bias_of_its_own_head_off_test_logits():
    for head, sign in (("linear", -1.0), ("balanced", 1.0)):
        policy = of("sc_threshold", head)
        log = policy.refresh(None, asked(), 0.5)
        assert torch.equal(policy.offsets()["bias"], sign * BLANK) and log.keys() == {"sc_min", "sc_max"}
        before = policy[0].thresholds.clone()
        policy.eval()(PseudoLabels.of(logits(0).softmax(1)), None)
        assert torch.equal(policy[0].thresholds, before)


PRIOR = [n / sum(COUNTS) for n in COUNTS]


@pytest.mark.parametrize("threshold", [0.7, 0.9])
def test_tras_targets_are_of_each_strong_view_and_adjusted_by_class(threshold):
    policy, weak = of(f"tras(threshold={threshold})", "balanced"), logits(0)
    views = {"linear": (logits(1), logits(2), logits(3)), "balanced": (weak, logits(5), logits(6))}
    given, losses = step(0.02, logits=views), []
    found = policy.train()(PseudoLabels.of(weak.softmax(1)), given)
    assert (found.weight == 0).all() and torch.equal(found.probs, weak.softmax(1))
    for view in (1, 2):
        own = views["balanced"][view].clone().requires_grad_()
        (loss,) = policy.penalties(found, given, Student(own, torch.zeros(N, 0), view))
        targets, weights = slow.tras(weak.tolist(), views["linear"][view].tolist(), PRIOR, threshold)
        terms = [w * slow.cross(t, z) for w, t, z in zip(weights, targets, own.tolist(), strict=True)]
        assert close(loss.item(), sum(terms) / N) and 0 < sum(weights) < N
        gradient = torch.autograd.grad(loss, own)[0]
        for row, w, t, z in zip(gradient.tolist(), weights, targets, own.tolist(), strict=True):
            assert close(row, [w * (p - q) / N for p, q in zip(slow.softmax(z), t, strict=True)])
        losses.append(loss.item())
    assert losses[0] != losses[1]
    assert policy.eval()(PseudoLabels.of(weak.softmax(1)), None).weight.tolist() == weights  # what it would keep


def test_tras_waits_for_its_start_and_adjusts_rare_classes_more():
    policy = of("tras", "balanced")
    given = step(0.019, logits={"linear": (logits(1),) * 2})
    found = policy(PseudoLabels.of(logits(0).softmax(1)), given)
    assert policy.penalties(found, given, Student(logits(2), torch.zeros(N, 0), 1)) == []
    strength = policy[0].strength
    assert torch.equal(strength.argsort(), torch.tensor(COUNTS).argsort(descending=True))
    inverse = [1 / n for n in COUNTS]
    assert close(strength, [2 * v / sum(inverse) + 2 for v in inverse])


@pytest.mark.parametrize("logits_of", [{}, {"expert": (logits(0),) * 2}])
def test_tras_names_the_heads_where_its_source_is_missing_before_it_starts(logits_of):
    policy, given = of("tras", "balanced"), step(0.0, logits=logits_of)
    found = policy(PseudoLabels.of(logits(0).softmax(1)), given)
    with pytest.raises(PolicyError, match="tras learns from the head 'linear', but the heads are (none|expert)"):
        policy.penalties(found, given, Student(logits(2), torch.zeros(N, 0), 1))


def test_rules_that_ask_the_network_refuse_a_plain_function_and_a_step_without_it():
    for text in ("cdmad", "sc_threshold"):
        with pytest.raises(PolicyError, match="give `refresh` an Asked"):
            of(text).refresh(None, lambda: torch.zeros(0, C), 0.5)
        with pytest.raises(PolicyError, match="asks the network; give Step its fields"):
            of(text)(PseudoLabels.of(logits(0).softmax(1)), Step.of(torch.arange(N), 0.5))


@pytest.mark.parametrize("first", ["cdmad", "debias", "simpro", "flexda", "sc_threshold"])
@pytest.mark.parametrize("second", ["seval_refine", "seval_offset"])
def test_sevals_offset_after_a_rule_that_adjusts_is_refused_with_the_reason(first, second):
    with pytest.raises(PolicyError, match="adjusts predictions before .*write SEVAL's rule first"):
        of(f"{first} | {second}", held_out=9)


def test_sevals_offset_before_cdmad_gives_both():
    policy = of("seval_offset | cdmad", held_out=9)
    assert policy.offsets().keys() == {"seval", "seval_smoothed", "cdmad"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cdmad(start=1.2)", "start is 1.2"),
        ("tras(temperature=0.0)", "temperature is 0"),
        ("tras(threshold=1.1)", "threshold is 1.1"),
        ("tras(start=-0.5)", "start is -0.5"),
        ("sc_threshold(top=1.5)", "top is 1.5"),
        ("sc_threshold(drop=-0.1)", "drop is -0.1"),
        ("sc_threshold(expansive=True, c=9.0)", "lowest is -0.25"),
        ("cdmad | cdmad", "both learn cdmad"),
    ],
)
def test_wrong_values(text, words):
    with pytest.raises(PolicyError, match=words):
        built(text).offsets()


@pytest.mark.parametrize("text", ["cdmad(black=1)", "sc_threshold(1)", "tras(source=3)", "tras(start='a')"])
def test_unreadable_arguments(text):
    with pytest.raises(RecipeError):
        built(text)
