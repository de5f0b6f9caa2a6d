"""Compare the batched strong view with the usual per-image Pillow pipeline: images per second on one thread.

Both start from uint8 images and end at a float tensor of the batch. Run as `python benchmarks/augment.py`.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from seval.data import augment, rand_augment

REQUIRED = 5.0


def affine(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


# As in the published code: each function takes the image, level / 10, and a random sign.
PIL_OPS: list[Callable[[Image.Image, float, int], Image.Image]] = [
    lambda image, v, sign: ImageOps.autocontrast(image),
    lambda image, v, sign: ImageEnhance.Brightness(image).enhance(0.9 * v + 0.05),
    lambda image, v, sign: ImageEnhance.Color(image).enhance(0.9 * v + 0.05),
    lambda image, v, sign: ImageEnhance.Contrast(image).enhance(0.9 * v + 0.05),
    lambda image, v, sign: ImageOps.equalize(image),
    lambda image, v, sign: image,
    lambda image, v, sign: ImageOps.posterize(image, int(4 * v) + 4),
    lambda image, v, sign: image.rotate(sign * int(30 * v)),
    lambda image, v, sign: ImageEnhance.Sharpness(image).enhance(0.9 * v + 0.05),
    lambda image, v, sign: affine(image, 1, sign * 0.3 * v, 0, 0, 1, 0),
    lambda image, v, sign: affine(image, 1, 0, 0, sign * 0.3 * v, 1, 0),
    lambda image, v, sign: ImageOps.solarize(image, 256 - int(256 * v)),
    lambda image, v, sign: affine(image, 1, 0, sign * int(0.3 * v * image.width), 0, 1, 0),
    lambda image, v, sign: affine(image, 1, 0, 0, 0, 1, sign * int(0.3 * v * image.height)),
]


def pil_strong(array: np.ndarray, rng: random.Random) -> Tensor:
    """The strong view of one image (H, W, 3) as a float tensor (3, H, W)."""
    height, width = array.shape[:2]
    image = Image.fromarray(array)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = Image.fromarray(np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)), mode="reflect"))
    x, y = rng.randint(0, 8), rng.randint(0, 8)
    image = image.crop((x, y, x + width, y + height))
    for op in rng.choices(PIL_OPS, k=2):
        level, sign = rng.randint(1, 9), rng.choice((-1, 1))
        if rng.random() < 0.5:
            image = op(image, level / 10, sign)
    left, top = (int(max(0, rng.uniform(0, size) - 8)) for size in image.size)
    box = (left, top, min(width, left + 16), min(height, top + 16))
    ImageDraw.Draw(image).rectangle(box, fill=(127, 127, 127))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div_(255)


def seconds(view: Callable[[], Tensor], calls: int) -> float:
    """CPU seconds per call. On one thread, other processes on the machine do not count."""
    start = time.process_time()
    for _ in range(calls):
        view()
    return (time.process_time() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator, rng = torch.Generator().manual_seed(0), random.Random(0)
    images = torch.randint(256, (args.batch, 3, 32, 32), dtype=torch.uint8, generator=generator)
    arrays = list(images.permute(0, 2, 3, 1).contiguous().numpy())
    mean, std, geometry = torch.zeros(3), torch.ones(3), augment.Geometry()

    def batched() -> Tensor:
        return augment.normalize(geometry.view("strong", images, generator), mean, std)

    def per_image() -> Tensor:
        return torch.stack([pil_strong(array, rng) for array in arrays])

    seconds(batched, 5)
    seconds(per_image, 1)
    # Interleaved, so that a slow phase of the machine affects both; then the ratio of each pair.
    pairs = [(seconds(batched, 4), seconds(per_image, 1)) for _ in range(args.pairs)]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(slow / fast for fast, slow in pairs)
    print(f"batched: {args.batch / ours:8.0f} images/s ({1000 * ours:.2f} ms per batch of {args.batch})")
    print(f"Pillow:  {args.batch / theirs:8.0f} images/s ({1000 * theirs:.2f} ms per batch of {args.batch})")
    print(f"median of {args.pairs} paired ratios: {ratio:.1f}x (required: at least {REQUIRED:.0f}x)")

    small = torch.randint(256, (64, 1, 16, 16), dtype=torch.uint8, generator=generator)
    times = [seconds(lambda: geometry.view("strong", small, generator), 4) for _ in range(args.pairs)]
    print(f"one strong view of 64 images 1 x 16 x 16: {1000 * statistics.median(times):.2f} ms")
    print("\n| device | images | grouped, ms | all at once, ms |\n|:--|:--|--:|--:|")
    for device in ("cpu", "cuda")[: 1 + torch.cuda.is_available()]:
        for shape in ((64, 1, 16, 16), (128, 3, 32, 32), (128, 3, 96, 96)):
            print(f"| {device} | {' x '.join(map(str, shape))} | {' | '.join(forms(shape, device, args.pairs))} |")
    sys.exit(ratio < REQUIRED)


def forms(shape: tuple[int, ...], device: str, pairs: int) -> list[str]:
    """Median milliseconds of RandAugment's ops on images of that shape, in both forms in turn, by the clock."""
    generator, times = torch.Generator(device).manual_seed(0), []
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator, device=device)
    for _ in range(pairs + 3):
        drawn, row = rand_augment.draw(len(images), generator), []
        for form in (rand_augment.grouped, rand_augment.all_at_once):
            start = time.perf_counter()
            rand_augment.apply(images, drawn, form)
            if device == "cuda":
                torch.cuda.synchronize()
            row.append(1000 * (time.perf_counter() - start))
        times.append(row)
    return [f"{statistics.median(column):.2f}" for column in zip(*times[3:], strict=True)]


if __name__ == "__main__":
    main()
