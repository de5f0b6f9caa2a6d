"""The launcher on a real SLURM: `make test-cluster` starts one here (slurm/dev_cluster.sh) and runs these."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro.launch.ledger import Submission
from seval.claim import holder
from tests.launch.real_slurm import (
    IMPOSSIBLE,
    LONG,
    ROWS,
    Lab,
    alone,
    begun,
    lab_on_slurm,
    long_run,
    long_runs,
    slurm,
    squeue,
    until,
)
from tests.settings import ROOT, result

pytestmark = pytest.mark.cluster


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from lab_on_slurm(tmp_path)


def test_a_table_by_two_submitters_through_a_restarted_controller_equals_the_local_one(lab: Lab) -> None:
    lab.table(ROWS, [0, 1, 2])
    two = [subprocess.Popen(lab.command("submit"), env=lab.environment) for _ in range(2)]
    assert [each.wait(120) for each in two] == [0, 0]
    assert len(lab.submitted()) == len(set(lab.submitted())) == 12
    subprocess.run([ROOT / "slurm" / "dev_cluster.sh", "restart-controller"], check=True, timeout=60)
    assert "nothing to submit" in lab.submit()
    assert lab.settle() == {"done": 12}
    there = lab.call("aggregate") and (lab.folder / "small.csv").read_text()
    lab.runs = lab.folder / "here"
    lab.submit("--cluster", "debug")
    assert lab.call("aggregate", "--strict")
    assert (lab.folder / "small.csv").read_text() == there
    assert len(list(csv.DictReader(there.splitlines()))) == 4


def test_a_canceled_estimate_takes_its_replay_along_and_both_are_submitted_again(lab: Lab) -> None:
    lab.table({"SEVAL": ROWS["SEVAL"]}, [0, 1, 2])
    slurm("scontrol", "update", "PartitionName=gpu", "State=DOWN")
    try:
        lab.submit()
        estimate = next(line.split()[0] for line in squeue(lab.names()).splitlines() if "Dependency" not in line)
        slurm("scancel", estimate)
    finally:
        slurm("scontrol", "update", "PartitionName=gpu", "State=UP")
    assert lab.settle() == {"canceled": 2, "done": 4}
    why = lab.call("status", "--failed")
    assert "never started: it depends on" in why and "no longer knows" in why
    assert "2 canceled" in lab.submit()
    assert sorted(map(lab.submitted().count, set(lab.submitted()))) == [1, 1, 1, 1, 2, 2]
    assert lab.settle() == {"done": 6}


@pytest.mark.parametrize("requeue", [True, False])
def test_preempted_elements_go_on_from_the_step_they_had_reached_and_others_are_left_alone(
    lab: Lab, requeue: bool
) -> None:
    lab.site(requeue=requeue)
    ids = long_runs(lab, 20, [0, 1, 2])
    until(lambda: all(begun(lab, id) for id in ids))
    nodes = dict(line.split() for line in squeue(lab.names(), "--format=%i %N").splitlines())
    last = next(node for job, node in nodes.items() if job.endswith("_2"))  # SLURM gives it the array's own number
    preempted = [int(job[-1]) for job, node in nodes.items() if node == last]
    slurm("sbatch", "--partition=high", f"--nodelist={last}", "--exclusive", "--output=/dev/null", "--wrap=sleep 5")
    if not requeue:
        assert lab.settle() == {"done": 3 - len(preempted), "resumable": len(preempted)}
        assert f"{len(preempted)} resumable" in lab.submit()
    assert lab.settle() == {"done": 3}
    stopped = [path for path in lab.logs() if "stopped with a checkpoint at step" in path.read_text()]
    assert len(stopped) == len(preempted) and len(lab.logs()) == 3 + (0 if requeue else len(preempted))
    assert lab.log().count("restart 1") == (len(preempted) if requeue else 0)
    assert result(lab.record(ids[2])) == result(alone(lab, ids[2]))


def test_a_time_limit_shorter_than_the_run_only_costs_a_requeue(lab: Lab) -> None:
    lab.site(signal_seconds=60, resources={"default": {"minutes": 2, "memory_gb": 1, "cpus": 1}})
    id = long_run(lab, 70)
    assert lab.settle(400) == {"done": 1}
    assert "restart 1" in lab.log() and "stopped with a checkpoint at step" in lab.log()
    assert result(lab.record(id)) == result(alone(lab, id))


def test_a_killed_worker_is_told_and_tried_again_on_request(lab: Lab) -> None:
    (lab.folder / "bin").mkdir()
    stub = lab.folder / "bin" / "sacct"  # some sites print more than was asked for
    stub.write_text(
        "#!/bin/bash\necho 'Slurm accounting is being upgraded'\necho 'other|102+0|FAILED|1:0'\n"
        f'exec {shutil.which("sacct")} "$@"\n'
    )
    stub.chmod(0o755)
    lab.environment["PATH"] = f"{stub.parent}:{lab.environment['PATH']}"
    id = long_run(lab, 10)
    until(lambda: begun(lab, id))
    os.kill(holder(lab.runs / id)["pid"], signal.SIGKILL)
    assert lab.settle() == {"crashed": 1}
    assert "killed by signal 9" in lab.call("status", "--failed")
    assert "left alone: 1" in lab.submit() and len(lab.submitted()) == 1
    lab.submit("--retry", "crashed")
    assert lab.settle() == {"done": 1}
    assert result(lab.record(id)) == result(alone(lab, id))


def test_what_ran_out_of_memory_asks_for_twice_as_much(lab: Lab) -> None:
    lab.table({"FixMatch": ROWS["FixMatch"]}, [0], IMPOSSIBLE)
    lab.submit()
    assert lab.settle() == {"oom": 1}
    assert "allocate memory" in lab.call("status", "--failed")
    assert "left alone: 1" in lab.submit()
    assert "2 GB" in lab.submit("--retry", "oom")
    assert "2G" in squeue(lab.names(), "--states=all", "--format=%m")


def test_a_run_outlives_its_node(lab: Lab) -> None:
    id = long_run(lab, 15)
    until(lambda: begun(lab, id))
    node = squeue(lab.names(), "--format=%N").strip()
    slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")  # its daemon brings it back at once
    assert lab.settle() == {"done": 1}
    assert "restart 1" in lab.log()
    assert result(lab.record(id)) == result(alone(lab, id))


def test_runs_that_share_a_gpu_do_not_fail_together(lab: Lab) -> None:
    lab.site(resources={"default": {"minutes": 10, "memory_gb": 1, "cpus": 1, "runs_per_gpu": 3}})
    lab.table(
        {
            "Supervised": ROWS["Supervised"],
            "Impossible": ROWS["Supervised"] | {"set": IMPOSSIBLE, "seeds": [0]},
            "SEVAL": ROWS["SEVAL"],
        },
        [0, 1],
    )
    lab.submit()
    elements = [json.loads(path.read_text())["elements"] for path in (lab.runs / "slurm").glob("seval-*.json")]
    assert sorted([len(element) for element in each] for each in elements) == [[2], [2], [3]]
    assert lab.settle() == {"done": 6, "oom": 1}


def test_the_worker_runs_in_the_container_and_its_image_is_recorded(lab: Lab) -> None:
    stub, image, calls = lab.folder / "bin" / "apptainer", lab.folder / "seval.sif", lab.folder / "calls"
    stub.parent.mkdir()
    stub.write_text(
        f'#!/bin/bash\necho "$@" >> {calls}\nwhile [ "$1" != python ]; do shift; done; shift\n'
        f'PYTHONPATH={ROOT} exec {sys.executable} "$@"\n'
    )
    stub.chmod(0o755)
    image.write_bytes(b"an image")
    lab.environment["PATH"] = f"{stub.parent}:{lab.environment['PATH']}"
    lab.site(slurm_python=f"apptainer exec --nv --bind /data {image} python", image=str(image))
    lab.table({"FixMatch": ROWS["FixMatch"], "SEVAL": ROWS["SEVAL"]}, [0])
    lab.submit()
    assert lab.settle() == {"done": 3}
    made = calls.read_text().splitlines()
    assert made[0] == f"exec --nv --bind /data {image} python -m seval.versions"
    assert sum("submitit.core._submit" in call for call in made) == 3
    digest = "sha256:" + subprocess.run(["sha256sum", image], capture_output=True, text=True).stdout.split()[0]
    assert {lab.record(id)["provenance"]["image"] for id in lab.submitted()} == {digest}


@pytest.fixture
def worker(lab: Lab) -> None:
    """The command that `make cluster-container-test` gives: a Python in a real image, with its own data."""
    if "SEVAL_WORKER" not in os.environ:
        pytest.skip("no image is named; `make cluster-container-test` does")
    command = os.environ["SEVAL_WORKER"].format(folder=lab.folder)
    lab.site(slurm_python=command, image="sha256:named-by-the-site")


def test_a_real_image_trains_both_phases(lab: Lab, worker: None) -> None:
    lab.table({"SEVAL": ROWS["SEVAL"]}, [0], ["DATASET.ROOT", "/data"])
    assert "note: there is no /data/tiny.h5" in lab.submit()
    assert lab.settle() == {"done": 2}
    origins = [lab.record(id)["provenance"] for id in lab.submitted()]
    assert [origin["image"] for origin in origins] == ["sha256:named-by-the-site"] * 2
    lab.call("aggregate", "--strict")


def test_a_signal_reaches_the_run_in_a_real_image(lab: Lab, worker: None) -> None:
    id = long_run(lab, 20, ("DATASET.ROOT", "/data"))
    until(lambda: begun(lab, id), 300)
    slurm("scancel", "--signal=USR2", squeue(lab.names(), "--format=%i").strip())
    assert lab.settle() == {"done": 1}
    assert "restart 1" in lab.log()
    if ".sif" not in os.environ["SEVAL_WORKER"]:  # whose file server may die of the signal; then it goes on from before
        assert "stopped with a checkpoint at step" in lab.log()


def test_cancel_ends_what_is_queued_and_running(lab: Lab) -> None:
    lab.table(ROWS, [0, 1], [*LONG, "SOLVER.MAX_ITER", 100_000])  # none ends before it is canceled
    lab.submit()
    assert "8 jobs ended" in lab.submit("--cancel")
    assert lab.settle(60).get("queued", 0) == 0
    assert "nothing of it is in the queue" in lab.submit("--cancel")


def test_a_worker_with_other_versions_is_refused(lab: Lab) -> None:
    lab.table({"FixMatch": ROWS["FixMatch"]}, [0])
    slurm("scontrol", "update", "PartitionName=gpu", "State=DOWN")
    try:
        lab.submit()
        path = next((lab.runs / "slurm").glob("seval-*.json"))
        made = Submission.read(path)
        made.versions["torch"] = "1.12.1"
        made.write(path.parent)
    finally:
        slurm("scontrol", "update", "PartitionName=gpu", "State=UP")
    assert lab.settle() == {"crashed": 1}
    assert "(expected 1.12.1)" in lab.call("status", "--failed")
