"""The view `sim` against Pillow, torchvision and slow loops, and what it draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image, ImageEnhance
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from seval.data.augment import Geometry
from seval.data.sim_view import SHARP, Draw, apply, blurring, draw, hue_shifted, jittered, sim
from tests.data.pillow import from_pil, make_images, max_difference, to_pil

PLAIN = [1.0, 1.0, 1.0, 0.0]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nothing(images: Tensor) -> Draw:
    """A draw that leaves images as they are."""
    n, size = len(images), torch.tensor(images.shape[2:]).float()
    no = torch.zeros(n, dtype=torch.bool)
    jitter = torch.tensor(PLAIN).repeat(n, 1)
    return Draw(torch.zeros(n, 2), size.repeat(n, 1), no, jitter, no, torch.full((n,), SHARP))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16), (3, 17, 23)])
def test_a_draw_of_nothing_is_the_identity(shape):
    images = make_images(50, shape)
    assert torch.equal(apply(images, nothing(images), shape[1:]), images)
    drawn = draw(50, shape[1:], stream(), jitter=0, gray=0, blur=0)
    assert torch.equal(drawn.jitter, nothing(images).jitter) and not drawn.gray.any() and (drawn.sigma == SHARP).all()


@pytest.mark.parametrize(("shape", "size"), [((3, 32, 32), (32, 32)), ((1, 23, 17), (23, 17)), ((3, 40, 40), (16, 16))])
def test_crop_and_flip_are_pillows(shape, size):
    """Pillow rounds between rows and columns, and its weights."""
    images = make_images(100, shape)
    drawn = draw(100, shape[1:], stream(), jitter=0, gray=0, blur=0)
    expected = []
    for image, (top, left), (height, width), flip in zip(images, drawn.corner, drawn.sides, drawn.flip, strict=True):
        box = [int(side) for side in (left, top, left + width, top + height)]
        view = to_pil(image).crop(box).resize(size[::-1], Image.Resampling.BILINEAR)
        expected.append(view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view)
    assert 0 < drawn.flip.sum() < 100
    assert max_difference(apply(images, drawn, size), expected) <= 1


def test_crops_are_drawn_as_torchvision_draws_them():
    """Means within four standard errors. Sides of 200 pixels, so that whole pixels hardly matter."""
    n, side = 4000, 200
    drawn, image = draw(n, (side, side), stream()), torch.empty(1, side, side)
    height, width = drawn.sides.T
    assert (drawn.corner >= 0).all() and (drawn.corner + drawn.sides <= side).all() and (drawn.sides >= 1).all()
    assert torch.equal(drawn.corner, drawn.corner.floor()) and torch.equal(drawn.sides, drawn.sides.round())
    torch.manual_seed(0)
    params = torch.tensor([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(n)]).float()
    for ours, theirs in (
        (height * width, params[:, 2] * params[:, 3]),
        ((height * width).square(), (params[:, 2] * params[:, 3]).square()),
        ((width / height).log(), (params[:, 3] / params[:, 2]).log()),
        ((width / height).log().abs(), (params[:, 3] / params[:, 2]).log().abs()),
        (drawn.corner[:, 0], params[:, 0]),
        (drawn.corner[:, 1].square(), params[:, 1].square()),
    ):
        assert abs(ours.mean() - theirs.mean()) < 4 * math.sqrt(ours.var() / n + theirs.var() / n)
    small = draw(n, (8, 8), stream())
    for place in range(2):  # the last corner is as likely as any
        room = 8 - small.sides[:, place]
        chance = 1 / (room + 1)
        seen = (small.corner[:, place] == room).float()
        assert abs((seen - chance).sum()) < 4 * (chance * (1 - chance)).sum().sqrt()
    assert 0.195 < (height * width).min() / side**2 < 0.21 and (height * width).max() / side**2 > 0.97


def test_where_no_crop_fits_it_is_the_whole_image():
    drawn = draw(500, (100, 10), stream())
    assert (drawn.sides == torch.tensor([100.0, 10.0])).all() and not drawn.corner.any()


def test_what_is_drawn_has_the_published_chances_and_ranges():
    n = 20000
    drawn = draw(n, (32, 32), stream())
    left = (drawn.jitter == torch.tensor(PLAIN)).all(1)
    shares = {0.2: left, 0.20001: drawn.gray, 0.5: drawn.flip, 0.50001: drawn.sigma == SHARP}
    for chance, seen in shares.items():
        assert abs(seen.double().mean() - chance) < 4 * math.sqrt(chance * (1 - chance) / n)
    factors, shift, sigma = drawn.jitter[~left, :3], drawn.jitter[~left, 3], drawn.sigma[drawn.sigma != SHARP]
    for values, low, high in ((factors, 0.6, 1.4), (shift, -0.1, 0.1), (sigma, 0.1, 2.0)):
        assert low <= values.min() < low + 0.01 * (high - low) and high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.double().mean() - (low + high) / 2) < 4 * (high - low) / math.sqrt(12 * len(values))
    everything = torch.cat([drawn.jitter[~left], drawn.gray[~left, None], drawn.sigma[~left, None]], 1)
    assert (torch.corrcoef(everything.T) - torch.eye(6)).abs().max() < 0.04


FACTORS = torch.tensor([0.6, 0.8, 1.0, 1.1, 1.4])


def one(place: int, values: Tensor) -> Tensor:
    """Jitter (N, 4) that changes only one of the four."""
    factors = torch.tensor(PLAIN).repeat(len(values), 1)
    factors[:, place] = values
    return factors


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(("place", "enhance"), list(enumerate(["Brightness", "Contrast", "Color"])))
def test_jitter_is_pillows_up_to_a_gray_level(place, enhance, channels):
    """Pillow truncates, which is up to 1, and rounds the mean luma, which is up to 0.5 times 0.4."""
    images = make_images(100, (channels, 32, 32))
    factors = FACTORS.repeat(20)
    found = jittered(images.float(), one(place, factors))
    pairs = zip(images, factors.tolist(), strict=True)
    expected = torch.stack([from_pil(getattr(ImageEnhance, enhance)(to_pil(image)).enhance(f)) for image, f in pairs])
    assert (found - expected).abs().max() <= 1.21
    assert (found - images).abs().max() > 20 or (enhance, channels) == ("Color", 1)


def test_hue_is_torchvisions():
    images = make_images(100, (3, 32, 32)).float()
    shift = torch.linspace(-0.1, 0.1, 100)
    found = hue_shifted(images, shift.view(-1, 1, 1, 1))
    pairs = zip(images, shift.tolist(), strict=True)
    expected = torch.stack([tv.adjust_hue(image / 255, turn) * 255 for image, turn in pairs])
    assert (found - expected).abs().max() < 0.02 and (found - images).abs().max() > 20
    assert (hue_shifted(images, torch.zeros(100, 1, 1, 1)) - images).abs().max() < 1e-3
    assert (hue_shifted(images, torch.ones(100, 1, 1, 1)) - images).abs().max() < 1e-3


def test_the_order_of_jitter_is_brightness_contrast_saturation_hue():
    images = make_images(20, (3, 16, 16)).float()
    factors = draw(20, (16, 16), stream(), jitter=1).jitter
    expected = images
    for place in range(4):
        expected = jittered(expected, one(place, factors[:, place]))
    assert (jittered(images, factors) - expected).abs().max() < 1e-2


def test_gray_is_pillows_luma():
    images = make_images(50, (3, 32, 32))
    views = apply(images, nothing(images)._replace(gray=torch.arange(50) % 2 == 0), (32, 32))
    for i, (view, image) in enumerate(zip(views, images, strict=True)):
        assert torch.equal(view, from_pil(to_pil(image).convert("L")).expand(3, -1, -1) if i % 2 == 0 else image)


def test_blur_is_torchvisions_inside_and_a_slow_loop_at_the_border():
    images, sigma = make_images(20, (3, 49, 49)), torch.linspace(0.1, 2, 20)
    views = apply(images, nothing(images)._replace(sigma=sigma), (49, 49))
    expected = torch.stack(
        [tv.gaussian_blur(x.float(), [33, 33], [s, s]) for x, s in zip(images, sigma.tolist(), strict=True)]
    )
    assert (views - expected)[..., 16:33, 16:33].abs().max() < 0.51
    assert (blurring(torch.tensor([SHARP]), 9) == torch.eye(9)).all()
    for s, weights in zip((0.4, 1.7), blurring(torch.tensor([0.4, 1.7]), 7).numpy(), strict=True):
        slow = np.array([[math.exp(-((i - j) ** 2) / (2 * s * s)) for j in range(7)] for i in range(7)])
        np.testing.assert_allclose(weights, slow / slow.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 16, 16)])
def test_all_steps_follow_each_other(shape):
    """Each step by itself, in turn; whole views differ by its rounding."""
    images, size = make_images(64, shape), shape[1:]
    drawn, plain = draw(64, size, stream(3), jitter=1, gray=0.5, blur=1), nothing(images)
    views = apply(images, plain._replace(corner=drawn.corner, sides=drawn.sides, flip=drawn.flip), size)
    for name in ("jitter", "gray", "sigma"):
        views = apply(views, plain._replace(**{name: getattr(drawn, name)}), size)
    assert (views.int() - apply(images, drawn, size).int()).abs().max() <= 6
    assert torch.equal(sim(images, stream(5), size), apply(images, draw(64, size, stream(5)), size))


@pytest.mark.parametrize(
    ("sizes", "side"), [({}, 40), ({"crop": 24}, 24), ({"resolution": 16}, 16), ({"crop": 24, "resolution": 16}, 16)]
)
def test_views_have_the_side_of_all_others(sizes, side):
    images = make_images(8, (3, 40, 40))
    for view in ("sim", "weak"):
        assert Geometry(**sizes).view(view, images, stream()).shape == (8, 3, side, side)
    assert torch.equal(Geometry(**sizes).view("sim", images, stream()), sim(images, stream(), (side, side)))
