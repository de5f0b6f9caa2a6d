"""A table for a set of one's own: settings by a rule of thumb, in a file that may be changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from repro.tables.table import CONFIGS
from seval.config import load
from seval.data.hdf5 import data_file, read
from seval.data.image_set import ImageSet
from seval.data.own_set import notes
from seval.data.splits import split_of
from seval.defaults import SETS
from seval.errors import ConfigError
from seval.files import replace
from seval.text import printable

POLICY = "HEADS.LINEAR.POLICY"
_LARGEST_SIDE = {True: 64, False: 32}  # of the images that a network sees, with a GPU and without
_LABELED_ROWS = """  Supervised:             {config: supervised}
  Supervised + LA:        {config: supervised_la}
"""
_ROWS = """  FixMatch:               {config: fixmatch}
  FixMatch + post-hoc LA: {config: fixmatch, offset: logit_adjusted}
  SEVAL-PL:               {config: fixmatch_seval_load, set: &seval [%s, "%s"]}
  SEVAL:                  {config: fixmatch_seval_load, offset: seval, set: *seval}
"""


class Facts(NamedTuple):
    """What the rule of thumb looks at."""

    side: int  # of the images, in pixels, the shorter one; 0 for images stored as JPEG
    images: int  # labeled and unlabeled training images
    classes: int
    gpu: bool


def facts(images: ImageSet, gpu: bool) -> Facts:
    """The facts of a prepared set, trained with a GPU or without."""
    train = images.train.images
    side = 0 if images.train.offsets is not None else min(train.shape[2:])  # pyright: ignore[reportAttributeAccessIssue]
    number = sum(len(part.labels) for name, part in images.parts.items() if name != "test")
    return Facts(side, number, images.num_classes, gpu)


def rule_of_thumb(of: Facts) -> dict[str, tuple[object, str]]:
    """The settings by key, each with its reason; docs/own_data.md has them as a table."""
    evaluations = 100 if of.gpu else 20
    steps = min(max(of.images * 5 // 2, 20_000), 250_000) if of.gpu else min(max(of.images // 5, 1_000), 10_000)
    period = round(steps / evaluations)
    return (
        _views(of)
        | _network(of, period * evaluations)
        | {
            "SOLVER.MAX_ITER": (period * evaluations, "steps, by the number of images"),
            "PERIODS.EVAL": (period, f"{evaluations} evaluations; SEVAL fits at each"),
            "PERIODS.CHECKPOINT": (period * (5 if of.gpu else 1), "a killed run resumes from its last checkpoint"),
            "PERIODS.QUALITY": (period * evaluations // 10, "how good the pseudo-labels are, where that is known"),
            POLICY: (_policy(of.classes, evaluations), "of SEVAL"),
        }
    )


def view_settings(images: ImageSet) -> list[object]:
    """The KEY VALUE pairs of the views of a set, as the rule has them without a GPU."""
    return [word for key, (value, _) in _views(facts(images, gpu=False)).items() for word in (key, value)]


def _views(of: Facts) -> dict[str, tuple[object, str]]:
    most = _LARGEST_SIDE[of.gpu]
    if not of.side and of.gpu:
        return {
            "DATASET.DECODED_SIZE": (256, "JPEG images become squares of this side"),
            "DATASET.CROP": (224, "and the network sees squares of this side: random in training, else the center"),
            "DATASET.PADDING": (0, "the crops are shifts enough"),
            "DATASET.CUTOUT": (112, "half a side is grayed out in strong views"),
        }
    side = of.side or most
    settings: dict[str, tuple[object, str]] = {
        "DATASET.PADDING": (max(1, side // 8), "random shifts by up to an eighth of the side"),
        "DATASET.CUTOUT": (side // 2, "half a side is grayed out in strong views"),
    }
    if not of.side:
        settings["DATASET.DECODED_SIZE"] = (side, "JPEG images become squares of this side")
    if side > most:
        settings["DATASET.RESOLUTION"] = (most, f"the network sees this side, not {side}: that would take long")
    return settings


def _network(of: Facts, steps: int) -> dict[str, tuple[object, str]]:
    if not of.side and of.gpu:
        return {
            "MODEL.NAME": ("resnet50", "for photographs"),
            "MODEL.PRETRAINED": (
                True,
                "on ImageNet; its weights are downloaded, unless MODEL.WEIGHTS names their file",
            ),
            "MODEL.EMA_DECAY": (0.999, "averages the network over the last thousand steps"),
            "SOLVER.IMS_PER_BATCH": (32, "labeled images in a step"),
            "SOLVER.UNLABELED_BATCH_RATIO": (1, "unlabeled images for each of them"),
            "SOLVER.BASE_LR": (0.005, "small, because the network is pretrained"),
            "SOLVER.WEIGHT_DECAY": (0.0003, "as on Semi-Aves"),
        }
    depth, width = (28, 2) if of.gpu else (10, 1 if 0 < of.side <= 16 else 2)
    decay, last = (0.999, "thousand") if steps > 10_000 else (0.99, "hundred")
    return {
        "MODEL.DEPTH": (depth, f"the network is WRN-{depth}-{width}"),
        "MODEL.WIDTH": (width, ""),
        "MODEL.EMA_DECAY": (decay, f"averages the network over the last {last} steps"),
        "SOLVER.IMS_PER_BATCH": (64 if of.gpu else 32, "labeled images in a step"),
        "SOLVER.UNLABELED_BATCH_RATIO": (2, "unlabeled images for each of them"),
    }


def _policy(classes: int, evaluations: int) -> str:
    """SEVAL's: averages over half of the evaluations; classes that are neighbors in frequency share their values."""
    shared = -(-classes // 20)  # by at most 20 groups
    offsets = f", groups={-(-classes // shared)}" if shared > 1 else ""
    two = max(shared, 2 if classes > 3 else 1)
    thresholds = f", groups={-(-classes // two)}" if two > 1 else ""
    decay = f"decay={1 - 2 / evaluations:g}"
    return f"seval_refine({decay}{offsets}) | seval_threshold(0.75, {decay}{thresholds}) | one_hot"


def write_table(name: str, root: str | Path | None, file: Path, gpu: bool, force: bool = False) -> list[str]:
    """Write the YAML file of a table of Supervised, FixMatch and SEVAL on a prepared set. Returns what to tell of it.

    Raises `ConfigError` where a file is there already and `force` is not given, `DataError` and `OSError`.
    """
    if file.suffix != ".yaml":
        raise ConfigError(f"a table is a file whose name ends in .yaml, but this is {printable(str(file))}")
    if os.path.lexists(file) and not force:
        raise ConfigError(f"{printable(str(file))} is there already; --force writes it again")
    if name in SETS:
        raise ConfigError(f"{name} is built in and has configurations of its own, configs/{name.removesuffix('_64')}")
    path = data_file(name, root)
    images = read(path, in_blocks=True)
    rule = rule_of_thumb(facts(images, gpu))
    policy, _ = rule.pop(POLICY)
    settings = {"DATASET.NAME": (name, printable(str(path)))}
    settings |= {} if root is None else {"DATASET.ROOT": (str(root), "folder of that file")}
    cfg = load(CONFIGS / "own" / "fixmatch_seval_estim.yaml", ["DATASET.NAME", name])
    found = notes(images, split_of(images, cfg).held_out)
    if images.unlabeled is None:
        found.append("the set has no unlabeled images, so the table has supervised rows only")
    rows = _LABELED_ROWS + (_ROWS % (POLICY, policy) if images.unlabeled else "")
    replace(file, _text(name, images, settings | rule, rows, found, gpu).encode())
    return [
        f"{printable(str(file))}: a table of {rows.count('config:')} rows and 3 seeds on {printable(str(path))}",
        *found,
    ]


def _text(
    name: str, images: ImageSet, settings: dict[str, tuple[object, str]], rows: str, found: list[str], gpu: bool
) -> str:
    sizes = ", ".join(f"{len(part.labels)} {part_name}" for part_name, part in images.parts.items())
    words = [f"  {key}, {json.dumps(value, ensure_ascii=False)}," for key, (value, _) in settings.items()]
    width = min(60, max(map(len, words)))
    pairs = zip(words, settings.values(), strict=True)
    lines = "\n".join(f"{word:{width}}  # {reason}".rstrip(" #") for word, (_, reason) in pairs)
    remarks = "".join(f"# Note: {note}.\n" for note in found)
    return f"""\
# Supervised learning, FixMatch and SEVAL on the set {name}: {images.num_classes} classes; images: {sizes}.
# Made for training {"on a GPU" if gpu else "without a GPU"} by `python repro/prepare.py {name} --table FILE`.
# Every line may be changed: docs/own_data.md explains the rule of thumb behind them, seval/defaults.py each key.
{remarks}title: {json.dumps(name)}
folder: own
metric: balanced_accuracy  # each class counts the same; top1 is the share of test images
protocol: last             # the last evaluation; median20 is the median of the last 20
network: ema
offset: none
split: test
seeds: [0, 1, 2]

set: [
{lines}
]

columns:
  {json.dumps(name)}: {{}}

rows:
{rows}"""
