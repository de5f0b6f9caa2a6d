"""Submits what is missing as job arrays, each level behind the one it stands on, and never the same run twice."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
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
from repro.launch.plan import Task, words
from repro.launch.queue import Job, Slurm, SlurmError, Submission, submissions
from repro.launch.site import Resources, Site
from repro.launch.states import State
from repro.launch.worker import again, work
from repro.tables.table import ROOT
from seval.errors import ConfigError
from seval.record import write_json
from seval.versions import versions

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
class Cluster:
    """The SLURM of a site, and the folder of the ledgers of one OUTPUT_DIR."""

    site: Site
    folder: Path
    parallelism: int = 0
    slurm: Slurm = field(init=False)
    last: float = field(init=False, default=0.0)  # when the last submission was made, by the clock of whatever host

    def __post_init__(self) -> None:
        self.folder = self.folder.resolve()
        if "%" in str(self.folder):
            raise ConfigError(
                f"SLURM replaces % in names of logs, so {self.folder} cannot hold them; choose another OUTPUT_DIR"
            )
        self.slurm = Slurm(self.site.tries, self.site.patience)

    def plan(self, tasks: Mapping[str, Task], found: Mapping[str, State], more: Sequence[str] = ()) -> list[Array]:
        """The arrays that would be submitted; runs that failed in a way named in `more` ask for more than last time."""
        jobs = {id: state.job.id for id, state in found.items() if state.job and state.job.live}
        largest = self.slurm.largest_array() or 1000
        largest = min(largest, self.site.array_size or largest)
        return list(arrays(tasks, lambda task: self._resources(task, found.get(task.run.id), more), jobs, largest))

    def _resources(self, task: Task, state: State | None, more: Sequence[str]) -> Resources:
        needed = self.site.of(task.run.cfg.DATASET.NAME)
        last = state.job.submission if state and state.job else None
        if last and state.kind == "oom" and "oom" in more:
            return replace(needed, memory_gb=2 * last.memory_gb / needed.runs_per_gpu)
        if last and state.kind == "timeout" and "timeout" in more:
            return replace(needed, minutes=2 * last.minutes)
        return needed

    def submit(self, planned: Sequence[Array]) -> Iterator[tuple[Array, str]]:
        """Hand the arrays over one by one, yielding each with its job's number. Raises `SlurmError`."""
        for command in ("sbatch", "srun"):
            if shutil.which(command) is None:
                raise SlurmError(f"there is no {command} on PATH")
        self.last = max((made.created for made in submissions(self.folder)), default=0.0)
        expected, image, submitted = self.expected(), self.digest(), {}
        for array in planned:
            after = submitted[id(array.after)] if array.after else array.after_job
            kind = "aftercorr" if array.after and len(array.elements) > 1 else "afterok"
            submitted[id(array)] = job = self._submit(array, f"{kind}:{after}" if after else None, expected, image)
            yield array, job

    def _submit(self, array: Array, dependency: str | None, expected: dict, image: str) -> str:
        for attempt in range(self.site.tries):
            made = self._submission(array, expected)
            ledger = made.write(self.folder)
            try:
                return self._sbatch(array, made, ledger, dependency, image)
            except (FailedJobError, FailedSubmissionError, OSError, subprocess.SubprocessError) as error:
                text = " ".join(str(getattr(error, "stderr", None) or error).split())
                # the answer may be lost though the job is there: whatever bears this name is ended before another try
                self.slurm.cancel_name(made.name)
                ledger.unlink(missing_ok=True)
                if attempt + 1 == self.site.tries or not any(word in text.lower() for word in TRANSIENT):
                    raise SlurmError(f"sbatch failed for {len(array.elements)} elements: {text}") from None
                time.sleep(2**attempt)
        raise AssertionError("tries is positive")

    def _submission(self, array: Array, expected: dict) -> Submission:
        gpu = 0 if self.site.gres else -1
        runtime = {
            "OUTPUT_DIR": str(self.folder.parent),
            "GPU_ID": gpu,
            "RUNTIME.PROGRESS": False,
            "RUNTIME.THREADS": array.resources.cpus,
            "RUNTIME.WORKERS": array.resources.cpus,
        }
        packed = array.resources.runs_per_gpu
        self.last = max(time.time(), math.nextafter(self.last, math.inf))
        return Submission(
            name=f"seval-{secrets.token_hex(6)}",
            elements=[[task.run.id for task in element] for element in array.elements],
            settings={task.run.id: words(task.run, **runtime) for task in array.tasks},
            labels={task.run.id: task.label for task in array.tasks},
            needs={task.run.id: task.needs for task in array.tasks if task.needs},
            created=self.last,
            minutes=array.resources.minutes,
            memory_gb=packed * array.resources.memory_gb,
            versions=expected,
            scratch=self.site.scratch,
        )

    def _sbatch(self, array: Array, made: Submission, ledger: Path, dependency: str | None, image: str) -> str:
        site, needed = self.site, array.resources
        executor = submitit.SlurmExecutor(self.folder / "logs", python=site.python)
        packed = needed.runs_per_gpu
        asked = {
            "partition": site.partition,
            "account": site.account,
            "qos": site.qos,
            "gres": site.gres,
            "constraint": site.constraint,
            "dependency": dependency,
        }
        executor.update_parameters(
            job_name=made.name,
            wckey=None,
            time=made.minutes,
            mem=f"{made.memory_gb * 1024:.0f}M",
            cpus_per_task=needed.cpus,
            ntasks_per_node=packed,
            signal_delay_s=site.signal_seconds,
            stderr_to_stdout=True,
            array_parallelism=self.parallelism or site.array_parallelism,
            srun_args=["--open-mode=append", "--kill-on-bad-exit=0", "--wait=0", f"--cpus-per-task={needed.cpus}"],
            setup=self._setup(ledger, packed, image),
            teardown=["code=$?", *(ROOT / "slurm" / "requeue.sh").read_text().splitlines()],
            additional_parameters={"kill-on-invalid-dep": "yes", "requeue" if site.requeue else "no-requeue": True}
            | {key.replace("_", "-"): value for key, value in site.sbatch.items() if value not in (None, False)},
            **{key: value for key, value in asked.items() if value is not None and value != ""},
        )
        count = len(array.elements)
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # where submitit repeats the error
            warnings.simplefilter("ignore")  # of a job that it cannot follow
            jobs = executor.map_array(work, [str(ledger)] * count, range(count))
        return jobs[0].job_id.partition("_")[0]

    def _setup(self, ledger: Path, packed: int, image: str) -> list[str]:
        """Bash before the worker. A signal to the batch script itself is left to the worker."""
        lines = [
            "trap : TERM",
            f"export SEVAL_AGAIN={shlex.quote(str(again(ledger, '')))}${{SLURM_ARRAY_TASK_ID:-0}}",
            f"export SEVAL_PACKED={int(packed > 1)}",
            f"export SEVAL_REQUEUE={int(self.site.requeue)}",
            'rm -f "$SEVAL_AGAIN"',
            "export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}",
        ]
        if image:  # the second name passes apptainer's --cleanenv and --containall
            names = ("SEVAL_IMAGE", "APPTAINERENV_SEVAL_IMAGE", "SINGULARITYENV_SEVAL_IMAGE")
            lines.append(f"export {' '.join(f'{name}={shlex.quote(image)}' for name in names)}")
        return lines + self._code()

    def _code(self) -> list[str]:
        """Bash for a Python that finds this code; an image has its own."""
        path = [] if self.site.image else [f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}"]
        return path + self.site.modules

    def expected(self) -> dict[str, str | None]:
        """The versions of the worker's packages: its command is tried here, before anything is in the queue."""
        if not self.site.slurm_python:
            return versions()
        if not self.site.probe:
            return {}
        script = "\n".join([*self._code(), f"{self.site.python} -m seval.versions"])
        try:
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300)
            return dict(json.loads(done.stdout.strip().splitlines()[-1]))
        except (subprocess.TimeoutExpired, ValueError, TypeError, IndexError) as error:
            said = done.stderr.strip().splitlines()[-1:] if not isinstance(error, subprocess.TimeoutExpired) else []
            raise ConfigError(
                f"`{self.site.python} -m seval.versions` does not run here ({''.join(said) or error}); "
                "mend slurm_python of the site, or set `probe: false` where only nodes can run it"
            ) from None

    def digest(self) -> str:
        """What identifies the image in a record: the SHA-256 of its file, or the given text."""
        path = Path(os.path.expandvars(self.site.image)).expanduser()
        if not self.site.image or not path.is_file():
            return self.site.image
        cache, about = self.folder / "image.json", [str(path.resolve()), path.stat().st_size, path.stat().st_mtime]
        try:
            known = json.loads(cache.read_text())
        except (OSError, ValueError):
            known = {}
        if known.get("about") != about:
            with path.open("rb") as file:
                known = {"about": about, "digest": "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(cache, known)
        return known["digest"]

    def cancel(self, found: Mapping[str, State]) -> tuple[list[Job], list[str]]:
        """End what these runs have in the queue: (jobs ended, labels of runs of others that go with them)."""
        jobs = {state.job.id: state.job for state in found.values() if state.job and state.job.live}
        others = [
            job.submission.labels[id]
            for job in jobs.values()
            for id in job.submission.elements[int(job.id.partition("_")[2] or 0)]
            if id not in found
        ]
        self.slurm.cancel(jobs)
        return list(jobs.values()), others
