"""Submits missing runs as job arrays, each level after the level it depends on, and never the same run twice."""

from __future__ import annotations

import io
import math
import re
import secrets
import shlex
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from repro.launch.arrays import Array, arrays
from repro.launch.data import fingerprints
from repro.launch.environment import clean_environment
from repro.launch.ledger import Submission, submissions
from repro.launch.plan import Task, words
from repro.launch.queue import Job, Queue, SlurmError
from repro.launch.site import Resources, Site
from repro.launch.states import State
from repro.launch.worker import again, work
from seval.errors import ConfigError, one_line
from seval.places import ROOT
from seval.text import printable, short

TRANSIENT = (
    "unable to contact slurm controller",
    "timed out",
    "temporarily",
    "connection refused",
    "try again",
    "communication",
    "zero bytes",
)


@dataclass
class Launcher:
    """Submits to the SLURM of a site and cancels there; the ledgers of one OUTPUT_DIR are in `folder`."""

    site: Site
    folder: Path
    parallelism: int = 0
    queue: Queue = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        if "%" in str(self.folder):
            raise ConfigError(
                f"SLURM replaces % in names of logs, so {self.folder} cannot hold them; choose another OUTPUT_DIR"
            )
        self.queue = Queue(self.site.tries, self.site.patience)

    def check(self) -> None:
        """Raise `SlurmError` unless a controller answers; sbatch would take minutes to say that none does."""
        if shutil.which("scontrol") is None:
            return
        for attempt in range(self.site.tries):
            time.sleep(2**attempt if attempt else 0)  # it may be restarting
            try:
                done = self.queue.call("scontrol", "ping")
            except subprocess.TimeoutExpired:
                said = f"`scontrol ping` took more than {self.site.patience} s"
                continue
            if " is UP" in done.stdout or (done.returncode == 0 and " is DOWN" not in done.stdout):
                return
            lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines()[-1:]
            said = lines[0] if lines else f"exit code {done.returncode} of `scontrol ping`"
        raise SlurmError(
            f"SLURM does not answer ({printable(said)}), so nothing was submitted or canceled; "
            "`--cluster local` does the runs on this machine, without SLURM"
        )

    def plan(self, tasks: Mapping[str, Task], found: Mapping[str, State], more: Sequence[str] = ()) -> list[Array]:
        """The arrays that would be submitted; runs that failed in a way named in `more` ask for more than last time."""
        jobs = {id: state.job.id for id, state in found.items() if state.job and state.job.live}
        largest = self.queue.largest_array() or 1000
        largest = min(largest, self.site.array_size or largest)
        return list(
            arrays(tasks, lambda task: _resources(self.site, task, found.get(task.run.id), more), jobs, largest)
        )

    def submit(self, planned: Sequence[Array]) -> Iterator[tuple[Array, str]]:
        """Submit the arrays one by one, yielding each with its job's number. Raises `SlurmError`."""
        for command in ("sbatch", "srun"):
            if shutil.which(command) is None:
                raise SlurmError(f"there is no {command} on PATH")
        versions, image = self.site.worker_versions(), self.site.image_digest(self.folder / "image.json")
        data = fingerprints(task.run for array in planned for task in array.tasks)
        times = _times(max((made.created for made in submissions(self.folder)), default=0.0))
        submitted: dict[int, str] = {}
        for array in planned:
            after = submitted[id(array.after)] if array.after else array.after_job
            kind = "aftercorr" if array.after and len(array.elements) > 1 else "afterok"
            job = self._submit(array, f"{kind}:{after}" if after else None, versions, data, image, times)
            submitted[id(array)] = job
            yield array, job

    def _submit(
        self, array: Array, dependency: str | None, versions: dict, data: dict, image: str, times: Iterator[float]
    ) -> str:
        for attempt in range(self.site.tries):
            made = _submission(self.site, self.folder.parent, array, versions, data, next(times))
            ledger = made.write(self.folder)
            try:
                return self._sbatch(array, made, ledger, dependency, image)
            except (FailedJobError, FailedSubmissionError, OSError, subprocess.SubprocessError) as error:
                said = _said(error)
            failed = f"sbatch failed for {len(array.elements)} elements: {said}"
            # The answer may be lost although the job exists: whatever has this name is ended before another attempt.
            try:
                self.queue.cancel_name(made.name)
            except SlurmError as error:  # the ledger stays, so that the job is found if there is one
                raise SlurmError(f"{failed}; then {error}") from None
            ledger.unlink(missing_ok=True)
            if attempt + 1 == self.site.tries or not any(word in said.lower() for word in TRANSIENT):
                raise SlurmError(failed)
            time.sleep(2**attempt)
        raise AssertionError("tries is positive")

    def _sbatch(self, array: Array, made: Submission, ledger: Path, dependency: str | None, image: str) -> str:
        executor = _Executor(self.folder / "logs", python=self.site.python)
        parallelism = self.parallelism or self.site.array_parallelism
        executor.update_parameters(
            job_name=made.name,
            array_parallelism=parallelism,
            setup=_setup(self.site, ledger, array.resources, image),
            teardown=["code=$?", *(ROOT / "slurm" / "requeue.sh").read_text(encoding="utf-8").splitlines()],
            **_options(self.site, array, dependency),
        )
        count = len(array.elements)
        with clean_environment(), warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # submitit repeats errors
            warnings.simplefilter("ignore")  # of a job that it cannot follow
            jobs = executor.map_array(work, [str(ledger)] * count, range(count))
        return jobs[0].job_id.partition("_")[0]

    def cancel(self, found: Mapping[str, State]) -> tuple[list[Job], list[str]]:
        """End what these runs have in the queue: (jobs ended, labels of other runs that end with them)."""
        jobs = {state.job.id: state.job for state in found.values() if state.job and state.job.live}
        others = [
            job.submission.labels[id]
            for job in jobs.values()
            for id in job.submission.elements[int(job.id.partition("_")[2] or 0)]
            if id not in found
        ]
        self.queue.cancel(jobs)
        return list(jobs.values()), others


class _Executor(submitit.SlurmExecutor):
    @staticmethod
    def _get_job_id_from_submission_command(string: str | bytes) -> str:
        """The number of the job in sbatch's answer, in which a site may say something of other jobs, too."""
        text = string if isinstance(string, str) else string.decode(errors="replace")
        numbers = set(re.findall(r"Submitted batch job ([1-9][0-9]{0,17})\b", text))
        if len(numbers) != 1:
            raise FailedSubmissionError(f"it did not say which job it submitted, but {short(text)}")
        return numbers.pop()


def _said(error: Exception) -> str:
    """Why sbatch failed: its own words, else its exit code or why they cannot be read."""
    cause = error.__cause__
    own = [getattr(error, "stderr", None), "" if isinstance(cause, UnicodeError) else str(error)]
    words = [*own, getattr(cause, "output", None), cause and one_line(cause), type(error).__name__]
    return " ".join(next(text for text in words if text and text.strip()).split())[-500:]


def _times(last: float) -> Iterator[float]:
    """When submissions are made: now, but always after the last one, by the clock of whatever host that was."""
    while True:
        last = max(time.time(), math.nextafter(last, math.inf))
        yield last


def _resources(site: Site, task: Task, state: State | None, more: Sequence[str]) -> Resources:
    needed = site.of(task.run.cfg.DATASET.NAME)
    if state is None or state.job is None:
        return needed
    last = state.job.submission
    if state.kind == "oom" and "oom" in more and needed.memory_gb:
        return replace(needed, memory_gb=2 * last.memory_gb / needed.runs_per_gpu or needed.memory_gb)
    if state.kind == "timeout" and "timeout" in more:
        return replace(needed, minutes=2 * last.minutes)
    return needed


def _submission(site: Site, output: Path, array: Array, versions: dict, data: dict, created: float) -> Submission:
    runtime = {
        "OUTPUT_DIR": str(output),
        "RUNTIME.PROGRESS": "lines",
        "RUNTIME.THREADS": array.resources.cpus,
        "RUNTIME.WORKERS": array.resources.cpus,
    }
    return Submission(
        name=f"seval-{secrets.token_hex(6)}",
        elements=[[task.run.id for task in element] for element in array.elements],
        # a run that is to be done on the CPU stays there
        settings={
            task.run.id: words(task.run, **runtime, GPU_ID=0 if site.gpu and task.run.cfg.GPU_ID >= 0 else -1)
            for task in array.tasks
        },
        labels={task.run.id: str(task.use) for task in array.tasks},
        needs={task.run.id: task.needs for task in array.tasks if task.needs},
        created=created,
        minutes=array.resources.minutes,
        memory_gb=array.resources.runs_per_gpu * array.resources.memory_gb,
        versions=versions,
        scratch=site.scratch,
        data={task.run.id: data[task.run.id] for task in array.tasks if task.run.id in data},
    )


def _options(site: Site, array: Array, dependency: str | None) -> dict[str, object]:
    """What sbatch is asked for, in submitit's names and, where it has none of its own, in those of sbatch."""
    needed = array.resources
    more = {
        "comment": _comment(array),
        "export": "ALL",
        "kill-on-invalid-dep": "yes",
        "requeue" if site.requeue else "no-requeue": True,
        "signal": f"USR2@{site.signal_seconds}",
        **({"dependency": dependency} if dependency else {}),
        **({"mem": f"{memory}M"} if (memory := math.ceil(1024 * needed.memory_gb * needed.runs_per_gpu)) else {}),
        **site.options(),
    }
    return {
        "wckey": None,
        "time": needed.minutes,
        "cpus_per_task": needed.cpus,
        "ntasks_per_node": needed.runs_per_gpu,
        "stderr_to_stdout": True,
        "srun_args": [
            "--export=ALL",
            "--open-mode=append",
            "--kill-on-bad-exit=0",
            "--wait=0",
            f"--cpus-per-task={needed.cpus}",
        ],
        "additional_parameters": more,
    }


def _comment(array: Array) -> str:
    """`seval: table2, table3, level 2` for people who look at the queue; the job's name is the ledger's."""
    tables = dict.fromkeys(table for task in array.tasks for table in task.use.tables)
    return f"{printable('seval: ' + ', '.join(tables))[:200]}, level {array.level}"


def _setup(site: Site, ledger: Path, needed: Resources, image: str) -> list[str]:
    """Bash before the worker. A signal to the batch script itself is left to the worker."""
    lines = [
        "trap : TERM",
        f"export SEVAL_AGAIN={shlex.quote(str(again(ledger, '')))}${{SLURM_ARRAY_TASK_ID:-0}}",
        f"export SEVAL_PACKED={int(needed.runs_per_gpu > 1)}",
        f"export SEVAL_REQUEUE={int(site.requeue)}",
        'rm -f "$SEVAL_AGAIN"',
        "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}",
    ]
    if image:  # the second name passes apptainer's --cleanenv and --containall
        names = ("SEVAL_IMAGE", "APPTAINERENV_SEVAL_IMAGE", "SINGULARITYENV_SEVAL_IMAGE")
        lines.append(f"export {' '.join(f'{name}={shlex.quote(image)}' for name in names)}")
    return lines + site.setup()
