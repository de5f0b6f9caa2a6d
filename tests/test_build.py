from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch

from seval.build import build_network, build_optimizer, check_sizes, chosen_test, labeled_weight
from seval.checks import check_penalties, check_recipes
from seval.config import load
from seval.data.augment import Geometry
from seval.data.image_set import ImageSet, Part
from seval.errors import ConfigError, PolicyError, RecipeError
from seval.policy.base import Facts
from tests.algorithms.slow import head

FACTS = Facts(7, torch.ones(7), 1)


def test_a_penalty_on_a_view_that_is_only_mixed_is_refused():
    with pytest.raises(ConfigError, match="mixmatch"):
        check_penalties("mixmatch", [head("sharpen").policy, head("daso(alignment=1.0)").policy])
    check_penalties("mixmatch", [head("daso(alignment=0.0)").policy])
    check_penalties("fixmatch", [head("daso(alignment=1.0)").policy])


@pytest.mark.parametrize(
    ("name", "published", "features"),
    [("wide_resnet", "WRN", 128), ("resnet50", "ResNet", 2048), ("cifar_resnet50", "ResNet50_cifar", 2048)],
)
def test_the_configuration_picks_the_backbone(name, published, features):
    cfg = load((), ["MODEL.NAME", published])
    assert cfg.MODEL.NAME == name
    net = build_network(cfg, 7, 3).eval()
    with torch.no_grad():
        assert net.backbone.feature_dim == features and net(torch.zeros(1, 3, 16, 16)).shape == (1, 7)
        assert deepcopy(net).features(torch.zeros(1, 3, 16, 16)).shape == (1, features)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("ALGORITHM.NAME", "fixmatch(strong=0)", "strong is 0"),
        ("ALGORITHM.NAME", "fixmatch(normalize='x')", "normalize 'x'"),
        ("HEADS.LINEAR.CLASSIFIER", "classwise(2, 7)", "of 7 classes"),
        ("HEADS.LINEAR.POLICY", "group_weight(2, 7)", "of 7 classes"),
        ("HEADS.LINEAR.POLICY", "threshold | flexda", "comes first"),
    ],
)
def test_recipes_are_checked_before_anything_is_built(key, value, words):
    with pytest.raises((PolicyError, RecipeError), match=words):
        check_recipes(load((), [key, value]), FACTS)
    check_recipes(load((), ["ALGORITHM.NAME", "fixmatch(strong=2)", "HEADS.LINEAR.POLICY", "flexda"]), FACTS)


def images_of(height: int, width: int) -> ImageSet:
    part = Part(np.zeros((2, 1, height, width), np.uint8), np.arange(2))
    return ImageSet("tiny", part, part, ("a", "b"), (0.5,), (0.5,), {})


def sizes(images: ImageSet, method: str, *overrides: object) -> None:
    check_sizes(load((), ["ALGORITHM.NAME", method, *overrides]), images)


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "remixmatch"])
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["DATASET.PADDING", 16], "PADDING is 16, but the images have 16 pixels a side; set it to at most 15"),
        (["DATASET.PADDING", 100, "DATASET.CROP", 8], "PADDING is 100, .* set it to at most 15"),
        (["DATASET.CROP", 17], "CROP is 17, but the images have 16 pixels a side; set it to at most 16, or to 0"),
        (["DATASET.CUTOUT", 17], "CUTOUT is 17, but views have 16 pixels a side"),
        (["DATASET.CROP", 8, "DATASET.CUTOUT", 9], "CUTOUT is 9, but views have 8 pixels a side"),
    ],
)
def test_views_that_cannot_be_made_are_refused(method, overrides, words):
    with pytest.raises(ConfigError, match=f"^DATASET.{words}"):
        sizes(images_of(16, 16), method, *overrides)


def test_a_square_is_cut_out_of_the_size_that_the_view_has_then():
    small = ["DATASET.RESOLUTION", 8, "DATASET.CUTOUT", 9]
    sizes(images_of(16, 16), "fixmatch", *small)  # resized last
    with pytest.raises(ConfigError, match="CUTOUT is 9, but views have 8 pixels a side"):
        sizes(images_of(16, 16), "remixmatch", *small)


def test_the_largest_sizes_make_views():
    pixels, draws = torch.randint(256, (8, 1, 16, 16), dtype=torch.uint8), torch.Generator().manual_seed(0)
    for overrides in (
        ["PADDING", 15, "CUTOUT", 16],
        ["PADDING", 15, "CROP", 16],
        ["PADDING", 15, "CROP", 1, "CUTOUT", 1],
    ):
        cfg = load((), [word if k % 2 else f"DATASET.{word}" for k, word in enumerate(overrides)])
        check_sizes(cfg, images_of(16, 16))
        geometry = Geometry.of(cfg.DATASET)
        assert {geometry.view(name, pixels, draws).shape[2] for name in ("eval", "weak", "strong")} == {
            geometry.crop or 16
        }


def test_encoded_images_have_the_size_to_which_they_are_decoded():
    encoded = images_of(1, 1)._replace(train=Part([b"", b""], np.arange(2)))
    sizes(encoded, "fixmatch", "DATASET.DECODED_SIZE", 32, "DATASET.PADDING", 31)
    with pytest.raises(ConfigError, match="PADDING is 32, but the images have 32 pixels"):
        sizes(encoded, "fixmatch", "DATASET.DECODED_SIZE", 32, "DATASET.PADDING", 32)


def test_only_squares_are_rotated_or_cropped():
    sizes(images_of(16, 20), "fixmatch")
    with pytest.raises(ConfigError, match="the images are 16 x 20, and this algorithm rotates them"):
        sizes(images_of(16, 20), "remixmatch")
    sizes(images_of(16, 20), "remixmatch", "DATASET.RESOLUTION", 16)
    with pytest.raises(ConfigError, match="CROP is 8, but the images are 16 x 20; only squares are cropped"):
        sizes(images_of(16, 20), "fixmatch", "DATASET.CROP", 8, "DATASET.CUTOUT", 4)


def test_every_class_has_the_test_images_that_are_asked_for():
    labels = np.array([0, 1, 0, 1, 0])
    assert chosen_test(load((), ["DATASET.NUM_TEST", 2]), labels).tolist() == [0, 2, 1, 3]
    assert chosen_test(load(), labels).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(
        ConfigError, match="NUM_TEST is 3, but class 1 has 2 test images; set it to at most that, or to 0"
    ):
        chosen_test(load((), ["DATASET.NUM_TEST", 3]), labels)


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "ratio", "expected"),
    [(640, 2560, 2, 10 / 20), (700, 2600, 2, 10 / 20), (703, 1151, 2, 10 / 8), (10, 60, 1, 1.0), (640, 640, 1, 1.0)],
)
def test_a_labeled_weight_of_0_is_labeled_over_unlabeled_batches_of_a_pass(labeled, unlabeled, ratio, expected):
    """SimPro's 1 / kappa; incomplete batches do not count."""
    settings = ["SOLVER.IMS_PER_BATCH", 64, "SOLVER.UNLABELED_BATCH_RATIO", ratio, "ALGORITHM.LABELED_WEIGHT"]
    assert labeled_weight(load((), [*settings, 0.0]), labeled, unlabeled) == expected
    assert labeled_weight(load((), [*settings, 0.25]), labeled, unlabeled) == 0.25


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("classifier", ["linear", "cosine", "classwise(2, 4)"])
def test_weight_decay_leaves_norms_and_biases_alone_where_it_is_told_to(name, classifier):
    heads = [f"HEADS.{head}.{key}" for head in ("LINEAR", "EXPERT") for key in ("LABELED_LOSS", "CLASSIFIER")]
    settings = [value for pair in zip(heads, ["cross_entropy", classifier] * 2, strict=True) for value in pair]
    settings += ["SOLVER.OPTIM_NAME", name, "SOLVER.BASE_LR", 0.5, "SOLVER.WEIGHT_DECAY", 0.1]
    net = build_network(load((), settings), 7, 3)
    norms = {id(p) for each in net.modules() if isinstance(each, torch.nn.BatchNorm2d) for p in each.parameters()}
    norms |= {id(p) for key, p in net.named_parameters() if key.endswith((".bias", ".scale", ".shift"))}
    for decays in (True, False):
        optimizer = build_optimizer(load((), [*settings, "SOLVER.DECAY_NORMS", decays]), net)
        taken = [(id(p), group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]]
        assert len(taken) == len(dict(taken)) == len([*net.parameters()])  # each once
        assert {i for i, decay in taken if decay == 0} == (set() if decays else norms)
        assert {decay for i, decay in taken if i not in norms} == {0.1}


def test_adamw_decays_by_a_factor_that_the_gradient_does_not_see():
    settings = ["SOLVER.OPTIM_NAME", "adamw", "SOLVER.BASE_LR", 0.5, "SOLVER.WEIGHT_DECAY", 0.1]
    net = torch.nn.Linear(3, 2)
    optimizer, before = build_optimizer(load((), settings), net), net.weight.detach().clone()
    for weight in net.parameters():
        weight.grad = torch.full_like(weight, 4.0)
    optimizer.step()
    assert torch.allclose(net.weight, before * (1 - 0.5 * 0.1) - 0.5, atol=1e-6)  # Adam's first step has length lr
