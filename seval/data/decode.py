"""JPEG files to uint8 images of one size, in worker processes and ahead of need.

Nothing here is random, and nothing here imports PyTorch, so that a worker starts at once and stays small.
"""

import io
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from multiprocessing import get_all_start_methods, get_context, parent_process, resource_tracker
from multiprocessing.process import BaseProcess

import numpy as np
from PIL import Image

from seval.data.disk import remedy
from seval.data.image_set import EncodedImages
from seval.errors import DataError, one_line
from seval.signals import ASKING

CHUNK = 16  # images per task: few enough that the workers share every batch
LARGEST = 1 << 26  # pixels of an encoded image; three bytes each while it is decoded


def decode(content: bytes, size: int) -> np.ndarray:
    """uint8 (3, size, size): RGB, resized bilinearly whatever the aspect ratio, as published.

    Raises `ValueError` and what Pillow raises where the bytes are not a whole JPEG of at most `LARGEST` pixels. Other
    formats are not tried: some can start other programs.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"it has {image.width} x {image.height} pixels, more than {LARGEST}")
            square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(square).transpose(2, 0, 1)


class Decoder:
    """Decodes images to squares of side `size` in `workers` processes; with 0 in this process, when they are needed.

    The processes begin with the first request and end with the decoder, or with this process, however it ends.
    """

    def __init__(self, *, size: int, workers: int = 0) -> None:
        self.size, self.workers = size, workers

    def submit(self, source: EncodedImages, index: Sequence[int] | np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to decode; calling what is returned waits for the images, uint8 (len(index), 3, size, size).

        That call raises `DataError` for an image that is damaged and `ChildProcessError` where a worker was killed.
        """
        index = [int(i) for i in index]
        if not self.workers:
            return partial(_decode_all, source, index, self.size)
        content = pickle.dumps(source)
        chunks = [index[start : start + CHUNK] for start in range(0, len(index), CHUNK)]
        with _reporting_kills():
            return partial(_collect, [self._pool.submit(_work, content, chunk, self.size) for chunk in chunks])

    def batches(self, source: EncodedImages, order: Iterable[Sequence[int] | np.ndarray]) -> Iterator[np.ndarray]:
        """The images of each batch of indices in turn, while the workers are busy with the batches that follow."""
        waiting: deque[Callable[[], np.ndarray]] = deque()
        for index in order:
            waiting.append(self.submit(source, index))
            ahead = -(-2 * CHUNK * self.workers // max(1, len(index)))  # batches: two tasks per worker
            if len(waiting) > ahead:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        # Never forked from this process, which has threads and perhaps a GPU.
        method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
        # Schedulers signal every process of a job, but only this process answers: block signals in all that begin here.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        try:
            resource_tracker.ensure_running()  # unblocks some signals
            signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
            pool = ProcessPoolExecutor(self.workers, get_context(method), _begin)
            pool.submit(os.getpid)  # with the first task all workers begin
            return pool
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """A worker ends when the process that it works for ends, even by a kill, or sends it SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    parent = parent_process()
    assert parent is not None  # this is a worker
    for wait in (_end_with, _end_when_told_by):
        threading.Thread(target=wait, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _end_when_told_by(parent: BaseProcess) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(1)


def _work(content: bytes, index: list[int], size: int) -> np.ndarray:
    return _decode_all(_source(content), index, size)


@lru_cache(maxsize=8)
def _source(content: bytes) -> EncodedImages:
    """One object for each set of images, so that a worker opens a file once."""
    return pickle.loads(content)


def _decode_all(source: EncodedImages, index: list[int], size: int) -> np.ndarray:
    images = np.empty((len(index), 3, size, size), np.uint8)
    for row, i in enumerate(index):
        content = source.read(i)
        try:
            images[row] = decode(content, size)
        except MemoryError as error:
            raise MemoryError(f"not enough memory to decode image {i} of {source.path}: {one_line(error)}") from None
        except Exception as error:  # damaged files raise anything
            raise DataError(
                f"image {i} of {source.path} cannot be decoded ({one_line(error)}); "
                f"write that file again: {remedy(source.path)}"
            ) from None
    return images


def _collect(tasks: list[Future]) -> np.ndarray:
    with _reporting_kills():
        return np.concatenate([task.result() for task in tasks])


@contextmanager
def _reporting_kills() -> Iterator[None]:
    """A pool notices the death of a worker when it is given a task, or when the task is waited for."""
    try:
        yield
    except BrokenProcessPool:
        raise ChildProcessError(
            "a process that decodes images was killed, perhaps for lack of memory: lower RUNTIME.WORKERS"
        ) from None
