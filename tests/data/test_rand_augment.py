"""RandAugment and its cutout, in both forms, against Pillow."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from seval.data import augment
from seval.data import rand_augment as module
from seval.data.augment import Geometry, flip_crop
from seval.data.rand_augment import Draw, all_at_once, apply, cutout, draw, grouped, rand_augment
from tests.data.pillow import (
    NAMES,
    PIL_OPS,
    SHAPES,
    make_images,
    max_difference,
    pil_cutout,
    pil_magnitude,
    to_pil,
)

FORMS = pytest.mark.parametrize("form", [grouped, all_at_once])


@pytest.mark.parametrize("size", [16, 8, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_cutout_equals_rectangle(shape, size):
    images = make_images(300, shape)
    center = torch.rand(len(images), 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(shape[:0:-1])
    center[:3] = torch.tensor([[0.0, 0.0], [shape[2] / 2, 0.0], [shape[2], shape[1]]])
    expected = [pil_cutout(to_pil(image), c, size) for image, c in zip(images, center.tolist(), strict=True)]
    assert max_difference(cutout(images, center, size), expected) == 0


def test_cutout_is_17_pixels_wide_inside_and_at_the_near_border():
    images = torch.zeros(3, 1, 64, 64, dtype=torch.uint8)
    holes = cutout(images, torch.tensor([[32.0, 32.0], [0.0, 0.0], [63.9, 32.0]])) == 127
    assert holes.sum(dim=(1, 2, 3)).tolist() == [17 * 17, 17 * 17, 9 * 17]


@FORMS
def test_an_image_does_not_depend_on_its_batch(form):
    images = make_images(90, (3, 32, 32))
    drawn = draw(len(images), torch.Generator().manual_seed(0))
    together = apply(images, drawn, form)
    alone = [apply(images[i : i + 1], Draw(*(part[i : i + 1] for part in drawn)), form) for i in range(90)]
    assert torch.equal(together, torch.cat(alone))


def pil_rand_augment(image: Image.Image, ops, applied, levels, signs, center, cutout_size) -> Image.Image:
    for op, use, level, sign in zip(ops, applied, levels, signs, strict=True):
        if use:
            image = PIL_OPS[NAMES[op]](image, pil_magnitude(NAMES[op], level, sign, image.height, image.width))
    return pil_cutout(image, center, cutout_size)


@pytest.mark.parametrize("num_ops, cutout_size", [(2, 16), (3, 8)])
@pytest.mark.parametrize("shape", SHAPES)
def test_rand_augment_equals_pillow(shape, num_ops, cutout_size):
    images = make_images(700, shape)
    before = images.clone()
    actual = rand_augment(images, torch.Generator().manual_seed(3), num_ops=num_ops, cutout_size=cutout_size)
    generator = torch.Generator().manual_seed(3)
    drawn = draw(len(images), generator, num_ops=num_ops)
    center = torch.rand(len(images), 2, generator=generator) * torch.tensor(shape[:0:-1])
    parameters = zip(*(part.tolist() for part in (*drawn, center)), strict=True)
    expected = [pil_rand_augment(to_pil(image), *p, cutout_size) for image, p in zip(images, parameters, strict=True)]
    assert max_difference(actual, expected) == 0
    again = cutout(apply(images, drawn, all_at_once), center, cutout_size)
    assert torch.equal(again, actual)
    assert torch.equal(images, before), "an op changed its input"


@FORMS
def test_every_choice_of_every_op_equals_pillow(form):
    """All 14 x 9 x 2 choices at both turns, so that no entry of the tables goes untested."""
    op, level, sign = torch.cartesian_prod(torch.arange(14), torch.arange(1, 10), torch.tensor([-1, 1])).T
    shuffled = torch.randperm(len(op), generator=torch.Generator().manual_seed(0))
    op, level, sign = (torch.stack([part, part[shuffled]], dim=1) for part in (op, level, sign))
    drawn = Draw(op, torch.ones_like(op, dtype=torch.bool), level, sign)
    for shape in SHAPES:
        images = make_images(len(op), shape, seed=2)
        expected = [to_pil(image) for image in images]
        for turn in range(2):
            choices = zip(op[:, turn].tolist(), level[:, turn].tolist(), sign[:, turn].tolist(), strict=True)
            expected = [
                PIL_OPS[NAMES[o]](image, pil_magnitude(NAMES[o], v, s, image.height, image.width))
                for image, (o, v, s) in zip(expected, choices, strict=True)
            ]
        assert max_difference(apply(images, drawn, form), expected) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    images, generator = make_images(512, (3, 32, 32)), torch.Generator().manual_seed(0)
    drawn, center = draw(len(images), generator), torch.rand(len(images), 2, generator=generator) * 32
    expected = cutout(apply(images, drawn), center)
    on_gpu = apply(images.cuda(), Draw(*(part.cuda() for part in drawn)))
    assert torch.equal(cutout(on_gpu, center.cuda()).cpu(), expected)
    assert Geometry().view("strong", images.cuda(), torch.Generator("cuda").manual_seed(0)).shape == images.shape
    assert torch.equal(augment.resize(images.cuda(), 11).cpu(), augment.resize(images, 11))


def test_on_a_gpu_no_view_reads_a_value_back(monkeypatch):
    """On tensors of a pretended device that hold no values, so that reading one is an error."""
    for owner, name in ((augment, "_resampling"), (module, "_tables")):  # nothing pretended may be kept
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)
    with FakeTensorMode(), torch.device("cuda"):
        images, ones = torch.zeros(6, 3, 16, 16, dtype=torch.uint8), torch.ones(6, 2, dtype=torch.int64)
        drawn = Draw(ones, ones > 0, ones, ones)
        views = flip_crop(images, ones[:, 0] > 0, ones, crop=12), cutout(apply(images, drawn), ones.float())
        views = [augment.normalize(augment.resize(view, 8), torch.zeros(3), torch.ones(3)) for view in views]
        assert all(view.device == images.device and view.shape == (6, 3, 8, 8) for view in views)
        with pytest.raises(DynamicOutputShapeException):
            apply(images, drawn, grouped)
