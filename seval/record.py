"""The files of a run: metrics.jsonl, checkpoint.pt, artifacts.h5 and record.json.

Each file is written under another name and then renamed, except metrics.jsonl: each evaluation appends one line to it.
"""

import io
import json
import os
import pickle
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import h5py
import numpy as np
import torch

from seval.errors import RecordError, one_line
from seval.files import replace
from seval.versions import packages


def read_record(path: Path) -> dict | None:
    """The content, or None if there is no such file. Raises `RecordError` if it is damaged."""
    try:
        value = json.loads(path.read_text())
        if isinstance(value, dict) and {"id", "results"} <= value.keys():
            return value
        error: object = "it is not the record of a run"
    except FileNotFoundError:
        return None
    except ValueError as damage:
        error = damage
    raise RecordError(f"{path} is damaged ({error}); delete it to finish the run again from its checkpoint")


def save_checkpoint(path: Path, state: dict) -> None:
    """Save a state of tensors, numbers and strings only, so that loading it executes no code."""
    buffer = io.BytesIO()  # so that a full disk shows in our own write, as an OSError
    torch.save(state, buffer)
    replace(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict:
    """The saved state, on the CPU, as random generators require. Raises `RecordError` if the file is damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, LookupError, pickle.UnpicklingError) as error:
        raise _damaged(path, one_line(error)) from None
    if not isinstance(state, dict) or not {"meta", "step", "evaluations", "net", "ema"} <= state.keys():
        raise _damaged(path, "it is not a checkpoint")
    return state


def _damaged(path: Path, why: str) -> RecordError:
    return RecordError(f"{path} cannot be loaded ({why[:200]}); delete it to start the run again")


def agree(path: Path, found: object, expected: Mapping[str, object]) -> None:
    """Raise `RecordError` if what a file says it belongs to differs from what is `expected`."""
    for key, value in expected.items():
        given = found.get(key) if isinstance(found, dict) else None
        if given != value:
            raise RecordError(
                f"{path} belongs to another {key} ({given}, not {value}); "
                "move its folder away or choose another OUTPUT_DIR"
            )


def restore(path: Path, expected: Mapping[str, object], load: Callable[[dict], None]) -> dict:
    """Pass a checkpoint to `load` and return it. Raises `RecordError` if it does not fit or belongs to another run."""
    state = load_checkpoint(path)
    agree(path, state["meta"], expected)
    try:
        load(state)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise _damaged(path, one_line(error)) from None
    return state


def save_artifacts(path: Path, heads: Mapping[str, Mapping[str, np.ndarray]], attributes: Mapping[str, object]) -> None:
    """Write an HDF5 file with one group per head and one data set per array."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        file.attrs.update(attributes)
        for head, arrays in heads.items():
            group = file.create_group(head)
            for name, array in arrays.items():
                group.create_dataset(name, data=array, track_times=False)
    replace(path, buffer.getvalue())


def load_artifacts(path: Path) -> dict[str, dict[str, np.ndarray]]:
    """The inverse of `save_artifacts`."""
    try:
        with h5py.File(path) as file:
            return {head: {name: data[()] for name, data in group.items()} for head, group in file.items()}
    except (OSError, AttributeError, TypeError) as error:
        problem = f"{path} cannot be read ({one_line(error)})"
        raise RecordError(f"{problem}; delete its folder and do that run again") from None


def append_line(path: Path, line: dict) -> None:
    """Append one evaluation to metrics.jsonl and flush it to disk."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def read_lines(path: Path) -> list[dict]:
    """The evaluations so far, up to the first damaged line: a killed process may have left the last line incomplete."""
    lines = []
    with suppress(FileNotFoundError):
        for text in path.read_bytes().splitlines():
            if (line := _line(text)) is None:
                break
            lines.append(line)
    return lines


def last_line(path: Path) -> dict | None:
    """The last evaluation, read from the end of the file; None if there is none."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        start, length = file.seek(0, os.SEEK_END), 1 << 16
        while start:
            start = max(0, start - length)
            file.seek(start)
            texts = file.read().splitlines()[start > 0 :]  # the first may be incomplete
            if line := next(filter(None, map(_line, reversed(texts))), None):
                return line
            length *= 4
    return None


def _line(text: bytes) -> dict | None:
    with suppress(ValueError):
        line = json.loads(text)
        return line if isinstance(line, dict) and "progress" in line else None


def keep_lines(path: Path, count: int) -> list[dict]:
    """Cut metrics.jsonl back to the first `count` evaluations, those of the checkpoint, and return them."""
    lines = read_lines(path)[:count]
    if len(lines) < count:
        raise RecordError(
            f"{path} has {len(lines)} evaluations, but the checkpoint beside it has {count}; "
            "delete the folder to start the run again"
        )
    replace(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return lines


def provenance(device: torch.device, root: Path) -> dict[str, object]:
    """What produced a result: commit, image, package versions, device."""
    cuda = device.type == "cuda"
    checkout = (root / ".git").exists()  # a checkout used inside an image is not the image's own code
    pages = ":(exclude,glob)**/*.md"  # commands regenerate some of them; they cannot change a number
    return {
        "commit": _git(root, ["rev-parse", "HEAD"]) if checkout else os.environ.get("SEVAL_REVISION") or None,
        "dirty": bool(_git(root, ["status", "--porcelain", "--untracked-files=no", "--", ".", pages])),
        "image": os.environ.get("SEVAL_IMAGE"),
        "python": platform.python_version(),
        "packages": packages(),
        "device": torch.cuda.get_device_name(device) if cuda else f"cpu ({platform.machine()})",
        "threads": torch.get_num_threads(),
    }


def _git(root: Path, command: Sequence[str]) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


class Curves:
    """Writes each evaluation as TensorBoard scalars to the run's folder, from step `start` on, if `wanted`."""

    def __init__(self, folder: Path, start: int, wanted: bool) -> None:
        self.board = None
        if wanted:
            from torch.utils.tensorboard import SummaryWriter  # imported here because it is slow

            self.board = SummaryWriter(folder / "tensorboard", purge_step=start or None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.board:
            self.board.close()

    def draw(self, line: dict) -> None:
        """Write one evaluation."""
        if not self.board:
            return
        scalars = {f"loss/{name}": value for name, value in line["loss"].items()} | {"lr": line["lr"]}
        for split in ("test", "valid"):
            for name, offsets in line.get(split, {}).items():
                scalars |= {f"{split}/{name}/{offset}/top1": values["top1"] for offset, values in offsets.items()}
        for head, values in line["policy"].items():
            scalars |= {f"policy/{head}/{key}": value for key, value in values.items()}
        quality = line.get("quality", {})
        scalars |= {f"pseudo_labels/{key}": value for key, value in quality.items() if isinstance(value, float)}
        for name, value in scalars.items():
            self.board.add_scalar(name, value, line["step"])
        self.board.flush()
