"""How a few steps of training are run on given batches: the only place here that builds heads and algorithms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from seval.algorithms import ALGORITHMS
from seval.algorithms.base import Head
from seval.data.loader import Batch
from seval.losses import LABELED_LOSSES
from seval.models.ema import Ema
from seval.policy.base import Facts, HeldOut, Policy, PseudoLabels, Step
from seval.policy.language import build_policy

__all__ = ["Batch", "Facts", "HeldOut", "Pieces", "Policy", "PseudoLabels", "Solver", "Trained"]
__all__ += ["assemble", "stacked", "step_of", "train"]


class Pieces(NamedTuple):
    """An algorithm with its heads, and every pseudo-label that each head made, in order."""

    algorithm: nn.Module
    heads: list[Head]
    seen: dict[str, list[PseudoLabels]]


class Solver(NamedTuple):
    """Plain values of the optimizer; the rate is a function of the step."""

    rate: Callable[[int], float]
    ema_decay: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema_step: Callable[[int], int] = int  # the number by which the average knows a step


class Trained(NamedTuple):
    """What some steps of training left."""

    losses: np.ndarray  # (steps, k)
    seen: dict[str, list[PseudoLabels]]
    average: nn.Module


def assemble(
    algorithm: str, heads: dict[str, tuple[str, str]], facts: Facts, unlabeled_weight: float = 1.0, **given: float
) -> Pieces:
    """heads: name to (labeled loss, policy), as a configuration writes them."""
    seen: dict[str, list[PseudoLabels]] = {name: [] for name in heads}
    built = []
    for name, (loss, text) in heads.items():
        policy = build_policy(text, facts)
        policy.register_forward_hook(lambda module, inputs, output, kept=seen[name]: kept.append(output))
        built.append(Head(name, LABELED_LOSSES.build(loss, facts.class_counts), policy))
    recipe = ALGORITHMS.read(algorithm)
    return Pieces(ALGORITHMS.known[recipe.name](facts, unlabeled_weight, **recipe.arguments, **given), built, seen)


def train(
    net: nn.Module,
    pieces: Pieces,
    batches: Iterable[tuple[Batch, float]],
    names: list[str],
    solver: Solver,
    after: Callable[[int, nn.Module], object] = lambda step, average: None,
) -> Trained:
    """One optimizer step for each (batch, progress); `names` are the losses to return, a sum where written a+b."""
    ema = Ema(net, solver.ema_decay)
    optimizer = torch.optim.SGD(net.parameters(), 1.0, solver.momentum, weight_decay=solver.weight_decay, nesterov=True)
    rows = []
    for step, (batch, progress) in enumerate(batches):
        losses = pieces.algorithm.losses(net, ema.network, batch, pieces.heads, progress)
        values = {name: loss.item() for name, loss in losses.items()}
        rows.append([sum(values.get(part, 0.0) for part in name.split("+")) for name in names])
        assert losses.keys() <= {part for name in names for part in name.split("+")}, "a loss is not compared"
        optimizer.param_groups[0]["lr"] = solver.rate(step)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        ema.update(solver.ema_step(step))
        after(step, ema.network)
    return Trained(np.array(rows), pieces.seen, ema.network)


def stacked(seen: list[PseudoLabels], part: str) -> np.ndarray:
    """(steps, N) of the pseudo-labels: whether each has weight, or its class."""
    found: list[Tensor] = [pseudo.weight > 0 if part == "kept" else pseudo.probs.argmax(1) for pseudo in seen]
    return torch.stack(found).numpy()


def step_of(index: Tensor, progress: float = 0.5) -> Step:
    """A step of which rules that need no features may know everything."""
    nothing = torch.empty(0)
    return Step(index, nothing, lambda: nothing, nothing, progress)
