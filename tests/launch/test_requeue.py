"""The batch script on the host: a run that stopped with a checkpoint is requeued, all else keeps its exit code."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from repro.launch import worker
from tests.launch.conftest import ONE, Lab, table
from tests.settings import ROOT


def requeue(folder: Path, code: int, state: str = "RUNNING", again: bool | None = None, **environment: str) -> tuple:
    """(exit code, what scontrol was told) of slurm/requeue.sh; `again`: whether the file is there, None for no name."""
    calls, bin = folder / "calls", folder / "bin"
    bin.mkdir(exist_ok=True)
    calls.write_text("")
    for name, text in {
        "squeue": f"env >{folder}/environment; [ -n '{state}' ] && echo '{state}'",
        "scontrol": f'echo "$@" >>{calls}',
        "sleep": '[ "$1" -lt 100 ] || exit 0',
    }.items():
        (bin / name).write_text(f"#!/bin/bash\n{text}\n")
        (bin / name).chmod(0o755)
    wanted = {"PATH": f"{bin}:/usr/bin:/bin", "SLURM_JOB_ID": "12", **environment}
    if again is not None:
        wanted["SEVAL_AGAIN"] = str(folder / "seval-a.again.0")
        (folder / "seval-a.again.0").unlink(missing_ok=True)
        if again:
            (folder / "seval-a.again.0").touch()
    script = f"code={code}; source {ROOT}/slurm/requeue.sh"
    done = subprocess.run(["bash", "-c", script], env=wanted, capture_output=True, text=True, timeout=200)
    assert not done.stderr and not (folder / "seval-a.again.0").exists()
    return done.returncode, calls.read_text().splitlines()


def test_what_a_user_filters_squeue_by_does_not_hide_the_job(tmp_path: Path) -> None:
    hidden = {"SQUEUE_USERS": "nobody", "SLURM_CLUSTERS": "other", "SCONTROL_LOCAL": "1"}
    told = ["requeue 12"]
    assert requeue(tmp_path, 75, **hidden) == (75, told)
    kept = (tmp_path / "environment").read_text()
    assert "SLURM_JOB_ID=12" in kept and not [name for name in hidden if name in kept]


def test_the_host_requeues_what_stopped_with_a_checkpoint(tmp_path: Path) -> None:
    told = ["requeue 12"]
    assert requeue(tmp_path, 75) == (75, told)  # slurm/run.sbatch, which has no such file
    assert requeue(tmp_path, 75, again=True) == (75, told)
    assert requeue(tmp_path, 0, again=True, SEVAL_PACKED="1") == (75, told)
    for code in (7, 135):  # the file server of an image died, and did so too often
        assert requeue(tmp_path, code) == requeue(tmp_path, code, again=False) == (75, told)
        assert requeue(tmp_path, code, again=False, SLURM_RESTART_COUNT="10") == (code, [])
    # the last element of an array bears the array's own number, which would mean all of them
    element = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "2"}
    assert requeue(tmp_path, 75, again=True, **element) == (75, ["requeue 12_2"])
    assert requeue(tmp_path, 143, again=True) == (75, told)  # of a container whose own code says nothing
    for state in ("COMPLETING", "CANCELLED", "TIMEOUT", ""):
        assert requeue(tmp_path, 75, state, again=True) == (75, [])
    assert requeue(tmp_path, 75, again=True, SEVAL_REQUEUE="0") == (75, [])
    assert requeue(tmp_path, 75, again=False) == (75, [])  # a worker that gets nowhere does not ask for another try


@pytest.mark.parametrize("code", [0, 1, 4, 137])
def test_other_exit_codes_pass_through_unless_packed(tmp_path: Path, code: int) -> None:
    assert requeue(tmp_path, code) == requeue(tmp_path, code, again=False) == (code, [])
    assert requeue(tmp_path, code, again=False, SEVAL_PACKED="1") == (0, [])


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "slurm").iterdir() if path.suffix != ".yaml"))
def test_shell_scripts_parse(script: str) -> None:
    assert subprocess.run(["bash", "-n", ROOT / "slurm" / script]).returncode == 0


def test_a_whole_batch_script_does_a_run_and_asks_for_another_try(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What sbatch was given, run by bash, with a worker that says how it was started."""
    lab.table(table(ONE, seeds=[0, 1]))
    python = lab.folder / "python stub"
    python.write_text(
        '#!/bin/bash\necho "$SEVAL_AGAIN $SEVAL_PACKED $OMP_NUM_THREADS $*"\ntouch "$SEVAL_AGAIN"; exit 75\n'
    )
    python.chmod(0o755)
    (lab.fake.bin / "srun").write_text('#!/bin/bash\nuntil [ "${1##*/}" = "python stub" ]; do shift; done; "$@"\n')
    (lab.fake.bin / "squeue").write_text("#!/bin/bash\necho RUNNING\n")
    (lab.fake.bin / "sleep").write_text("#!/bin/bash\n")
    (lab.fake.bin / "sleep").chmod(0o755)
    lab.site(slurm_python=f"'{python}'", probe=False)
    lab.submit()
    (made,) = lab.ledgers()
    done = subprocess.run(
        ["bash", lab.fake.folder / "101.sh"],
        capture_output=True,
        text=True,
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "102", "SLURM_CPUS_PER_TASK": "2"},
    )
    again = lab.runs / "slurm" / f"{made.name}.again.1"
    assert done.stdout.split("\n")[0] == f"{again} 0 2 -u -m submitit.core._submit {lab.runs}/slurm/logs"
    assert done.returncode == 75 and lab.fake.calls("scontrol")[-1] == "scontrol requeue 102" and not again.exists()
    assert worker.again(lab.runs / "slurm" / f"{made.name}.json", 1) == again
