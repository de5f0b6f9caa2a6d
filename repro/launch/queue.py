"""What was submitted to SLURM, and what SLURM reports about it.

Every array that is submitted has a ledger, `OUTPUT_DIR/slurm/<name>.json`, written *before* sbatch is called. The
name is the array's job name, so what is in the queue is found even where sbatch's answer was lost, and by everyone who
shares the folder. SLURM is asked a limited number of times; no answer is an error, never "nothing is queued".
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from repro.launch.environment import slurm_environment
from seval.errors import ConfigError
from seval.files import write_json

#: A job in any other state, such as a new state of a later SLURM, is queued or running.
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "RECONFIG_FAIL",
    "REVOKED",
    "TIMEOUT",
}


class SlurmError(RuntimeError):
    """SLURM does not answer, or refuses a request."""


@dataclass
class Submission:
    """One array: which runs its elements do, and the resources that were asked for."""

    name: str
    elements: list[list[str]]  # ids of the runs that share an element
    settings: dict[str, list]  # KEY VALUE pairs by id
    labels: dict[str, str]  # by id
    needs: dict[str, str]  # id of the prerequisite by id, where it had no record yet
    minutes: int
    memory_gb: float
    created: float = field(default_factory=time.time)
    versions: dict[str, str | None] = field(default_factory=dict)  # of the worker's packages, asked when submitting
    scratch: str = ""

    @classmethod
    def read(cls, path: Path) -> Submission:
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{path} cannot be read ({error}): it is damaged, or of another version of seval; once "
                "nothing of that name is in the queue, delete it"
            ) from None

    def write(self, folder: Path) -> Path:
        """Its ledger; an `OSError` here means that nothing was submitted."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        write_json(path, asdict(self))
        return path


def submissions(folder: Path) -> list[Submission]:
    """All submissions of a folder, in the order they were made."""
    return sorted(map(Submission.read, folder.glob("seval-*.json")), key=lambda each: (each.created, each.name))


@dataclass(frozen=True)
class Job:
    """One element of an array, as SLURM last knew it."""

    id: str  # 12_3, or 12 where the array had one element
    state: str  # in SLURM's words; "" where SLURM no longer knows the element
    submission: Submission
    reason: str = ""
    exit_code: int | None = None  # known to accounting only
    signal: int = 0

    @property
    def live(self) -> bool:
        """Whether it is queued or running; an element whose dependency can never be met is neither."""
        return self.state not in {"", *ENDED} and self.reason != "DependencyNeverSatisfied"


class Queue:
    """The few questions that SLURM is asked, each with `tries` attempts of `patience` seconds."""

    def __init__(self, tries: int = 3, patience: int = 30) -> None:
        self.tries, self.patience = tries, patience

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """One attempt, in the environment of every command of SLURM."""
        clean = slurm_environment() | {"SLURM_BITSTR_LEN": "0"}  # or long lists end in ...
        return subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=self.patience, env=clean
        )

    def ask(self, *command: str) -> str:
        """The output of a command. Raises `SlurmError`."""
        if shutil.which(command[0]) is None:
            raise SlurmError(f"there is no {command[0]} on PATH")
        for attempt in range(self.tries):
            if attempt:
                time.sleep(min(2**attempt, self.patience))
            try:
                done = self.call(*command)
            except subprocess.TimeoutExpired:
                error = f"no answer within {self.patience} s"
                continue
            if done.returncode == 0:
                return done.stdout
            error = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            error = error[0]
        raise SlurmError(f"`{command[0]}` failed {self.tries} times: {error}")

    def jobs(self, made: Sequence[Submission]) -> dict[tuple[str, int], Job]:
        """By name and index, the elements that SLURM still knows. Raises `SlurmError` if it does not answer."""
        if not made:
            return {}
        by_name = {each.name: each for each in made}
        found: dict[tuple[str, int], Job] = {}
        for names in _chunks(list(by_name), 500):
            text = self.ask(
                "squeue", "--noheader", "--array", "--states=all", "--name=" + ",".join(names), "--format=%j|%i|%T|%r"
            )
            for name, id, index, state, reason in _rows("squeue", text, by_name):
                found[name, index] = Job(id, state, by_name[name], reason)
        ended = {name for (name, _), job in found.items() if not job.live}
        missing = [
            each
            for each in made
            if each.name in ended or any((each.name, index) not in found for index in range(len(each.elements)))
        ]
        for key, job in self._accounts(missing).items():  # which may learn of an end late, or never
            if job.state in ENDED and not (key in found and found[key].live):
                found[key] = job
        return found

    def _accounts(self, made: Sequence[Submission]) -> dict[tuple[str, int], Job]:
        """Ended elements that accounting knows; none where a site has no accounting or it does not answer."""
        by_name, found = {each.name: each for each in made}, {}
        if not made or shutil.which("sacct") is None:
            return {}
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(min(each.created for each in made) - 86400))
        try:
            for names in _chunks(list(by_name), 500):
                text = self.ask(
                    "sacct",
                    "--noheader",
                    "--parsable2",
                    "--allocations",
                    "--allusers",
                    "--starttime=" + since,
                    "--name=" + ",".join(names),
                    "--format=JobName,JobID,State,ExitCode",
                )
                for name, id, index, state, code in _rows("sacct", text, by_name):
                    status, _, signal = code.partition(":")
                    found[name, index] = Job(
                        id, state.partition(" ")[0], by_name[name], exit_code=int(status or 0), signal=int(signal or 0)
                    )
        except (SlurmError, ValueError):
            return {}
        return found

    def largest_array(self) -> int | None:
        """How many elements an array may have; None where SLURM does not say."""
        with suppress(SlurmError):
            if found := re.search(r"MaxArraySize\s*=\s*(\d+)", self.ask("scontrol", "show", "config")):
                return max(1, int(found[1]) - 1)  # 0 is a site without arrays
        return None

    def cancel(self, targets: Iterable[str]) -> None:
        """End elements; that some have ended already is no error."""
        for some in _chunks(list(targets), 200):
            self.ask("scancel", "--quiet", *some)

    def cancel_name(self, name: str) -> None:
        """End every job of that name."""
        self.ask("scancel", "--quiet", f"--name={name}")


def elements(number: str) -> Iterator[tuple[str, int]]:
    """The elements that SLURM writes as 12_3, as 12_[0-2,5,6-10:2%4], or as 12 for an array of one."""
    job, _, part = number.partition("_")
    if not part:
        yield job, 0
        return
    for piece in part.strip("[]").partition("%")[0].split(","):
        ends, _, step = piece.partition(":")
        first, _, last = ends.partition("-")
        for index in range(int(first), int(last or first) + 1, int(step or 1)):
            yield f"{job}_{index}", index


def _rows(command: str, text: str, names: Container[str]) -> Iterator[tuple[str, str, int, str, str]]:
    """(name, id, index, state, and the fourth column) of every element. Raises `SlurmError`."""
    for line in text.splitlines():
        try:
            name, number, state, more = line.split("|")
            found = list(elements(number))
        except ValueError:
            name = ""
        if name not in names or not state:
            raise SlurmError(f"`{command}` gave an answer that cannot be read: {line!r}")
        yield from ((name, id, index, state, more) for id, index in found)


def latest(folder: Path, queue: Queue, wanted: Iterable[str]) -> dict[str, Job]:
    """By id, the last element that each of the `wanted` runs was part of; SLURM is not asked about other arrays."""
    wanted, last = set(wanted), {}
    for made in submissions(folder):
        for index, element in enumerate(made.elements):
            last |= {id: (made, index) for id in element if id in wanted}
    known = queue.jobs(list({made.name: made for made, _ in last.values()}.values()))
    return {id: known.get((made.name, index), Job("", "", made)) for id, (made, index) in last.items()}


def _chunks(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
