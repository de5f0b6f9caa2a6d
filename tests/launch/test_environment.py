"""Nothing of the user's environment changes what is submitted, or what is seen of it."""

from __future__ import annotations

import os

import pytest

from repro.launch import environment
from repro.launch.queue import Queue, SlurmError
from tests.launch.conftest import ONE, Lab, table
from tests.launch.fake_slurm import Fake

HOSTILE = {
    "SBATCH_JOB_NAME": "mine",
    "SBATCH_ARRAY_INX": "0-0",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_CLUSTERS": "other",
    "SBATCH_EXPORT": "NONE",
    "SALLOC_PARTITION": "other",
    "SQUEUE_USERS": "nobody",
    "SQUEUE_FORMAT2": "jobid",
    "SACCT_FORMAT": "JobID",
    "SCANCEL_INTERACTIVE": "1",
    "SCONTROL_FEDERATION": "1",
    "SINFO_FORMAT": "%n",
    "SRUN_CPUS_PER_TASK": "1",
    "SUBMITIT_PREEMPT_SIGNAL": "USR1",
    "SLURM_CLUSTERS": "other",
    "SLURM_TIME_FORMAT": "relative",
    "SLURM_BITSTR_LEN": "8",
    "SLURM_JOB_ID": "7",
    "SLURM_ARRAY_JOB_ID": "5",
    "SLURM_CPU_BIND": "mask_cpu:0x1",
    "SLURM_MEM_PER_CPU": "2048",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURMD_NODENAME": "n1",
    "_SLURM_SPANK_OPTION_a_b": "1",
    "CUDA_VISIBLE_DEVICES": "3",
    "ROCR_VISIBLE_DEVICES": "3",
    "GPU_DEVICE_ORDINAL": "3",
}
KEPT = {
    "SLURM_CONF": "/somewhere/slurm.conf",
    "SLURM_CONF_SERVER": "host",
    "SLURM_JWT": "token",
    "SEVAL_MINE": "1",
    "SLURMISH": "no name of SLURM's",
    "CUDA_HOME": "/usr/local/cuda",
    "OMP_NUM_THREADS": "3",
}


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (HOSTILE | KEPT).items():
        monkeypatch.setenv(name, value)


def seen(fake: Fake) -> dict[str, dict[str, str]]:
    """By command, the variables of its last call."""
    found = {}
    for path in fake.folder.glob("*.environment"):
        words = path.read_text().split("\0")
        found[path.stem] = dict(word.split("=", 1) for word in words if "=" in word)
    return found


@pytest.mark.usefixtures("hostile")
def test_only_what_slurm_is_reached_by_is_kept() -> None:
    before = dict(os.environ)
    clean = environment.slurm_environment()
    assert clean == {name: value for name, value in before.items() if name not in HOSTILE}
    with pytest.raises(KeyError), environment.clean_environment():
        assert dict(os.environ) == clean
        raise KeyError
    assert dict(os.environ) == before
    assert environment.ignored() == sorted(name for name in HOSTILE if name.startswith("SBATCH_")) + ["SLURM_CLUSTERS"]


@pytest.mark.usefixtures("hostile")
def test_no_command_of_slurm_sees_what_the_user_or_an_allocation_set(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.table(table(ONE, seeds=[0, 1, 2]))
    said = lab.submit("--site", "site.yaml")
    assert "SBATCH_TIMELIMIT" in said and "not used" in said
    lab.fake.end(lab.element("Plain 1"), "OUT_OF_MEMORY", "0:125")
    assert lab.kinds() == {"Plain 0": "queued", "Plain 1": "oom", "Plain 2": "queued"}
    assert "2 jobs ended" in lab.submit("--cancel")
    calls = seen(lab.fake)
    assert set(calls) == {"sbatch", "squeue", "sacct", "scancel", "scontrol"}
    for command, variables in calls.items():
        changed = {name: variables[name] for name in HOSTILE if name in variables}
        assert changed == ({} if command == "sbatch" else {"SLURM_BITSTR_LEN": "0"}), command
        assert {name: variables[name] for name in KEPT} == KEPT
    options = lab.fake.options("101")
    assert options["array"] == "0-2%3" and options["signal"] == "USR2@120" and options["export"] == "ALL"
    assert " --export=ALL " in (lab.fake.folder / "101.sh").read_text()


@pytest.mark.usefixtures("hostile")
def test_the_same_is_submitted_with_and_without_them(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.table(table(ONE, seeds=[0, 1, 2]))
    lab.submit()
    assert "nothing to submit" in lab.submit() and len(lab.fake.queue()) == 3
    lab.submit("--cancel")
    for name in HOSTILE:
        monkeypatch.delenv(name)
    assert "not used" not in lab.submit()
    first, second = ((lab.fake.folder / f"{job}.sh").read_text() for job in lab.fake.jobs())
    hostile, plain = (made.name for made in lab.ledgers())
    assert first.replace(hostile, plain) == second


def test_bytes_that_are_no_text_are_no_traceback(fake: Fake) -> None:
    (fake.bin / "squeue").write_text("#!/bin/bash\nprintf 'a\\xffb'\n")
    assert Queue(1, 5).ask("squeue") == "a\N{REPLACEMENT CHARACTER}b"
    (fake.bin / "squeue").write_text("#!/bin/bash\nprintf 'a\\xffb' >&2; exit 1\n")
    with pytest.raises(SlurmError, match="a\N{REPLACEMENT CHARACTER}b"):
        Queue(1, 5).ask("squeue")
