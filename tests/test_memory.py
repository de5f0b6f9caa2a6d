"""A process that trains, evaluates or predicts keeps the memory of large tensors; another C library is left alone."""

import ctypes
import os
import subprocess
import sys

import pytest

from seval import memory
from seval.run import Run
from tests.command_line import run as call
from tests.settings import small

FEW = ["SOLVER.MAX_ITER", 6, "SOLVER.EVAL_BATCH", 32]
FAULTS = """
import resource
from seval.memory import keep_memory
keep_memory()
for _ in range(3):
    begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * (1 << 26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun)
"""


class Glibc:
    """A C library that takes a threshold of at most `most` bytes and remembers what it was asked for."""

    gnu_get_libc_version = None

    def __init__(self, most: int = 1 << 40) -> None:
        self.most, self.asked = most, []

    def mallopt(self, option: int, value: int) -> int:
        self.asked.append((option, value))
        return int(option != -3 or value <= self.most)


@pytest.fixture
def libc(monkeypatch) -> Glibc:
    found = Glibc()
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: found)
    for name in [name for name in os.environ if name.startswith("MALLOC_")] + ["GLIBC_TUNABLES"]:
        monkeypatch.delenv(name, raising=False)
    return found


def test_glibc_is_told_once_both_thresholds(libc):
    memory.keep_memory()
    assert libc.asked == [(-3, 1 << 30), (-1, 2**31 - 1)]


def test_an_older_glibc_gets_the_largest_threshold_that_it_takes(libc):
    libc.most = 1 << 25
    memory.keep_memory()
    assert libc.asked == [(-3, 1 << 30), (-3, 1 << 25), (-1, 2**31 - 1)]


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072", False),
        ("MALLOC_ARENA_MAX", "2", False),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072", False),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=8", True),
    ],
)
def test_settings_of_the_user_stay(name, value, kept, libc, monkeypatch):
    monkeypatch.setenv(name, value)
    memory.keep_memory()
    assert bool(libc.asked) is kept


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_there_is_no_such_library_nothing_happens(error, libc, monkeypatch):
    def missing(name: None) -> None:
        raise error

    monkeypatch.setattr(memory.ctypes, "CDLL", missing)
    memory.keep_memory()
    assert not libc.asked


def test_a_library_with_another_mallopt_is_not_told(libc, monkeypatch):
    monkeypatch.delattr(Glibc, "gnu_get_libc_version")
    memory.keep_memory()
    assert not libc.asked


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc")
def test_a_large_block_is_not_asked_for_anew():
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}

    def faults(**more: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", FAULTS], env=env | more, text=True))

    assert 4 * faults() < faults(MALLOC_MMAP_THRESHOLD_="131072")


def test_told_by_a_run_and_by_a_prediction_but_not_by_a_description(in_root, tmp_path, libc, capsys):
    run = Run(small("fixmatch", tmp_path, *FEW))
    run.check()
    assert not libc.asked
    run.execute()
    assert libc.asked
    libc.asked.clear()
    run.evaluate()
    assert libc.asked
    libc.asked.clear()
    of_run = ["--run", run.folder, "DATASET.ROOT", run.cfg.DATASET.ROOT]
    code, _, err = call(capsys, *of_run, "--export", tmp_path / "network.pt2")
    assert (code, err) == (0, "") and libc.asked
