"""The files of a run: metrics.jsonl, checkpoint.pt, artifacts.h5 and record.json.

Each says which run it is of; the folder has the run's name. A damaged file is never believed: the checkpoint ends in
a SHA-256 of all of it, the record and every line of metrics.jsonl have one of their content, and the record has that
of the artifacts. What cannot be read just now is an `OSError` or a `MemoryError`, and is never called damaged.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from seval.errors import RecordError, memory_short
from seval.files import Kind, has, open_regular, read_bytes, read_json, replace, sealed, told, unsealed, write_json
from seval.text import json_value, short, short_line

if TYPE_CHECKING:  # these take seconds to import, which who lists a thousand records should not wait for
    import numpy as np

Check = Callable[[], object]  # raises if this process may no longer write
_MARK = b"seval-sha256:"  # a checkpoint ends in this and the digest of what is before; PyTorch ignores both
#: What a record of version 0.1 can have, which had no checksum.
_KEYS_0_1: dict[str, Kind] = {
    **dict.fromkeys(("id", "data"), str),
    **dict.fromkeys(("format", "evaluations", "steps"), int),
    **dict.fromkeys(("delta", "config", "results", "splits", "provenance"), dict),
    **dict.fromkeys(("per_class", "pseudo_labels"), (dict, type(None))),
    "prerequisites": list,
    **dict.fromkeys(("seconds", "seconds_last_session"), (int, float)),
}


def write_record(path: Path, value: Mapping[str, Any], check: Check | None = None) -> None:
    """Write record.json with its checksum. Raises `OSError`, and what `check` raises."""
    write_json(path, sealed(value), check)


def read_record(path: Path) -> dict | None:
    """The content, or None if there is no such file. Raises `RecordError` if it is damaged, `OSError` if unreadable.

    A record of version 0.1 has no checksum. It is taken as it is, and has no "sha256".
    """
    try:
        value = read_json(path, {"id": str, "results": dict})
        if "sha256" in value or not value.keys() <= _KEYS_0_1.keys():
            unsealed(value)
        has(value, {key: kind for key, kind in _KEYS_0_1.items() if key in value})
        return value
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RecordError(
            f"{path} is damaged ({error}); move it away to finish the run again from its checkpoint"
        ) from None


def read_about(path: Path) -> dict | None:
    """What run.json says of its folder; None if it is missing, damaged or of another run. Raises `OSError`."""
    with suppress(FileNotFoundError, ValueError):
        about = unsealed(read_json(path, {"id": str, "method": str, "began": str, "code": str, "delta": dict}))
        if about["id"] == path.parent.name:
            return about
    return None


def save_checkpoint(path: Path, state: dict, check: Check | None = None) -> None:
    """Save a state of tensors, numbers and strings only, so that loading it executes no code."""
    import torch

    buffer = io.BytesIO()  # so that a full disk shows in our own write, as an OSError
    torch.save(state, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).digest()
    buffer.write(_MARK + digest)
    replace(path, buffer.getbuffer(), check)


def load_checkpoint(path: Path) -> dict:
    """The saved state, on the CPU, as random generators require.

    Raises `RecordError` if the file is damaged, `OSError` if it cannot be read, and `MemoryError`.
    """
    import torch

    content = memoryview(read_bytes(path))
    state, mark = content[: -len(_MARK) - 32], content[-len(_MARK) - 32 :]
    if mark != _MARK + hashlib.sha256(state).digest():
        if content[-22:-18] == b"PK\5\6":  # the end of what torch.save writes
            raise RecordError(
                f"{path} was written by seval 0.1, without a checksum; finish that run with that version, or move "
                "its folder away to start it again"
            )
        raise _damaged(path, "its content does not have the SHA-256 that it names")
    try:
        loaded = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch's readers raise whatever they meet
        if memory_short(error):
            raise MemoryError(f"memory is short for loading {path} ({len(content)} bytes)") from None
        raise _damaged(path, short_line(error)) from None
    if not isinstance(loaded, dict) or not {"meta", "step", "history", "net", "ema"} <= loaded.keys():
        raise _damaged(path, "it is not a checkpoint")
    return loaded


def _damaged(path: Path, why: str) -> RecordError:
    return RecordError(f"{path} is damaged ({why[:200]}); move it away to start the run again")


def agree(path: Path, found: object, expected: Mapping[str, object]) -> None:
    """Raise `RecordError` if what a file says it belongs to differs from what is `expected`."""
    for key, value in expected.items():
        given = found.get(key) if isinstance(found, dict) else None
        if given != value:
            raise RecordError(
                f"{path} belongs to another {key} ({short(given)}, not {value}); "
                "move its folder away or choose another OUTPUT_DIR"
            )


def restore(path: Path, expected: Mapping[str, object], load: Callable[[dict], None]) -> dict:
    """Pass a checkpoint to `load` and return it. Raises `RecordError` if it does not fit or belongs to another run."""
    state = load_checkpoint(path)
    agree(path, state["meta"], expected)
    try:
        load(state)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        if memory_short(error):
            raise
        problem = f"{path} does not fit this code ({short_line(error, 200)})"
        raise RecordError(f"{problem}; move its folder away to start the run again") from None
    return state


def load_network(path: Path, expected: Mapping[str, object], steps: int) -> dict:
    """The averaged network that a run has after its `steps` steps, by its checkpoint.

    Raises `RecordError` if the file is missing, damaged, of another run or of an earlier step, and `OSError`.
    """
    again = "move its folder away and do that run again"
    try:
        state = load_checkpoint(path)
    except FileNotFoundError:
        raise RecordError(f"{path}, whose network is needed, is missing; {again}") from None
    agree(path, state["meta"], expected)
    if state["step"] != steps:
        raise RecordError(f"{path} is of step {short(state['step'])}, but that run has {steps} steps; {again}")
    return state["ema"]


def save_artifacts(
    path: Path,
    heads: "Mapping[str, Mapping[str, np.ndarray]]",
    attributes: Mapping[str, object],
    check: Check | None = None,
) -> str:
    """Write an HDF5 file with one group per head and one data set per array. Returns its SHA-256."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        file.attrs.update(attributes)
        for head, arrays in heads.items():
            group = file.create_group(head)
            for name, array in arrays.items():
                group.create_dataset(name, data=array, track_times=False)
    replace(path, buffer.getvalue(), check)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def load_artifacts(path: Path, sha256: str | None = None) -> "dict[str, dict[str, np.ndarray]]":
    """The inverse of `save_artifacts`. The run's record has the `sha256`; records of version 0.1 had none.

    Raises `RecordError` if the file is damaged or of another run, and `OSError` if it cannot be read.
    """
    import h5py

    content = read_bytes(path)
    again = "move its folder away and do that run again"
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise RecordError(f"{path} is damaged, or of another run: the record beside it names other content; {again}")
    try:
        with h5py.File(io.BytesIO(content)) as file:
            owner = file.attrs["run"]
            heads = {head: {name: data[()] for name, data in group.items()} for head, group in file.items()}
    except MemoryError:
        raise
    except Exception as error:  # HDF5 reports damage in many ways
        raise RecordError(f"{path} is damaged ({short_line(error, 200)}); {again}") from None
    agree(path, {"run": owner}, {"run": path.parent.name})
    return heads


class Metrics:
    """metrics.jsonl: one line for each evaluation, for people and for progress. The checkpoint has the history itself.

    The file stays open: a process that lost its claim while it slept writes to the file that its successor replaced.
    """

    def __init__(self, path: Path, history: Sequence[dict], check: Check) -> None:
        self.path, self.check = path, check
        self.content = b"".join(map(self._line, history))
        replace(path, self.content, check)
        self.file = path.open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.file.close()

    def append(self, evaluation: dict) -> None:
        """Append one evaluation and flush it to disk. Raises `OSError`, and what `check` raises."""
        self.check()
        line = self._line(evaluation)
        try:
            self.file.write(line)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            self.check()
            raise told(error, "write", self.path) from error
        self.content += line

    def complete(self) -> None:
        """Write the file again if it is not what was written here."""
        found = None
        with suppress(OSError):
            found = read_bytes(self.path)
        if found != self.content:
            replace(self.path, self.content, self.check)

    def _line(self, evaluation: dict) -> bytes:
        return (json.dumps(sealed({"run": self.path.parent.name, **evaluation}), allow_nan=False) + "\n").encode()


def read_lines(path: Path, chosen: Callable[[int, bytes], bool] | None = None) -> list[dict]:
    """The evaluations of the run, up to the first line that is damaged, such as a killed process leaves behind.

    Only those of which `chosen` accepts number, from 0, and text; the others are not looked at, which takes longer.
    """
    lines = []
    with suppress(FileNotFoundError):
        for number, text in enumerate(read_bytes(path).splitlines()):
            if chosen and not chosen(number, text):
                continue
            if (line := _evaluation(text, path.parent.name)) is None:
                break
            lines.append(line)
    return lines


def last_line(path: Path) -> dict | None:
    """The last evaluation of the run, read from the end of the file; None if there is none."""
    with suppress(FileNotFoundError), open_regular(path) as file:
        start, length = file.seek(0, os.SEEK_END), 1 << 16
        while start:
            start = max(0, start - length)
            file.seek(start)
            texts = file.read().splitlines()[start > 0 :]  # the first may be incomplete
            lines = (_evaluation(text, path.parent.name) for text in reversed(texts))
            if line := next(filter(None, lines), None):
                return line
            length *= 4
    return None


def _evaluation(text: bytes, run: str) -> dict | None:
    with suppress(ValueError):
        line = json_value(text)
        if isinstance(line, dict) and line.get("run") == run:
            return unsealed(line)
    return None
