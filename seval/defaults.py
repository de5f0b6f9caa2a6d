"""Every configuration key of a run, with its meaning and default, on one page.

Keys that also exist in the published code keep their name and meaning, so that its commands work unchanged. Some
defaults differ from the published code.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from yacs.config import CfgNode as Node


def _long_tail(labeled_head: int, unlabeled_head: int, factor: float) -> Node:
    return Node(
        {
            "NUM_LABELED_HEAD": labeled_head,  # N1: labeled images of the most frequent class
            "IMB_FACTOR_L": factor,  # gamma_l >= 1: largest over smallest class, labeled
            "NUM_UNLABELED_HEAD": unlabeled_head,  # M1: unlabeled images of the most frequent class
            "IMB_FACTOR_UL": factor,  # gamma_u >= 1: largest over smallest class, unlabeled; 1 is uniform
        }
    )


_C = Node()
_C.SEED = 0  # determines the splits, the initial weights and every random number of the run
_C.PREREQUISITE = []  # the run that this run depends on, as KEY VALUE pairs that differ there; [] is none
_C.CURRICULUM = ""  # replay published curricula (no prerequisite is run): path of their .npy files up to _estim_
_C.MEMO = ""  # free text; changing it gives a separate run with the same settings

# Shown by `main.py --list-methods`; no effect on training. CATEGORY is SSL for a base method; for an addition to a base
# method it is LTL, PLR, THA (the paper's terms) or several of these. SOURCE is the method's paper.
# LICENCE is that of the authors' code (none: without one). NAME is what people call it; by default the file's name.
_C.METHOD = Node({"NAME": "", "CATEGORY": "", "SOURCE": "", "LICENCE": ""})

_C.DATASET = Node()
_C.DATASET.NAME = "cifar10"  # reads ROOT/NAME.h5; the data set's own keys are in the node of the same name below
_C.DATASET.ROOT = "data"  # folder of the prepared HDF5 files (or the environment variable SEVAL_DATA)
_C.DATASET.NUM_VALID = 5000  # total number of balanced validation images, taken from the training set first
_C.DATASET.HELD_OUT = "none"  # images that SEVAL and DARP fit on: none, labeled (a part of the labels), valid, darp:
# the first HELD_OUT_PER_CLASS labels of every class; where a class has no more than that, as many validation images
_C.DATASET.HELD_OUT_PORTION = 0.5  # share of every class's labels, if HELD_OUT is labeled
_C.DATASET.HELD_OUT_PER_CLASS = 0  # hold out this many labels of every class; 0 uses HELD_OUT_PORTION
_C.DATASET.SAMPLER_NAME = "random"  # random (each labeled image once per epoch), class_aware (rare classes more often)
_C.DATASET.SAMPLER_BETA = 1.0  # class_aware draws an image of a class of n in proportion to (1 - beta) / (1 - beta**n);
# at 1 to 1 / n, which makes all classes equally likely
_C.DATASET.UL_SHAPE = "long_tail"  # most frequent unlabeled class: first (long_tail), middle, both ends (head_tail)
_C.DATASET.REVERSE_UL_DISTRIBUTION = False  # True: UL_SHAPE turned round; of a long tail, the last class is the largest
_C.DATASET.NUM_TEST = 0  # use the first N test images of every class; 0 is all
_C.DATASET.DECODED_SIZE = 256  # for sets stored as JPEG: every image is resized to a square of this side
_C.DATASET.PADDING = 4  # weak view: reflected pixels on each side before the random crop
_C.DATASET.CROP = 0  # side of the random crop in training and the central crop in evaluation; 0 is the image side
_C.DATASET.CUTOUT = 16  # strong view: side of the gray square, in pixels, the same for every image size
_C.DATASET.PROTOCOL = "seval"  # how the splits are drawn: seval, usb, acr; seval/data/splits.py compares them
_C.DATASET.RESOLUTION = 0  # views and evaluation images are resized to this side; 0 keeps their size
_C.DATASET.CIFAR10 = _long_tail(1500, 3000, 100.0)
_C.DATASET.CIFAR100 = _long_tail(150, 300, 10.0)
_C.DATASET.STL10 = Node({"NUM_LABELED_HEAD": 450, "IMB_FACTOR_L": 10.0})  # uses all its unlabeled images
_C.DATASET.AVES = Node({"UL_SOURCE": "in"})  # unlabeled images: in (the 200 labeled classes), all (other classes too)
_C.DATASET.IMAGENET = Node()  # Small-ImageNet-127, at 32 or 64 pixels
_C.DATASET.IMAGENET.LABELED = "batch_1"  # labeled: batch_1 (of the published files), random (a tenth of each class)
_C.DATASET.IMAGENET.TEST = "imbalanced"  # test images: imbalanced (all of them), balanced (equally many per class)
_C.DATASET.FASHION_MNIST = _long_tail(1500, 3000, 100.0)
_C.DATASET.TINY = _long_tail(1500, 3000, 100.0)
_C.DATASET.OWN = _long_tail(0, 0, 1.0)  # every other prepared set; without a NUM_LABELED_HEAD it is used as it is

_C.MODEL = Node()
_C.MODEL.NAME = "wide_resnet"  # backbone: wide_resnet, resnet50, cifar_resnet50 (for small images)
_C.MODEL.DEPTH = 28  # number of layers of wide_resnet
_C.MODEL.WIDTH = 2  # width factor of wide_resnet
_C.MODEL.PRETRAINED = False  # start resnet50 from torchvision's ImageNet weights IMAGENET1K_V2
_C.MODEL.WEIGHTS = ""  # file with the pretrained weights; "" is PyTorch's cache, downloaded there if necessary
_C.MODEL.FROZEN = False  # True: take the backbone of the prerequisite run and do not train it (classifier re-training)
_C.MODEL.EMA_DECAY = 0.999  # decay of the averaged (EMA) network; reported results use this network

_C.ALGORITHM = Node()
_C.ALGORITHM.NAME = "supervised"  # a name from seval/algorithms, with arguments if needed: mixmatch(alpha=0.5)
_C.ALGORITHM.UNLABELED_WEIGHT = 1.0  # lambda_u: weight of the unlabeled loss
_C.ALGORITHM.LABELED_WEIGHT = (
    1.0  # weight of the labeled loss; 0 weights a labeled image like an unlabeled one (SimPro)
)

_C.HEADS = Node()  # a head with a LABELED_LOSS is trained; the last of them is evaluated
_C.HEADS.LINEAR = Node()
_C.HEADS.LINEAR.LABELED_LOSS = "cross_entropy"  # a loss from seval/losses.py, e.g. logit_adjusted(1.0)
_C.HEADS.LINEAR.POLICY = ""  # rules that turn teacher predictions into pseudo-labels, e.g. threshold(0.95) | one_hot
_C.HEADS.LINEAR.CLASSIFIER = "linear"  # linear; cosine(scale): scaled cosines of features and class weights
# classwise(m, t): a normalization each for head, medium (from rank m on) and tail classes (from rank t on), as in CPE
_C.HEADS.EXPERT = Node({"LABELED_LOSS": "", "POLICY": "", "CLASSIFIER": "linear"})  # third head, as in CPE
_C.HEADS.BALANCED = Node({"LABELED_LOSS": "", "POLICY": "", "CLASSIFIER": "linear"})  # second head, as in ABC

_C.SOLVER = Node()
_C.SOLVER.MAX_ITER = 250_000  # number of training steps
_C.SOLVER.IMS_PER_BATCH = 64  # labeled images per step
_C.SOLVER.UNLABELED_BATCH_RATIO = 2  # mu: unlabeled images per labeled image in a step
_C.SOLVER.OPTIM_NAME = "sgd"  # sgd (with Nesterov momentum), adam, adamw (weight decay apart from the gradient)
_C.SOLVER.BASE_LR = 0.03
_C.SOLVER.MOMENTUM = 0.9
_C.SOLVER.WEIGHT_DECAY = 5e-4
_C.SOLVER.DECAY_NORMS = True  # False: no weight decay of BatchNorm and biases
_C.SOLVER.SCHEDULE = (
    "constant"  # learning rate: constant, multi_step, cosine (cos(7 pi t / 16 T), as in FixMatch), half_cosine
)
# ((1 + cos(pi t / T)) / 2, which falls to 0, as in cRT)
_C.SOLVER.STEPS = []  # multi_step: steps at which the learning rate is multiplied by GAMMA
_C.SOLVER.GAMMA = 0.1
_C.SOLVER.WARMUP_ITERS = 0  # the learning rate rises linearly from 0 over the first N steps
_C.SOLVER.PRECISION = "float32"  # float32 (cuDNN convolutions may use TF32), bfloat16 (autocast)
_C.SOLVER.EVAL_BATCH = 512  # images per batch when predicting; affects the last bits of a learned curriculum

_C.PERIODS = Node()
_C.PERIODS.EVAL = 500  # steps between evaluations; rules also update their slow statistics then
_C.PERIODS.CHECKPOINT = 5000  # steps between checkpoints; each is written at the next evaluation
_C.PERIODS.QUALITY = 5000  # steps between measurements of pseudo-label quality, also at the next evaluation

_C.OUTPUT_DIR = "runs"  # a run's folder is OUTPUT_DIR/<id>
_C.GPU_ID = 0  # CUDA device; -1 is the CPU. Without a GPU, every number is the CPU
_C.RUNTIME = Node()
_C.RUNTIME.THREADS = 0  # CPU threads; 0 leaves the choice to PyTorch
_C.RUNTIME.WORKERS = 4  # processes that decode sets stored as JPEG; 0 decodes in the training process
_C.RUNTIME.CAPTURE = "off"  # auto: on a GPU the network's training pass is a CUDA graph (not yet tried on one); off
_C.RUNTIME.PROGRESS = "auto"  # bar, lines (one for each evaluation), off; auto is a bar on a terminal, else lines
_C.RUNTIME.OTHER_CODE = "refuse"  # a checkpoint that other code made: refuse, resume
_C.RUNTIME.TENSORBOARD = True  # also write TensorBoard scalars, next to metrics.jsonl

#: The keys above.
DEFAULTS = _C
#: Keys that cannot change a result, and so are not part of a run's identity. MODEL.WEIGHTS is among them because the
#: SHA-256 of the file is checked; MODEL.PRETRAINED, which says whether the file is used, is part of the identity.
NOT_IDENTITY = ("METHOD", "OUTPUT_DIR", "GPU_ID", "RUNTIME", "DATASET.ROOT", "MODEL.WEIGHTS", "PERIODS.CHECKPOINT")
#: The node in DATASET of each built-in data set whose node is not named after it.
NODES = {"semi_aves": "AVES", "small_imagenet127": "IMAGENET", "small_imagenet127_64": "IMAGENET"}
#: The built-in data sets. DATASET.NAME takes any other prepared set, too.
SETS = (
    "cifar10",
    "cifar100",
    "stl10",
    "semi_aves",
    "small_imagenet127",
    "small_imagenet127_64",
    "fashion_mnist",
    "tiny",
)
#: The node in DATASET of each built-in data set whose node is not named after it.
NODES = {"semi_aves": "AVES", "small_imagenet127": "IMAGENET", "small_imagenet127_64": "IMAGENET"}
#: Spellings of the published code, accepted and replaced by ours.
ALIASES = {"Supervised": "supervised", "PseudoLabel": "pseudo_label", "MeanTeacher": "mean_teacher"}
ALIASES |= {"FixMatch": "fixmatch", "MixMatch": "mixmatch", "ReMixMatch": "remixmatch", "USADTM": "usadtm"}
ALIASES |= {"ACR": "acr", "SGD": "sgd", "Adam": "adam"}
ALIASES |= {"WRN": "wide_resnet", "ResNet": "resnet50", "ResNet50_cifar": "cifar_resnet50"}
ALIASES |= {"RandomSampler": "random", "ClassAwareSampler": "class_aware"}
ALIASES |= {"True": "bar", "False": "off"}  # RUNTIME.PROGRESS
#: The same of DATASET.NAME, whose other values are names that users chose.
SET_ALIASES = {"aves": "semi_aves", "imagenet": "small_imagenet127"}
CHOICES = {
    "DATASET.SAMPLER_NAME": ("random", "class_aware"),
    "DATASET.UL_SHAPE": ("long_tail", "middle", "head_tail"),
    "DATASET.PROTOCOL": ("seval", "usb", "acr"),
    "DATASET.AVES.UL_SOURCE": ("in", "all"),
    "DATASET.IMAGENET.LABELED": ("batch_1", "random"),
    "DATASET.IMAGENET.TEST": ("imbalanced", "balanced"),
    "MODEL.NAME": ("wide_resnet", "resnet50", "cifar_resnet50"),
    "DATASET.HELD_OUT": ("none", "labeled", "valid", "darp"),
    "SOLVER.OPTIM_NAME": ("sgd", "adam", "adamw"),
    "SOLVER.SCHEDULE": ("constant", "cosine", "half_cosine", "multi_step"),
    "SOLVER.PRECISION": ("float32", "bfloat16"),
    "RUNTIME.CAPTURE": ("off", "auto"),
    "RUNTIME.PROGRESS": ("auto", "bar", "lines", "off"),
    "RUNTIME.OTHER_CODE": ("refuse", "resume"),
}


class Check(NamedTuple):
    """What a value must be: a predicate, and words that complete "must be ..."."""

    holds: Callable[[Any], bool]
    words: str


_POSITIVE, _NOT_NEGATIVE = Check(lambda value: value > 0, "positive"), Check(lambda value: value >= 0, "at least 0")


def _between(least: int, most: int) -> Check:
    return Check(lambda value: least <= value <= most, f"between {least} and {most}")


_SIDE, _PROCESSES = 4096, 1024  # the most pixels of a side, and the most threads or processes
_RATIO = Check(lambda value: value >= 1, "at least 1: an imbalance ratio is the largest class over the smallest")
_REVERSIBLE = _RATIO._replace(
    words=f"{_RATIO.words}; to reverse the unlabeled set, set DATASET.REVERSE_UL_DISTRIBUTION to True"
)
_TAILS = ("CIFAR10", "CIFAR100", "FASHION_MNIST", "TINY", "OWN")
#: What every value must be.
FOR_ALL = (
    Check(lambda value: not isinstance(value, float) or abs(value) < 1e30, "a finite number below 1e30"),
    Check(lambda value: type(value) is not int or abs(value) < 2**32, "between 0 and 2**32 - 1"),
    Check(lambda value: not isinstance(value, str) or "\0" not in value, "text without NUL characters"),
)
_FILE = Check(lambda value: not any(ord(sign) < 32 for sign in value), "the name of a file, in one line")
_SET = Check(
    lambda value: re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) is not None,
    "the name of a prepared set: at most 100 letters from a to z, digits, '_', '-' and '.', a letter or digit first",
)
#: By key. Checks that involve several keys are in seval/config.py.
CHECKS = {
    **dict.fromkeys(("DATASET.ROOT", "MODEL.WEIGHTS", "CURRICULUM"), _FILE),
    "DATASET.NAME": _SET,
    **{key: Check(choices.__contains__, f"one of {', '.join(choices)}") for key, choices in CHOICES.items()},
    **{f"DATASET.{name}.IMB_FACTOR_L": _RATIO for name in (*_TAILS, "STL10")},
    **{f"DATASET.{name}.IMB_FACTOR_UL": _REVERSIBLE for name in _TAILS},
    **{f"DATASET.{key}": _NOT_NEGATIVE for key in ("NUM_VALID", "NUM_TEST", "HELD_OUT_PER_CLASS")},
    **{f"DATASET.{key}": _between(0, _SIDE) for key in ("PADDING", "CROP", "CUTOUT", "RESOLUTION")},
    **{f"SOLVER.{key}": _POSITIVE for key in ("MAX_ITER", "IMS_PER_BATCH", "UNLABELED_BATCH_RATIO", "EVAL_BATCH")},
    **{f"SOLVER.{key}": _NOT_NEGATIVE for key in ("MOMENTUM", "WEIGHT_DECAY", "GAMMA", "WARMUP_ITERS")},
    **{f"PERIODS.{key}": _POSITIVE for key in ("EVAL", "CHECKPOINT", "QUALITY")},
    **{f"RUNTIME.{key}": _between(0, _PROCESSES) for key in ("THREADS", "WORKERS")},
    "SEED": Check(lambda value: 0 <= value < 2**32, "between 0 and 2**32 - 1, so that the run can be repeated"),
    "DATASET.DECODED_SIZE": _between(1, _SIDE),
    "DATASET.SAMPLER_BETA": Check(
        lambda value: 0 <= value <= 1, "between 0 (each image alike) and 1 (each class alike)"
    ),
    "DATASET.HELD_OUT_PORTION": Check(
        lambda value: 0 < value < 1, "between 0 and 1: every class must keep labels to train on"
    ),
    "MODEL.DEPTH": Check(
        lambda value: 10 <= value <= 1000 and (value - 4) % 6 == 0,
        "10, 16, 22, 28, ..., at most 1000: a wide ResNet has 6n + 4 layers",
    ),
    "MODEL.WIDTH": _between(1, 100_000),
    "MODEL.EMA_DECAY": Check(lambda value: 0 <= value < 1, "at least 0 and less than 1"),
    **{f"ALGORITHM.{key}": _NOT_NEGATIVE for key in ("LABELED_WEIGHT", "UNLABELED_WEIGHT")},
    "SOLVER.BASE_LR": _POSITIVE,
    "SOLVER.STEPS": Check(
        lambda value: all(type(step) is int and step >= 0 for step in value), "a list of whole numbers from 0 up"
    ),
    "OUTPUT_DIR": Check(lambda value: bool(value) and _FILE.holds(value), "a folder for the runs, in one line"),
    "GPU_ID": Check(lambda value: value >= -1, "the number of a GPU, from 0 up, or -1 for the CPU"),
}


def node_of(name: str) -> str:
    """The key of a data set's own node in DATASET; OWN for every set that is not built in."""
    return NODES.get(name, name.upper()) if name in SETS else "OWN"


def own_node(cfg: Node) -> Node:
    """The node in DATASET of the configured data set."""
    return cfg.DATASET[node_of(cfg.DATASET.NAME)]


def _recipes(settings: Mapping[str, Any], rule: str) -> list[str]:
    """The recipes of that rule in all policies."""
    policies = [value for key, value in settings.items() if key.endswith(".POLICY")]
    recipes = [recipe.strip() for policy in policies for recipe in policy.split("|")]
    return [recipe for recipe in recipes if recipe.partition("(")[0] == rule]


#: Corrections that changed what some settings compute: a name, and whether it concerns settings (by key, as
#: `seval.config.settings` has them). The names of those that concern a run are part of its identity, so that records
#: from before do not match it. What concerns all runs raises FORMAT in seval/identity.py instead.
CORRECTIONS: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "adsh: rank": lambda settings: _recipes(settings, "adsh"),
    "darp: period": lambda settings: _recipes(settings, "darp"),
    "remixmatch: size of strong views": lambda settings: (
        settings["ALGORITHM.NAME"].startswith("remixmatch") and settings["DATASET.RESOLUTION"] > 0
    ),
    "held out by number: first of a long tail": lambda settings: (
        settings["DATASET.HELD_OUT"] == "labeled"
        and settings["DATASET.HELD_OUT_PER_CLASS"] > 0
        and node_of(settings["DATASET.NAME"]) not in ("AVES", "IMAGENET", "OWN")
    ),
    "semi_aves: hold-out": lambda settings: (
        settings["DATASET.HELD_OUT"] == "labeled" and node_of(settings["DATASET.NAME"]) == "AVES"
    ),
    "seval_threshold: equal accuracies": lambda settings: any(
        "'exact'" in recipe for recipe in _recipes(settings, "seval_threshold")
    ),
}
