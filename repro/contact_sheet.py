"""A picture of what a run is given: its views of some images of each class, and the class counts of its splits."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from repro.tables.own import view_settings
from repro.tables.table import CONFIGS
from seval.config import load
from seval.data.augment import Geometry
from seval.data.decode import Decoder
from seval.data.hdf5 import data_file, read
from seval.data.image_set import EncodedImages
from seval.data.loader import generator
from seval.defaults import node_of
from seval.files import replace
from seval.run import Run
from seval.text import printable

COLUMNS = {"eval": 2, "weak": 3, "strong": 5}  # views of each class
MOST_CLASSES = 20  # rows of the sheet; of more classes, this many are chosen at equal distances


def draw(name: str, root: Path, path: Path) -> list[int]:
    """Write the sheet of a prepared set as a PNG and return the classes shown; needs `pip install .[report]`."""
    import matplotlib  # slow, and an optional dependency

    matplotlib.use("Agg")
    from matplotlib import pyplot

    own = node_of(name) == "OWN"
    folder = CONFIGS / ("own" if own else name.removesuffix("_64"))
    views = view_settings(read(data_file(name, root), in_blocks=True)) if own else []
    run = Run(load(folder / "dataset.yaml", ["DATASET.NAME", name, "DATASET.ROOT", str(root), *views]))
    image_set = run.image_set
    shown = np.unique(np.linspace(0, image_set.num_classes - 1, MOST_CLASSES).round().astype(int))
    shown = shown if image_set.num_classes > MOST_CLASSES else np.arange(image_set.num_classes)
    height = max(3.0, 0.42 * len(shown))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, height + 0.8), width_ratios=(3, 2), layout="constrained")
    sheet = mosaic(run, shown)
    left.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="equal")
    side = sheet.shape[0] / len(shown)
    names = [f"{c} {printable(image_set.class_names[c])}" for c in shown]
    left.set_yticks(side * (np.arange(len(shown)) + 0.5), names, parse_math=False)  # a $ in a name is a $
    places = np.cumsum([0, *COLUMNS.values()])
    left.set_xticks(side * (places[:-1] + places[1:]) / 2, list(COLUMNS))
    left.set_title(f"{image_set.name}: views of labeled images, seed {run.cfg.SEED}")
    for name, split in run.manifest().items():
        if sum(split["class_counts"]):
            right.step(range(image_set.num_classes), split["class_counts"], where="mid", label=name)
    right.set(yscale="log", xlabel="class", ylabel="images", title="images of each class")
    right.legend()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format=path.suffix[1:] or "png")
    pyplot.close(figure)
    replace(path, picture.getvalue())
    return shown.tolist()


def mosaic(run: Run, classes: np.ndarray) -> np.ndarray:
    """uint8 (rows of classes x H, columns of views x W[, 3]): each row shows one labeled image of its class."""
    part, labeled, dataset = run.image_set.train, run.splits.labeled, run.cfg.DATASET
    geometry, random = Geometry.of(dataset), generator(run.cfg.SEED, "contact sheet")
    rows = []
    for c in classes:
        member = labeled[part.labels[labeled] == c][0]
        if isinstance(part.images, EncodedImages):
            stored = Decoder(size=dataset.DECODED_SIZE).submit(part.images, [member])()[0]
        else:
            stored = part.pixels[member]
        image = torch.from_numpy(stored)[None]
        views = [geometry.view(name, image.expand(n, -1, -1, -1), random) for name, n in COLUMNS.items()]
        rows.append(torch.cat(views).permute(2, 0, 3, 1).flatten(1, 2))  # (H, columns x W, c)
    return torch.cat(rows).squeeze(2).numpy()
