"""Every default of a run on one page, and how YAML files and `KEY VALUE` overrides are merged over them.

Keys that the published code also has keep their published name and meaning, so its commands work verbatim.
"""

from __future__ import annotations

import difflib
from ast import literal_eval
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from yacs.config import CfgNode as Node


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says what was given, what was expected and what to do."""


def _long_tail(labeled_head: int, unlabeled_head: int, factor: float) -> Node:
    return Node(
        {
            "NUM_LABELED_HEAD": labeled_head,  # N1: labeled images of the most frequent class
            "IMB_FACTOR_L": factor,  # gamma_l >= 1: head over tail, labeled
            "NUM_UNLABELED_HEAD": unlabeled_head,  # M1: unlabeled images of the most frequent class
            "IMB_FACTOR_UL": factor,  # gamma_u >= 1: head over tail, unlabeled; 1 is uniform
        }
    )


_C = Node()
_C.SEED = 0  # splits, initial weights and every random stream of the run follow from it
_C.PREREQUISITE = []  # KEY VALUE pairs that turn this configuration into that of the run it stands on; [] is none
_C.CURRICULUM = ""  # replay published curricula instead of a prerequisite: the part of their .npy names before _estim_
_C.MEMO = ""  # free text that makes another run of the same settings

_C.DATASET = Node()
_C.DATASET.NAME = "cifar10"  # reads ROOT/NAME.h5; its long tail is the node of that name below
_C.DATASET.ROOT = "data"  # folder of the prepared HDF5 files (or the environment variable SEVAL_DATA)
_C.DATASET.NUM_VALID = 5000  # balanced validation images in all, taken off the training set first
_C.DATASET.HELD_OUT = "none"  # what a learning rule fits on: none, labeled (part of the labels), valid
_C.DATASET.HELD_OUT_PORTION = 0.5  # of every class's labels, where HELD_OUT is labeled
_C.DATASET.HELD_OUT_PER_CLASS = 0  # so many labels of every class instead of a portion; 0 is the portion
_C.DATASET.REVERSE_UL_DISTRIBUTION = False  # the last class is the most frequent unlabeled one
_C.DATASET.NUM_TEST = 0  # use the first so many test images of every class; 0 is all
_C.DATASET.DECODED_SIZE = 256  # sets stored as JPEG: every image becomes a square of this side, whatever its shape
_C.DATASET.PADDING = 4  # weak view: reflected pixels on each side before the random crop
_C.DATASET.CROP = 0  # side of the random crop of a view, and of the central one in evaluation; 0 is that of the images
_C.DATASET.CUTOUT = 16  # strong view: side of the gray square, in pixels whatever the image size
_C.DATASET.PROTOCOL = "seval"  # which images make the splits: seval, usb, acr; seval/data/long_tail.py compares them
_C.DATASET.RESOLUTION = 0  # side to which finished views and evaluation images are resized; 0 leaves them alone
_C.DATASET.CIFAR10 = _long_tail(1500, 3000, 100.0)
_C.DATASET.CIFAR100 = _long_tail(150, 300, 10.0)
_C.DATASET.STL10 = Node({"NUM_LABELED_HEAD": 450, "IMB_FACTOR_L": 10.0})  # all of its own unlabeled images are used
_C.DATASET.AVES = Node({"UL_SOURCE": "in"})  # unlabeled images of Semi-Aves: in (its 200 classes), all (others too)
_C.DATASET.IMAGENET = Node()  # Small-ImageNet-127, of 32 or 64 pixels
_C.DATASET.IMAGENET.LABELED = "batch_1"  # labels: batch_1 (of the published files), random (a tenth of each class)
_C.DATASET.IMAGENET.TEST = "imbalanced"  # test images: imbalanced (all, as they are), balanced (as many of each class)
_C.DATASET.FASHION_MNIST = _long_tail(1500, 3000, 100.0)
_C.DATASET.TINY = _long_tail(1500, 3000, 100.0)

_C.MODEL = Node()
_C.MODEL.NAME = "wide_resnet"  # the backbone: wide_resnet, resnet50, cifar_resnet50 (for small images)
_C.MODEL.DEPTH = 28  # of wide_resnet
_C.MODEL.WIDTH = 2  # of wide_resnet
_C.MODEL.PRETRAINED = False  # start resnet50 from torchvision's ImageNet weights IMAGENET1K_V2
_C.MODEL.WEIGHTS = ""  # file of these weights; "" is PyTorch's own cache, to which they are fetched if need be
_C.MODEL.EMA_DECAY = 0.999  # of the averaged network, which is the one evaluated

_C.ALGORITHM = Node()
_C.ALGORITHM.NAME = "supervised"  # supervised, fixmatch
_C.ALGORITHM.UNLABELED_WEIGHT = 1.0  # lambda_u

_C.HEADS = Node()  # a head exists where LABELED_LOSS is named; the last one is evaluated
_C.HEADS.LINEAR = Node()
_C.HEADS.LINEAR.LABELED_LOSS = "cross_entropy"  # cross_entropy, logit_adjusted(tau)
_C.HEADS.LINEAR.POLICY = ""  # chain of rules from teacher predictions to pseudo-labels, e.g. threshold(0.95) | one_hot

_C.SOLVER = Node()
_C.SOLVER.MAX_ITER = 250_000  # steps
_C.SOLVER.IMS_PER_BATCH = 64  # labeled images a step
_C.SOLVER.UNLABELED_BATCH_RATIO = 2  # mu: unlabeled images a step, over labeled ones
_C.SOLVER.OPTIM_NAME = "sgd"  # sgd (Nesterov), adam
_C.SOLVER.BASE_LR = 0.03
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.WEIGHT_DECAY = 5e-4
_C.SOLVER.SCHEDULE = "constant"  # constant, cosine (FixMatch's 7/16 of a period), multi_step
_C.SOLVER.STEPS = []  # multi_step: where the rate is multiplied by GAMMA
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.WARMUP_ITERS = 0  # the rate rises linearly from 0 over the first so many steps
_C.SOLVER.PRECISION = "float32"  # float32, bfloat16 (autocast of forward and loss)

_C.PERIODS = Node()
_C.PERIODS.EVAL = 500  # steps between evaluations; a rule's slow statistics follow this clock too
_C.PERIODS.CHECKPOINT = 5000  # steps between checkpoints, each at the next evaluation
_C.PERIODS.QUALITY = 5000  # steps between measurements of the pseudo-labels' quality, likewise

_C.OUTPUT_DIR = "runs"  # a run's folder is OUTPUT_DIR/<id>
_C.GPU_ID = 0  # CUDA device; -1 is the CPU, and so is any number where there is no GPU
_C.RUNTIME = Node()
_C.RUNTIME.THREADS = 0  # CPU threads; 0 leaves PyTorch's choice
_C.RUNTIME.EVAL_BATCH = 512  # images a batch when predicting
_C.RUNTIME.WORKERS = 4  # processes that decode sets stored as JPEG; 0 decodes between the steps
_C.RUNTIME.PROGRESS = True  # draw the progress bar
_C.RUNTIME.TENSORBOARD = True  # write TensorBoard scalars beside metrics.jsonl

#: What by definition cannot change a result, and so never enters a run's identity. The file of the weights is one of
#: them because its SHA-256 is checked; whether it is used, MODEL.PRETRAINED, is part of the identity.
NOT_IDENTITY = ("OUTPUT_DIR", "GPU_ID", "RUNTIME", "DATASET.ROOT", "MODEL.WEIGHTS", "PERIODS.CHECKPOINT")
#: The node of a data set in DATASET, where it is not the set's name.
_NODES = {"semi_aves": "AVES", "small_imagenet127": "IMAGENET", "small_imagenet127_64": "IMAGENET"}
#: Published spellings of these choices, accepted and made one.
_ALIASES = {"Supervised": "supervised", "FixMatch": "fixmatch", "SGD": "sgd", "Adam": "adam"}
_ALIASES |= {"WRN": "wide_resnet", "ResNet": "resnet50", "ResNet50_cifar": "cifar_resnet50"}
_ALIASES |= {"aves": "semi_aves", "imagenet": "small_imagenet127"}
_CHOICES = {
    "DATASET.NAME": ("cifar10", "cifar100", "stl10", *_NODES, "fashion_mnist", "tiny"),
    "DATASET.PROTOCOL": ("seval", "usb", "acr"),
    "DATASET.AVES.UL_SOURCE": ("in", "all"),
    "DATASET.IMAGENET.LABELED": ("batch_1", "random"),
    "DATASET.IMAGENET.TEST": ("imbalanced", "balanced"),
    "ALGORITHM.NAME": ("supervised", "fixmatch"),
    "MODEL.NAME": ("wide_resnet", "resnet50", "cifar_resnet50"),
    "DATASET.HELD_OUT": ("none", "labeled", "valid"),
    "SOLVER.OPTIM_NAME": ("sgd", "adam"),
    "SOLVER.SCHEDULE": ("constant", "cosine", "multi_step"),
    "SOLVER.PRECISION": ("float32", "bfloat16"),
}
_POSITIVE = (
    "SOLVER.MAX_ITER",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.UNLABELED_BATCH_RATIO",
    "SOLVER.BASE_LR",
    "MODEL.WIDTH",
    "DATASET.DECODED_SIZE",
    "PERIODS.EVAL",
    "PERIODS.CHECKPOINT",
    "PERIODS.QUALITY",
    "RUNTIME.EVAL_BATCH",
)
_NOT_NEGATIVE = ("DATASET.PADDING", "DATASET.CROP", "DATASET.CUTOUT", "DATASET.RESOLUTION", "RUNTIME.WORKERS")


def defaults() -> Node:
    """A fresh, unfrozen copy of the defaults above."""
    return _C.clone()


def load(files: str | Path | Sequence[str | Path] = (), overrides: Sequence[object] = ()) -> Node:
    """Defaults, then each YAML file over its `_BASE_` files, then `KEY VALUE` overrides; checked and frozen.

    Raises `ConfigError` for an unknown key (naming the nearest valid one), a wrong type or a value out of range.
    """
    cfg = defaults()
    for file in [files] if isinstance(files, str | Path) else files:
        for key, value, where in _read(Path(file)):
            _set(cfg, key, value, where)
    return with_overrides(cfg, overrides)


def with_overrides(cfg: Node, overrides: Sequence[object]) -> Node:
    """A frozen copy of `cfg` with `KEY VALUE` pairs laid over it."""
    if len(overrides) % 2:
        raise ConfigError(
            f"overrides are KEY VALUE pairs, but {len(overrides)} words were given: {' '.join(map(str, overrides))}"
        )
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in zip(overrides[::2], overrides[1::2], strict=True):
        _set(cfg, str(key), value, "the command line")
    _check(cfg)
    _canonicalize(cfg)
    cfg.freeze()
    return cfg


def flatten(cfg: Node, prefix: str = "") -> dict[str, object]:
    """`{"SOLVER.BASE_LR": 0.03, ...}`, in the order of the page above."""
    flat: dict[str, object] = {}
    for key, value in cfg.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Node) else {prefix + key: value}
    return flat


def settings(cfg: Node) -> dict[str, object]:
    """Every key that can change the result: all but NOT_IDENTITY and the long tails of other data sets."""
    datasets = [f"DATASET.{key}." for key, value in cfg.DATASET.items() if isinstance(value, Node)]
    foreign = tuple(prefix for prefix in datasets if prefix != f"DATASET.{node_of(cfg.DATASET.NAME)}.")
    return {
        key: value
        for key, value in flatten(cfg).items()
        if not key.startswith(foreign) and not any(f"{key}.".startswith(f"{out}.") for out in NOT_IDENTITY)
    }


def delta(cfg: Node) -> dict[str, object]:
    """What of the settings differs from the defaults: the input of a run's identity."""
    standard = flatten(_C)
    return {key: value for key, value in settings(cfg).items() if value != standard[key]}


def node_of(name: str) -> str:
    """The key in DATASET of a data set's own node."""
    return _NODES.get(name, name.upper())


def own_node(cfg: Node) -> Node:
    """The configured data set's own node in DATASET."""
    return cfg.DATASET[node_of(cfg.DATASET.NAME)]


def _read(file: Path, seen: tuple[Path, ...] = ()) -> Iterator[tuple[str, object, str]]:
    """The (key, value, file) triples of a YAML file, those of its `_BASE_` files first."""
    if file.resolve() in seen:
        raise ConfigError(f"{file} includes itself through _BASE_: {' -> '.join(map(str, seen))}")
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except FileNotFoundError:
        near = sorted(p.name for p in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        hint = f"; that folder has {', '.join(near)}" if near else ""
        raise ConfigError(f"no configuration file {file}{hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"cannot read {file}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{file} must hold keys and values, but holds {type(content).__name__}")
    bases = content.pop("_BASE_", [])
    for base in [bases] if isinstance(bases, str) else bases:
        yield from _read(file.parent / base, (*seen, file.resolve()))

    def walk(node: dict, prefix: str) -> Iterator[tuple[str, object, str]]:
        for key, value in node.items():
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value, str(file)

    yield from walk(content, "")


def _set(cfg: Node, key: str, value: object, where: str) -> None:
    flat = flatten(cfg)
    if key not in flat:
        near = difflib.get_close_matches(key, flat, n=1, cutoff=0.0)[0]
        raise ConfigError(f"unknown key {key!r} in {where}; did you mean {near!r}?")
    node = cfg
    *path, last = key.split(".")
    for part in path:
        node = node[part]
    node[last] = _coerce(key, value, _default(key), where)


def _default(key: str) -> object:
    return flatten(_C)[key]


def _coerce(key: str, value: object, default: object, where: str) -> object:
    """The value in its default's type: text from a command line is read as a literal, an int may stand for a float."""
    if isinstance(value, str) and not isinstance(default, str):
        try:
            value = literal_eval(value)
        except (ValueError, SyntaxError):
            pass
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, str) and key in _CHOICES:
        value = _ALIASES.get(value, value)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if isinstance(default, str) and isinstance(value, int | float):
        value = str(value)
    if type(value) is not type(default):
        raise ConfigError(
            f"{key} is {value!r} in {where}, but must be of type {type(default).__name__} (its default is {default!r})"
        )
    return value


def _canonicalize(cfg: Node) -> None:
    """Give policies and labeled losses their one spelling, so that equal runs have equal identities."""
    from seval.losses import LABELED_LOSSES
    from seval.policy.base import canonical, parse_call

    for name, head in cfg.HEADS.items():
        try:
            head.POLICY = canonical(head.POLICY)
            if head.LABELED_LOSS:
                head.LABELED_LOSS = str(parse_call(head.LABELED_LOSS, LABELED_LOSSES, kind="labeled loss", skip=1))
        except ValueError as error:
            raise ConfigError(f"HEADS.{name}: {error}") from None


def _check(cfg: Node) -> None:
    flat = flatten(cfg)
    for key, choices in _CHOICES.items():
        if flat[key] not in choices:
            raise ConfigError(f"{key} is {flat[key]!r}, but must be one of {', '.join(choices)}")
    for key in _POSITIVE:
        if flat[key] <= 0:
            raise ConfigError(f"{key} is {flat[key]!r}, but must be positive")
    for key in _NOT_NEGATIVE:
        if flat[key] < 0:
            raise ConfigError(f"{key} is {flat[key]!r}, but must not be negative")
    if cfg.SOLVER.MAX_ITER % cfg.PERIODS.EVAL:
        raise ConfigError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}, but must be a multiple of PERIODS.EVAL, "
            f"which is {cfg.PERIODS.EVAL}"
        )
    if cfg.SEED < 0:
        raise ConfigError(f"SEED is {cfg.SEED}, but must be at least 0, so that the run can be done again")
    for key, value in flat.items():
        if key.rpartition(".")[2].startswith("IMB_FACTOR") and value < 1:
            raise ConfigError(
                f"{key} is {value:g}, but an imbalance ratio is head over tail and at least 1"
                + ("; a reversed unlabeled set is DATASET.REVERSE_UL_DISTRIBUTION True" if key.endswith("_UL") else "")
            )
    if not 0 < cfg.DATASET.HELD_OUT_PORTION < 1:
        raise ConfigError(
            f"DATASET.HELD_OUT_PORTION is {cfg.DATASET.HELD_OUT_PORTION:g}, but must lie between 0 and 1: "
            "every class must keep labels"
        )
    if not 0 <= cfg.MODEL.EMA_DECAY < 1:
        raise ConfigError(f"MODEL.EMA_DECAY is {cfg.MODEL.EMA_DECAY:g}, but must be at least 0 and below 1")
    if (cfg.MODEL.DEPTH - 4) % 6 or cfg.MODEL.DEPTH < 10:
        raise ConfigError(f"MODEL.DEPTH is {cfg.MODEL.DEPTH}, but a wide ResNet has 6n + 4 layers: 10, 16, 22, 28, ...")
    if cfg.MODEL.PRETRAINED and cfg.MODEL.NAME != "resnet50":
        raise ConfigError(f"MODEL.PRETRAINED is True, but there are weights of resnet50 only, not of {cfg.MODEL.NAME}")
