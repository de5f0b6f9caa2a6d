"""Views of images: equal to those of the published code, which Pillow made, bit by bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seval.data.augment import central, flip_crop, resize
from seval.data.ops import OPS
from seval.data.rand_augment import Draw, apply, cutout
from tests.vectors.loading import digest, uses

LEVELS, SIGNS = range(1, 10), (1, -1)


def tensor(images: np.ndarray) -> Tensor:
    """Images (N, H, W, 3), or a single one, as (N, 3, H, W)."""
    return torch.tensor(images.reshape(-1, *images.shape[-3:])).permute(0, 3, 1, 2).contiguous()


def array(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).numpy()


def sha256(images: Tensor) -> bytes:
    return digest(array(images).tobytes(), digits=32)


def op_index(name: str) -> int:
    """Where this code has the op that the published code calls `name`, such as ShearX or AutoContrast."""
    (found,) = (i for i, ours in enumerate(OPS) if ours.replace("_", "") == name.lower())
    return found


def once(images: Tensor, op: int, level: int, sign: int) -> Tensor:
    drawn = [torch.full((len(images), 1), value) for value in (op, True, level, sign)]
    return apply(images, Draw(*drawn))


def noise(side: int, *earlier: int) -> Tensor:
    """Uniform noise of that side, from a stream that made images of other sides before."""
    rs = np.random.RandomState(6)
    for size in (*earlier, side):
        image = rs.randint(0, 256, (size, size, 3))
    return tensor(image.astype(np.uint8))


@uses("augment", "op_names", "images32", "image96", "op_sha256_*", "op_images_level7_plus")
def test_every_op_at_every_level(v):
    small, large = tensor(v["images32"]), tensor(v["image96"])
    assert sorted(map(op_index, v["op_names"])) == list(range(len(OPS)))
    for i, op in enumerate(map(op_index, v["op_names"])):
        for j, level in enumerate(LEVELS):
            for k, sign in enumerate(SIGNS):
                where = v["op_names"][i], level, sign
                assert sha256(once(small, op, level, sign)) == v["op_sha256_32"][i, j, k], where
                assert sha256(once(large, op, level, sign)) == v["op_sha256_96"][i, j, k], where
        np.testing.assert_array_equal(array(once(small[:1], op, 7, 1))[0], v["op_images_level7_plus"][i])


def rand_augmented(v, images: Tensor) -> Tensor:
    """The drawn ops in turn, then the cutout, on image i for draw i."""
    ops = np.array([op_index(name) for name in v["op_names"]])[v["chain_op"]]
    drawn = Draw(
        torch.tensor(ops),
        torch.tensor(v["chain_applied"]),
        torch.tensor(v["chain_level"].astype(np.int64)),
        torch.tensor(v["chain_sign"].astype(np.int64)),
    )
    return cutout(apply(images, drawn), torch.tensor(v["chain_center"] * images.shape[2]), 16)


@uses("augment", "op_names", "images32", "image96", "chain_*")
def test_chains_of_ops_and_a_cutout(v):
    number = len(v["chain_op"])
    small = rand_augmented(v, tensor(v["images32"])[torch.arange(number) % 3])
    large = rand_augmented(v, tensor(v["image96"]).expand(number, -1, -1, -1))
    for i in range(number):
        assert sha256(small[i : i + 1]) == v["chain_sha256_32"][i], i
        assert sha256(large[i : i + 1]) == v["chain_sha256_96"][i], i
    np.testing.assert_array_equal(array(small[:6]), v["chain_images_first6"])


def crops(image: Tensor, offsets: np.ndarray, flip: bool, crop: int = 0) -> Tensor:
    number = len(offsets)
    offset = torch.tensor(offsets.astype(np.int64))
    return flip_crop(image.expand(number, -1, -1, -1), torch.full((number,), flip), offset, padding=4, crop=crop)


@uses("augment", "images32", "weak_offsets", "weak_sha256", "weak_images")
def test_every_flip_and_crop_of_the_weak_view(v):
    image = tensor(v["images32"][1])
    plain, mirrored = (crops(image, v["weak_offsets"], flip) for flip in (False, True))
    assert [[sha256(view[None]) for view in views] for views in (plain, mirrored)] == v["weak_sha256"].tolist()
    np.testing.assert_array_equal(array(torch.stack([plain[0], plain[40], mirrored[75]])), v["weak_images"])


@uses("augment", "weak_256_to_224_*", "center_crop_256_to_224_sha256")
def test_crops_of_larger_images(v):
    image = noise(256)
    for k, flip in enumerate((False, True)):
        views = crops(image, v["weak_256_to_224_offsets"], flip, 224)
        assert [sha256(view[None]) for view in views] == v["weak_256_to_224_sha256"][k].tolist()
    assert sha256(central(image, crop=224)) == v["center_crop_256_to_224_sha256"]


@uses("augment", "image96", "resize_96_to_32", "resize_noise96_to_32_sha256")
def test_resizing(v):
    np.testing.assert_array_equal(array(resize(tensor(v["image96"]), 32))[0], v["resize_96_to_32"])
    assert sha256(resize(noise(96, 256), 32)) == v["resize_noise96_to_32_sha256"]
