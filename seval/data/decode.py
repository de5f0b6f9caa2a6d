"""JPEG files to uint8 images of one size, in worker processes and ahead of need.

Nothing here is random, and nothing here imports PyTorch: so a worker starts at once and stays small.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property, lru_cache, partial
from multiprocessing import get_all_start_methods, get_context, parent_process, resource_tracker
from pathlib import Path

import numpy as np
from PIL import Image

from seval.data.hdf5 import remedy
from seval.data.image_set import Encoded
from seval.errors import DataError, one_line
from seval.signals import ASKING

CHUNK = 16  # images a task: few enough that the workers share every batch


def is_encoded(images: object) -> bool:
    """Whether the images of a part are `Encoded` rather than an array."""
    return hasattr(images, "read")


def decode(content: bytes, size: int) -> np.ndarray:
    """uint8 (3, size, size): RGB, resized bilinearly whatever the aspect ratio, as published."""
    with Image.open(io.BytesIO(content)) as image:
        square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(square).transpose(2, 0, 1)


class Decoder:
    """Decodes images to squares of side `size` in `workers` processes; with 0 in this one, when they are asked for.

    The processes begin with the first request and end with the decoder, or with this process, however it ends.
    """

    def __init__(self, size: int, workers: int = 0) -> None:
        self.size, self.workers = size, workers

    def submit(self, source: Encoded, index: Sequence[int]) -> Callable[[], np.ndarray]:
        """Begin to decode; calling what is returned waits for the images, uint8 (len(index), 3, size, size).

        That call raises `DataError` for an image that is damaged and `ChildProcessError` where a worker was killed.
        """
        index = [int(i) for i in index]
        if not self.workers:
            return partial(_decode_all, source, index, self.size)
        content = pickle.dumps(source)
        chunks = [index[start : start + CHUNK] for start in range(0, len(index), CHUNK)]
        return partial(_collect, [self._pool.submit(_work, content, chunk, self.size) for chunk in chunks])

    def stream(self, source: Encoded, batches: Iterable[Sequence[int]]) -> Iterator[np.ndarray]:
        """The images of each batch of indices in turn, while the workers are busy with the batches that follow."""
        waiting: deque[Callable[[], np.ndarray]] = deque()
        for index in batches:
            waiting.append(self.submit(source, index))
            ahead = -(-2 * CHUNK * self.workers // max(1, len(index)))  # batches: two tasks a worker
            if len(waiting) > ahead:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        # Never forked from this process, which has threads and perhaps a GPU.
        method = "forkserver" if "forkserver" in get_all_start_methods() else "spawn"
        # Schedulers signal every process of a job, but only this one is to answer: block that in all that begin here.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
        try:
            resource_tracker.ensure_running()  # unblocks some of them
            signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
            pool = ProcessPoolExecutor(self.workers, get_context(method), _begin)
            pool.submit(os.getpid)  # with the first task all workers begin
            return pool
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """A worker ends with the process that it works for, even if that is killed, or when that says so."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    for wait in (_end_with_parent, _end_when_told):
        threading.Thread(target=wait, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def _end_when_told() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent_process().pid:
        pass
    os._exit(1)


def _work(content: bytes, index: list[int], size: int) -> np.ndarray:
    return _decode_all(_source(content), index, size)


@lru_cache(maxsize=8)
def _source(content: bytes) -> Encoded:
    """One object for each set of images, so that a worker opens a file once."""
    return pickle.loads(content)


def _decode_all(source: Encoded, index: list[int], size: int) -> np.ndarray:
    images = np.empty((len(index), 3, size, size), np.uint8)
    for row, i in enumerate(index):
        try:
            images[row] = decode(source.read(i), size)
        except Exception as error:  # damaged files raise anything
            raise DataError(
                f"image {i} of {source.path} cannot be decoded ({one_line(error)}); "
                f"write that file again: {remedy(Path(source.path))}"
            ) from None
    return images


def _collect(tasks: list[Future]) -> np.ndarray:
    try:
        return np.concatenate([task.result() for task in tasks])
    except BrokenProcessPool:
        raise ChildProcessError(
            "a process that decodes images was killed, perhaps for lack of memory: lower RUNTIME.WORKERS"
        ) from None
