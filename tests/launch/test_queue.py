"""The answers of SLURM: asked again where it fails, read in every form, and never taken for an empty queue."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from repro.launch.answers import elements
from repro.launch.ledger import submissions
from repro.launch.queue import Job, Queue, SlurmError, latest
from tests.launch.conftest import Lab
from tests.launch.fake_slurm import Fake, submission


@pytest.mark.parametrize(
    "text, indices",
    [
        ("12", [0]),
        ("12_3", [3]),
        ("12_[7]", [7]),
        ("12_[0-2,5]", [0, 1, 2, 5]),
        ("12_[0-999%64]", range(1000)),
        ("12_[0-2,5%4]", [0, 1, 2, 5]),
        ("12_[0-8:4]", [0, 4, 8]),
        ("12_[1,4-8:2%1]", [1, 4, 6, 8]),
    ],
)
def test_elements_are_read_off_every_form(text: str, indices: Iterable[int]) -> None:
    found = list(elements(text))
    assert [index for _, index in found] == list(indices)
    assert [id for id, _ in found] == [f"12_{index}" if "_" in text else "12" for index in indices]
    assert [pair for id, _ in found for pair in elements(id)] == found


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


def test_a_ledger_that_cannot_be_read_is_named(lab: Lab) -> None:
    lab.submit()
    path = next((lab.folder / "runs/slurm").glob("seval-*.json"))
    for text in ('{"name": ', '{"other": 1}'):
        path.write_text(text)
        assert f"{path.name} cannot be read" in lab.submit(code=2)


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
