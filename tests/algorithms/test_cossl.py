from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from seval import record
from seval.algorithms import ALGORITHMS
from seval.algorithms.cossl import CoSSL
from seval.build import Training, build
from seval.data import hdf5
from seval.data.loader import Batch
from seval.errors import Interrupted, RecipeError
from seval.policy.base import Facts
from seval.run import Run
from seval.train import update
from tests.algorithms.slow import (
    COUNTS,
    FACTS,
    C,
    D,
    Linear,
    N,
    batch,
    entropy,
    hard,
    head,
    labeled,
    mean,
    same,
    softmax,
)
from tests.settings import ROOT, result, small

CPU = torch.device("cpu")
LABELS = torch.tensor([2, 0, 1, 2, 3, 1, 0, 2])  # of the balanced batch


def given(seed: int = 1) -> Batch:
    found, g = batch("acr", seed), torch.Generator().manual_seed(seed)  # which has the same views
    images = torch.randn(len(LABELS), *found.images.shape[1:], generator=g)
    return found._replace(balanced=lambda: (images, LABELS))


def slowly_blended(features: Tensor, known: Tensor, unknown: Tensor, blend: float) -> list[Tensor]:
    """An image at a time, with the same random numbers."""
    size, found = len(features), []
    draws, places = torch.rand(3, size), [torch.randint(len(each), (size,)) for each in (known, unknown)]
    share = float(COUNTS.sum()) / (float(COUNTS.sum()) + FACTS.num_unlabeled)
    for i, (x, y) in enumerate(zip(features, LABELS.tolist(), strict=True)):
        largest, own = float(COUNTS.max()), float(COUNTS[y])
        other = known[places[0][i]] if draws[2, i] < share else unknown[places[1][i]]
        part = blend + (1 - blend) * (1 - float(draws[1, i]))  # the draw is as likely as one minus it
        found.append(part * x + (1 - part) * other if draws[0, i] < (largest - own) / largest else x)
    return found


@pytest.mark.parametrize("progress", [0.3, 0.5, 0.7])
def test_cossl_equals_a_slow_loop_before_while_and_after_the_second_head_learns(progress):
    net, teacher, now = Linear(), Linear(9), given()
    fast = CoSSL(FACTS, 2.0, start=0.6, blend=0.3, warm=0.2)
    heads = [head("threshold(0.6) | one_hot", "f"), head("threshold(0.5) | one_hot", "g")]
    weak, *strong = now.views
    torch.manual_seed(5)
    found = fast.losses(net, teacher, now, heads, progress)
    torch.manual_seed(5)
    expected, kept = {"f/labeled": labeled(net, now)}, []
    if progress > 0.4:
        with torch.no_grad():
            images = (teacher.features(part) for part in (now.balanced()[0], now.images, weak))
            features = slowly_blended(*images, blend=0.3)
        rows = [net.classify(x[None], "g")[0] for x in features]
        expected["g/labeled"] = mean([entropy(hard(y), z) for z, y in zip(rows, LABELS.tolist(), strict=True)])
    losses = []
    for i in range(N):
        with torch.no_grad():
            own, taught = net.logits(weak[i]), net.classify(teacher.features(weak[i][None]), "g")[0]
        probs, least = (softmax(taught), 0.5) if progress > 0.6 else (softmax(own), 0.6)
        kept.append(bool(probs.max() >= least))
        losses += [kept[-1] * entropy(hard(int(probs.argmax())), net.logits(view[i])) for view in strong]
    expected["f/unlabeled"] = 2.0 * mean(losses)
    assert len(losses) == 2 * N and {*kept} == {True, False}
    same(found, expected, net)


def test_blends_are_of_the_stated_shares():
    """Of the largest class none is blended, of others (n_1 - n) / n_1. All images are equally likely x'."""
    torch.manual_seed(0)
    algorithm, many = CoSSL(FACTS, 1.0, blend=0.5), 40_000
    known, unknown = torch.full((7, 1), 1.0), torch.full((3, 1), -1.0)
    for label, count in enumerate(COUNTS.tolist()):
        found = algorithm.blended(torch.zeros(many, 1), torch.full((many,), label), known, unknown)[:, 0]
        chance = 1 - count / 200
        assert abs(float((found != 0).float().mean()) - chance) < 0.01  # four standard errors
        if chance:
            blends = found[found != 0]
            assert abs(float((blends > 0).float().mean()) - 298 / 398) < 0.01
            assert blends.abs().max() <= 0.5 and abs(float(blends.abs().mean()) - 0.25) < 0.005


@pytest.mark.parametrize(("counts", "blend"), [([50, 50, 50, 50], 0.6), (COUNTS.tolist(), 1.0)])
def test_classes_of_equal_size_and_a_blend_of_one_leave_features_alone(counts, blend):
    algorithm, g = CoSSL(Facts.of(counts, 100), 1.0, blend=blend), torch.Generator().manual_seed(0)
    features, *others = (torch.randn(len(LABELS), D, generator=g) for _ in range(3))
    assert torch.equal(algorithm.blended(features, LABELS, *others), features)


def test_the_loss_of_the_second_head_reaches_nothing_else():
    net = Linear()
    algorithm, heads = CoSSL(FACTS, 1.0, start=0.0, warm=0.0), [head("one_hot", "f"), head("one_hot", "g")]
    losses = algorithm.losses(net, Linear(9), given(), heads, 0.5)
    weights = [net.map, net.heads["f"], net.heads["g"]]
    own = torch.autograd.grad(losses["g/labeled"], weights, allow_unused=True, retain_graph=True)
    assert own[:2] == (None, None) and own[2].abs().sum() > 0
    rest = torch.autograd.grad(losses["f/labeled"] + losses["f/unlabeled"], weights, allow_unused=True)
    assert rest[2] is None and rest[0].abs().sum() > 0


def trained(name: str, steps: int, heads: int) -> Training:
    second = ["HEADS.BALANCED.LABELED_LOSS", "cross_entropy" if heads == 2 else ""]
    cfg = small("cossl", ROOT / "runs", "ALGORITHM.NAME", name, *second)
    run = Run(cfg)
    run.__dict__["image_set"] = hdf5.read(ROOT / "data" / "tiny.h5")
    training = build(cfg, run.image_set, run.splits, {}, CPU)
    for step in range(steps):
        update(training, step)
    return training


@pytest.mark.parametrize("warm", [0.1, 0.9])
def test_before_it_is_taught_the_network_is_fixmatchs_bit_by_bit(warm):
    """Whether the second head learns already or not. Until then it is as it was drawn."""
    plain, ours = trained("fixmatch(strong=2)", 8, 1), trained(f"cossl(start=0.9, warm={warm})", 8, 2)
    for one, other in ((plain.net, ours.net), (plain.ema.network, ours.ema.network)):
        state, expected = other.state_dict(), one.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in expected.items())
        assert {key.rpartition(".")[0] for key in state.keys() - expected.keys()} == {"classifiers.balanced"}
    drawn = trained("cossl(start=0.9)", 0, 2).net.classifiers["balanced"].weight
    assert torch.equal(ours.net.classifiers["balanced"].weight, drawn) == (warm == 0.1)


def test_the_first_head_is_evaluated_until_the_second_teaches():
    algorithm, net = CoSSL(FACTS, 1.0, start=0.5, warm=0.2), Linear()
    heads, logits = [head("one_hot", "f"), head("one_hot", "g")], {"f": torch.zeros(3, C), "g": torch.ones(3, C)}
    for progress, expected in ((0.2, 0.0), (0.4, 0.0), (0.5, 1.0)):
        algorithm.losses(net, net, given(), heads, progress)
        assert torch.equal(algorithm.predict(logits), torch.full((3, C), expected))
    loaded = CoSSL(FACTS, 1.0)
    loaded.load_state_dict(algorithm.state_dict())
    assert torch.equal(loaded.predict(logits), logits["g"])


def test_balanced_batches_have_all_classes_equally_often_and_their_state_is_saved():
    training = trained("cossl", 0, 2)
    counts = torch.zeros(10)
    for _ in range(500):
        images, labels = next(training.loader).balanced()
        counts += torch.bincount(labels, minlength=10)
    assert images.shape == (8, 1, 16, 16)
    error = math.sqrt(4000 * 0.1 * 0.9)
    assert (counts - 400).abs().max() < 4 * error
    state = training.loader.state_dict()
    expected = [next(training.loader).balanced() for _ in range(3)]
    other = trained("cossl", 0, 2).loader
    other.load_state_dict(state)
    found = [next(other).balanced() for _ in range(3)]
    assert all(torch.equal(a, b) for pair in zip(expected, found, strict=True) for a, b in zip(*pair, strict=True))


def test_other_algorithms_have_no_balanced_stream():
    ours, other = (trained(name, 0, 2).loader for name in ("cossl", "fixmatch"))
    state, plain = ours.state_dict(), other.state_dict()
    assert state["streams"].keys() - plain["streams"].keys() == {"balanced"}
    assert state["views"].keys() - plain["views"].keys() == {"balanced view"}
    one, two = next(ours), next(other)
    with pytest.raises(RuntimeError, match="no class-balanced images"):
        two.balanced()
    assert torch.equal(one.images, two.images) and torch.equal(one.views[1], two.views[1])


def test_a_run_that_is_broken_off_at_any_stage_ends_alike(tmp_path):
    name = ["ALGORITHM.NAME", "cossl(start=0.6, warm=0.4)"]
    whole, broken = (small("cossl", tmp_path / folder, *name) for folder in ("whole", "broken"))
    expected, done = Run(whole).execute(), 0
    for step in (2, 5, 10):  # before the second head learns, while it does, while it teaches
        torch.manual_seed(99)
        polls = iter(range(done, 12))
        with pytest.raises(Interrupted):
            Run(broken).execute(lambda polls=polls, step=step: next(polls) == step)
        done = step
    assert result(Run(broken).execute()) == result(expected)
    losses = [line["loss"] for line in record.read_lines(Run(whole).folder / "metrics.jsonl")]
    assert ["balanced/labeled" in each for each in losses] == [False, True, True, True]


@pytest.mark.parametrize("wrong", ["start=1.5", "blend=-0.1", "blend=1.1", "start=0.5, warm=0.6"])
def test_impossible_shares_are_refused(wrong):
    with pytest.raises(RecipeError, match="between 0 and 1, and warm"):
        ALGORITHMS.build(f"cossl({wrong})", FACTS, 1.0)
