"""Image operations with Pillow, one image at a time: what the batched ones are compared with."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

NAMES = [
    "autocontrast", "brightness", "color", "contrast", "equalize", "identity", "posterize",
    "rotate", "sharpness", "shear_x", "shear_y", "solarize", "translate_x", "translate_y",
]  # fmt: skip


SHAPES = [(3, 32, 32), (1, 32, 32), (3, 23, 17), (1, 17, 23), (1, 16, 16)]


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


PIL_OPS = {
    "autocontrast": lambda image, m: ImageOps.autocontrast(image),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(m),
    "color": lambda image, m: ImageEnhance.Color(image).enhance(m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(m),
    "equalize": lambda image, m: ImageOps.equalize(image),
    "identity": lambda image, m: image,
    "posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "rotate": lambda image, m: image.rotate(m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(m),
    "shear_x": lambda image, m: affine(image, 1, m, 0, 0, 1, 0),
    "shear_y": lambda image, m: affine(image, 1, 0, 0, m, 1, 0),
    "solarize": lambda image, m: ImageOps.solarize(image, int(m)),
    "translate_x": lambda image, m: affine(image, 1, 0, m, 0, 1, 0),
    "translate_y": lambda image, m: affine(image, 1, 0, 0, 0, 1, m),
}


def pil_magnitude(name: str, level: int, sign: int, height: int, width: int) -> float:
    """The published formulas, written out in floats."""
    v = level / 10
    formulas = {
        "posterize": int(v * 4) + 4,
        "rotate": sign * int(v * 30),
        "shear_x": sign * v * 0.3,
        "shear_y": sign * v * 0.3,
        "solarize": 256 - int(v * 256),
        "translate_x": sign * int(v * 0.3 * width),
        "translate_y": sign * int(v * 0.3 * height),
    }
    if name in ("brightness", "color", "contrast", "sharpness"):
        return v * 0.9 + 0.05
    return formulas.get(name, 0)


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def from_pil(image: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


def max_difference(images: Tensor, expected: list[Image.Image]) -> int:
    assert images.dtype == torch.uint8
    return (images.int() - torch.stack([from_pil(image) for image in expected]).int()).abs().max().item()


def make_images(n: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Noise, smooth, low-contrast, few-valued, and constant images, in turn."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(n, *shape, generator=generator)
    coarse = torch.rand(n, shape[0], 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="bicubic").clamp(0, 1)
    base = torch.rand(n, shape[0], 1, 1, generator=generator)
    kinds = [noise, smooth, base * 0.9 + noise * 0.1, (noise < base).float() * base, base.expand_as(noise)]
    images = torch.stack(kinds)[torch.arange(n) % len(kinds), torch.arange(n)]
    return (images * 255.999).byte()


def pil_cutout(image: Image.Image, center: tuple[float, float], size: int) -> Image.Image:
    left, top = (int(max(0, c - size / 2)) for c in center)
    right, bottom = int(min(image.width, left + size)), int(min(image.height, top + size))
    image = image.copy()
    ImageDraw.Draw(image).rectangle((left, top, right, bottom), fill=127 if image.mode == "L" else (127, 127, 127))
    return image
