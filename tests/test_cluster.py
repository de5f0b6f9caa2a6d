"""The launcher on a real SLURM: `make test-cluster` starts one here (slurm/dev_cluster.sh) and runs these."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from seval.claim import holder
from seval.config import load
from seval.run import Run
from tests.settings import ROOT, SMALL, result

pytestmark = pytest.mark.cluster
SITE = {"partition": "gpu", "signal_seconds": 30, "resources": {"default": {"minutes": 10, "memory_gb": 1, "cpus": 1}}}
ROWS = {
    "Supervised": {"config": "supervised"},
    "FixMatch": {"config": "fixmatch"},
    "SEVAL-PL": {"config": "fixmatch_seval_load"},
    "SEVAL": {"config": "fixmatch_seval_load", "offset": "seval"},
}
IMPOSSIBLE = ["MODEL.WIDTH", 30000]  # a network of terabytes


class Lab:
    """A table, a site and an OUTPUT_DIR, and the commands on them as a user gives them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.rate = folder, folder / "runs", 0.0
        self.environment = dict(os.environ, OMP_NUM_THREADS="1", COLUMNS="200")

    def site(self, **changes: object) -> None:
        (self.folder / "site.yaml").write_text(yaml.safe_dump(SITE | changes))

    def table(self, rows: dict, seeds: list[int], settings: list | None = None) -> None:
        words = [str(word) if isinstance(word, Path) else word for word in [*SMALL, *(settings or [])]]
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
        done = subprocess.run(self.command(script, *words), capture_output=True, text=True, env=self.environment)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

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


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if "SLURM_CONF" not in os.environ or shutil.which("sinfo") is None:
        pytest.skip("no SLURM here; `make test-cluster` starts one")
    lab = Lab(tmp_path)
    lab.site()
    yield lab
    if names := lab.names():
        subprocess.run(["scancel", "--quiet", f"--name={','.join(names)}"], check=False)


def until(true: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {slurm('squeue', '--array')}"
        time.sleep(0.3)


def slurm(*command: str) -> str:
    for _ in range(20):  # the controller may be restarting
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if done.returncode == 0:
            return done.stdout
        time.sleep(1)
    raise AssertionError(done.stderr)


def squeue(names: list[str], *words: str) -> str:
    return slurm("squeue", "--noheader", "--array", f"--name={','.join(names)}", *words) if names else ""


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


LONG = ["PERIODS.EVAL", 50, "PERIODS.CHECKPOINT", 100_000, "PERIODS.QUALITY", 100_000]


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
    options = ["--parsable", "--mem=1G", "--cpus-per-task=1", f"--output={lab.folder}/%j.out"]
    done = subprocess.run(
        ["sbatch", *options, *script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=lab.environment | {"SEVAL_PYTHON": sys.executable},
    )
    job = done.stdout.strip()
    until(lambda: begun(lab, run.id))
    slurm("scancel", "--signal=USR2", job)
    until(lambda: run.done(), 200)
    log = (lab.folder / f"{job}.out").read_text()
    assert "SIGUSR2: stopped after" in log and f"run {run.id} done" in log


def test_cancel_ends_what_is_queued_and_running(lab: Lab) -> None:
    lab.table(ROWS, [0, 1])
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
        ledger = json.loads(path.read_text())
        ledger["versions"]["torch"] = "1.12.1"
        path.write_text(json.dumps(ledger))
    finally:
        slurm("scontrol", "update", "PartitionName=gpu", "State=UP")
    assert lab.settle() == {"crashed": 1}
    assert "(expected 1.12.1)" in lab.call("status", "--failed")
