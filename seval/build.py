"""Builds a run from its configuration: data, network, optimizer, algorithm, heads and loader."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from seval.algorithms import ALGORITHMS
from seval.algorithms.base import Algorithm, Head
from seval.checks import check_penalties
from seval.data.augment import Geometry
from seval.data.blocks import Blocks
from seval.data.decode import Decoder
from seval.data.image_set import ImageSet, Part
from seval.data.loader import HeldImages, Images, LazyImages, Loader, generator
from seval.data.splits import Splits
from seval.defaults import Node, node_of
from seval.errors import ConfigError
from seval.losses import LABELED_LOSSES
from seval.models.captured import Captured
from seval.models.ema import Ema
from seval.models.network import Network
from seval.models.resnet import cifar_resnet50, resnet50
from seval.models.wide_resnet import WideResNet
from seval.policy.base import Facts
from seval.policy.language import build_policy


class Training(NamedTuple):
    """Everything that the training steps of a run read and change."""

    cfg: Node
    data: dict[str, Images]  # labeled, unlabeled, held_out, valid, test; evaluation views
    class_counts: Tensor  # (C,) labeled images of each class
    mean: Tensor
    std: Tensor
    net: Network
    ema: Ema[Network]
    optimizer: torch.optim.Optimizer
    algorithm: Algorithm
    heads: list[Head]
    loader: Loader

    def state_dict(self) -> dict:
        cuda = self.mean.device.type == "cuda"
        return {
            "net": self.net.state_dict(),
            "ema": self.ema.network.state_dict(),
            "loader": self.loader.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.mean.device) if cuda else None,
            "policies": {head.name: head.policy.state_dict() for head in self.heads},
            "algorithm": self.algorithm.state_dict(),
        }

    def load_networks(self, state: dict) -> None:
        """Load what predictions need. Unlike the rest of the state, this may come from another device."""
        self.net.load_state_dict(state["net"])
        self.ema.network.load_state_dict(state["ema"])
        self.algorithm.load_state_dict(state["algorithm"])
        for head in self.heads:
            head.policy.load_state_dict(state["policies"][head.name])

    def load_state_dict(self, state: dict) -> None:
        self.load_networks(state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.mean.device)


def build(
    cfg: Node, image_set: ImageSet, splits: Splits, artifacts: dict, device: torch.device, start: dict | None = None
) -> Training:
    """Everything that a run needs, before its first step.

    Weights are drawn from the seed's stream "weights"; algorithms and rules draw from its stream "training".
    `artifacts` are the arrays that each head of the prerequisite saved. `start` is the state of the prerequisite's
    averaged network, from which a frozen backbone is taken.
    """
    geometry = Geometry.of(cfg.DATASET)
    stored = place(cfg, image_set, splits, device)
    data = {name: images.evaluated(geometry, cfg.SOLVER.EVAL_BATCH) for name, images in stored.items()}
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (image_set.mean, image_set.std))
    counts = torch.bincount(data["labeled"].labels, minlength=image_set.num_classes).float()
    recipe = ALGORITHMS.read(cfg.ALGORITHM.NAME)
    torch.manual_seed(generator(cfg.SEED, "weights").initial_seed())
    net = build_network(cfg, image_set.num_classes, len(image_set.mean))
    if start is not None:
        known = {key.removeprefix("backbone."): value for key, value in start.items() if key.startswith("backbone.")}
        net.backbone.load_state_dict(known)
    net = convert_conv2d_weight_memory_format(net.to(device), torch.channels_last).train()
    torch.manual_seed(generator(cfg.SEED, "training").initial_seed())
    facts = Facts(
        image_set.num_classes,
        counts,
        num_unlabeled=len(splits.unlabeled),
        num_held_out=len(splits.held_out),
        feature_dim=net.feature_dim,
        num_evaluations=cfg.SOLVER.MAX_ITER // cfg.PERIODS.EVAL,
    )
    labeled = with_selected(stored["labeled"], stored["unlabeled"], artifacts.get(list(net.classifiers)[-1], {}))
    drawn, heads = torch.bincount(labeled.labels, minlength=image_set.num_classes).float(), []
    for name in net.classifiers:
        node, own = cfg.HEADS[name.upper()], facts._replace(artifacts=artifacts.get(name, {}), head=name)
        loss, policy = LABELED_LOSSES.build(node.LABELED_LOSS, drawn), build_policy(node.POLICY, own).to(device)
        heads.append(Head(name, loss, policy, labeled_weight(cfg, len(labeled.labels), len(splits.unlabeled))))
    check_penalties(recipe.name, [head.policy for head in heads])
    algorithm = ALGORITHMS.build(recipe, facts, cfg.ALGORITHM.UNLABELED_WEIGHT).to(device)
    loader = build_loader(cfg, geometry, stored | {"labeled": labeled}, algorithm, mean, std)
    ema, optimizer = Ema(net, cfg.MODEL.EMA_DECAY), build_optimizer(cfg, net)
    if cfg.RUNTIME.CAPTURE == "auto" and device.type == "cuda":
        net.captured = Captured(net.backbone, net.half_precision)
    return Training(cfg, data, counts, mean, std, net, ema, optimizer, algorithm, heads, loader)


def build_loader(
    cfg: Node, geometry: Geometry, images: Mapping[str, Images], algorithm: Algorithm, mean: Tensor, std: Tensor
) -> Loader:
    """The loader of training batches, as configured."""
    return Loader(
        labeled=images["labeled"],
        unlabeled=images["unlabeled"],
        labeled_views=algorithm.labeled_views,
        views=algorithm.views,
        batch=cfg.SOLVER.IMS_PER_BATCH,
        ratio=cfg.SOLVER.UNLABELED_BATCH_RATIO,
        geometry=replace(geometry, resized_first=algorithm.resized_first),
        mean=mean,
        std=std,
        seed=cfg.SEED,
        sampler=cfg.DATASET.SAMPLER_NAME,
        beta=cfg.DATASET.SAMPLER_BETA,
        balanced=algorithm.balanced,
    )


def labeled_weight(cfg: Node, labeled: int, unlabeled: int) -> float:
    """ALGORITHM.LABELED_WEIGHT; where it is 0, the passes over the unlabeled images in one over the labeled images.

    As in SimPro's code, the last, incomplete batch of a pass does not count.
    """
    batch, ratio = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.UNLABELED_BATCH_RATIO
    alike = max(labeled // batch, 1) / max(unlabeled // (ratio * batch), 1)
    return cfg.ALGORITHM.LABELED_WEIGHT or alike


def with_selected(labeled: Images, unlabeled: Images, artifacts: dict[str, np.ndarray]) -> Images:
    """The labeled images, followed by the unlabeled images and pseudo-labels that the prerequisite selected."""
    if "selected" not in artifacts:
        return labeled
    selected, labels = (torch.from_numpy(artifacts[key]) for key in ("selected", "selected_labels"))
    return labeled.followed_by(unlabeled, selected, labels.to(labeled.labels.device))


def place(cfg: Node, image_set: ImageSet, splits: Splits, device: torch.device) -> dict[str, Images]:
    """Stored images and labels of every split, on the device. Encoded images are streamed to it instead."""
    check_sizes(cfg, image_set)
    check_unlabeled(cfg, splits)
    decoder = Decoder(size=cfg.DATASET.DECODED_SIZE, workers=cfg.RUNTIME.WORKERS)

    def images(part: Part, index: np.ndarray) -> Images:
        labels = torch.from_numpy(part.labels[index]).to(device)
        if isinstance(part.images, np.ndarray):
            return HeldImages(labels, torch.from_numpy(part.images[index]).to(device))
        assert not isinstance(part.images, Blocks)  # a set that is read for training has none
        return LazyImages(labels=labels, source=part.images, index=index, decoder=decoder)

    parts = {"unlabeled": image_set.unlabeled or image_set.train}
    data = {name: images(parts.get(name, image_set.train), index) for name, index in splits._asdict().items()}
    return data | {"test": images(image_set.test, chosen_test(cfg, image_set.test.labels))}


def check_sizes(cfg: Node, image_set: ImageSet) -> None:
    """Raise `ConfigError` where the configured views cannot be made of the images of this set."""
    images, decoded = image_set.train.images, cfg.DATASET.DECODED_SIZE
    height, width = images.shape[2:] if isinstance(images, np.ndarray) else (decoded, decoded)
    algorithm = ALGORITHMS.known[ALGORITHMS.read(cfg.ALGORITHM.NAME).name]
    geometry = replace(Geometry.of(cfg.DATASET), resized_first=algorithm.resized_first)
    geometry.require_room((height, width), square=algorithm.rotates)


def check_unlabeled(cfg: Node, splits: Splits) -> None:
    """Raise `ConfigError` where the algorithm trains on unlabeled images and there are none."""
    name = ALGORITHMS.read(cfg.ALGORITHM.NAME).name
    if ALGORITHMS.known[name].views and not len(splits.unlabeled):
        node = f"DATASET.{node_of(cfg.DATASET.NAME)}"
        raise ConfigError(
            f"{name} trains on unlabeled images, but {cfg.DATASET.NAME} gives none; train a supervised method, or set "
            f"{node}.NUM_LABELED_HEAD and {node}.NUM_UNLABELED_HEAD to draw both from its labeled images"
        )


def chosen_test(cfg: Node, labels: np.ndarray) -> np.ndarray:
    """Indices of the test images used: all, or the first N of each class, for which every class must have N."""
    counts = np.bincount(labels)
    if cfg.DATASET.NUM_TEST > counts.min():
        raise ConfigError(
            f"DATASET.NUM_TEST is {cfg.DATASET.NUM_TEST}, but class {counts.argmin()} has {counts.min()} test images; "
            "set it to at most that, or to 0 for all test images"
        )
    most = cfg.DATASET.NUM_TEST or counts.max()
    if node_of(cfg.DATASET.NAME) == "IMAGENET" and cfg.DATASET.IMAGENET.TEST == "balanced":
        most = min(most, counts.min())
    if (counts <= most).all():
        return np.arange(len(labels))
    return np.concatenate([np.flatnonzero(labels == c)[:most] for c in range(len(counts))])


def build_optimizer(cfg: Node, net: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer. Weight decay also acts on BatchNorm and biases, as published, unless SOLVER.DECAY_NORMS is False.

    PyTorch's default updates all parameters together on a GPU, in about ten kernels (foreach), and one by one on a CPU.
    """
    solver, named = cfg.SOLVER, {name: p for name, p in net.named_parameters() if p.requires_grad}
    plain = [p for name, p in named.items() if p.ndim < 2 or name.endswith((".scale", ".shift"))]
    parameters: list = list(named.values())
    if not solver.DECAY_NORMS:
        decayed = [p for p in parameters if all(p is not other for other in plain)]
        parameters = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    both = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
    if solver.OPTIM_NAME == "sgd":
        return torch.optim.SGD(parameters, momentum=solver.MOMENTUM, nesterov=solver.MOMENTUM > 0, **both)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[solver.OPTIM_NAME](parameters, **both)


def build_network(cfg: Node, num_classes: int, in_channels: int) -> Network:
    """The configured network. Its weights are drawn from PyTorch's global generator.

    Raises `ConfigError` if pretrained weights are configured but cannot be loaded.
    """
    heads = {name.lower(): head.CLASSIFIER for name, head in cfg.HEADS.items() if head.LABELED_LOSS}
    return Network(
        _backbone(cfg.MODEL, in_channels),
        heads,
        num_classes,
        ALGORITHMS.known[ALGORITHMS.read(cfg.ALGORITHM.NAME).name].extra_modules,
        frozen=cfg.MODEL.FROZEN,
        half=cfg.SOLVER.PRECISION == "bfloat16",
    )


def _backbone(model: Node, in_channels: int) -> nn.Module:
    if model.NAME == "resnet50":
        return resnet50(in_channels, model.PRETRAINED, model.WEIGHTS)
    if model.NAME == "cifar_resnet50":
        return cifar_resnet50(in_channels)
    return WideResNet(model.DEPTH, model.WIDTH, 0, in_channels)


def device(gpu_id: int) -> torch.device:
    """The CUDA device with this number; the CPU for -1, or if there is no GPU."""
    if gpu_id >= 0 and torch.cuda.is_available():
        if gpu_id >= torch.cuda.device_count():
            raise ConfigError(f"GPU_ID is {gpu_id}, but there are {torch.cuda.device_count()} GPUs, numbered from 0")
        return torch.device("cuda", gpu_id)
    return torch.device("cpu")
