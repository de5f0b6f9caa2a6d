"""What sbatch is asked for: resources, options of the site, sizes of arrays, the worker and its image."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from repro.launch import submitting
from repro.tables import selection
from seval.config import load
from seval.run import Run
from seval.versions import versions
from tests.launch.conftest import ONE, PAIR, Lab, table
from tests.settings import ROOT


def test_what_a_site_says_is_what_sbatch_is_told(lab: Lab) -> None:
    lab.table(table(PAIR, seeds=[0, 1]))
    lab.site(
        partition="p1,p2",
        account="acc",
        qos="long",
        gres="gpu:a100:1",
        constraint="a100|h100",
        requeue=False,
        signal_seconds=77,
        modules=["module load cuda/12.4"],
        array_parallelism=1,
        sbatch={"exclude": "node7", "mail_type": ["FAIL", "END"], "nice": 0, "reboot": False},
    )
    lab.submit()
    options = lab.fake.options("101")
    expected = {
        "partition": "p1,p2",
        "account": "acc",
        "qos": "long",
        "gres": "gpu:a100:1",
        "constraint": "a100|h100",
        "signal": "USR2@77",
        "exclude": "node7",
        "mail-type": "FAIL,END",
        "nice": "0",
        "export": "ALL",
        "no-requeue": "",
        "time": "60",
        "cpus-per-task": "2",
        "mem": "4096M",
        "array": "0-1%1",
        "ntasks-per-node": "1",
        "kill-on-invalid-dep": "yes",
        "open-mode": "append",
    }
    assert {key: options.get(key) for key in expected} == expected and "requeue" not in options
    script = (lab.fake.folder / "101.sh").read_text()
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert script.index("module load cuda/12.4") < script.index("\nsrun ")
    assert "export SEVAL_REQUEUE=0" in script and "export SEVAL_PACKED=0" in script
    ledger = lab.ledgers()[0]
    settings = ledger.settings[ledger.elements[0][0]]
    assert settings[settings.index("GPU_ID") + 1] == 0 and ledger.versions == versions()


def test_a_site_without_gpus_or_queues_leaves_them_out(lab: Lab) -> None:
    lab.table(table(ONE, seeds=[0, 1]))
    lab.site(gres="")
    lab.submit("--array-parallelism", "9")
    options = lab.fake.options("101")
    assert not {"gres", "partition", "account", "qos", "constraint", "dependency", "wckey"} & set(options)
    assert "requeue" in options and "no-requeue" not in options and options["array"] == "0-1%2"
    settings = next(iter(lab.ledgers()[0].settings.values()))
    assert settings[settings.index("GPU_ID") + 1] == -1
    assert Run(load((), settings)).id == lab.names()["Plain 0"].id
    assert settings[settings.index("OUTPUT_DIR") + 1] == str(lab.runs)


def test_packed_runs_share_memory_tasks_and_elements(lab: Lab) -> None:
    lab.table(table(PAIR, seeds=[0, 1, 2, 3, 4]))
    lab.site(resources={"default": {"memory_gb": 4, "runs_per_gpu": 3}})
    lab.submit()
    assert [[len(each) for each in made.elements] for made in lab.ledgers()] == [[3, 2], [3, 2]]
    assert {(lab.fake.options(job)["mem"], lab.fake.options(job)["ntasks-per-node"]) for job in lab.fake.jobs()} == {
        ("12288M", "3")
    }
    first, second = lab.ledgers()
    assert [[second.needs[id] for id in element] for element in second.elements] == first.elements
    lab.failed("Replay 0/1", "oom", "MemoryError")
    lab.fake.put({})
    lab.submit("--retry", "oom")
    assert "24576M" in {lab.fake.options(job)["mem"] for job in lab.fake.jobs()[2:]}


def test_memory_of_nothing_is_left_to_the_site_and_less_than_a_megabyte_is_not_all_of_a_node(lab: Lab) -> None:
    lab.table(table(ONE))
    lab.site(sbatch={"mem-per-cpu": "4G"}, resources={"default": {"memory_gb": 0}})
    assert "the site's memory" in lab.submit("--dry-run")
    lab.submit()
    options = lab.fake.options("101")
    assert "mem" not in options and options["mem-per-cpu"] == "4G"
    lab.failed("Plain 0", "oom", "MemoryError")
    lab.submit("--retry", "oom")
    assert "mem" not in lab.fake.options("102")
    lab.failed("Plain 0", "oom", "MemoryError")
    lab.site(resources={"default": {"memory_gb": 0.0001}})
    lab.submit("--retry", "oom")
    assert lab.fake.options("103")["mem"] == "1M"


def test_a_controller_that_does_not_answer_is_named_before_anything_is_submitted(lab: Lab, pauses: list) -> None:
    down = "Slurmctld(primary) at head is DOWN\nSlurmctld(backup1) at spare is {}\n"
    (lab.fake.folder / "config").write_text(down.format("DOWN"))
    for word in ((), ("--cancel",)):
        said = lab.submit(*word, code=1)
        assert "at head is DOWN" in said and "--cluster local" in said and "scancel" not in said
    lab.fake.plan("scontrol", *["fail Could not establish a configuration source"] * 3)
    assert "Could not establish" in lab.submit(code=1)
    assert {line.split()[0] for line in (lab.fake.folder / "calls").read_text().splitlines()} == {"scontrol"}
    assert sum(pauses) < 30 and not lab.ledgers()
    (lab.fake.folder / "config").write_text(down.format("UP"))
    lab.fake.plan("scontrol", "fail Unable to contact slurm controller")  # restarting
    lab.submit()
    assert lab.ledgers()
    lab.fake.remove("scontrol")
    assert "nothing to submit" in lab.submit()


def test_the_first_of_two_errors_is_named_first(lab: Lab) -> None:
    lab.fake.plan("sbatch", "always Unable to contact slurm controller")
    lab.fake.plan("scancel", "always also away")
    said = lab.submit(code=1)
    assert said.index("sbatch failed") < said.index("Unable to contact") < said.index("`scancel` failed")
    assert len(lab.ledgers()) == 1


def test_arrays_are_cut_to_what_the_site_allows_and_many_runs_are_few_calls(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.table(table(ONE, seeds=list(range(1000))))
    asked: list[selection.Selection] = []  # configurations that are read once
    monkeypatch.setattr(submitting, "select", lambda args: (asked or asked.append(selection.select(args)) or asked)[0])
    (lab.fake.folder / "config").write_text("MaxArraySize = 401\n")
    lab.submit()
    assert [lab.fake.options(job)["array"] for job in lab.fake.jobs()] == ["0-399%64", "0-399%64", "0-199%64"]
    assert len(lab.fake.calls("sbatch")) == 3 and sum(len(made.elements) for made in lab.ledgers()) == 1000
    assert "nothing to submit" in lab.submit()
    assert len(lab.fake.calls("squeue")) <= 2 and len(lab.fake.calls("sbatch")) == 3


def test_clocks_that_differ_do_not_hide_the_last_submission(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.table(table(ONE))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    lab.submit()
    lab.fake.end(lab.element("Plain 0"), "CANCELLED by 1")
    monkeypatch.setattr(time, "time", lambda: now)
    lab.submit()
    assert lab.times() == {"Plain 0": 2}
    assert "nothing to submit" in lab.submit() and lab.kinds() == {"Plain 0": "queued"}


def test_cancel_ends_elements_and_says_whom_it_takes_along(lab: Lab) -> None:
    lab.table(table(ONE, seeds=[0, 1]))
    assert "nothing of it is in the queue" in lab.submit("--cancel")
    lab.site(resources={"default": {"runs_per_gpu": 2}})
    lab.submit()
    assert "1 jobs would be ended" in lab.submit("--cancel", "--dry-run") and not lab.fake.calls("scancel")
    said = lab.submit("--cancel", "--seeds", "0")
    assert "1 jobs ended" in said and "Plain, LT, seed 1" in said and not lab.fake.queue()
    lab.submit()
    assert lab.times() == {"Plain 0": 2, "Plain 1": 2}


def test_a_worker_that_does_not_start_is_found_before_anything_is_submitted(lab: Lab) -> None:
    lab.site(slurm_python="no-such-python")
    said = lab.submit(code=2)
    assert "slurm_python" in said and said.startswith("error: ") and not lab.ledgers()
    lab.site(slurm_python="echo 3; true")
    assert "slurm_python" in lab.submit(code=2)
    lab.site(slurm_python="no-such-python", probe=False)
    lab.submit("--rows", "Plain")
    script = (lab.fake.folder / "101.sh").read_text()
    assert "no-such-python -u -m submitit.core._submit" in script and lab.ledgers()[0].versions == {}
    assert f"export PYTHONPATH={ROOT}" in script  # a virtual environment has to find this code, an image has its own
    lab.site(slurm_python="no-such-python", probe=False, image="sha256:1234")
    lab.submit("--rows", "Deep")
    scripts = "".join(path.read_text() for path in lab.fake.folder.glob("10[2-9].sh"))
    assert "export PYTHONPATH" not in scripts and "SEVAL_IMAGE=sha256:1234" in scripts


def test_an_image_is_digested_once(lab: Lab) -> None:
    (lab.folder / "seval.sif").write_bytes(b"an image")
    lab.site(image=str(lab.folder / "seval.sif"))
    lab.submit("--rows", "Plain")
    digest = json.loads((lab.runs / "slurm" / "image.json").read_text())["digest"]
    assert f"export SEVAL_IMAGE={digest} " in (lab.fake.folder / "101.sh").read_text()


ANSWER = 'echo "Submitted batch job $job"'


def answers(lab: Lab, *commands: str) -> None:
    """From now on sbatch does what it does and then says something else."""
    path = lab.fake.bin / "sbatch"
    text = path.read_text()
    assert ANSWER in text
    path.write_text(text.replace(ANSWER, "; ".join(commands)))


@pytest.mark.parametrize(
    "said",
    [
        ['echo "Welcome; your job 7 is done"', ANSWER],
        [ANSWER, 'echo "job 7 is like it"'],
        ['echo "Submitted batch job $job on cluster c1"'],
        ["printf '\\033[32m'", ANSWER],
    ],
)
def test_only_the_number_of_the_submitted_job_is_waited_for(lab: Lab, said: list[str]) -> None:
    lab.table(table(PAIR))
    answers(lab, *said)
    assert "job 101:" in lab.submit()
    assert lab.fake.options("102")["dependency"] == "afterok:101"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (["echo hello"], "it did not say which job it submitted, but 'hello'"),
        ([ANSWER, "echo Submitted batch job 7"], "it did not say which job it submitted"),
        (["echo Submitted batch job 0"], "it did not say which job it submitted"),
        (["echo Submitted batch job " + "9" * 30], "it did not say which job it submitted"),
        (["printf '\\351'"], "utf-8"),
        (["exit 3"], "exit status 3"),
        (["echo no such partition", "exit 1"], "no such partition"),
        (["printf '%09000d' 1 >&2", "exit 1"], "0000001"),
    ],
)
def test_an_answer_that_names_no_job_is_told_and_what_it_may_have_submitted_is_ended(
    lab: Lab, said: list[str], words: str
) -> None:
    lab.table(table(ONE))
    answers(lab, *said)
    error = lab.submit(code=1)
    first = error.split("\n")[0]
    assert words in first and len(first) <= 1_000
    assert not lab.fake.queue() and not lab.ledgers()
