"""What a step needs: counted the same by another counter, and proportional to what it should be."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from repro.launch.needs import CARDS, EFFICIENCY, LAUNCH, OTHERS, Needs, card_of, memory, needs, step_images
from seval.build import build_network
from seval.config import load
from seval.defaults import Node
from tests.settings import ROOT


def tiny(method: str, *overrides: object) -> Node:
    return load(ROOT / "configs" / "tiny" / f"{method}.yaml", ["DATASET.ROOT", str(ROOT / "data"), *overrides])


def test_the_operations_are_those_that_pytorch_counts_on_the_whole_batch() -> None:
    cfg = tiny("fixmatch")
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        build_network(cfg, 10, 1).backbone(torch.empty(160, 1, 16, 16)).sum().backward()
    assert sum(flops for flops, _ in needs(cfg).operations) == counter.get_total_flops()


@pytest.mark.parametrize("method, views", [("supervised", (1, 0)), ("fixmatch", (1, 2)), ("usadtm", (1, 3))])
def test_a_step_has_the_images_of_all_its_views(method: str, views: tuple[int, int]) -> None:
    for batch, ratio in ((32, 2), (64, 3)):
        cfg = tiny(method, "SOLVER.IMS_PER_BATCH", batch, "SOLVER.UNLABELED_BATCH_RATIO", ratio)
        assert step_images(cfg) == batch * (views[0] + ratio * views[1])


def test_time_and_memory_grow_with_the_batch_and_bfloat16_moves_half_the_bytes() -> None:
    one, two = needs(tiny("fixmatch")), needs(tiny("fixmatch", "SOLVER.IMS_PER_BATCH", 64))
    assert two.saved == 2 * one.saved and two.weights == one.weights and len(two.operations) == len(one.operations)
    assert two.seconds(CARDS["cpu"], "float32") == pytest.approx(2 * one.seconds(CARDS["cpu"], "float32"))
    half = needs(tiny("fixmatch", "SOLVER.PRECISION", "bfloat16"))
    assert half.saved == one.saved / 2
    assert memory(tiny("fixmatch", "SOLVER.IMS_PER_BATCH", 64)) > memory(tiny("fixmatch")) > one.saved
    # what a ReLU network keeps at least: the input of each of its convolutions, here counted by hand for one image
    inputs = [1 * 256, *4 * [16 * 256], 16 * 256, 32 * 64, 32 * 64, 64 * 16]
    assert one.saved / 160 > 4 * sum(inputs)


def test_a_step_takes_as_long_as_the_slower_of_arithmetic_memory_and_launches() -> None:
    card = CARDS["a100"]
    slow = Needs([(card.float32, 0.0), (0.0, 2 * card.bandwidth)], 0.0, 0.0)
    assert slow.seconds(card, "float32") == pytest.approx(3 / EFFICIENCY)
    assert slow.seconds(card, "bfloat16") == pytest.approx(2.5 / EFFICIENCY, rel=0.01)
    assert Needs([(1.0, 1.0)] * 100, 0.0, 0.0).seconds(card, "float32") == pytest.approx(LAUNCH * (OTHERS + 100))


@pytest.mark.parametrize(
    "text, name",
    [("gpu:1 a100|h100", "A100"), ("gpu:H100:2", "H100"), ("gpu:1", "A100"), ("cpu", "A100"), ("rtx_3090", "RTX 3090")],
)
def test_a_card_is_known_by_its_name_in_what_a_site_asks_for(text: str, name: str) -> None:
    assert card_of(text).name == name


def test_a_set_that_is_not_here_is_known_by_its_name_and_another_by_its_file() -> None:
    cfg = load(ROOT / "configs" / "cifar10" / "fixmatch.yaml", ["DATASET.ROOT", "nowhere"])
    assert step_images(cfg) == 320
    assert sum(flops for flops, _ in needs(cfg).operations) == pytest.approx(0.411e12, rel=0.01)  # 0.41 TFLOP
