"""RandAugment with a cutout, the strong view of FixMatch (arXiv 2001.07685), for a whole batch of uint8 images at once.

Every image draws its own ops. They are applied in one of two forms, which give the same bits.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from seval.data.ops import (
    BLENDS,
    LEVELS,
    OPS,
    POINTS,
    WARPS,
    Size,
    blend,
    look_up,
    magnitude,
    size_of,
    warp,
    warp_source,
)

CUTOUT_GRAY = 127
#: The ops that change the values of pixels, not their places.
VALUE_OPS = (*POINTS, *BLENDS)
RANKED = (*VALUE_OPS, *WARPS)  # the order of all ops in the tables below


@lru_cache
def _tables(size: Size, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """What every (op, level, sign) does, with the ops ranked as in RANKED.

    Rank (op,); magnitude (op * level * sign,); source of an image left as it is and of the warps
    (1 + warp * level * sign, H * W). Cached because the computation of the sources would take longer than the rest, and
    to send nothing to a GPU.
    """
    rank = torch.tensor([RANKED.index(name) for name in OPS])
    choices = product(RANKED, range(LEVELS), (-1, 1))
    magnitudes = [magnitude(name, level=level, sign=sign, size=size) for name, level, sign in choices]
    table = torch.tensor(magnitudes, dtype=torch.float64)
    warps = torch.arange(len(WARPS)).repeat_interleave(2 * LEVELS)
    source = warp_source(warps, table[-len(warps) :], size)
    source = torch.cat([torch.arange(source.shape[1])[None], source])
    return rank.to(device), table.float().to(device), source.to(device)


class Draw(NamedTuple):
    """What RandAugment drew, each (N, k) for k ops in turn: index into OPS, whether applied, level, sign."""

    op: Tensor
    applied: Tensor
    level: Tensor
    sign: Tensor


def draw(n: int, generator: Generator, *, num_ops: int = 2) -> Draw:
    """Draw ops uniformly with replacement, each applied with probability 0.5 at a uniform level and sign."""
    shape, device = (n, num_ops), generator.device
    return Draw(
        op=torch.randint(len(OPS), shape, generator=generator, device=device),
        applied=torch.rand(shape, generator=generator, device=device) < 0.5,
        level=torch.randint(1, LEVELS, shape, generator=generator, device=device),
        sign=torch.randint(2, shape, generator=generator, device=device) * 2 - 1,
    )


#: Applies ranks (N,) of RANKED, one to each image (N, c, H, W), with strengths (N,). The source of the pixels of each
#: image is a row (N,) of a table (R, H * W), whose first row leaves them where they are.
Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def apply(images: Tensor, drawn: Draw, form: Form | None = None) -> Tensor:
    """Apply the drawn ops in turn to images (N, c, H, W), by default in the form that is fastest on their device."""
    form = form or (all_at_once if images.device.type == "cuda" else grouped)
    rank, table, source = _tables(size_of(images), images.device)
    op = torch.where(drawn.applied, rank[drawn.op], RANKED.index("identity"))
    choice = (op * LEVELS + drawn.level) * 2 + (drawn.sign > 0)
    row = (choice - (len(table) - len(source))).clamp(min=0)
    for turn in zip(op.T, table[choice].T, row.T, strict=True):
        images = form(images, *turn, source)
    return images


def grouped(images: Tensor, op: Tensor, strength: Tensor, row: Tensor, source: Tensor) -> Tensor:
    """A `Form` that computes each op for its own images only. It reads back how many these are, so a GPU would wait.

    Sorted by op, each op's images are a slice of the batch, and those of all warps together another.
    """
    group = op.clamp(max=len(VALUE_OPS))
    order, sizes = group.argsort(), group.bincount(minlength=len(VALUE_OPS) + 1).tolist()
    slices, strengths = images.index_select(0, order).split(sizes), strength[order].split(sizes)
    done = [OPS[name](*args) for name, *args in zip(VALUE_OPS, slices, strengths, strict=False) if len(args[0])]
    if sizes[-1]:
        done.append(warp(slices[-1], source.index_select(0, row[order[-sizes[-1] :]])))
    return torch.cat(done).index_select(0, order.argsort())


def all_at_once(images: Tensor, op: Tensor, strength: Tensor, row: Tensor, source: Tensor) -> Tensor:
    """A `Form` that computes all ops for every image and keeps one: nothing is read back, no shape depends on values.

    The point ops are look-up tables, and all warps are one. For a moment it needs 22 times the memory of the images,
    most of it for indices of 64 bits.
    """
    device = images.device
    drawn = op == torch.arange(len(VALUE_OPS), device=device)[:, None]
    strengths = dict(zip(VALUE_OPS, strength * drawn, strict=True))  # 0, which suits every op, where it was not drawn
    levels = torch.arange(256, dtype=torch.uint8, device=device).view(1, 1, 1, 256)
    tables = [point(levels, strengths[name], images) for name, point in POINTS.items()]
    tables = torch.stack([table.expand(*images.shape[:2], 1, 256) for table in tables]).squeeze(3)
    point = torch.where(op < len(POINTS), op, RANKED.index("identity"))
    table = tables[point, torch.arange(len(images), device=device)]
    values = look_up(table, images)
    for name, degenerate in BLENDS.items():
        here = drawn[RANKED.index(name)].view(-1, 1, 1, 1)
        values = torch.where(here, blend(degenerate(images), images, strengths[name]), values)
    return warp(values, source[row])


def cutout(images: Tensor, center: Tensor, size: int = 16) -> Tensor:
    """Paint a gray square around center (N, 2), given as (x, y) in pixels, onto images (N, c, H, W).

    As in the published code the far edges are inclusive, so that the square has size + 1 pixels a side, and a square
    that would begin outside the image is moved to its border; one that would end outside is cut off.
    """
    left, top = (center - size / 2).clamp_(min=0).long()[..., None].unbind(dim=1)
    column = torch.arange(images.shape[3], device=images.device)
    row = torch.arange(images.shape[2], device=images.device)
    columns = ((column >= left) & (column <= left + size)).byte()
    rows = ((row >= top) & (row <= top + size)).byte()
    hole = rows[:, None, :, None] * columns[:, None, None, :]
    return (images * (1 - hole)).add_(CUTOUT_GRAY * hole)  # much faster than a masked fill on a CPU


def rand_augment(images: Tensor, generator: Generator, *, num_ops: int = 2, cutout_size: int = 16) -> Tensor:
    """RandAugment on images (N, c, H, W), always followed by a cutout centered uniformly in the image."""
    images = apply(images, draw(len(images), generator, num_ops=num_ops))
    center = torch.rand(len(images), 2, generator=generator, device=generator.device)
    center[:, 0] *= images.shape[3]
    center[:, 1] *= images.shape[2]
    return cutout(images, center, cutout_size)
