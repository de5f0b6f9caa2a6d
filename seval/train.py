"""The only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from seval import evaluate, metrics, record
from seval.algorithms import Head
from seval.build import Training
from seval.defaults import Node
from seval.errors import Interrupted, TrainingError
from seval.policy.base import HeldOut, PseudoLabels

_KEPT = "the last checkpoint, if there is one, is kept: lower SOLVER.BASE_LR or look at the data"


def never() -> bool:
    """The training is not asked to stop."""
    return False


def rate(step: int, solver: Node) -> float:
    """The learning rate of step `step` (from 0)."""
    value = solver.BASE_LR * min(1.0, step / solver.WARMUP_ITERS if solver.WARMUP_ITERS else 1.0)
    if solver.SCHEDULE == "cosine":
        value *= math.cos(7 * math.pi * step / (16 * solver.MAX_ITER))
    if solver.SCHEDULE == "multi_step":
        value *= solver.GAMMA ** sum(milestone <= step for milestone in solver.STEPS)
    return value


def train(
    training: Training,
    folder: Path,
    meta: dict[str, str],
    check: Callable[[], object] = never,
    stop: Callable[[], bool] = never,
) -> list[dict]:
    """Run the steps that are left and return every evaluation. `meta` must equal that of a checkpoint to resume from.

    `check` is called before each write, and raises where this process must not write any more. Raises `Interrupted`,
    leaving a checkpoint, once `stop()` is true; `TrainingError` where a loss is not finite, leaving the last one.
    """
    cfg, periods, last = training.cfg, training.cfg.PERIODS, training.cfg.SOLVER.MAX_ITER
    checkpoint, lines = folder / "checkpoint.pt", folder / "metrics.jsonl"
    start, history, state = resume(training, checkpoint, lines, meta)
    totals = {name: total.to(training.mean.device) for name, total in state.get("totals", {}).items()}
    saved, clock = start, time.monotonic() - state.get("spent", 0.0)

    def save(step: int) -> None:
        check()
        done = {"step": step, "evaluations": len(history), "totals": totals, "spent": time.monotonic() - clock}
        record.save_checkpoint(checkpoint, training.state_dict() | {"meta": meta} | done)

    bar = tqdm(
        total=last,
        initial=start,
        disable=not cfg.RUNTIME.PROGRESS,
        unit="step",
        dynamic_ncols=True,
        desc=folder.name,
        mininterval=1.0,
    )
    board = _board(folder, start) if cfg.RUNTIME.TENSORBOARD else None
    with bar:
        for step in range(start, last):
            if stop():
                if step > saved and all(total.isfinite() for total in totals.values()):
                    save(step)
                raise Interrupted(step, start, last)
            for name, loss in update(training, step).items():
                totals[name] = totals.get(name, 0.0) + loss
            bar.update()
            if (step + 1) % periods.EVAL == 0:
                losses = {name: float(total) / periods.EVAL for name, total in totals.items()}
                line = evaluated(training, step + 1, losses) | {"seconds": round(time.monotonic() - clock, 3)}
                check()
                record.append_line(lines, line)
                history.append(line)
                bar.set_postfix(loss=f"{sum(losses.values()):.3f}", top1=f"{line['test']['ema']['none']['top1']:.1%}")
                if board:
                    _draw(board, line)
                totals, clock = {}, time.monotonic()
                if _crosses(step + 1, periods.CHECKPOINT, cfg):
                    save(saved := step + 1)
    if board:
        board.close()
    return history


def update(training: Training, step: int) -> dict[str, Tensor]:
    """One step of the optimizer and of the average; the losses it saw."""
    cfg, progress = training.cfg, step / training.cfg.SOLVER.MAX_ITER
    batch = next(training.loader)
    losses = training.algorithm.losses(training.net, training.ema.network, batch, training.heads, progress)
    for group in training.optimizer.param_groups:
        group["lr"] = rate(step, cfg.SOLVER)
    training.optimizer.zero_grad()
    sum(losses.values()).backward()
    training.optimizer.step()
    training.ema.update(step)
    return {name: loss.detach() for name, loss in losses.items()}


def resume(training: Training, checkpoint: Path, lines: Path, meta: dict[str, str]) -> tuple[int, list[dict], dict]:
    """(first step, evaluations so far, state), having loaded the checkpoint if there is one."""
    if not checkpoint.exists():
        return 0, record.keep_lines(lines, 0), {}
    state = record.load_checkpoint(checkpoint)
    record.agree(checkpoint, state["meta"], meta)
    record.restore(checkpoint, state, training.load_state_dict)
    return state["step"], record.keep_lines(lines, state["evaluations"]), state


def evaluated(training: Training, step: int, losses: dict[str, float], refresh: bool = True) -> dict:
    """One line of metrics.jsonl: refresh the policies on held-out predictions, then measure both networks."""
    cfg = training.cfg
    if not all(map(math.isfinite, losses.values())):
        raise TrainingError(
            f"loss became {sum(losses.values())} between steps {step - cfg.PERIODS.EVAL} and {step} ({losses}); {_KEPT}"
        )
    networks = {"ema": training.ema.network, "raw": training.net}

    @cache
    def logits(name: str, head: str, split: str) -> Tensor:
        return evaluate.predict(
            networks[name], head, training.data[split].images, training.mean, training.std, cfg.SOLVER.EVAL_BATCH
        )

    for name, head in ((name, head.name) for name in networks for head in training.heads):
        if not logits(name, head, "test").isfinite().all():
            raise TrainingError(f"the {name} network predicts what is not finite after {step} steps; {_KEPT}")
    progress, last, counts = step / cfg.SOLVER.MAX_ITER, training.heads[-1], training.class_counts
    line: dict = {"step": step, "progress": progress, "lr": rate(step - 1, cfg.SOLVER), "loss": losses}
    line["policy"] = {head.name: _refresh(training, head, logits, progress) for head in training.heads if refresh}
    line["algorithm"] = training.algorithm.refresh() if refresh else {}
    offsets = {
        "none": torch.zeros_like(counts),
        "logit_adjusted": torch.log(counts / counts.sum()),
        **last.policy.offsets(),
    }
    for split in ("valid", "test"):
        labels = training.data[split].labels
        if len(labels):
            line[split] = {
                name: evaluate.measure(logits(name, last.name, split), labels, offsets, counts) for name in networks
            }
    if training.algorithm.views and _crosses(step, cfg.PERIODS.QUALITY, cfg):
        line["quality"] = _quality(training, last, logits("ema", last.name, "unlabeled"))
    return line


def _crosses(step: int, period: int, cfg: Node) -> bool:
    """Whether the evaluation after `step` steps is the last one, or the first at or after a multiple of `period`."""
    return step == cfg.SOLVER.MAX_ITER or step // period > (step - cfg.PERIODS.EVAL) // period


def _refresh(
    training: Training, head: Head, logits: Callable[[str, str, str], Tensor], progress: float
) -> dict[str, float]:
    held_out = None
    if len(training.data["held_out"].labels):
        probs = logits("ema", head.name, "held_out").double().softmax(1)
        held_out = HeldOut(probs, training.data["held_out"].labels)
    return head.policy.refresh(held_out, lambda: logits("ema", head.name, "unlabeled").softmax(1), progress)


def _quality(training: Training, head: Head, logits: Tensor) -> dict[str, object]:
    head.policy.eval()
    plain = logits.softmax(1)
    pseudo = head.policy(PseudoLabels.of(plain), None)
    head.policy.train()
    return metrics.pseudo_label_quality(
        plain, pseudo.probs, pseudo.weight > 0, training.data["unlabeled"].labels, training.class_counts
    )


def _board(folder: Path, start: int):
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder / "tensorboard", purge_step=start or None)


def _draw(board, line: dict) -> None:
    scalars = {f"loss/{name}": value for name, value in line["loss"].items()} | {"lr": line["lr"]}
    for split in ("test", "valid"):
        for name, offsets in line.get(split, {}).items():
            scalars |= {f"{split}/{name}/{offset}/top1": values["top1"] for offset, values in offsets.items()}
    for head, values in line["policy"].items():
        scalars |= {f"policy/{head}/{key}": value for key, value in values.items()}
    for key, value in line.get("quality", {}).items():
        if isinstance(value, float):
            scalars[f"pseudo_labels/{key}"] = value
    for name, value in scalars.items():
        board.add_scalar(name, value, line["step"])
    board.flush()
