"""FixMatch's pool of image operations (arXiv 2001.07685), for a whole batch of uint8 images at once.

Every image has its own magnitude and gets, pixel for pixel, what Pillow would give it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Op = Callable[[Tensor, Tensor], Tensor]
Point = Callable[[Tensor, Tensor, Tensor], Tensor]
Size = tuple[int, int]  # (height, width)
LEVELS = 10  # levels run from 1 to LEVELS - 1: the published code excludes the strongest one


def size_of(images: Tensor) -> Size:
    """Height and width of images (N, c, H, W)."""
    return images.shape[2], images.shape[3]


def luma(images: Tensor) -> Tensor:
    """ITU-R 601-2 luma of images (N, c, H, W) in Pillow's fixed-point rounding: whole numbers (N, 1, H, W), float."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.float().split(1, dim=1)  # exact in float: the sum stays below 2 ** 24
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000).div_(1 << 16).floor_()


def blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Move from a float degenerate image toward the image by factor (N,) in [0, 1], truncating as Pillow does."""
    factor = factor.float().view(-1, 1, 1, 1)
    return (images - degenerate).mul_(factor).add_(degenerate).byte()


# A point op maps every gray level alone. It takes uint8 levels (N, c, H', W'), in which N and c may be 1, a float
# magnitude (N,), and the uint8 images (N, c, H, W) that the levels are from; it returns what the levels become, uint8.
# With the images themselves as levels that is the op; with all levels from 0 to 255 it is its look-up table.


def brightness(levels: Tensor, factor: Tensor, _: Tensor) -> Tensor:
    """Blend with black."""
    return (levels * factor.float().view(-1, 1, 1, 1)).byte()


def contrast(levels: Tensor, factor: Tensor, images: Tensor) -> Tensor:
    """Blend with the mean luma."""
    total = luma(images).sum(dim=(1, 2, 3), keepdim=True, dtype=torch.float64)
    # A GPU would divide by a number through its rounded reciprocal, which a mean of k + 0.5 does not survive.
    mean = total / torch.full_like(total, images[0, 0].numel())
    return blend((mean + 0.5).floor().float(), levels, factor)


def autocontrast(levels: Tensor, _: Tensor, images: Tensor) -> Tensor:
    """Stretch every channel to the full range; a constant channel stays as it is."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    constant = low == high
    low, high = low.masked_fill(constant, 0).double(), high.masked_fill(constant, 255).double()
    # Pillow truncates a double, so that the last bit counts: `255 / x` would multiply by a rounded reciprocal.
    scale = torch.full_like(low, 255) / (high - low)
    return (levels * scale + -low * scale).clamp_(0, 255).byte()


def equalize(levels: Tensor, _: Tensor, images: Tensor) -> Tensor:
    """Flatten the histogram of every channel; where 255 steps do not fit (few pixels), the channel stays as it is."""
    pixels = images.flatten(2).long()
    counts = pixels.new_zeros(*pixels.shape[:2], 256).scatter_add_(2, pixels, torch.ones_like(pixels))
    brightest = counts.gather(2, pixels.amax(dim=2, keepdim=True))
    step = (pixels.shape[2] - brightest) // 255
    darker = counts.cumsum(dim=2) - counts
    table = ((step // 2 + darker) / step.clamp(min=1)).clamp_(max=255)  # float division: faster, exact below 2 ** 24
    table = torch.where(step > 0, table, torch.arange(256.0, device=images.device)).byte()
    return look_up(table, levels)


def identity(levels: Tensor, _: Tensor, __: Tensor) -> Tensor:
    """Leave the levels as they are."""
    return levels


def posterize(levels: Tensor, bits: Tensor, _: Tensor) -> Tensor:
    """Keep the given number of high bits."""
    return levels & (255 << (8 - bits.int())).byte().view(-1, 1, 1, 1)


def solarize(levels: Tensor, threshold: Tensor, _: Tensor) -> Tensor:
    """Invert every pixel at or above the threshold."""
    return levels ^ (levels >= threshold.short().view(-1, 1, 1, 1)).byte().mul_(255)


POINTS: dict[str, Point] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "brightness": brightness,
    "contrast": contrast,
    "equalize": equalize,
    "posterize": posterize,
    "solarize": solarize,
}


def look_up(table: Tensor, levels: Tensor) -> Tensor:
    """What uint8 levels (N, c, H, W), where N and c may be 1, become by a table (N, c, 256)."""
    index = levels.flatten(2).long().expand(*table.shape[:2], -1)
    return table.gather(2, index).unflatten(2, size_of(levels))


def _point(point: Point) -> Op:
    return lambda images, magnitude: point(images, magnitude, images)


# A blend moves between the image and a degenerate one, float, in which all its pixels take part.


def _smooth(images: Tensor) -> Tensor:
    """Images (N, c, H, W) after a 3 x 3 filter (5 in the middle, 1 around it) that leaves the border untouched."""
    smooth = images.float()
    inner = smooth[..., 1:-1, 1:-1]
    rows = smooth[..., :-2, :] + smooth[..., 1:-1, :] + smooth[..., 2:, :]
    box = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner.copy_(((box + 4 * inner) / 13 + 0.5).floor())
    return smooth


#: The degenerate images (N, 1 or c, H, W) of each blend. A one-channel image is its own luma: it has no color to lose.
BLENDS: dict[str, Callable[[Tensor], Tensor]] = {"color": luma, "sharpness": _smooth}


def _blended(degenerate: Callable[[Tensor], Tensor]) -> Op:
    return lambda images, factor: blend(degenerate(images), images, factor)


WARPS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


def warp_source(kind: Tensor, magnitude: Tensor, size: Size) -> Tensor:
    """Flat source position (N, H * W) of every pixel under warps kind (N,), an index into WARPS; -1 is outside.

    Source coordinates are 16.16 fixed point, taken at pixel centers, because Pillow's are.
    """
    height, width = size
    device = magnitude.device
    kinds = torch.arange(len(WARPS), device=device)[:, None]
    degrees, shear_x, shear_y, shift_x, shift_y = magnitude * (kind == kinds)
    angle = degrees.deg2rad()
    cos, sin = angle.cos(), angle.sin()
    x, y = width / 2, height / 2  # the center of a rotation
    x_by_column, x_by_row, x_start = cos, shear_x - sin, shift_x - (cos * x - sin * y) + x
    y_by_column, y_by_row, y_start = shear_y + sin, cos, shift_y - (sin * x + cos * y) + y
    x_start = x_start + 0.5 * x_by_column + 0.5 * x_by_row
    y_start = y_start + 0.5 * y_by_column + 0.5 * y_by_row
    matrix = torch.stack((x_by_column, x_by_row, x_start, y_by_column, y_by_row, y_start))
    matrix = (matrix * 65536 + 0.5).floor().long()[..., None, None]
    column, row = torch.arange(width, device=device), torch.arange(height, device=device)[:, None]
    x = (matrix[0] * column + matrix[1] * row + matrix[2]) >> 16
    y = (matrix[3] * column + matrix[4] * row + matrix[5]) >> 16
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return torch.where(inside, y * width + x, -1).flatten(1)


def take(images: Tensor, source: Tensor, size: Size | None = None) -> Tensor:
    """Pick pixels by flat position, source (N, h * w), the same for every channel of an image (N, c, H, W).

    The result is (N, c, h, w) with (h, w) = `size`, by default that of the images.
    """
    source = source[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, source).unflatten(2, size or size_of(images))


def warp(images: Tensor, source: Tensor) -> Tensor:
    """Nearest resampling with black fill from source (N, H * W)."""
    inside = (source >= 0).view(-1, 1, *images.shape[2:])
    return take(images, source.clamp(min=0)) * inside


def _single_warp(name: str) -> Op:
    def op(images: Tensor, magnitude: Tensor) -> Tensor:
        kind = torch.full_like(magnitude, WARPS.index(name))
        return warp(images, warp_source(kind, magnitude.double(), size_of(images)))

    return op


# The pool of FixMatch, in its order. An op takes uint8 images (N, c, H, W) and a float magnitude (N,), and returns such
# images. The warps take degrees counterclockwise, shear per pixel, and pixels; the sign of the last two is that of the
# source coordinate, as in the published code: positive moves the content left or up.
OPS: dict[str, Op] = dict(
    sorted(
        [
            *((name, _point(point)) for name, point in POINTS.items()),
            *((name, _blended(degenerate)) for name, degenerate in BLENDS.items()),
            *((name, _single_warp(name)) for name in WARPS),
        ]
    )
)


def magnitude(name: str, *, level: int, sign: int, size: Size) -> float:
    """Magnitude of an op at a level of 1..9 with sign +1 or -1 on images of size (H, W); 0 for an op without one."""
    match name:
        case "brightness" | "color" | "contrast" | "sharpness":
            return 0.9 * level / LEVELS + 0.05
        case "posterize":
            return 4 * level // LEVELS + 4
        case "rotate":
            return sign * (30 * level // LEVELS)
        case "shear_x" | "shear_y":
            return sign * 0.3 * level / LEVELS
        case "solarize":
            return 256 - 256 * level // LEVELS
        case "translate_x" | "translate_y":
            pixels = size[1] if name == "translate_x" else size[0]
            return sign * (3 * level * pixels // (10 * LEVELS))
        case _:
            return 0.0
