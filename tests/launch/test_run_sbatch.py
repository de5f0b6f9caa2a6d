"""A single job without the launcher: which Python it takes, and what of the submitter's allocation reaches srun."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.settings import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, the code, and an srun that notes what it is asked."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/srun").write_text(
        f'#!/bin/bash\necho "$@" >{tmp_path}/asked; env >{tmp_path}/environment; exit 3\n'
    )
    (tmp_path / "bin/python").write_text(
        "#!/bin/bash\necho \"ModuleNotFoundError: No module named 'torch'\" >&2; exit 1\n"
    )
    for name in ("srun", "python"):
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("main.py", "seval", "slurm"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def job(checkout: Path, **environment: str) -> tuple[int, str]:
    """Its exit code and stderr."""
    done = subprocess.run(
        [shutil.which("bash"), "slurm/run.sbatch", "SEED", "3"],
        cwd=checkout,
        env={"PATH": f"{checkout}/bin:/usr/bin:/bin", "SLURM_CPUS_PER_TASK": "4", **environment},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def test_the_environment_of_the_checkout_is_taken_if_there_is_one(checkout: Path) -> None:
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").write_text(f'#!/bin/bash\nexec {sys.executable} "$@"\n')
    (checkout / ".venv/bin/python").chmod(0o755)
    assert job(checkout) == (3, "")
    asked = (checkout / "asked").read_text().split()
    assert asked[-6:] == [".venv/bin/python", "main.py", "SEED", "3", "RUNTIME.PROGRESS", "False"]


def test_a_python_without_the_code_is_named_before_anything_starts(checkout: Path) -> None:
    for more in ({}, {"SEVAL_PYTHON": "bin/python -u"}):
        code, said = job(checkout, **more)
        assert code == 2 and said.count("\n") == 1 and "named 'torch'" in said and "SEVAL_PYTHON" in said
        assert more.get("SEVAL_PYTHON", "python") in said and not (checkout / "asked").exists()


def test_an_allocation_in_which_one_submits_does_not_reach_the_step(checkout: Path) -> None:
    names = "ARRAY_JOB_ID CPU_BIND CPU_BIND_LIST MEM_PER_CPU MEM_PER_NODE NTASKS NTASKS_PER_NODE GPUS STEP_GRES"
    stale = {f"SLURM_{name}": "1" for name in [*names.split(), "TRES_PER_TASK", "HINT", "EXPORT_ENV"]}
    own = {"SLURM_JOB_ID": "12", "SLURM_CONF": "/etc/slurm.conf", "SLURM_NNODES": "1"}
    assert job(checkout, SEVAL_PYTHON=sys.executable, **stale, **own) == (3, "")
    seen = dict(line.split("=", 1) for line in (checkout / "environment").read_text().splitlines() if "=" in line)
    assert seen["SRUN_CPUS_PER_TASK"] == seen["OMP_NUM_THREADS"] == "4"
    assert not seen.keys() & stale.keys() and own.items() <= seen.items()
    assert {"--ntasks=1", "--nodes=1", "--export=ALL"} <= set((checkout / "asked").read_text().split())
