"""The training loop, the same for all algorithms."""

import json
import math
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from seval import record
from seval.build import Training
from seval.curves import Curves
from seval.defaults import Node
from seval.errors import Interrupted, TrainingError
from seval.evaluate import KEPT, due, evaluate

Hook = Callable[[], object]  # called between steps


def never() -> bool:
    """The default for `stop` and `check`: nothing asks the training to stop."""
    return False


def rate(step: int, solver: Node) -> float:
    """The learning rate of step `step`, counted from 0."""
    value = solver.BASE_LR * min(1.0, step / solver.WARMUP_ITERS if solver.WARMUP_ITERS else 1.0)
    if solver.SCHEDULE == "cosine":
        value *= math.cos(7 * math.pi * step / (16 * solver.MAX_ITER))
    if solver.SCHEDULE == "half_cosine":
        value *= (1 + math.cos(math.pi * step / solver.MAX_ITER)) / 2
    if solver.SCHEDULE == "multi_step":
        value *= solver.GAMMA ** sum(milestone <= step for milestone in solver.STEPS)
    return value


def train(
    training: Training, folder: Path, meta: dict[str, str], check: Hook = never, stop: Hook = never
) -> list[dict]:
    """Do the remaining steps and return all evaluations. A checkpoint is resumed only if its `meta` is the same.

    `check` is called before each write and raises if this process may no longer write. When `stop()` returns true,
    saves a checkpoint and raises `Interrupted`. Raises `TrainingError` if a loss is not finite; saves nothing then.
    """
    cfg, periods, last = training.cfg, training.cfg.PERIODS, training.cfg.SOLVER.MAX_ITER
    checkpoint = folder / "checkpoint.pt"
    start, history, state = resume(training, checkpoint, meta)
    totals = {name: total.to(training.mean.device) for name, total in state.get("totals", {}).items()}
    saved, clock = start, time.monotonic() - state.get("spent", 0.0)

    def save(step: int) -> None:
        done = {"step": step, "history": json.dumps(history), "totals": totals, "spent": time.monotonic() - clock}
        record.save_checkpoint(checkpoint, training.state_dict() | {"meta": meta} | done, check)

    with (
        record.Metrics(folder / "metrics.jsonl", history, check) as metrics,
        _progress_bar(folder.name, start, cfg) as bar,
        Curves(folder, start, cfg.RUNTIME.TENSORBOARD) as curves,
    ):
        for step in range(start, last):
            if stop():
                if step > saved and all(total.isfinite() for total in totals.values()):
                    save(step)
                raise Interrupted(step, start, last)
            for name, loss in update(training, step).items():
                totals[name] = totals.get(name, 0.0) + loss
            bar.update()
            if (step + 1) % periods.EVAL == 0:
                losses = _mean_losses(totals, step + 1, periods.EVAL)
                line = {"lr": rate(step, cfg.SOLVER), "loss": losses, **evaluate(training, step + 1)}
                line["seconds"] = round(time.monotonic() - clock, 3)
                metrics.append(line)
                history.append(line)
                bar.set_postfix(loss=f"{sum(losses.values()):.3f}", top1=f"{line['test']['ema']['none']['top1']:.1%}")
                curves.draw(line)
                totals, clock = {}, time.monotonic()
                if due(step + 1, periods.CHECKPOINT, cfg):
                    save(saved := step + 1)
        metrics.complete()
    return history


def update(training: Training, step: int) -> dict[str, Tensor]:
    """One step of the optimizer and one update of the averaged network. Returns the losses, detached."""
    cfg, progress = training.cfg, step / training.cfg.SOLVER.MAX_ITER
    batch = next(training.loader)
    losses = training.algorithm.losses(training.net, training.ema.network, batch, training.heads, progress)
    for group in training.optimizer.param_groups:
        group["lr"] = rate(step, cfg.SOLVER)
    training.optimizer.zero_grad()
    reduce(torch.add, losses.values()).backward()
    training.optimizer.step()
    training.ema.update(step)
    return {name: loss.detach() for name, loss in losses.items()}


def _progress_bar(name: str, start: int, cfg: Node) -> tqdm:
    return tqdm(
        total=cfg.SOLVER.MAX_ITER,
        initial=start,
        disable=not cfg.RUNTIME.PROGRESS,
        unit="step",
        dynamic_ncols=True,
        desc=name,
        mininterval=1.0,
    )


def _mean_losses(totals: dict[str, Tensor], step: int, period: int) -> dict[str, float]:
    losses = {name: float(total) / period for name, total in totals.items()}
    if not all(map(math.isfinite, losses.values())):
        problem = f"the loss became {sum(losses.values())} between steps {step - period} and {step}"
        raise TrainingError(f"{problem} ({losses}); {KEPT}")
    return losses


def resume(training: Training, checkpoint: Path, meta: dict[str, str]) -> tuple[int, list[dict], dict]:
    """Load the checkpoint if there is one. Returns (first step, evaluations so far, state)."""
    try:
        state = record.restore(checkpoint, meta, training.load_state_dict)
    except FileNotFoundError:
        return 0, [], {}
    return state["step"], json.loads(state["history"]), state
