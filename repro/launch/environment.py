"""The environment in which every command of SLURM runs: the user's, without what would change its question or answer.

Variables of a shell, a module or the allocation in which one submits would otherwise beat what the plan says
(`SBATCH_TIMELIMIT`), hide what is in the queue (`SQUEUE_USERS`), or pin each job to the core of the submitter
(`SLURM_CPU_BIND`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_TOOLS = "SACCT|SALLOC|SBATCH|SCANCEL|SCONTROL|SINFO|SLURM|SLURMD|SPANK|SQUEUE|SRUN|SUBMITIT"
_DROPPED = re.compile(f"_?({_TOOLS})_|(CUDA|ROCR|HIP|GPU)_VISIBLE_DEVICES$|GPU_DEVICE_ORDINAL$|ZE_AFFINITY_MASK$")
#: How SLURM is reached, and who asks.
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
_WISHES = re.compile("SBATCH_|SLURM_CLUSTERS$")


def slurm_environment() -> dict[str, str]:
    """A copy of the environment for a command of SLURM, and so for the jobs that it submits."""
    return {name: value for name, value in os.environ.items() if name in _KEPT or not _DROPPED.match(name)}


def ignored() -> list[str]:
    """The variables by which the user may have wished to change what is submitted."""
    return sorted(name for name in os.environ if _WISHES.match(name))


@contextmanager
def clean_environment() -> Iterator[None]:
    """This process's environment is `slurm_environment()` for a while, for libraries that call SLURM themselves."""
    before = dict(os.environ)
    for name in before.keys() - slurm_environment().keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)
