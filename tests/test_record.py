"""Every file of a run says whose it is and is checked; what cannot be read just now is not called damaged."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import pytest
import torch

from seval import record
from seval.errors import RecordError
from seval.files import sealed, unsealed
from seval.run import Run
from tests.settings import small

LOADERS: dict[str, Callable[[Path], object]] = {
    "checkpoint.pt": record.load_checkpoint,
    "record.json": record.read_record,
    "metrics.jsonl": record.read_lines,
    "artifacts.h5": lambda path: record.load_artifacts(
        path, record.read_record(path.with_name("record.json"))["artifacts"]
    ),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Run:
    run = Run(small("fixmatch_seval_estim", tmp_path_factory.mktemp("runs")))
    run.execute()
    return run


@pytest.fixture
def folder(done, tmp_path) -> Path:
    return shutil.copytree(done.folder, tmp_path / done.id)


def damages(content: bytes) -> Iterator[tuple[str, bytes]]:
    draw = random.Random(0)
    for bit in (draw.randrange(8 * len(content)) for _ in range(200)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        yield f"bit {bit}", bytes(flipped)
    for start in (draw.randrange(len(content)) for _ in range(200)):
        if any(content[start : start + 512]):
            yield f"hole at {start}", (content[:start] + bytes(512) + content[start + 512 :])[: len(content)]
    for length in (0, 1, *(draw.randrange(len(content)) for _ in range(40)), len(content) - 1):
        yield f"first {length}", content[:length]


def plain(value: object) -> object:
    """Something that can be compared."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value


@pytest.mark.parametrize("name", LOADERS)
def test_no_flipped_bit_no_hole_and_no_missing_end_is_believed(name, folder):
    path, load = folder / name, LOADERS[name]
    content, whole, refused = path.read_bytes(), plain(load(path)), 0
    for damage, damaged in damages(content):
        path.write_bytes(damaged)
        try:
            found = plain(load(path))
        except RecordError as error:
            assert name in str(error) and "move" in str(error) and "delete" not in str(error)
            refused += 1
            continue
        if name == "metrics.jsonl":
            assert found == whole[: len(found)], damage
            refused += found != whole
        else:
            assert found == whole, damage
    assert refused > (300 if name != "metrics.jsonl" else 200)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOMEM])
def test_what_cannot_be_read_now_is_not_called_damaged(name, number, folder, monkeypatch):
    real = os.open

    def failing(path, *arguments, **more):
        if str(path).endswith(name):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(OSError, match=f"cannot read {folder / name}: {os.strerror(number)}") as error:
        LOADERS[name](folder / name)
    assert error.value.errno == number and not isinstance(error.value, RecordError)


def test_a_checkpoint_that_memory_is_short_for_is_not_called_damaged(folder, monkeypatch):
    path = folder / "checkpoint.pt"
    for error in (
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory"),
    ):
        monkeypatch.setattr(torch, "load", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
        with pytest.raises(MemoryError, match=r"memory is short for loading .* bytes"):
            record.load_checkpoint(path)
    monkeypatch.undo()
    for error in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")):
        with pytest.raises(type(error)):
            record.restore(path, {}, lambda _, error=error: (_ for _ in ()).throw(error))
    with pytest.raises(RecordError, match="does not fit this code .* move its folder away"):
        record.restore(path, {}, lambda _: (_ for _ in ()).throw(KeyError("net")))


def test_files_of_another_run_are_refused(done, folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "0123456789")
    assert record.read_lines(other / "metrics.jsonl") == [] and record.last_line(other / "metrics.jsonl") is None
    for sha256 in (None, record.read_record(folder / "record.json")["artifacts"]):
        with pytest.raises(RecordError, match=f"belongs to another run .*{done.id}.*, not 0123456789"):
            record.load_artifacts(other / "artifacts.h5", sha256)
    with h5py.File(folder / "artifacts.h5", "r+") as file:
        file.attrs["note"] = "another content"
    with pytest.raises(RecordError, match="damaged, or of another run"):
        LOADERS["artifacts.h5"](folder / "artifacts.h5")
    run = Run(small("fixmatch_seval_estim", tmp_path, "SEED", 5))
    shutil.copytree(folder, run.folder)
    with pytest.raises(RecordError, match=r"record\.json belongs to another id"):
        run.record()


def test_a_record_of_before_checksums_is_taken_and_a_damaged_name_of_the_checksum_is_not(folder):
    path = folder / "record.json"
    value = json.loads(path.read_text())
    assert unsealed(value) == {key: inner for key, inner in value.items() if key != "sha256"}
    old = {key: inner for key, inner in value.items() if key not in ("sha256", "artifacts", "method")}
    path.write_text(json.dumps(old))
    assert record.read_record(path) == old and "sha256" not in old
    path.write_text(path.read_text().replace('"steps"', '"stepz"'))
    with pytest.raises(RecordError, match="is damaged"):
        record.read_record(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seconds", None),
        ("seconds", 10**400),
        ("provenance", None),
        ("provenance", []),
        ("per_class", []),
        ("config", 5),
    ]
    + [("data", 5), ("evaluations", "x"), ("prerequisites", 5), ("steps", True), ("splits", "x"), ("results", [])],
)
def test_a_record_of_before_checksums_has_the_types_that_it_was_written_with(key, value, folder):
    path = folder / "record.json"
    new = ("sha256", "artifacts", "method")
    old = {name: inner for name, inner in json.loads(path.read_text()).items() if name not in new}
    path.write_text(json.dumps(old | {key: value}))
    with pytest.raises(RecordError, match=f"is damaged .its '{key}' is .* move it away"):
        record.read_record(path)


def test_a_checkpoint_of_before_checksums_says_so(tmp_path):
    torch.save({"meta": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(RecordError, match=r"was written by seval 0\.1"):
        record.load_checkpoint(tmp_path / "checkpoint.pt")


def test_checkpoints_hold_no_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    record.save_checkpoint(tmp_path / "checkpoint.pt", {"meta": Bomb()})
    with pytest.raises(RecordError, match="is damaged .*Weights only load failed"):
        record.load_checkpoint(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_is_what_torch_load_reads(folder):
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert plain(state["net"]) == plain(record.load_checkpoint(folder / "checkpoint.pt")["net"])


def test_the_last_line_is_that_of_all_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert record.last_line(path) is None
    for length in (10, 50_000, 65_536, 200_000):
        lines = [
            {"run": tmp_path.name, "step": step, "progress": step / 3, "recall": "x" * length} for step in range(3)
        ]
        text = "".join(json.dumps(sealed(line)) + "\n" for line in lines).encode()
        for cut in (0, 1, 2, 5, length, length + 60, len(text) - 3, len(text)):
            path.write_bytes(text[: len(text) - cut])
            assert [record.last_line(path)] == (record.read_lines(path)[-1:] or [None])
    path.write_bytes(text + b"\xff\n[1]\n{}\n")
    assert record.last_line(path) == lines[-1]
