"""All that the steps of a run read and change, and how a configuration becomes it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seval.algorithms import ALGORITHMS, Head
from seval.config import Node
from seval.data.loader import Images, Loader, generator
from seval.data.long_tail import Splits
from seval.data.prepare import ImageSet
from seval.losses import build_labeled_loss
from seval.models import network
from seval.models.ema import Ema
from seval.policy.base import Facts, Policy


class Training(NamedTuple):
    """All that a run's steps read and change."""

    cfg: Node
    data: dict[str, Images]  # labeled, unlabeled, held_out, valid, test
    class_counts: Tensor  # (C,) labeled
    mean: Tensor
    std: Tensor
    net: network.Network
    ema: Ema
    optimizer: torch.optim.Optimizer
    algorithm: object
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
        }

    def load_state_dict(self, state: dict) -> None:
        self.net.load_state_dict(state["net"])
        self.ema.network.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        for head in self.heads:
            head.policy.load_state_dict(state["policies"][head.name])
        torch.set_rng_state(state["rng"].cpu())
        if state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.mean.device)


def build(cfg: Node, image_set: ImageSet, splits: Splits, artifacts: dict, device: torch.device) -> Training:
    """Everything of a run, before its first step. Weights are drawn from the stream "weights" of the seed."""
    data = place(cfg, image_set, splits, device)
    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (image_set.mean, image_set.std))
    counts = torch.bincount(data["labeled"].labels, minlength=image_set.num_classes).float()
    names = [name.lower() for name, head in cfg.HEADS.items() if head.LABELED_LOSS]
    torch.manual_seed(generator(cfg.SEED, "weights").initial_seed())
    net = network.build(cfg, names, image_set.num_classes, image_set.train.images.shape[1])
    net = net.to(device, memory_format=torch.channels_last)
    heads = []
    for name in names:
        facts = Facts(
            image_set.num_classes,
            counts,
            len(splits.unlabeled),
            len(splits.held_out),
            net.backbone.feature_dim,
            artifacts.get(name, {}),
        )
        node = cfg.HEADS[name.upper()]
        policy = Policy.parse(node.POLICY, facts).to(device)
        heads.append(Head(name, build_labeled_loss(node.LABELED_LOSS, counts), policy))
    algorithm = ALGORITHMS[cfg.ALGORITHM.NAME](cfg.ALGORITHM.UNLABELED_WEIGHT)
    loader = Loader(
        data["labeled"],
        data["unlabeled"],
        algorithm.views,
        cfg.SOLVER.IMS_PER_BATCH,
        cfg.SOLVER.UNLABELED_BATCH_RATIO,
        mean,
        std,
        cfg.SEED,
        cfg.DATASET.PADDING,
        cfg.DATASET.CUTOUT,
    )
    return Training(
        cfg,
        data,
        counts,
        mean,
        std,
        net,
        Ema(net, cfg.MODEL.EMA_DECAY),
        build_optimizer(cfg, net),
        algorithm,
        heads,
        loader,
    )


def place(cfg: Node, image_set: ImageSet, splits: Splits, device: torch.device) -> dict[str, Images]:
    """Every split's images and labels, on the device."""
    images, labels = map(torch.from_numpy, image_set.train[:2])
    data = {
        name: Images(images[index].to(device), labels[index].to(device))
        for name, index in ((name, torch.from_numpy(index)) for name, index in splits._asdict().items())
    }
    test_images, test = map(torch.from_numpy, image_set.test[:2])
    if cfg.DATASET.NUM_TEST:  # the first so many of each class
        of_class = [torch.nonzero(test == c).flatten()[: cfg.DATASET.NUM_TEST] for c in range(image_set.num_classes)]
        chosen = torch.cat(of_class)
    else:
        chosen = torch.arange(len(test))
    return data | {"test": Images(test_images[chosen].to(device), test[chosen].to(device))}


def build_optimizer(cfg: Node, net: torch.nn.Module) -> torch.optim.Optimizer:
    """One group: weight decay also acts on BatchNorm and biases, as published."""
    solver = cfg.SOLVER
    if solver.OPTIM_NAME == "adam":
        return torch.optim.Adam(net.parameters(), solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
    return torch.optim.SGD(
        net.parameters(),
        solver.BASE_LR,
        momentum=solver.MOMENTUM,
        weight_decay=solver.WEIGHT_DECAY,
        nesterov=solver.MOMENTUM > 0,
    )
