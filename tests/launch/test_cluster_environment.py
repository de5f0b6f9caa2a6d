"""On a real SLURM: what a user or an allocation sets changes no job and hides none; jobs by hand; a dead controller."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seval.config import load
from seval.run import Run
from tests.launch.real_slurm import HOSTILE, LONG, ROWS, Lab, begun, jobs, lab_on_slurm, slurm, until
from tests.settings import ROOT, SMALL

pytestmark = pytest.mark.cluster


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from lab_on_slurm(tmp_path)


def test_nothing_that_a_user_or_an_allocation_sets_changes_the_jobs_or_hides_them(lab: Lab) -> None:
    lab.table({"FixMatch": ROWS["FixMatch"]}, [0, 1, 2])
    hostile = [f"{name}={value}" for name, value in HOSTILE.items()]
    lab.within = ["salloc", "--quiet", "--partition=high", "--mem-per-cpu=100M", "--ntasks=2", "env", *hostile]
    slurm("scontrol", "update", "PartitionName=gpu", "State=DOWN")
    try:
        assert "(10 min, 1 GB, 1 cpus)" in lab.submit()
        assert "nothing to submit" in lab.submit() and lab.kinds() == {"queued": 3}
        (name,) = lab.names()
        wanted = {"name": name, "timelimit": "10:00", "minmemory": "1G", "numcpus": "1", "partition": "gpu"}
        assert [job | wanted for job in jobs([name])] == jobs([name]) and len(jobs([name])) == 3
        assert "3 jobs ended" in lab.submit("--cancel")
        lab.site(
            gres="",
            sbatch={"gpus-per-node": 1, "mem-per-cpu": "300M"},
            resources={"default": {"minutes": 20, "memory_gb": 0, "cpus": 2}},
            modules=[f"env >{lab.folder}/environment"],
        )
        assert "(20 min, the site's memory, 2 cpus)" in lab.submit()
        (name,) = set(lab.names()) - {name}
        wanted = {"name": name, "timelimit": "20:00", "minmemory": "300M", "numcpus": "2"}
        assert [job | wanted for job in jobs([name])] == jobs([name]) and len(jobs([name])) == 3
        assert "gres/gpu=1" in jobs([name])[0]["tres-alloc"]
    finally:
        slurm("scontrol", "update", "PartitionName=gpu", "State=UP")
    assert lab.settle() == {"done": 3} and sorted(map(lab.submitted().count, set(lab.submitted()))) == [2, 2, 2]
    seen = dict(line.partition("=")[::2] for line in (lab.folder / "environment").read_text().splitlines())
    assert not [name for name, value in HOSTILE.items() if seen.get(name) == value]


def test_a_controller_that_is_down_is_named_at_once(lab: Lab) -> None:
    lab.table({"FixMatch": ROWS["FixMatch"]}, [0])
    text, begun = Path(os.environ["SLURM_CONF"]).read_text(), time.monotonic()
    (lab.folder / "slurm.conf").write_text(re.sub("SlurmctldPort=.*", "SlurmctldPort=1", text))
    lab.environment["SLURM_CONF"] = str(lab.folder / "slurm.conf")
    said = lab.submit(code=1)
    assert "is DOWN" in said and "--cluster local" in said and not lab.names()
    assert time.monotonic() - begun < 60


def test_the_job_without_the_launcher_is_requeued_on_a_signal(lab: Lab) -> None:
    runs, words = lab.folder / "runs", [*SMALL, *LONG, "SOLVER.MAX_ITER", 2000]
    run = Run(load(ROOT / "configs/tiny/supervised.yaml", [*words, "OUTPUT_DIR", str(runs)]))
    script = [
        "slurm/run.sbatch",
        "--config-file",
        "configs/tiny/supervised.yaml",
        *map(str, words),
        "OUTPUT_DIR",
        str(runs),
    ]
    options = ["--parsable", "--cpus-per-task=1", f"--output={lab.folder}/%j.out"]
    allocation = ["salloc", "--quiet", "--partition=high", "--mem-per-cpu=100M", "--ntasks=2"]
    done = subprocess.run(
        [*allocation, "sbatch", *options, *script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=lab.environment | {"SEVAL_PYTHON": sys.executable},
    )
    job = done.stdout.strip()
    until(lambda: begun(lab, run.id))
    slurm("scancel", "--signal=USR2", job)
    log = lab.folder / f"{job}.out"
    until(lambda: f"run {run.id} done" in log.read_text(), 200)  # it is written after the record
    assert "SIGUSR2: stopped after" in log.read_text() and run.done()
