"""What only a GPU has: kernels and host waits of a step, capture, precision and determinism, and packed runs."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.timing import Step, wait

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 10  # that packed runs train


class Setting(NamedTuple):
    """Keys of a run, and switches of PyTorch that no key sets."""

    keys: tuple = ()
    tf32: bool = True
    deterministic: bool = True

    @contextmanager
    def flags(self) -> Iterator[None]:
        """Inside, cuDNN is as this setting has it."""
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=not self.deterministic, deterministic=self.deterministic, allow_tf32=self.tf32
        ):
            yield


SETTINGS = {
    "float32": Setting(),
    "float32, captured": Setting(("RUNTIME.CAPTURE", "auto")),
    "float32 without TF32": Setting(tf32=False),
    "not deterministic": Setting(deterministic=False),
    "bfloat16": Setting(("SOLVER.PRECISION", "bfloat16")),
}


def profiled(step: Step, steps: int, device: torch.device) -> dict[str, float]:
    """Of a step on a GPU: steps a second without waiting in between, kernels, and waits of the host."""
    wait(device)
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    speed = steps / (time.perf_counter() - begun)
    few = min(steps, 5)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(few):
            step()
    kernels = sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())
    return {"steps_per_second": speed, "kernels": kernels / few, "waits": len(waits(step, few)) / few}


def waits(step: Step, steps: int) -> list[str]:
    """Where the host waited for the GPU within that many steps, as PyTorch reports it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(steps):
                step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}" for each in caught if "synchroniz" in str(each.message)]


def packed(most: int, device: torch.device, seconds: float = SECONDS) -> dict[int, float]:
    """Steps a second of 1 to `most` processes that train at the same time, all of them together."""
    return {number: _together(number, device, seconds) for number in range(1, most + 1)}


def _together(number: int, device: torch.device, seconds: float) -> float:
    words = [sys.executable, "-m", "benchmarks.gpu", device.type, str(seconds)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    runs = [subprocess.Popen(words, **pipes) for _ in range(number)]
    try:
        for run in runs:  # each says that it is ready
            run.stdout.readline()
        for run in runs:
            print("go", file=run.stdin, flush=True)
        return sum(float(run.stdout.readline()) for run in runs)
    finally:
        for run in runs:
            run.communicate()


def _train(device: torch.device, seconds: float) -> None:
    """One of several processes: get ready, wait for a line, train for that long, print the steps a second."""
    from benchmarks.step import WARM_UP, WIDE, prepared, whole

    torch.set_num_threads(1)
    step = whole(prepared("fixmatch", device, WIDE if device.type == "cuda" else []).build({}))
    for _ in range(WARM_UP):
        step()
    wait(device)
    print("ready", flush=True)
    sys.stdin.readline()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step()
        wait(device)
        done += 1
    print(done / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    _train(torch.device(sys.argv[1]), float(sys.argv[2]))
