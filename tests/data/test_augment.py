"""The batched views against Pillow and slow loops, and what they draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import center_crop

from seval.data import augment
from seval.data.augment import Geometry, flip_crop
from seval.data.rand_augment import CUTOUT_GRAY, draw, rand_augment
from tests.data.pillow import SHAPES, make_images, max_difference, to_pil


@pytest.mark.parametrize("shape", SHAPES)
def test_flip_crop_equals_slow_loop(shape):
    images = make_images(162, shape)
    flip = torch.arange(len(images)) % 2 == 0
    offset = torch.cartesian_prod(torch.arange(9), torch.arange(9)).repeat(2, 1)  # every offset, flipped and not
    actual = flip_crop(images, flip, offset)
    for i, image in enumerate(images.numpy()):
        image = image[:, :, ::-1] if flip[i] else image
        x, y = offset[i].tolist()
        padded = np.pad(image, ((0, 0), (4, 4), (4, 4)), mode="reflect")
        np.testing.assert_array_equal(actual[i].numpy(), padded[:, y : y + shape[1], x : x + shape[2]])


def test_a_smaller_crop_equals_slow_loop():
    """Of the padded image, as published for images of 256 pixels that are cropped to 224."""
    images = make_images(200, (3, 20, 20))
    views = Geometry(crop=16).view("weak", images, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    flip, offset = torch.rand(200, generator=generator) < 0.5, torch.randint(13, (200, 2), generator=generator)
    assert views.shape == (200, 3, 16, 16) and offset.min() == 0 and offset.max() == 12
    for view, image, mirrored, (x, y) in zip(views.numpy(), images.numpy(), flip, offset.tolist(), strict=True):
        padded = np.pad(image[:, :, ::-1] if mirrored else image, ((0, 0), (4, 4), (4, 4)), mode="reflect")
        np.testing.assert_array_equal(view, padded[:, y : y + 16, x : x + 16])
    assert Geometry(crop=16).view("strong", images, torch.Generator().manual_seed(0)).shape == (200, 3, 16, 16)


@pytest.mark.parametrize(("side", "crop", "first"), [(256, 224, 16), (20, 16, 2), (9, 4, 2), (11, 4, 4), (8, 8, 0)])
def test_the_central_crop_is_that_of_torchvision(side, crop, first):
    image = torch.arange(side * side).view(1, 1, side, side)
    cropped = Geometry(crop=crop).evaluation(image)
    assert torch.equal(cropped, image[..., first : first + crop, first : first + crop])
    assert torch.equal(cropped, center_crop(image, [crop, crop]))


@pytest.mark.parametrize("shape", [(3, 96, 96), (1, 96, 96), (3, 100, 73), (3, 16, 16), (1, 17, 41), (3, 32, 48)])
def test_resize_equals_pillow(shape):
    images = make_images(24, shape)
    for size in (32, 16, 45):
        expected = [to_pil(image).resize((size, size), Image.Resampling.BILINEAR) for image in images]
        assert max_difference(augment.resize(images, size), expected) == 0
    assert augment.resize(images, 0) is images


def test_weak_draws_flips_and_offsets_uniformly():
    n = 8100
    marker = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    marker[0, 0, 16, 12] = 255  # off center: at column 19 when flipped, and its ranges of columns do not mix at row 16
    views = Geometry().view("weak", marker.expand(n, -1, -1, -1), torch.Generator().manual_seed(0))
    hits = views.flatten(1).float().argmax(dim=1)
    rows, columns = hits // 32 - 12, hits % 32  # column 12 lands on 8..16, column 19 on 15..23
    assert rows.min() == 0 and rows.max() == 8
    check_uniform(rows, 9)
    counts = torch.bincount(columns, minlength=24)[8:].double()
    expected = torch.full((16,), n / 18)
    expected[7:9] *= 2
    assert chi_square(counts, expected.double()) < critical(15)


def chi_square(counts: Tensor, expected: Tensor) -> float:
    return ((counts - expected) ** 2 / expected).sum().item()


def critical(freedom: int) -> float:
    """The 99.9 % quantile of chi-square, by the Wilson-Hilferty approximation."""
    return freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3


def check_uniform(values: Tensor, n: int) -> None:
    counts = torch.bincount(values.flatten(), minlength=n).double()
    assert len(counts) == n
    assert chi_square(counts, torch.full_like(counts, values.numel() / n)) < critical(n - 1)


@pytest.mark.parametrize("seed", range(3))
def test_draw_frequencies(seed):
    op, applied, level, sign = draw(20000, torch.Generator().manual_seed(seed))
    assert op.shape == applied.shape == level.shape == sign.shape == (20000, 2)
    assert set(level.unique().tolist()) == set(range(1, 10)) and set(sign.unique().tolist()) == {-1, 1}
    check_uniform(op, 14)
    check_uniform(applied.long(), 2)
    check_uniform(level - 1, 9)
    check_uniform((sign + 1) // 2, 2)
    # Independent of each other: with replacement, both turns apart, and no two of the four linked.
    check_uniform(op[:, 0] * 14 + op[:, 1], 14 * 14)
    check_uniform(applied[:, 0] * 2 + applied[:, 1].long(), 4)
    check_uniform(((op * 2 + applied) * 9 + level - 1) * 2 + (sign + 1) // 2, 14 * 2 * 9 * 2)


def test_samples_are_drawn_independently():
    """Copies of one image differ from each other, and neighbors share an op no more often than chance."""
    image = make_images(2, (3, 32, 32))[1:].expand(64, -1, -1, -1)
    for view in ("weak", "strong", "sim"):
        views = Geometry().view(view, image, torch.Generator().manual_seed(0))
        assert len(views.flatten(1).unique(dim=0)) > (40 if view == "weak" else 60)
    op = draw(20000, torch.Generator().manual_seed(0)).op[:, 0]
    check_uniform(op[:-1] * 14 + op[1:], 14 * 14)


@pytest.mark.parametrize("view", ["weak", "strong", "sim"])
def test_view_repeats_for_a_seed(view):
    images = make_images(64, (1, 16, 16))
    before = images.clone()
    first, again, other = (Geometry().view(view, images, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(images, before) and first.dtype == torch.uint8 and first.shape == images.shape


def test_eval_view_changes_nothing():
    images = make_images(8, (3, 32, 32))
    assert torch.equal(Geometry().view("eval", images, torch.Generator()), images)


def test_strong_is_weak_then_rand_augment():
    images = make_images(32, (3, 32, 32))
    generator = torch.Generator().manual_seed(0)
    expected = rand_augment(Geometry().view("weak", images, generator), generator)
    assert torch.equal(Geometry().view("strong", images, torch.Generator().manual_seed(0)), expected)


def test_a_strong_view_that_is_resized_first_has_the_ops_and_the_cutout_of_the_small_image():
    images, geometry = make_images(64, (3, 48, 48)), Geometry(resolution=16, cutout=8, resized_first=True)
    generator = torch.Generator().manual_seed(0)
    weak = geometry.view("weak", images, generator)  # which draws what a strong view draws first
    assert weak.shape == (64, 3, 16, 16)
    expected = rand_augment(weak, generator, cutout_size=8)
    assert torch.equal(geometry.view("strong", images, torch.Generator().manual_seed(0)), expected)
    last = Geometry(resolution=16, cutout=8).view("strong", images, torch.Generator().manual_seed(0))
    assert not torch.equal(last, expected)


def test_without_a_resize_it_makes_no_difference_when_it_would_come():
    images = make_images(64, (3, 32, 32))
    for resolution in (0, 32):
        first, last = (
            Geometry(resolution=resolution, resized_first=early).view(
                "strong", images, torch.Generator().manual_seed(0)
            )
            for early in (True, False)
        )
        assert torch.equal(first, last)


@pytest.mark.parametrize("resized_first, share", [(True, 0.248), (False, 0.0184)])
def test_the_gray_share_of_strong_views_of_stl10_is_the_published_one(resized_first, share):
    image = torch.randint(256, (1, 3, 96, 96), generator=torch.Generator().manual_seed(0)).byte()
    geometry = Geometry(resolution=32, resized_first=resized_first)
    views = geometry.view("strong", image.expand(1500, -1, -1, -1), torch.Generator().manual_seed(1))
    assert (views == CUTOUT_GRAY).all(1).double().mean().item() == pytest.approx(share, rel=0.05)


def test_normalize():
    images, mean, std = make_images(8, (3, 8, 8)), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.3, 0.4])
    expected = (images.numpy() / 255 - mean.numpy()[:, None, None]) / std.numpy()[:, None, None]
    actual = augment.normalize(images, mean, std)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), expected, rtol=0, atol=1e-5)
