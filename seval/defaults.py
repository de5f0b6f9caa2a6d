"""Every key of a run's configuration, with its meaning and its default, on one page.

Keys that the published code also has keep their name and meaning, though not always their default, so that its commands
work verbatim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from yacs.config import CfgNode as Node


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

# What `main.py --list-methods` says of a method, of no effect: SSL (a base), or what it does to one, LTL, PLR or THA as
# in the paper, or several of them; and its own paper.
_C.METHOD = Node({"CATEGORY": "", "SOURCE": ""})

_C.DATASET = Node()
_C.DATASET.NAME = "cifar10"  # reads ROOT/NAME.h5; its long tail is the node of that name below
_C.DATASET.ROOT = "data"  # folder of the prepared HDF5 files (or the environment variable SEVAL_DATA)
_C.DATASET.NUM_VALID = 5000  # balanced validation images in all, taken off the training set first
_C.DATASET.HELD_OUT = "none"  # what a learning rule fits on: none, labeled (part of the labels), valid
_C.DATASET.HELD_OUT_PORTION = 0.5  # of every class's labels, where HELD_OUT is labeled
_C.DATASET.HELD_OUT_PER_CLASS = 0  # so many labels of every class instead of a portion; 0 is the portion
_C.DATASET.SAMPLER_NAME = "random"  # labeled batches: random (each image once an epoch), class_aware (classes alike)
_C.DATASET.REVERSE_UL_DISTRIBUTION = False  # the last class is the most frequent unlabeled one
_C.DATASET.NUM_TEST = 0  # use the first so many test images of every class; 0 is all
_C.DATASET.DECODED_SIZE = 256  # sets stored as JPEG: every image becomes a square of this side, whatever its shape
_C.DATASET.PADDING = 4  # weak view: reflected pixels on each side before the random crop
_C.DATASET.CROP = 0  # side of the random crop of a view, and of the central one in evaluation; 0 is that of the images
_C.DATASET.CUTOUT = 16  # strong view: side of the gray square, in pixels whatever the image size
_C.DATASET.PROTOCOL = "seval"  # which images make the splits: seval, usb, acr; seval/data/splits.py compares them
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
_C.MODEL.FROZEN = False  # the backbone is that of the run it stands on, and is not trained (classifier re-training)
_C.MODEL.EMA_DECAY = 0.999  # of the averaged network, which is the one evaluated

_C.ALGORITHM = Node()
_C.ALGORITHM.NAME = "supervised"  # its name in seval/algorithms, and arguments if need be: mixmatch(alpha=0.5)
_C.ALGORITHM.UNLABELED_WEIGHT = 1.0  # lambda_u

_C.HEADS = Node()  # a head exists where LABELED_LOSS is named; the last one is evaluated
_C.HEADS.LINEAR = Node()
_C.HEADS.LINEAR.LABELED_LOSS = "cross_entropy"  # one of seval/losses.py, e.g. logit_adjusted(1.0)
_C.HEADS.LINEAR.POLICY = ""  # chain of rules from teacher predictions to pseudo-labels, e.g. threshold(0.95) | one_hot
_C.HEADS.LINEAR.CLASSIFIER = "linear"  # linear, cosine(scale): scaled cosines of features and class weights
_C.HEADS.BALANCED = Node({"LABELED_LOSS": "", "POLICY": "", "CLASSIFIER": "linear"})  # a second head, such as ABC's

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
_C.SOLVER.PRECISION = "float32"  # float32 (of it cuDNN's convolutions may take TF32), bfloat16 (autocast)
_C.SOLVER.EVAL_BATCH = 512  # images a batch when predicting; it decides the last bits of what a curriculum learns

_C.PERIODS = Node()
_C.PERIODS.EVAL = 500  # steps between evaluations; a rule's slow statistics follow this clock too
_C.PERIODS.CHECKPOINT = 5000  # steps between checkpoints, each at the next evaluation
_C.PERIODS.QUALITY = 5000  # steps between measurements of the pseudo-labels' quality, likewise

_C.OUTPUT_DIR = "runs"  # a run's folder is OUTPUT_DIR/<id>
_C.GPU_ID = 0  # CUDA device; -1 is the CPU, and so is any number where there is no GPU
_C.RUNTIME = Node()
_C.RUNTIME.THREADS = 0  # CPU threads; 0 leaves PyTorch's choice
_C.RUNTIME.WORKERS = 4  # processes that decode sets stored as JPEG; 0 decodes between the steps
_C.RUNTIME.PROGRESS = True  # draw the progress bar
_C.RUNTIME.TENSORBOARD = True  # write TensorBoard scalars beside metrics.jsonl

#: The page above.
DEFAULTS = _C
#: What by definition cannot change a result, and so never enters a run's identity. The file of the weights is one of
#: them because its SHA-256 is checked; whether it is used, MODEL.PRETRAINED, is part of the identity.
NOT_IDENTITY = ("METHOD", "OUTPUT_DIR", "GPU_ID", "RUNTIME", "DATASET.ROOT", "MODEL.WEIGHTS", "PERIODS.CHECKPOINT")
#: The node of a data set in DATASET, where it is not the set's name.
NODES = {"semi_aves": "AVES", "small_imagenet127": "IMAGENET", "small_imagenet127_64": "IMAGENET"}
#: Published spellings of these choices, accepted and made one.
ALIASES = {"Supervised": "supervised", "PseudoLabel": "pseudo_label", "MeanTeacher": "mean_teacher"}
ALIASES |= {"FixMatch": "fixmatch", "MixMatch": "mixmatch", "ReMixMatch": "remixmatch", "USADTM": "usadtm"}
ALIASES |= {"ACR": "acr", "SGD": "sgd", "Adam": "adam"}
ALIASES |= {"WRN": "wide_resnet", "ResNet": "resnet50", "ResNet50_cifar": "cifar_resnet50"}
ALIASES |= {"RandomSampler": "random", "ClassAwareSampler": "class_aware"}
ALIASES |= {"aves": "semi_aves", "imagenet": "small_imagenet127"}
CHOICES = {
    "DATASET.NAME": ("cifar10", "cifar100", "stl10", *NODES, "fashion_mnist", "tiny"),
    "DATASET.SAMPLER_NAME": ("random", "class_aware"),
    "DATASET.PROTOCOL": ("seval", "usb", "acr"),
    "DATASET.AVES.UL_SOURCE": ("in", "all"),
    "DATASET.IMAGENET.LABELED": ("batch_1", "random"),
    "DATASET.IMAGENET.TEST": ("imbalanced", "balanced"),
    "MODEL.NAME": ("wide_resnet", "resnet50", "cifar_resnet50"),
    "DATASET.HELD_OUT": ("none", "labeled", "valid"),
    "SOLVER.OPTIM_NAME": ("sgd", "adam"),
    "SOLVER.SCHEDULE": ("constant", "cosine", "multi_step"),
    "SOLVER.PRECISION": ("float32", "bfloat16"),
}


class Check(NamedTuple):
    """What a value must be, as a predicate and in words that complete "must be ..."."""

    holds: Callable[[Any], bool]
    words: str


def _one_of(choices: tuple[str, ...]) -> Check:
    return Check(lambda value: value in choices, f"one of {', '.join(choices)}")


_POSITIVE, _NOT_NEGATIVE = Check(lambda value: value > 0, "positive"), Check(lambda value: value >= 0, "at least 0")
_RATIO = Check(lambda value: value >= 1, "at least 1: an imbalance ratio is head over tail")
_REVERSIBLE = _RATIO._replace(words=f"{_RATIO.words}; a reversed unlabeled set is DATASET.REVERSE_UL_DISTRIBUTION True")
_TAILS = ("CIFAR10", "CIFAR100", "FASHION_MNIST", "TINY")
#: By key; what concerns several keys at once is checked in seval/config.py.
CHECKS = {
    **{key: _one_of(choices) for key, choices in CHOICES.items()},
    **{f"DATASET.{name}.IMB_FACTOR_L": _RATIO for name in (*_TAILS, "STL10")},
    **{f"DATASET.{name}.IMB_FACTOR_UL": _REVERSIBLE for name in _TAILS},
    **{f"DATASET.{key}": _NOT_NEGATIVE for key in ("NUM_VALID", "NUM_TEST", "HELD_OUT_PER_CLASS")},
    **{f"DATASET.{key}": _NOT_NEGATIVE for key in ("PADDING", "CROP", "CUTOUT", "RESOLUTION")},
    **{f"SOLVER.{key}": _POSITIVE for key in ("MAX_ITER", "IMS_PER_BATCH", "UNLABELED_BATCH_RATIO", "EVAL_BATCH")},
    **{f"SOLVER.{key}": _NOT_NEGATIVE for key in ("MOMENTUM", "WEIGHT_DECAY", "WARMUP_ITERS")},
    **{f"PERIODS.{key}": _POSITIVE for key in ("EVAL", "CHECKPOINT", "QUALITY")},
    **{f"RUNTIME.{key}": _NOT_NEGATIVE for key in ("THREADS", "WORKERS")},
    "SEED": Check(lambda value: 0 <= value < 2**32, "between 0 and 2**32 - 1: the run must be repeatable"),
    "DATASET.DECODED_SIZE": _POSITIVE,
    "DATASET.HELD_OUT_PORTION": Check(lambda value: 0 < value < 1, "between 0 and 1: every class must keep labels"),
    "MODEL.DEPTH": Check(
        lambda value: value >= 10 and (value - 4) % 6 == 0, "10, 16, 22, 28, ...: a wide ResNet has 6n + 4 layers"
    ),
    "MODEL.WIDTH": _POSITIVE,
    "MODEL.EMA_DECAY": Check(lambda value: 0 <= value < 1, "at least 0 and less than 1"),
    "ALGORITHM.UNLABELED_WEIGHT": _NOT_NEGATIVE,
    "SOLVER.BASE_LR": _POSITIVE,
    "SOLVER.STEPS": Check(lambda value: all(type(step) is int for step in value), "a list of whole numbers"),
    "OUTPUT_DIR": Check(bool, "the folder of the runs"),
}


def node_of(name: str) -> str:
    """The key in DATASET of a data set's own node."""
    return NODES.get(name, name.upper())


def own_node(cfg: Node) -> Node:
    """The configured data set's own node in DATASET."""
    return cfg.DATASET[node_of(cfg.DATASET.NAME)]
