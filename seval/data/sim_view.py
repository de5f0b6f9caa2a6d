"""The view `sim` of contrastive methods, as in SimCLR (Chen et al., arXiv 2002.05709), for a whole batch at once.

A crop of 20 to 100 % of the area, resized; a flip; with probability 0.8 color jitter of (0.4, 0.4, 0.4, 0.1), always in
the order brightness, contrast, saturation, hue; with 0.2 gray; with 0.5 a Gaussian blur of sigma 0.1 to 2 pixels. Every
image draws its own parameters. Between the steps pixels are floats; only the view is rounded.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from seval.data.ops import Size, luma, size_of

TRIES = 10  # crops that are drawn for an image; the first that fits is taken
SHARP = 0.01  # sigma, in pixels, at which a blur changes nothing


class Draw(NamedTuple):
    """What was drawn for N images."""

    corner: Tensor  # (N, 2) top and left of the crop, whole pixels
    sides: Tensor  # (N, 2) its height and width
    flip: Tensor  # (N,) bool
    jitter: Tensor  # (N, 4) factors of brightness, contrast, saturation; shift of the hue, in turns
    gray: Tensor  # (N,) bool
    sigma: Tensor  # (N,) of the blur, in pixels


def draw(
    n: int, size: Size, generator: Generator, *, jitter: float = 0.8, gray: float = 0.2, blur: float = 0.5
) -> Draw:
    """Draw for n images of this size; `jitter`, `gray` and `blur` are probabilities.

    A crop has a uniform share of the area and a log-uniform aspect ratio of 3/4 to 4/3. It is drawn again, at most
    `TRIES` times, while it does not fit into the image; then it is the whole image. So does torchvision.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)

    area = uniform(0.2, 1.0, n, TRIES) * size[0] * size[1]
    aspect = uniform(math.log(3 / 4), math.log(4 / 3), n, TRIES).exp()
    sides = [(area / aspect).sqrt().round(), (area * aspect).sqrt().round()]
    sides = [F.pad(drawn, (0, 1), value=side) for drawn, side in zip(sides, size, strict=True)]
    first = ((sides[0] <= size[0]) & (sides[1] <= size[1])).int().argmax(1, keepdim=True)
    sides = [drawn.gather(1, first).squeeze(1) for drawn in sides]
    room = torch.stack([side - drawn for drawn, side in zip(sides, size, strict=True)], 1)
    factors = torch.cat([uniform(0.6, 1.4, n, 3), uniform(-0.1, 0.1, n, 1)], 1)
    plain = torch.ones_like(factors).cumsum(1).le(3).float()  # factors 1, shift 0
    return Draw(
        corner=(uniform(0, 1, n, 2) * (room + 1)).floor(),
        sides=torch.stack(sides, 1),
        flip=uniform(0, 1, n) < 0.5,
        jitter=torch.where(uniform(0, 1, n, 1) < jitter, factors, plain),
        gray=uniform(0, 1, n) < gray,
        sigma=torch.where(uniform(0, 1, n) < blur, uniform(0.1, 2.0, n), SHARP),
    )


def apply(images: Tensor, drawn: Draw, size: Size) -> Tensor:
    """What was drawn, on images (N, c, H, W) uint8: views (N, c, *size) uint8. Gray images keep their one channel."""
    (top, left), (height, width) = drawn.corner.T, drawn.sides.T
    rows, columns = (
        sampling(first, length, old=old, new=new)
        for first, length, old, new in zip((top, left), (height, width), size_of(images), size, strict=True)
    )
    columns = torch.where(drawn.flip.view(-1, 1, 1), columns.flip(1), columns)
    views = jittered(_along(images.float(), rows, columns), drawn.jitter)
    views = torch.where(drawn.gray.view(-1, 1, 1, 1), luma(views), views)
    views = _along(views, *(blurring(drawn.sigma, side) for side in size))
    return views.add_(0.5).byte()


def sim(images: Tensor, generator: Generator, size: Size) -> Tensor:
    """A view (N, c, *size) of every image (N, c, H, W) uint8."""
    return apply(images, draw(len(images), size_of(images), generator), size)


def _along(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (N, c, H, W) after one linear map (N, h, H) of their rows and one (N, w, W) of their columns."""
    return rows[:, None] @ images @ columns[:, None].mT


def sampling(first: Tensor, length: Tensor, *, old: int, new: int) -> Tensor:
    """Weights (N, new, old) of Pillow's bilinear filter that resizes `length` (N,) pixels from `first` (N,) to `new`.

    It is widened where the crop shrinks, and sees nothing outside of it.
    """
    first, length = first.view(-1, 1, 1), length.view(-1, 1, 1)
    source, scale = torch.arange(old, device=first.device), length / new
    center = first + (torch.arange(new, device=first.device)[:, None] + 0.5) * scale - 0.5
    weights = (1 - (source - center).abs() / scale.clamp_min(1)).clamp_min(0)
    weights = weights * ((source >= first) & (source < first + length))
    return weights / weights.sum(2, keepdim=True)


def blurring(sigma: Tensor, side: int) -> Tensor:
    """Weights (N, side, side) of Gaussian blurs with sigma (N,) pixels; at the border only pixels inside count."""
    place = torch.arange(side, device=sigma.device)
    return (-(place - place[:, None]).square() / (2 * sigma.view(-1, 1, 1).square())).softmax(2)


def jittered(images: Tensor, factors: Tensor) -> Tensor:
    """Float images (N, c, H, W) in 0 to 255 after color jitter with factors (N, 4), which are as in `Draw`."""
    brightness, contrast, saturation, shift = factors.view(-1, 4, 1, 1, 1).unbind(1)
    images = (images * brightness).clamp(max=255)
    images = torch.lerp(luma(images).mean((1, 2, 3), keepdim=True), images, contrast).clamp(0, 255)
    if images.shape[1] == 1:
        return images
    return hue_shifted(torch.lerp(luma(images), images, saturation).clamp(0, 255), shift)


def hue_shifted(images: Tensor, shift: Tensor) -> Tensor:
    """Float images (N, 3, H, W) whose hue in the HSV cone is turned by shift (N, 1, 1, 1), in turns."""
    top, chroma = images.amax(1, keepdim=True), images.amax(1, keepdim=True) - images.amin(1, keepdim=True)
    red, green, blue = images.split(1, 1)
    sixth = torch.where(top == green, blue - red + 2 * chroma, red - green + 4 * chroma)  # of a turn, times chroma
    sixth = torch.where(top == red, green - blue, sixth) / chroma.clamp_min(1e-6) + 6 * shift
    place = (sixth + torch.arange(5, 0, -2, device=images.device).view(3, 1, 1)) % 6
    return top - chroma * torch.minimum(place, 4 - place).clamp(0, 1)
