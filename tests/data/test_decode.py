"""Worker processes that decode: in order, as Pillow does, and gone when they should be."""

from __future__ import annotations

import io
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from seval.data.decode import CHUNK, Decoder, decode
from seval.errors import DataError
from tests.settings import ROOT
from tests.standins import ENCODED_SIDE as SIDE
from tests.standins import Jpegs, slowly


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_equal_a_slow_loop_in_order(workers, encoded, decoders):
    source = encoded.train.images
    rng = np.random.default_rng(0)
    batches = [rng.integers(len(source), size=size) for size in (1, 5, 2 * CHUNK + 3, 5, 7)]
    for index, images in zip(batches, decoders[workers].batches(source, batches), strict=True):
        assert images.dtype == np.uint8 and images.flags.writeable
        np.testing.assert_array_equal(images, slowly(source, index))


def test_every_kind_of_file_becomes_rgb():
    gray = np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8)
    for mode in ("L", "RGB", "CMYK"):
        buffer = io.BytesIO()
        Image.fromarray(gray).convert(mode).save(buffer, "jpeg", quality=95)
        image = decode(buffer.getvalue(), 20)
        assert image.shape == (3, 20, 20) and abs(image.astype(int) - image[:1]).max() <= 3


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["truncated", "not a picture", "another format"])
def test_a_damaged_image_is_named(damage, workers, encoded, decoders, tmp_path):
    source = Jpegs(tmp_path / damage, 4)
    source.path.mkdir()
    for i in range(4):
        (source.path / f"{i}.jpg").write_bytes(encoded.train.images.read(i))
    whole, png = encoded.train.images.read(2), io.BytesIO()
    Image.open(io.BytesIO(whole)).save(png, "png")
    wrong = {"truncated": whole[: len(whole) // 2], "not a picture": b"no", "another format": png.getvalue()}
    (source.path / "2.jpg").write_bytes(wrong[damage])
    stream = decoders[workers].batches(source, [[0, 1], [3, 2]])
    next(stream)
    with pytest.raises(DataError, match=f"^image 2 of {source.path} cannot be decoded .*; write that file") as error:
        next(stream)
    assert "\n" not in str(error.value)


def jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header says so; its pixels are missing."""
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "jpeg")
    size, content = b"\x00\x08\x00\x08", buffer.getvalue()
    assert content.count(size) == 1
    return content.replace(size, height.to_bytes(2, "big") + width.to_bytes(2, "big"))


@pytest.mark.parametrize("width, height", [(8193, 8192), (10_000, 10_000), (65_000, 65_000)])
def test_too_many_pixels_are_refused_before_they_are_decoded(width, height, tmp_path):
    """Below, at and above the numbers at which Pillow warns and fails."""
    source = Jpegs(tmp_path, 1)
    (tmp_path / "0.jpg").write_bytes(jpeg(width, height))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=f"^image 0 of {tmp_path} cannot be decoded .*pixels"):
        Decoder(size=SIDE).submit(source, [0])()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 50_000  # KiB


@pytest.mark.parametrize("form", ["png", "gif", "bmp", "tiff", "webp", "ppm", "eps"])
def test_no_other_format_is_opened(form):
    """For some, Pillow starts other programs."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    with pytest.raises(UnidentifiedImageError):
        decode(buffer.getvalue(), SIDE)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), MemoryError("no memory")], ids=["os", "memory"]
)
def test_what_is_no_damage_keeps_its_kind(error, workers, decoders):
    with pytest.raises(type(error), match=str(error.args[-1])):
        decoders[workers].submit(Failing(error), [0])()


def test_short_memory_for_an_image_names_it(tmp_path, encoded, monkeypatch):
    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "resize", fails)
    with pytest.raises(MemoryError, match=f"^not enough memory to decode image 1 of {encoded.train.images.path}: "):
        Decoder(size=SIDE).submit(encoded.train.images, [1])()


@dataclass(frozen=True)
class Failing:
    error: Exception
    path = Path("x")

    def read(self, i: int) -> bytes:
        raise self.error


def test_a_killed_worker_is_an_error(encoded):
    decoder = Decoder(size=SIDE, workers=1)
    decoder.submit(encoded.train.images, [0])()
    waiting = decoder.submit(encoded.train.images, range(300))
    os.kill(next(iter(decoder._pool._processes)), signal.SIGKILL)
    with pytest.raises(ChildProcessError, match="lower RUNTIME.WORKERS"):
        waiting()


def test_workers_end_with_a_killed_parent(encoded, tmp_path):
    """And they import no PyTorch: the parent of this test does not either, or it would be slow."""
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(encoded.train.images))
    program = f"""
import os, pickle, signal, sys
from pathlib import Path
from seval.data.decode import Decoder
if __name__ == "__main__":
    decoder = Decoder(size={SIDE}, workers=2)
    source = pickle.loads(Path({str(tmp_path / "source.pickle")!r}).read_bytes())
    decoder.submit(source, range(40))()
    assert "torch" not in sys.modules
    print(*decoder._pool._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "parent.py").write_text(program)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == -signal.SIGKILL
    workers = done.stdout.split()
    deadline = time.monotonic() + 20
    while running := [pid for pid in map(int, workers) if _runs(pid)]:
        assert time.monotonic() < deadline, f"{running} outlive their parent"
        time.sleep(0.02)
    assert workers


def test_what_a_scheduler_sends_to_every_process_of_a_job_disturbs_no_worker(encoded, tmp_path):
    """Nor the processes behind them; and a pool that is broken still ends at once."""
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(encoded.train.images))
    program = f"""
import os, pickle, signal, sys, time
from contextlib import suppress
from pathlib import Path
from seval.data.decode import Decoder
from seval.signals import ASKING

def descendants(pid):
    children = [int(p) for p in Path(f"/proc/{{pid}}/task/{{pid}}/children").read_text().split()]
    return children + [p for child in children for p in descendants(child)]

if __name__ == "__main__":
    source = pickle.loads(Path({str(tmp_path / "source.pickle")!r}).read_bytes())
    decoder = Decoder(size={SIDE}, workers=2)
    for number in ASKING:
        signal.signal(number, lambda *_: None)
    sender = os.fork()
    if not sender:  # another process than the one that the workers work for
        while os.getppid() != 1 and not Path({str(tmp_path / "over")!r}).exists():
            with suppress(ProcessLookupError, FileNotFoundError):  # one that ended meanwhile
                for pid in [os.getppid(), *descendants(os.getppid())]:
                    if pid != os.getpid():
                        for number in ASKING:
                            os.kill(pid, number)
            time.sleep(0.01)
        os._exit(0)
    def decode():
        return sum(int(images.sum()) for images in decoder.batches(source, [range(40)] * 20))
    decode(), print(decode(), flush=True)
    Path({str(tmp_path / "over")!r}).touch()
    os.waitpid(sender, 0)
    assert len(descendants(os.getpid())) == 4  # the tracker of resources, the server of processes, two workers
    os.kill(next(iter(decoder._pool._processes)), signal.SIGKILL)
    try:
        decode()
    except ChildProcessError as error:
        print(error)
"""
    (tmp_path / "parent.py").write_text(program)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "parent.py")],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (done.returncode, done.stderr) == (0, "")
    total, error = done.stdout.splitlines()
    assert int(total) == 20 * slowly(encoded.train.images, range(40)).sum() and "RUNTIME.WORKERS" in error


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
