"""Every image operation, batched, against Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import ImageOps

from seval.data.ops import OPS, POINTS, look_up, magnitude
from tests.data.pillow import NAMES, PIL_OPS, SHAPES, make_images, max_difference, pil_magnitude, to_pil

# The largest difference from Pillow, in gray levels, that each op is allowed.
TOLERANCE = dict.fromkeys(NAMES, 0)


def spread_magnitudes(name: str, n: int, height: int, width: int) -> list[float]:
    """Every magnitude that RandAugment can give an op, over and over, and for some ops values in between."""
    generator = np.random.default_rng(1)
    values = [pil_magnitude(name, level, sign, height, width) for level in range(1, 10) for sign in (-1, 1)]
    if name in ("brightness", "color", "contrast", "sharpness"):
        values += [0.0, 1.0, *generator.uniform(0, 1, 37)]
    elif name == "rotate":
        values += [0, 45, *generator.uniform(-90, 90, 37)]
    elif name.startswith("shear"):
        values += [0, *generator.uniform(-1, 1, 37)]
    elif name.startswith("translate"):
        values += list(range(-width - 1, width + 2))
    elif name == "solarize":
        values += list(range(257))
    elif name == "posterize":
        values += list(range(1, 9))
    return [values[i % len(values)] for i in range(n)]


def test_pool_is_the_published_one():
    assert list(OPS) == NAMES


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_op_equals_pillow(name, shape):
    images = make_images(600, shape)
    magnitudes = spread_magnitudes(name, len(images), *shape[1:])
    before = images.clone()
    actual = OPS[name](images, torch.tensor(magnitudes, dtype=torch.float64))
    expected = [PIL_OPS[name](to_pil(image), m) for image, m in zip(images, magnitudes, strict=True)]
    assert max_difference(actual, expected) <= TOLERANCE[name]
    assert torch.equal(images, before), "the op changed its input"
    if name != "identity" and not (name == "color" and shape[0] == 1):
        assert (actual != images).any(), "the op did nothing"


@pytest.mark.parametrize("shape", [*SHAPES, (3, 64, 48)])
@pytest.mark.parametrize("name", POINTS)
def test_a_point_op_on_all_levels_is_its_look_up_table(name, shape):
    images, levels = make_images(100, shape), torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256)
    magnitudes = torch.tensor(spread_magnitudes(name, len(images), *shape[1:]))
    table = POINTS[name](levels, magnitudes, images).expand(100, shape[0], 1, 256).squeeze(2)
    assert table.dtype == torch.uint8
    assert torch.equal(look_up(table, images), OPS[name](images, magnitudes))


def test_equalize_with_steps_larger_than_one():
    images = torch.cat([make_images(50, (3, 64, 48)), make_images(50, (3, 64, 48), seed=1) // 2])
    actual = OPS["equalize"](images, torch.zeros(len(images)))
    assert max_difference(actual, [ImageOps.equalize(to_pil(image)) for image in images]) == 0
    assert (actual != images).float().mean() > 0.3


@pytest.mark.parametrize("size", [(32, 32), (17, 23), (16, 16), (96, 64)])
@pytest.mark.parametrize("name", NAMES)
def test_magnitude_formulas(name, size):
    for level in range(1, 10):
        for sign in (-1, 1):
            expected = pil_magnitude(name, level, sign, *size)
            assert magnitude(name, level=level, sign=sign, size=size) == pytest.approx(expected, abs=1e-12)
