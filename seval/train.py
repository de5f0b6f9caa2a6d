"""The training loop, the same for all algorithms."""

import json
import math
import time
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from seval import record
from seval.build import Training
from seval.config import delta
from seval.curves import Curves
from seval.defaults import Node
from seval.errors import Interrupted, OtherCode, TrainingError
from seval.evaluate import KEPT, due, evaluate
from seval.progress import Progress

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
    training: Training, folder: Path, meta: dict[str, str], check: Hook = never, stop: Hook = never, name: str = ""
) -> list[dict]:
    """Do the remaining steps and return all evaluations. A checkpoint is resumed only if its `meta` is the same;
    if it is of other code, only if RUNTIME.OTHER_CODE allows it. The run is called `name` where its progress is shown.

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
        Progress(name or folder.name, _begun(training, folder, start), start, last, cfg.RUNTIME.PROGRESS) as progress,
        Curves(folder, start, cfg.RUNTIME.TENSORBOARD, name, delta(cfg)) as curves,
    ):
        for step in range(start, last):
            if stop():
                if step > saved and all(total.isfinite() for total in totals.values()):
                    save(step)
                raise Interrupted(step, start, last)
            for name, loss in update(training, step).items():
                totals[name] = totals.get(name, 0.0) + loss
            progress.update()
            if (step + 1) % periods.EVAL == 0:
                losses = _mean_losses(totals, step + 1, periods.EVAL)
                line = {"lr": rate(step, cfg.SOLVER), "loss": losses, **evaluate(training, step + 1)}
                line["seconds"] = round(time.monotonic() - clock, 3)
                metrics.append(line)
                history.append(line)
                progress.evaluated(line)
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


def _begun(training: Training, folder: Path, start: int) -> str:
    """`run 0123456789 in runs/0123456789: resumes at step 135 of 1200, cpu, 2 threads`."""
    last, device, threads = training.cfg.SOLVER.MAX_ITER, training.mean.device, torch.get_num_threads()
    none = " (no GPU was found)" if training.cfg.GPU_ID >= 0 else ""
    where = f"cpu{none}, {threads} thread{'s' * (threads > 1)}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else where
    how = f"resumes at step {start} of {last}" if start else f"new, {last} steps"
    return f"run {folder.name} in {folder}: {how}, {where}"


def _mean_losses(totals: dict[str, Tensor], step: int, period: int) -> dict[str, float]:
    losses = {name: float(total) / period for name, total in totals.items()}
    if not all(map(math.isfinite, losses.values())):
        problem = f"the loss became {sum(losses.values())} between steps {step - period} and {step}"
        raise TrainingError(f"{problem} ({losses}); {KEPT}")
    return losses


def refuse_other_code(path: Path, made: dict, here: dict, cfg: Node) -> None:
    """Raise `OtherCode` if the `code` of `made` is another than that of `here`, unless RUNTIME.OTHER_CODE allows it."""
    if made.get("code") not in (None, here.get("code")) and cfg.RUNTIME.OTHER_CODE == "refuse":
        raise OtherCode(
            f"{path} was made by other code than what is here; --resume (RUNTIME.OTHER_CODE resume) resumes from it, "
            "--again (Run.set_aside) starts the run anew"
        )


def resume(training: Training, checkpoint: Path, meta: dict[str, str]) -> tuple[int, list[dict], dict]:
    """Load the checkpoint if there is one. Returns (first step, evaluations so far, state)."""
    expected = {key: value for key, value in meta.items() if key != "code"}
    try:
        state = record.restore(checkpoint, expected, training.load_state_dict)
    except FileNotFoundError:
        return 0, [], {}
    refuse_other_code(checkpoint, state["meta"], meta, training.cfg)
    return state["step"], json.loads(state["history"]), state
