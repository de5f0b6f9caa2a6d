"""The answers of SLURM: asked again where it fails, read in every form, and never taken for an empty queue."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from repro import status, submit
from repro.launch.ledger import submissions
from repro.launch.queue import UNREAD, Job, Queue, SlurmError, latest
from tests.launch.conftest import ONE, Lab, table
from tests.launch.fake_slurm import Fake, submission


def test_what_fails_is_asked_again_and_then_given_up(fake: Fake, pauses: list[float]) -> None:
    made = [submission("seval-a", ["r"])]
    fake.put({"12": ["seval-a", "RUNNING", "None"]})
    fake.plan("squeue", "fail busy", "fail busy")
    assert Queue(3, 5).jobs(made)["seval-a", 0] == Job("12", "RUNNING", made[0], "None")
    assert len(fake.calls("squeue")) == 3 and pauses == [2, 4]
    fake.plan("squeue", *["fail first line", "fail", "fail slurm_load_jobs error: Unable to contact"])
    with pytest.raises(SlurmError, match="^`squeue` failed 3 times: slurm_load_jobs error: Unable to contact$"):
        Queue(3, 5).jobs(made)
    assert len(fake.calls("squeue")) == 6
    fake.plan("squeue", "fail")
    with pytest.raises(SlurmError, match="exit code 1"):
        Queue(1, 5).ask("squeue")
    fake.remove("squeue")
    with pytest.raises(SlurmError, match="there is no squeue on PATH"):
        Queue(3, 5).jobs(made)
    assert Queue(3, 5).jobs([]) == {}


@pytest.mark.parametrize("how", ["exec sleep 30", "sleep 30"])
def test_what_hangs_is_given_up_in_time(fake: Fake, how: str) -> None:
    (fake.bin / "squeue").write_text(f"#!/bin/bash\n{how}\n")
    begun = time.monotonic()
    with pytest.raises(SlurmError, match="no answer within 0.3 s"):
        Queue(2, 0.3).ask("squeue")  # type: ignore[arg-type]
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "answer",
    [
        "motd: welcome",
        "seval-other|12|RUNNING|None",
    ],
)
def test_an_answer_of_foreign_lines_only_is_no_empty_queue(fake: Fake, answer: str) -> None:
    (fake.bin / "squeue").write_text(f"#!/bin/bash\necho '{answer}'\n")
    with pytest.raises(SlurmError, match="squeue"):
        Queue(1, 5).jobs([submission("seval-a", ["r"])])


UNREADABLE = [  # rows of ours: (squeue, sacct)
    ("seval-a|12_x|RUNNING|None", "seval-a|12+0|OUT_OF_MEMORY|0:125"),
    ("seval-a|12_[0,2,...]|PENDING|Priority", "seval-a|12_[0,...]|CANCELLED by 0|0:0"),
    ("seval-a|12_[0-99999999999]|PENDING|Priority", "seval-a|12_[0-99999999999]|FAILED|1:0"),
    ("seval-a|12_2|PENDING|Priority", "seval-a|12_2|FAILED|1:0"),  # the array has the elements 0 and 1
    ("seval-a|12|RUNNING|None", "seval-a|12|FAILED|1:0"),
    ("seval-a|12_0||None", "seval-a|12_0||0:0"),
    ("seval-a|12_0", "seval-a|12_0|OUT_OF_ME+|0:125"),
    ("seval-a", "seval-a|12_0|FAILED|x:y"),
    ("12_0|seval-a|RUNNING|None", "12_0|seval-a|FAILED|1:0"),
    ("\x1b[31mseval-a|12_0|RUNNING|None", "  error: seval-a"),
]


@pytest.mark.parametrize("line", [line for line, _ in UNREADABLE])
def test_of_a_row_of_squeue_that_cannot_be_read_nothing_is_known(
    fake: Fake, line: str, capsys: pytest.CaptureFixture
) -> None:
    made = [submission("seval-a", ["r"], ["s"]), submission("seval-b", ["t"])]
    fake.says("squeue", "motd: welcome", line, "seval-b|13|RUNNING|None")
    fake.account("seval-a", "12_1", "FAILED", "1:0")  # perhaps of the try before
    found = Queue(1, 5).jobs(made)
    assert {key: (job.state, job.live) for key, job in found.items()} == {
        ("seval-a", 0): (UNREAD, False),
        ("seval-a", 1): (UNREAD, False),
        ("seval-b", 0): ("RUNNING", True),
    }
    said = capsys.readouterr().err
    assert said.startswith("warning: `squeue` says of seval-a what cannot be read: ") and said.count("\n") == 1
    assert said.rstrip("\n").isprintable()


@pytest.mark.parametrize("line", [line for _, line in UNREADABLE])
def test_of_a_row_of_sacct_that_cannot_be_read_nothing_is_known(
    fake: Fake, line: str, capsys: pytest.CaptureFixture
) -> None:
    made = [submission("seval-a", ["r"], ["s"]), submission("seval-b", ["t"])]
    fake.put({"12_1": ["seval-a", "RUNNING", "None"]})
    fake.says("sacct", "Slurm accounting is being upgraded", line, "seval-b|13|OUT_OF_MEMORY|0:125")
    found = Queue(1, 5).jobs(made)
    assert {key: (job.state, job.live) for key, job in found.items()} == {
        ("seval-a", 0): (UNREAD, False),
        ("seval-a", 1): ("RUNNING", True),
        ("seval-b", 0): ("OUT_OF_MEMORY", False),
    }
    assert capsys.readouterr().err.startswith("warning: `sacct` says of seval-a what cannot be read: ")


def test_foreign_lines_change_nothing(fake: Fake, capsys: pytest.CaptureFixture) -> None:
    made = [submission("seval-a", ["r"], ["s"])]
    fake.says("squeue", "CLUSTER: c1", "seval-a|12_1|RUNNING|None", "seval-other|9|RUNNING|None", "", "a|b|c|d")
    fake.says("sacct", "Slurm accounting is being upgraded", "seval-a|12_0|OUT_OF_MEMORY|0:125", "seval-ab|1|FAILED|")
    assert {key: job.state for key, job in Queue(1, 5).jobs(made).items()} == {
        ("seval-a", 0): "OUT_OF_MEMORY",
        ("seval-a", 1): "RUNNING",
    }
    fake.says("squeue", "CLUSTER: c1")  # all that may be in the queue has ended
    fake.says("sacct", "seval-a|12_0|OUT_OF_MEMORY|0:125", "seval-a|12_1|FAILED|1:0")
    assert {job.state for job in Queue(1, 5).jobs(made).values()} == {"OUT_OF_MEMORY", "FAILED"}
    assert capsys.readouterr().err == ""


def test_accounting_that_fails_is_said(fake: Fake, capsys: pytest.CaptureFixture) -> None:
    fake.plan("sacct", "always sacct: error: \x1b[31mProblem talking to the database: Connection refused")
    assert Queue(2, 5).jobs([submission("seval-a", ["r"])]) == {}
    assert r"not known: `sacct` failed 2 times: sacct: error: \x1b[31mProblem" in capsys.readouterr().err
    fake.says("sacct", "Slurm accounting is being upgraded")
    assert Queue(2, 5).jobs([submission("seval-a", ["r"])]) == {}
    assert "says 'Slurm accounting is being upgraded'" in capsys.readouterr().err


def test_whatever_slurm_prints_is_an_answer_or_one_error(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, texts, errors = random.Random(1), dict.fromkeys(("squeue", "sacct"), ""), 0
    monkeypatch.setattr(Queue, "ask", lambda self, command, *_: texts[command])
    made = [submission("seval-a", ["r"], ["s"], ["t"]), submission("seval-b", ["u"], created=0.0)]
    parts = (
        ["seval-a", "seval-b", "seval-c", "banner", ""],
        ["1_0", "1_[0-2]", "1_[1,2%9]", "1_[0-99999999999]", "1_9", "1", "x"],
        ["RUNNING", "PENDING", "FAILED", "CANCELLED by 1", "COMPLETED", "NEW_STATE", "?", ""],
        ["None", "DependencyNeverSatisfied", "1:0", "0:125", "", "x:y"],
    )
    for _ in range(1000):
        lines = {command: ["|".join(map(draw.choice, parts)) for _ in range(draw.randrange(5))] for command in texts}
        texts |= {command: "\n".join(lines[command]) for command in texts}
        try:
            found = Queue(1, 5).jobs(made)
        except SlurmError:
            errors += 1
            assert all(line.split("|")[0] not in ("seval-a", "seval-b") for line in lines["squeue"])
            continue
        for each in made:
            rows = [line for line in lines["squeue"] if line.startswith(f"{each.name}|")]
            jobs = [found.get(key, Job("", "", each)) for key in each.keys()]
            if any("|RUNNING|" in line or "|NEW_STATE|" in line for line in rows):
                assert any(job.live or job.state == UNREAD for job in jobs), rows
            if any("?" in line or "||" in line or "|x|" in line for line in rows):  # which may be any element
                assert all(job.live or job.state == UNREAD for job in jobs), rows
    assert 0 < errors < 500


@pytest.mark.parametrize("command", ["squeue", "sacct"])
def test_an_unknown_run_is_never_submitted_again_nor_called_canceled(lab: Lab, command: str) -> None:
    lab.table(table(ONE, seeds=[0, 1]))
    lab.submit()
    (made,) = lab.ledgers()
    lab.fake.put({})
    if command == "squeue":
        lab.fake.says("squeue", f"{made.name}|101_*|RUNNING|None")
    else:
        lab.fake.says("sacct", "Slurm accounting is being upgraded", f"{made.name}|101+0|OUT_OF_MEMORY|0:125")
    for more in ([], ["--retry", "oom"], ["--retry", "crashed"]):
        said, warned = lab.both(submit.main, "--cluster", "slurm", *more)
        assert "left alone: 2" in said and "nothing to submit" in said and "2 unknown" in said
        assert f"warning: `{command}` says of {made.name}" in warned and warned.count("\n") == 1
    assert set(lab.times().values()) == {1}
    said, _ = lab.both(submit.main, "--cluster", "slurm", "--cancel")
    assert f"scancel --name={made.name}" in said and not lab.fake.calls("scancel")
    said, _ = lab.both(status.main, "--failed")
    assert said.count(": unknown") == 2 and f"squeue --name={made.name}" in said and "canceled" not in said
    (lab.runs / "slurm" / f"{made.name}.json").rename(lab.folder / "moved.json")  # as the message says
    assert "submitting" in lab.both(submit.main, "--cluster", "slurm")[0]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda fake: fake.remove("sacct"),
        lambda fake: fake.plan("sacct", "always Slurm accounting storage is disabled"),
    ],
)
def test_without_accounting_squeue_still_counts(fake: Fake, break_it: Callable[[Fake], None]) -> None:
    made = [submission("seval-a", ["r"], ["s"])]
    fake.put({"12_1": ["seval-a", "RUNNING", "None"]})
    break_it(fake)
    assert Queue(2, 5).jobs(made) == {("seval-a", 1): Job("12_1", "RUNNING", made[0], "None")}


def test_accounting_tells_how_elements_ended_but_not_that_they_live(fake: Fake, capsys: pytest.CaptureFixture) -> None:
    made = [submission("seval-a", *([f"r{k}"] for k in range(8)))]
    fake.put(
        {
            "12_0": ["seval-a", "RUNNING", "None"],
            "12_1": ["seval-a", "FAILED", "NonZeroExitCode"],
            "12_6": ["seval-a", "PENDING", "DependencyNeverSatisfied"],
            "12_7": ["seval-a", "COMPLETING", "None"],
        }
    )
    fake.account("seval-a", "12_0", "FAILED", "1:0")  # of the try before the requeue
    fake.account("seval-a", "12_1", "FAILED", "75:0")
    fake.account("seval-a", "12_2", "CANCELLED by 1000", "0:15")
    fake.account("seval-a", "12_3", "RUNNING")  # a record that was never closed
    fake.account("seval-a", "12_[4-5]", "CANCELLED by 0")
    fake.account("seval-a", "12_6", "PENDING")
    fake.account("seval-a", "12_7", "COMPLETED")
    found = {
        index: (job.state, job.live, job.exit_code, job.signal) for (_, index), job in Queue(1, 5).jobs(made).items()
    }
    assert found.pop(0)[:2] == ("RUNNING", True) and found.pop(7)[:2] == ("COMPLETING", True)
    assert found.pop(6)[:2] == ("PENDING", False)
    assert found == {
        1: ("FAILED", False, 75, 0),
        3: ("", False, None, 0),
        2: ("CANCELLED", False, 0, 15),
        4: ("CANCELLED", False, 0, 0),
        5: ("CANCELLED", False, 0, 0),
    }
    assert "sacct calls elements of seval-a running that squeue does not know" in capsys.readouterr().err


def test_a_state_of_a_later_slurm_lives_and_a_user_s_own_filters_do_not_count(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [submission("seval-a", ["r"])]
    fake.put({"12": ["seval-a", "POWER_UP_NODE", "None"]})
    monkeypatch.setenv("SQUEUE_USERS", "nobody")
    stub = Path(shutil.which("squeue"))
    stub.write_text(stub.read_text().replace("\n", '\n[ -z "$SQUEUE_USERS" ] || exit 0\n', 1))
    assert [job.live for job in Queue(1, 5).jobs(made).values()] == [True]


def test_many_names_are_asked_for_in_chunks(fake: Fake) -> None:
    made = [submission(f"seval-{k:012x}", ["r"]) for k in range(1201)]
    fake.put({str(k): [each.name, "PENDING", "Priority"] for k, each in enumerate(made)})
    assert len(Queue(1, 20).jobs(made)) == 1201
    asked = [call.partition("--name=")[2].split()[0].split(",") for call in fake.calls("squeue")]
    assert [len(names) for names in asked] == [500, 500, 201] and len(set(sum(asked, []))) == 1201
    assert not fake.calls("sacct")


def test_the_last_submission_of_a_run_counts_and_others_are_not_asked_for(fake: Fake, tmp_path: Path) -> None:
    for made in (
        submission("seval-a", ["r", "s"], ["t"], created=1.0),
        submission("seval-b", ["t"], created=3.0),
        submission("seval-c", ["u"], created=2.0),
    ):
        made.write(tmp_path)
    (tmp_path / "image.json").write_text("{}")
    assert [made.name for made in submissions(tmp_path)] == ["seval-a", "seval-c", "seval-b"]
    fake.put({"1_1": ["seval-a", "RUNNING", "None"], "2": ["seval-b", "PENDING", "Resources"]})
    found = latest(tmp_path, Queue(1, 5), ["s", "t"])
    assert {id: (job.id, job.state) for id, job in found.items()} == {"s": ("", ""), "t": ("2", "PENDING")}
    assert "seval-c" not in "".join(fake.calls("squeue"))


@pytest.mark.parametrize(
    "text, largest",
    [
        ("MaxArraySize            = 1001\nMaxJobCount = 10", 1000),
        ("MaxArraySize = 1", 1),
        ("MaxArraySize = 0", 1),
        ("nothing", None),
    ],
)
def test_the_largest_array_of_a_site(fake: Fake, text: str, largest: int | None) -> None:
    (fake.folder / "config").write_text(text)
    assert Queue(1, 5).largest_array() == largest
    fake.plan("scontrol", "always away")
    assert Queue(1, 5).largest_array() is None
