"""The weak and strong views of FixMatch (arXiv 2001.07685), computed for a whole batch of uint8 images at once.

Every image draws its own parameters.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import torch
from torch import Generator, Tensor

from seval.data.ops import Size, size_of, take
from seval.data.rand_augment import rand_augment
from seval.data.sim_view import sim
from seval.defaults import Node
from seval.errors import ConfigError


def flip_crop(images: Tensor, flip: Tensor, offset: Tensor, *, padding: int = 4, crop: int = 0) -> Tensor:
    """Mirror the images with flip (N,), pad them by reflection, and crop at offset (N, 2), as (x, y).

    The crop is a square of side `crop`, or of the old size where that is 0.
    """
    height, width = images.shape[2:]
    size = (crop or height, crop or width)
    column = offset[:, :1] + torch.arange(-padding, size[1] - padding, device=images.device)
    row = offset[:, 1:] + torch.arange(-padding, size[0] - padding, device=images.device)
    column, row = (last - (last - i.abs()).abs() for i, last in ((column, width - 1), (row, height - 1)))
    column = torch.where(flip[:, None], width - 1 - column, column)
    return take(images, (row[:, :, None] * width + column[:, None, :]).flatten(1), size)


def central(images: Tensor, crop: int) -> Tensor:
    """The central square of side `crop` of images (N, c, H, W)."""
    top, left = (round((side - crop) / 2) for side in images.shape[2:])
    return images[..., top : top + crop, left : left + crop]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Every view of a run's images, in training and in evaluation. All sizes are in pixels."""

    padding: int = 4  # by reflection, before the random crop
    cutout: int = 16  # side of the gray square in the strong view
    crop: int = 0  # side of every view, cut from square images; 0 keeps their size
    resolution: int = 0  # side to which every view is resized at the end; 0 leaves it as it is
    resized_first: bool = False  # whether RandAugment acts on views that were resized already, as in ReMixMatch

    @classmethod
    def of(cls, dataset: Node) -> Self:
        """As the section DATASET of a configuration has it; what an algorithm decides is left at its default."""
        return cls(padding=dataset.PADDING, cutout=dataset.CUTOUT, crop=dataset.CROP, resolution=dataset.RESOLUTION)

    def require_room(self, size: Size, square: bool = False) -> None:
        """Raise `ConfigError` where views of images of this size cannot be made, or are not `square` but must be."""
        height, width = size
        side = min(size)
        images = f"the images have {side} pixels a side" if height == width else f"the images are {height} x {width}"
        if self.crop > side:
            raise ConfigError(f"DATASET.CROP is {self.crop}, but {images}; set it to at most {side}, or to 0 for none")
        if self.padding >= side:  # a reflection does not repeat the border
            raise ConfigError(f"DATASET.PADDING is {self.padding}, but {images}; set it to at most {side - 1}")
        resized = self.resolution if self.resized_first else 0  # before the square is cut out
        if self.cutout > (view := resized or self.crop or side):
            raise ConfigError(f"DATASET.CUTOUT is {self.cutout}, but views have {view} pixels a side; lower it to that")
        if self.crop and height != width:
            raise ConfigError(f"DATASET.CROP is {self.crop}, but {images}; only squares are cropped: set it to 0")
        if square and height != width and not self.resolution:
            raise ConfigError(f"{images}, and this algorithm rotates them; set DATASET.RESOLUTION, which makes squares")

    def view(self, name: str, images: Tensor, generator: Generator) -> Tensor:
        """A view of every image (N, c, H, W) uint8.

        `weak` is a random flip and a random crop after padding by reflection, `strong` is RandAugment on a weak view,
        `sim` is SimCLR's crop, flip, color jitter and blur, resized once, and `eval` is the view for evaluation. Raises
        `ValueError` for any other name.
        """
        match name:
            case "eval":
                return self.evaluation(images)
            case "weak":
                views = self._weak(images, generator)
            case "strong":
                weak = self._weak(images, generator)
                weak = resize(weak, self.resolution) if self.resized_first else weak
                views = rand_augment(weak, generator, cutout_size=self.cutout)
            case "sim":
                side = self.resolution or self.crop
                return sim(images, generator, (side, side) if side else size_of(images))
            case _:
                raise ValueError(f"unknown view {name!r}; known: eval, sim, strong, weak")
        return resize(views, self.resolution)

    def evaluation(self, images: Tensor) -> Tensor:
        """What a network is evaluated on: images (N, c, H, W) uint8 or their central crop, resized."""
        return resize(central(images, self.crop) if self.crop else images, self.resolution)

    def _weak(self, images: Tensor, generator: Generator) -> Tensor:
        n, device = len(images), generator.device
        room = 2 * self.padding + (images.shape[2] - self.crop if self.crop else 0)
        flip = torch.rand(n, generator=generator, device=device) < 0.5
        offset = torch.randint(room + 1, (n, 2), generator=generator, device=device)
        return flip_crop(images, flip, offset, padding=self.padding, crop=self.crop)


_BITS = 22  # of the fraction of Pillow's fixed-point resampling weights


@lru_cache
def _resampling(*, old: int, new: int, device: torch.device) -> Tensor:
    """Weights (new, old) of Pillow's bilinear filter, which is widened where the image shrinks, in units of 2**-22."""
    scale = old / new
    support = max(scale, 1.0)
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        center = (i + 0.5) * scale
        first, last = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), old)
        window = (1 - ((torch.arange(first, last).double() - center + 0.5) / support).abs()).clamp_(min=0)
        weights[i, first:last] = (window / window.sum() * 2**_BITS + 0.5).floor()
    return weights.to(device)


def resize(images: Tensor, size: int) -> Tensor:
    """Images (N, c, H, W) uint8 to (N, c, size, size) as Pillow does it, bilinear and antialiased; 0 leaves them alone.

    All sums are whole numbers below 2**53, so that the result is the same, bit for bit, on every device.
    """
    if not size or images.shape[2:] == (size, size):
        return images
    rows, columns = (_resampling(old=side, new=size, device=images.device) for side in images.shape[2:])
    wide = _round(images.double() @ columns.T)  # Pillow rounds between its two passes
    return _round(rows @ wide).byte()


def _round(sums: Tensor) -> Tensor:
    """From units of 2**-22 to the nearest gray level."""
    return sums.add_(2 ** (_BITS - 1)).mul_(2.0**-_BITS).floor_().clamp_(max=255)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Uint8 images (N, c, H, W) to float32: scaled to [0, 1], then standardized by mean (c,) and std (c,)."""
    return images.float().div_(255).sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


def black(mean: Tensor, std: Tensor) -> Tensor:
    """(c, 1, 1): a black pixel, normalized by mean (c,) and std (c,)."""
    return (-mean / std).view(-1, 1, 1)
