"""The worker: does its own run, refuses other versions, and leaves the reason of a failure."""

from __future__ import annotations

import errno
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from repro.launch import states, worker
from repro.launch.data import fingerprints
from repro.launch.ledger import Submission
from repro.launch.plan import words
from seval.errors import DataError, Interrupted, MissingPrerequisite, RunBusy
from seval.run import Run
from seval.versions import versions
from tests.settings import ROOT, small


class Desk:
    """One ledger of two runs that share an element, and a third alone."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch
        self.runs = [Run(small("fixmatch_seval_load", folder, "SEED", seed)) for seed in range(3)]
        ids = [run.id for run in self.runs]
        self.made = Submission(
            "seval-a",
            [ids[:2], ids[2:]],
            {run.id: words(run) for run in self.runs},
            {id: f"label of {id}" for id in ids},
            {},
            60,
            4,
            versions=versions(),
        )
        for name in ("SLURM_RESTART_COUNT", "SLURM_PROCID"):
            monkeypatch.delenv(name, raising=False)

    def executing(self, outcome: Callable[[Run], None] | BaseException) -> None:
        def execute(run: Run, stop: Callable[[], bool]) -> None:
            assert not stop()
            if isinstance(outcome, BaseException):
                raise outcome
            outcome(run)

        self.patch.setattr(Run, "execute", execute)

    def work(self, index: int = 0, **environment: object) -> None:
        for name, value in environment.items():
            self.patch.setenv(f"SLURM_{name}", str(value))
        worker.work(str(self.made.write(self.folder / "slurm")), index)

    def failure(self, number: int = 0) -> dict | None:
        return states.failure(self.runs[number].folder)

    @property
    def again(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "slurm").glob("*.again.*"))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_each_task_of_an_element_does_its_own_run(desk: Desk) -> None:
    done: list[str] = []
    desk.executing(lambda run: done.append(run.id))
    desk.work(0)
    desk.work(0, PROCID=1)
    desk.work(1, PROCID=0)
    desk.work(1, PROCID=1)  # the last element has one run only
    assert done == [run.id for run in desk.runs] and not any(map(desk.failure, range(3)))


def test_a_worker_with_other_versions_says_which(desk: Desk) -> None:
    desk.made.versions |= {"torch": "1.12.1", "absent": "3"}
    desk.executing(AssertionError("not to be trained"))
    with pytest.raises(worker.WorkerError, match=r"torch \d.*\(expected 1.12.1\), absent None \(expected 3\); fix"):
        desk.work()
    assert desk.failure()["kind"] == "crashed" and desk.failure()["submission"] == "seval-a"
    desk.made.versions = {}  # where the site could not be asked
    desk.executing(lambda run: None)
    desk.work()
    assert desk.failure() is None


def test_a_worker_that_takes_the_run_for_another_is_refused(desk: Desk) -> None:
    settings = desk.made.settings[desk.runs[0].id]
    settings += ["SOLVER.BASE_LR", 0.123]
    desk.executing(AssertionError("not to be trained"))
    with pytest.raises(worker.WorkerError, match=f"takes run {desk.runs[0].id} for .*: it is another version"):
        desk.work()


def test_a_stopped_run_is_stopped_where_nothing_can_be_written(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    desk.executing(Interrupted(5, 0, 12))
    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(SystemExit) as left:
        desk.work()
    assert left.value.code == states.RESUMABLE and desk.failure() is None and not desk.again


@pytest.mark.parametrize(
    "step, restarts, again", [(5, 0, True), (5, 9, True), (0, 0, True), (0, 2, True), (0, 3, False)]
)
def test_a_stopped_run_asks_for_another_try_while_it_gets_on(desk: Desk, step: int, restarts: int, again: bool) -> None:
    desk.executing(Interrupted(step, 0, 12))
    with pytest.raises(SystemExit) as left:
        desk.work(1, RESTART_COUNT=restarts)
    assert left.value.code == states.RESUMABLE == 75
    assert desk.again == (["seval-a.again.1"] if again else []) and desk.failure(2) is None


def raised_for(cause: Exception, error: Exception) -> Exception:
    """The error as it is after `raise error from None` where `cause` was handled."""
    error.__context__, error.__suppress_context__ = cause, True
    return error


@pytest.mark.parametrize(
    "error, kind, message",
    [
        (MemoryError(), "oom", "MemoryError"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "oom", "CUDA out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "oom", "allocate memory"),
        (OSError(12, "Cannot allocate memory"), "oom", "Cannot allocate memory"),
        (OSError(12, "Kein Speicher"), "oom", "Kein Speicher"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), "oom", "CUBLAS"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "oom", "CUDNN"),
        (RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"), "oom", "CUFFT"),
        (RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"), "oom", "CUDA"),
        (RuntimeError("cudaErrorMemoryAllocation"), "oom", "cuda"),
        (RuntimeError("std::bad_alloc"), "oom", "bad_alloc"),
        (ChildProcessError("a process that decodes images was killed, perhaps for lack of memory: ..."), "oom", "lack"),
        (DataError("x.h5 is damaged (Unable to allocate 46.9 MiB for an array)"), "oom", "46.9 MiB"),
        (DataError("x.h5 is damaged (memory allocation failed for raw data chunk)"), "oom", "raw data chunk"),
        (raised_for(MemoryError(), ValueError("in other words")), "oom", "in other words"),
        (raised_for(KeyError("x"), ValueError("in other words")), "crashed", "in other words"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "resumable", "ECC"),
        (RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable"), "resumable", "busy"),
        (ValueError("no\nsuch thing"), "crashed", "^ValueError: no"),
        (OSError(28, "No space left on device"), "crashed", "No space left"),
    ],
)
def test_why_a_run_failed_stays_until_it_is_begun_again(desk: Desk, error: Exception, kind: str, message: str) -> None:
    desk.executing(error)
    with pytest.raises(type(error)):
        desk.work()
    found = desk.failure()
    assert found["kind"] == kind and re.search(message, found["error"]) and "Traceback" in found["traceback"]
    desk.executing(lambda run: None if desk.failure() is None else pytest.fail("still there"))
    desk.work()
    assert desk.failure() is None and not desk.again


def test_a_missing_prerequisite_is_no_crash(desk: Desk) -> None:
    with pytest.raises(MissingPrerequisite):
        desk.work()
    assert desk.failure()["kind"] == "canceled" and "no record" in desk.failure()["error"]


def test_a_busy_run_is_waited_for_and_then_left_to_the_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    tries: list[str] = []

    def busy(run: Run) -> None:
        tries.append(run.id)
        if len(tries) < 3:
            raise RunBusy("held by another")

    desk.executing(busy)
    desk.work()
    assert len(tries) == 3 and capsys.readouterr().out.count("held by another; waiting for it") == 1
    monkeypatch.setattr(worker, "PATIENCE", -1.0)
    desk.executing(RunBusy("held by another"))
    with pytest.raises(SystemExit) as left:
        desk.work()
    assert left.value.code == states.BUSY and desk.failure() is None


def test_a_data_set_is_copied_to_scratch_once(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, copies, scratch = [], [], tmp_path / "scratch"
    copy = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda *paths: copies.append(paths) or copy(*paths))
    monkeypatch.setenv("NODE_DISK", str(scratch))
    desk.made.scratch = "$NODE_DISK/data"
    desk.executing(lambda run: read.append((run.id, run.cfg.DATASET.ROOT)))
    desk.work()
    desk.work(1)
    target = scratch / "data" / "tiny.h5"
    assert read == [(desk.runs[0].id, str(target.parent)), (desk.runs[2].id, str(target.parent))]
    assert len(copies) == 1 and target.read_bytes() == (ROOT / "data" / "tiny.h5").read_bytes()
    target.write_bytes(b"cut short")
    desk.work()
    assert len(copies) == 2 and len(list(target.parent.iterdir())) == 1


@pytest.mark.parametrize("scratch", ["", "/proc/no-such/place", "$NOT_SET_ANYWHERE"])
def test_without_room_on_scratch_the_data_set_is_read_where_it_is(
    desk: Desk, scratch: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    desk.made.scratch, read = scratch, []
    desk.executing(lambda run: read.append(run.cfg.DATASET.ROOT))
    desk.work()
    assert read == [str(ROOT / "data")] and desk.failure() is None and not list(tmp_path.glob("$*"))


def test_a_worker_refuses_another_data_set_than_that_of_the_submission(desk: Desk, tmp_path: Path) -> None:
    desk.made.scratch = str(tmp_path / "scratch")
    id, trained = desk.runs[0].id, []
    desk.executing(lambda run: trained.append(run.fingerprint))
    desk.made.data = fingerprints(desk.runs)
    desk.work()
    assert trained == [desk.made.data[id]] and desk.failure() is None
    desk.made.data[id] = submitted = "0" * 64
    with pytest.raises(worker.WorkerError, match=f"^{ROOT}/data/tiny.h5 on .* is another data set than when"):
        desk.work()
    found = desk.failure()
    assert found["kind"] == "crashed" and "--retry crashed" in found["error"] and len(trained) == 1
    assert trained[0][:12] in found["error"] and submitted[:12] in found["error"]
    desk.work(0, PROCID=1)  # the other run of the element
    assert len(trained) == 2


@pytest.mark.parametrize("restarts, again", [(0, True), (2, True), (3, False)])
def test_without_the_gpu_that_was_asked_for_nothing_is_trained(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, restarts: int, again: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    desk.made.settings = {run.id: words(run, GPU_ID=0) for run in desk.runs}
    desk.executing(AssertionError("not to be trained"))
    with pytest.raises(worker.NoGpu, match=f"^no GPU here: .*{platform.node()}"):
        desk.work(1, RESTART_COUNT=restarts)
    assert desk.failure(2)["kind"] == "resumable" and desk.failure(2)["submission"] == "seval-a"
    assert desk.again == (["seval-a.again.1"] if again else [])


def test_with_the_gpu_that_was_asked_for_and_without_a_wish_runs_are_trained(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    desk.executing(lambda run: done.append(run.id))
    for number, available in ((-1, False), (-1, True), (0, True)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        desk.made.settings = {run.id: words(run, GPU_ID=number) for run in desk.runs}
        desk.work()
    assert len(done) == 3 and desk.failure() is None


@pytest.mark.parametrize("name", ["PROCID", "RESTART_COUNT"])
@pytest.mark.parametrize("value", ["x", "", "-1", "1.5", "9" * 5000])
def test_a_number_of_slurm_that_is_none_is_named(desk: Desk, name: str, value: str) -> None:
    desk.executing(AssertionError("not to be trained"))
    with pytest.raises(worker.WorkerError, match=f"^SLURM_{name} is .*, but SLURM sets it to a number$"):
        desk.work(**{name: value})


def test_an_element_that_the_ledger_lacks_is_an_error(desk: Desk) -> None:
    for index in (2, -1):
        with pytest.raises(worker.WorkerError, match="seval-a.json has 2 elements, and none with index"):
            desk.work(index)
