"""A table, a site and a folder of runs on a real SLURM, and what the tests ask of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from repro.launch.environment import slurm_environment
from seval.config import load
from seval.run import Run
from tests.settings import ROOT, SMALL

SITE = {"partition": "gpu", "signal_seconds": 30, "resources": {"default": {"minutes": 10, "memory_gb": 1, "cpus": 1}}}
ROWS = {
    "Supervised": {"config": "supervised"},
    "FixMatch": {"config": "fixmatch"},
    "SEVAL-PL": {"config": "fixmatch_seval_load"},
    "SEVAL": {"config": "fixmatch_seval_load", "offset": "seval"},
}
IMPOSSIBLE = ["MODEL.WIDTH", 30000]  # a network of terabytes
#: What a user, a module or an allocation may have set.
HOSTILE = {
    "SBATCH_JOB_NAME": "mine",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_ARRAY_INX": "0-0",
    "SBATCH_MEM_PER_NODE": "100M",
    "SBATCH_PARTITION": "high",
    "SBATCH_OPEN_MODE": "truncate",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_CLUSTERS": "other",
    "SLURM_CLUSTERS": "other",
    "SLURM_MEM_PER_CPU": "2048",
    "SLURM_CPU_BIND": "mask_cpu:0x1",
    "SLURM_TIME_FORMAT": "relative",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_FORMAT2": "jobid",
    "SACCT_FORMAT": "JobID",
    "SCANCEL_USER": "nobody",
}
LONG = ["PERIODS.EVAL", 50, "PERIODS.CHECKPOINT", 100_000, "PERIODS.QUALITY", 100_000]


class Lab:
    """A table, a site and an OUTPUT_DIR, and the commands on them as a user gives them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.rate = folder, folder / "runs", 0.0
        self.environment = slurm_environment() | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        self.within: list[str] = []  # a command that runs the others, such as salloc

    def site(self, **changes: object) -> None:
        (self.folder / "site.yaml").write_text(yaml.safe_dump(SITE | changes))

    def table(self, rows: dict, seeds: list[int], settings: list | None = None) -> None:
        # the GPUs of this cluster are pretended
        words = [str(word) if isinstance(word, Path) else word for word in [*SMALL, "GPU_ID", -1, *(settings or [])]]
        content = {
            "folder": "tiny",
            "protocol": "last",
            "seeds": seeds,
            "set": words,
            "columns": {"LT": {}},
            "rows": rows,
        }
        (self.folder / "small.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def command(self, script: str, *words: str) -> list[str]:
        site = ["--site", str(self.folder / "site.yaml")] if script != "aggregate" else ["--out", str(self.folder)]
        options = ["--table", str(self.folder / "small.yaml"), "--output-dir", str(self.runs)]
        return [sys.executable, str(ROOT / "repro" / f"{script}.py"), *options, *site, *words]

    def call(self, script: str, *words: str, code: int = 0) -> str:
        command = [*self.within, *self.command(script, *words)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if script == "status" and "--json" in words else done.stdout + done.stderr

    def submit(self, *words: str, code: int = 0) -> str:
        return self.call("submit", *words, code=code)

    def states(self) -> dict[str, dict]:
        return {each["id"]: each for each in json.loads(self.call("status", "--json"))}

    def kinds(self) -> dict[str, int]:
        kinds = [each["state"] for each in self.states().values()]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def settle(self, seconds: float = 300) -> dict[str, int]:
        """What the runs are once nothing of them is in the queue any more."""
        until(lambda: not squeue(self.names()), seconds)
        return self.kinds()

    def names(self) -> list[str]:
        return [path.stem for path in (self.runs / "slurm").glob("seval-*.json")]

    def submitted(self) -> list[str]:
        """Ids, one for each time that a run was submitted."""
        ledgers = [json.loads(path.read_text()) for path in (self.runs / "slurm").glob("seval-*.json")]
        return [id for ledger in ledgers for element in ledger["elements"] for id in element]

    def logs(self) -> list[Path]:
        return sorted((self.runs / "slurm" / "logs").glob("*_log.out"))

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.logs())

    def record(self, id: str) -> dict:
        return json.loads((self.runs / id / "record.json").read_text())


def lab_on_slurm(folder: Path) -> Iterator[Lab]:
    """For a fixture."""
    if "SLURM_CONF" not in os.environ or shutil.which("sinfo") is None:
        pytest.skip("no SLURM here; `make test-cluster` starts one")
    lab = Lab(folder)
    lab.site()
    yield lab
    if names := lab.names():
        subprocess.run(["scancel", "--quiet", f"--name={','.join(names)}"], check=False, env=slurm_environment())


def until(true: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {slurm('squeue', '--array')}"
        time.sleep(0.3)


def slurm(*command: str) -> str:
    for _ in range(20):  # the controller may be restarting
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=slurm_environment())
        if done.returncode == 0:
            return done.stdout
        time.sleep(1)
    raise AssertionError(done.stderr)


def squeue(names: list[str], *words: str) -> str:
    return slurm("squeue", "--noheader", "--array", f"--name={','.join(names)}", *words) if names else ""


def jobs(names: list[str]) -> list[dict[str, str]]:
    """What SLURM knows of the jobs of these names, an element each."""
    asked = "jobarrayid name timelimit minmemory numcpus partition tres-per-node tres-alloc statecompact".split()
    text = squeue(names, "--states=all", "--Format=" + ",".join(f"{name}:60" for name in asked))
    return [{name: line[60 * k : 60 * k + 60].strip() for k, name in enumerate(asked)} for line in text.splitlines()]


def begun(lab: Lab, id: str) -> bool:
    """Whether a run has a checkpoint of this try, or at least evaluations."""
    path = lab.runs / id / "metrics.jsonl"
    return path.exists() and path.stat().st_size > 0


def alone(lab: Lab, id: str) -> dict:
    """The record that the same run makes here, undisturbed."""
    ledger = next(
        each
        for each in map(json.loads, (path.read_text() for path in (lab.runs / "slurm").glob("seval-*.json")))
        if id in each["settings"]
    )
    return Run(load((), [*ledger["settings"][id], "OUTPUT_DIR", str(lab.folder / "alone"), "GPU_ID", -1])).execute()


def long_runs(lab: Lab, seconds: float, seeds: list[int], settings: tuple = ()) -> list[str]:
    """FixMatch of about so many seconds, by its speed here and now; returns the ids once they are submitted."""
    clock = Run(
        load(
            ROOT / "configs/tiny/fixmatch.yaml",
            [*SMALL, *LONG, "SOLVER.MAX_ITER", 100, "RUNTIME.THREADS", 1, "OUTPUT_DIR", str(lab.folder / "clock")],
        )
    ).execute()
    steps = 50 * max(4, round(seconds * 100 / clock["seconds"] / 50))
    lab.table({"FixMatch": ROWS["FixMatch"]}, seeds, [*LONG, *settings, "SOLVER.MAX_ITER", steps])
    lab.submit()
    return lab.submitted()


def long_run(lab: Lab, seconds: float, settings: tuple = ()) -> str:
    return long_runs(lab, seconds, [0], settings)[0]
