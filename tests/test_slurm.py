"""The launcher on a SLURM of stubs: what it hands over, what it makes of answers, and that nothing goes out twice."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from repro import status, submit
from repro.launch import site as sites
from repro.launch import states, worker
from repro.launch.arrays import Array, arrays
from repro.launch.plan import Task, words
from repro.launch.queue import Job, Queue, SlurmError, Submission, elements, latest, submissions
from repro.launch.site import Resources, Site
from repro.launch.slurm import Launcher
from repro.tables import selection
from repro.tables import table as tables
from repro.tables.reading import Reading
from repro.tables.selection import Use
from repro.tables.table import Cell
from seval.claim import claim
from seval.config import load
from seval.errors import ConfigError, Interrupted, MissingPrerequisite, RunBusy
from seval.run import Run
from seval.versions import versions
from tests.settings import ROOT, small

# ---- from runs to arrays


def task(run: object, needs: str | None) -> Task:
    return Task(Use(run, Cell("Row", "LT", {0: run}, Reading()), 0, ["sweep"]), needs)


def forest(seed: int) -> tuple[dict[str, Task], dict[str, Resources], dict[str, str]]:
    """Tasks that stand on each other, or on runs of earlier jobs; what each needs; and those jobs."""
    chance = random.Random(seed)
    kinds = [Resources(minutes=minutes, runs_per_gpu=chance.choice([1, 1, 2, 3])) for minutes in (10, 20, 30)]
    jobs = {f"live{k}": f"{k}_{k}" if k else "7" for k in range(chance.randrange(3))}
    tasks: dict[str, Task] = {}
    one_kind = chance.choice(kinds) if chance.random() < 0.5 else None
    for k in range(chance.randrange(1, 60)):
        standing = [None, *jobs, *chance.sample(sorted(tasks), min(len(tasks), 8))]
        run = SimpleNamespace(id=f"{k:04x}", kind=one_kind or chance.choice(kinds))
        tasks[run.id] = task(run, chance.choice(standing))
    shuffled = chance.sample(sorted(tasks), len(tasks))
    return {id: tasks[id] for id in shuffled}, {id: tasks[id].run.kind for id in tasks}, jobs


def place(array: Array, id: str) -> tuple[int, int] | None:
    """(element, position in it) of a run."""
    found = [
        (k, [task.run.id for task in each].index(id))
        for k, each in enumerate(array.elements)
        if id in [task.run.id for task in each]
    ]
    return found[0] if found else None


@pytest.mark.parametrize("seed", range(60))
def test_arrays_of_a_random_forest_keep_their_laws(seed: int) -> None:
    tasks, needed, jobs = forest(seed)
    largest = 1 + seed % 7
    made = list(arrays(tasks, lambda task: needed[task.run.id], jobs, largest))
    assert sorted(task.run.id for array in made for task in array.tasks) == sorted(tasks)
    for number, array in enumerate(made):
        assert 1 <= len(array.elements) <= largest and all(array.elements)
        assert array.after is None or any(array.after is each for each in made[:number])
        assert array.level == (1 if array.after is None else array.after.level + 1)
        own = {dataclasses.replace(needed[task.run.id], runs_per_gpu=1) for task in array.tasks}
        assert own == {dataclasses.replace(array.resources, runs_per_gpu=1)}
        assert max(map(len, array.elements)) <= array.resources.runs_per_gpu  # a task of the job for each run
        for task in array.tasks:
            if task.needs in tasks:
                assert array.after and place(array.after, task.needs) == place(array, task.run.id)
                assert not array.after_job
            elif task.needs:
                assert (array.after, array.after_job, array.tasks) == (None, jobs[task.needs], [task])
            else:
                assert (array.after, array.after_job) == (None, "")


def test_equal_chains_share_one_array_a_level_and_long_chains_go_first() -> None:
    tasks = {}
    for seed in range(10):
        for name, needs in (
            (f"short{seed}", None),
            (f"a{seed}", None),
            (f"b{seed}", f"a{seed}"),
            (f"c{seed}", f"b{seed}"),
            (f"d{seed}", f"b{seed}"),
        ):
            tasks[name] = task(SimpleNamespace(id=name), needs)
    made = list(arrays(tasks, lambda task: Resources(), {}, 1000))
    assert [(array.level, len(array.elements)) for array in made] == [(1, 10), (2, 10), (3, 10), (3, 10), (1, 10)]
    assert len(list(arrays(tasks, lambda task: Resources(), {}, 4))) == 15
    packed = list(arrays(tasks, lambda task: Resources(runs_per_gpu=4), {}, 1000))
    assert [[len(each) for each in array.elements] for array in packed] == [[4, 4, 2]] * 5


# ---- what SLURM says


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


STUBS = {
    # Each call is noted; `CMD.plan` holds what the next calls shall do, a line each: ok, fail TEXT, hang, or lost TEXT.
    "begin": """\
cd {folder}; cmd=${{0##*/}}; echo "$cmd $*" >>calls; plan=ok
if [ -s $cmd.plan ]; then read -r plan text <$cmd.plan; [ $plan = always ] || sed -i 1d $cmd.plan; fi
case $plan in hang) exec sleep 30;; fail|always) echo "$text" >&2; exit 1;; esac
names() {{ for word in "$@"; do case $word in --name=*) echo "${{word#--name=}}";; esac; done; }}
""",
    "squeue": 'awk -F\'|\' -v names="$(names "$@")" \'index("," names ",", "," $1 ",")\' queue\n',
    "sacct": 'awk -F\'|\' -v names="$(names "$@")" \'index("," names ",", "," $1 ",")\' accounts\n',
    "scontrol": "cat config\n",
    "scancel": """\
for word in "$@"; do case $word in
--name=*) sed -i "/^${word#--name=}|/d" queue;; -*) ;; *) sed -i "/|$word|/d" queue;; esac; done
""",
    "sbatch": """\
job=$(($(cat last) + 1)); echo $job >last; cp "$1" $job.sh
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1"); last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
reason=Priority; grep -q '^#SBATCH --dependency' "$1" && reason=Dependency
if [ -z "$last" ]; then echo "$name|$job|PENDING|$reason" >>queue
else for k in $(seq 0 $last); do echo "$name|${job}_$k|PENDING|$reason"; done >>queue; fi
if [ $plan = lost ]; then echo "$text" >&2; exit 1; fi
echo "Submitted batch job $job"
""",
    "srun": "",
}


class Fake:
    """A SLURM of stubs on PATH, with its queue, its accounting, and all that was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        for name in ("queue", "accounts", "calls", "config"):
            (folder / name).touch()
        (folder / "last").write_text("100")
        for name in STUBS:
            self.stub(name)

    def stub(self, name: str) -> None:
        if name != "begin":
            path = self.bin / name
            path.write_text("#!/bin/bash\n" + STUBS["begin"].format(folder=self.folder) + STUBS[name])
            path.chmod(0o755)

    def remove(self, name: str) -> None:
        (self.bin / name).unlink()

    def plan(self, name: str, *lines: str) -> None:
        (self.folder / f"{name}.plan").write_text("".join(line + "\n" for line in lines))

    def calls(self, name: str) -> list[str]:
        return [line for line in (self.folder / "calls").read_text().splitlines() if line.startswith(f"{name} ")]

    def queue(self) -> dict[str, list[str]]:
        """By element, [name, state, reason]."""
        rows = (line.split("|") for line in (self.folder / "queue").read_text().splitlines())
        return {id: [name, state, reason] for name, id, state, reason in rows}

    def put(self, rows: Mapping[str, list[str]]) -> None:
        (self.folder / "queue").write_text(
            "".join(f"{name}|{id}|{state}|{reason}\n" for id, (name, state, reason) in rows.items())
        )

    def account(self, name: str, id: str, state: str, code: str = "0:0") -> None:
        with (self.folder / "accounts").open("a") as file:
            file.write(f"{name}|{id}|{state}|{code}\n")

    def end(self, id: str, state: str = "", code: str = "0:0", *, accounted: bool = True) -> None:
        """An element leaves the queue; accounting says how it ended, unless `state` is empty."""
        rows = self.queue()
        name = rows.pop(id)[0]
        self.put(rows)
        if state and accounted:
            self.account(name, id, state, code)

    def become(self, id: str, state: str, reason: str = "None") -> None:
        rows = self.queue()
        rows[id][1:] = [state, reason]
        self.put(rows)

    def options(self, job: str) -> dict[str, str]:
        """What a submitted script asks for."""
        found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", (self.folder / f"{job}.sh").read_text(), re.MULTILINE)
        assert len({key for key, _ in found}) == len(found), "an option is given twice"
        return {key: value.strip("'") for key, value in found}

    def jobs(self) -> list[str]:
        return [str(number) for number in range(101, int((self.folder / "last").read_text()) + 1)]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps take no time; collects their seconds."""
    found: list[float] = []
    slept = time.sleep  # which `subprocess` also takes, in small bites
    monkeypatch.setattr(time, "sleep", lambda seconds: found.append(seconds) if seconds >= 0.1 else slept(seconds))
    return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Fake:
    fake = Fake(tmp_path / "fake")
    (tmp_path / "tools").mkdir()
    for name in ("awk", "bash", "cat", "cp", "git", "grep", "rm", "sed", "seq", "sleep", "touch"):
        (tmp_path / "tools" / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", f"{fake.bin}:{tmp_path / 'tools'}")  # a machine may have a SLURM of its own
    return fake


def submission(name: str, *groups: list[str], **more: object) -> Submission:
    needs = more.pop("needs", {})
    ids = [id for group in groups for id in group]
    return Submission(
        name,
        list(groups),
        {id: [] for id in ids},
        {id: f"label of {id}" for id in ids},
        needs,
        minutes=60,
        memory_gb=4,
        **more,
    )


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
        "seval-a|12_x|RUNNING|None",
        "seval-a|12_[0,2,...]|PENDING|Priority",
        "seval-other|12|RUNNING|None",
    ],
)
def test_an_answer_that_cannot_be_read_is_no_empty_queue(fake: Fake, answer: str) -> None:
    (fake.bin / "squeue").write_text(f"#!/bin/bash\necho '{answer}'\n")
    with pytest.raises(SlurmError, match="squeue"):
        Queue(1, 5).jobs([submission("seval-a", ["r"])])


@pytest.mark.parametrize(
    "break_it",
    [
        lambda fake: fake.remove("sacct"),
        lambda fake: fake.plan("sacct", "always Slurm accounting storage is disabled"),
        lambda fake: fake.account("seval-a", "12_[0,...]", "CANCELLED by 0"),
        lambda fake: fake.account("seval-a", "12", ""),
        lambda fake: fake.account("seval-a", "12", "FAILED", "x:y"),
    ],
)
def test_without_accounting_squeue_still_counts(fake: Fake, break_it: Callable[[Fake], None]) -> None:
    made = [submission("seval-a", ["r"], ["s"])]
    fake.put({"12_1": ["seval-a", "RUNNING", "None"]})
    break_it(fake)
    assert Queue(2, 5).jobs(made) == {("seval-a", 1): Job("12_1", "RUNNING", made[0], "None")}


def test_accounting_tells_how_elements_ended_but_not_that_they_live(fake: Fake) -> None:
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
        2: ("CANCELLED", False, 0, 15),
        4: ("CANCELLED", False, 0, 0),
        5: ("CANCELLED", False, 0, 0),
    }


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


# ---- submitting a table

TABLE = """\
folder: small
seeds: [0, 1, 2]
columns: {LT: {}}
rows:
  Plain:  {config: plain}
  Replay: {config: replay}
  Deep:   {config: replay, set: [PREREQUISITE, [MEMO, middle, PREREQUISITE, [MEMO, first]]]}
"""


class Lab:
    """A checkout with one table, a site, and the commands on them."""

    def __init__(self, folder: Path, fake: Fake, capsys: pytest.CaptureFixture) -> None:
        self.folder, self.fake, self.capsys, self.runs = folder, fake, capsys, folder / "runs"
        self.known: dict[str, dict[str, Run]] = {}
        self.site()

    def site(self, **facts: object) -> None:
        standard = {"resources": {"default": {"minutes": 60, "memory_gb": 4, "cpus": 2}}, "patience": 5}
        (self.folder / "site.yaml").write_text(yaml.safe_dump(standard | facts))

    def table(self, text: str) -> None:
        (self.folder / "paper_tables/sweep.yaml").write_text(text)

    def call(self, main: Callable, *words: str, code: int = 0) -> str:
        """Its stdout where it is fine, else its stderr."""
        self.capsys.readouterr()
        given = main(["--table", "sweep", "--site", "site.yaml", *words])
        out, err = self.capsys.readouterr()
        assert given == code, out + err
        assert bool(err) == bool(code), err
        return err or out

    def submit(self, *words: str, code: int = 0) -> str:
        return self.call(submit.main, "--cluster", "slurm", *words, code=code)

    def status(self, *words: str, code: int = 0) -> str:
        return self.call(status.main, *words, code=code)

    def kinds(self) -> dict[str, str]:
        """By name, as in `names`."""
        found = {each["id"]: each["state"] for each in json.loads(self.status("--json"))}
        return {name: found[run.id] for name, run in self.names().items()}

    def names(self) -> dict[str, Run]:
        """Runs by row and seed, and how many others stand between: Plain 0, Replay 0/1, Deep 2/2, ..."""
        text = (self.folder / "paper_tables/sweep.yaml").read_text()
        if text in self.known:
            return self.known[text]
        found = self.known[text] = {}
        for cell in tables.find_table("sweep").cells():
            for seed, last in cell.runs.items():
                for depth, run in enumerate(reversed(last.chain())):
                    name = f"{cell.row} {seed}" + (f"/{depth}" if depth else "")
                    if run.id not in {each.id for each in found.values()}:
                        found[name] = run
        return found

    def ledgers(self) -> list[Submission]:
        return submissions(self.runs / "slurm")

    def times(self) -> dict[str, int]:
        """How often each run is in a ledger, those never submitted left out."""
        ids = [id for ledger in self.ledgers() for element in ledger.elements for id in element]
        return {name: ids.count(run.id) for name, run in self.names().items() if run.id in ids}

    def element(self, name: str) -> str:
        """The number of a run's last element."""
        id = self.names()[name].id
        made, index = [(made, k) for made in self.ledgers() for k, each in enumerate(made.elements) if id in each][-1]
        return next(
            number
            for number, (job, *_) in self.fake.queue().items()
            if job == made.name and next(elements(number))[1] == index
        )

    def done(self, *names: str) -> None:
        """These have a record, and their elements are gone."""
        for name in names:
            with_record(self.names()[name])
            self.fake.end(self.element(name), "COMPLETED")

    def failed(self, name: str, kind: str, error: str) -> None:
        """As a worker leaves it."""
        run = self.names()[name]
        last = [made for made in self.ledgers() if run.id in made.settings][-1]
        states.fail(run.folder, kind, error, "Traceback ...", last.name)
        self.fake.end(self.element(name), "FAILED", "1:0")


def with_record(run: Run) -> None:
    results = {"test": {"ema": {"none": {"top1": {"median20": 0.5}}}}}
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "record.json").write_text(json.dumps({"id": run.id, "results": results, "steps": 4, "seconds": 2}))


@pytest.fixture
def lab(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Lab:
    for name, text in {
        "configs/small/plain.yaml": "SOLVER: {MAX_ITER: 500}",
        "configs/small/replay.yaml": "SOLVER: {MAX_ITER: 1000}\nPREREQUISITE: [MEMO, first]",
        "paper_tables/sweep.yaml": TABLE,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(tables, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(tables, "TABLES", tmp_path / "paper_tables")
    monkeypatch.delenv("SEVAL_SITE", raising=False)
    monkeypatch.setenv("SEVAL_DATA", str(tmp_path))
    (tmp_path / "cifar10.h5").touch()
    monkeypatch.chdir(tmp_path)
    return Lab(tmp_path, fake, capsys)


ONE = {"rows": {"Plain": {"config": "plain"}}, "columns": {"LT": {}}, "seeds": [0], "folder": "small"}
PAIR = ONE | {"rows": {"Replay": {"config": "replay"}}}


def table(content: dict, **changes: object) -> str:
    return yaml.safe_dump(content | changes, sort_keys=False)


def test_the_plan_is_submitted_once_and_each_level_hangs_on_the_one_before(lab: Lab) -> None:
    plan = lab.submit("--dry-run")
    assert "15 runs in 3 levels" in plan and not lab.fake.calls("sbatch") and not lab.ledgers()
    lab.submit()
    assert set(lab.times().values()) == {1} and len(lab.times()) == 15
    for name, run in lab.names().items():
        options = lab.fake.options(lab.element(name).partition("_")[0])
        assert options["array"] == "0-2%3" and options["kill-on-invalid-dep"] == "yes"
        before = run.prerequisite()
        assert ("dependency" in options) == bool(before)
        if before:  # the same index of the array that it names
            (own,) = [each for each, other in lab.names().items() if other.id == before.id]
            job, _, index = lab.element(own).partition("_")
            assert options["dependency"] == f"aftercorr:{job}" and lab.element(name).endswith(f"_{index}")
    assert lab.kinds() == {name: "waiting" if run.prerequisite() else "queued" for name, run in lab.names().items()}
    said = lab.submit()
    assert "nothing to submit" in said and "status.py" in said and len(lab.fake.jobs()) == len(lab.ledgers()) == 5


ENDINGS = {  # how an element ends: (state, exit code, whether the next submit takes it on, what it is called)
    "vanished": ("", "", True, "canceled"),
    "canceled": ("CANCELLED by 1000", "0:15", True, "canceled"),
    "never started": ("PENDING", "0:0", True, "canceled"),
    "timeout": ("TIMEOUT", "0:0", True, "timeout"),
    "deadline": ("DEADLINE", "0:0", True, "timeout"),
    "oom": ("OUT_OF_MEMORY", "0:125", False, "oom"),
    "failed": ("FAILED", "1:0", False, "crashed"),
    "stopped": ("FAILED", "75:0", True, "resumable"),
    "killed": ("FAILED", "0:9", False, "crashed"),
    "terminated": ("FAILED", "0:15", True, "resumable"),
    "node": ("NODE_FAIL", "1:0", True, "resumable"),
    "preempted": ("PREEMPTED", "0:15", True, "resumable"),
    "empty": ("COMPLETED", "0:0", False, "crashed"),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_only_what_may_end_otherwise_is_submitted_again(lab: Lab, how: str) -> None:
    state, code, again, kind = ENDINGS[how]
    lab.table(table(PAIR, seeds=[0, 1]))
    lab.submit()
    lab.done("Replay 1/1")
    lab.fake.end(lab.element("Replay 0/1"), state, code)
    lab.fake.end(lab.element("Replay 0"))  # it is killed with the one that it waits for, and SLURM forgets it
    assert lab.kinds() == {"Replay 0": "canceled", "Replay 0/1": kind, "Replay 1": "waiting", "Replay 1/1": "done"}
    said = lab.submit()
    if again:
        assert lab.times() == {"Replay 0": 2, "Replay 0/1": 2, "Replay 1": 1, "Replay 1/1": 1}
        options = lab.fake.options(lab.element("Replay 0"))
        assert options["dependency"] == f"afterok:{lab.element('Replay 0/1')}" and "array" not in options
    else:
        assert set(lab.times().values()) == {1} and "left alone: 2" in said
        assert f"--retry {kind}" in said and "which is not submitted" in said
    assert "nothing to submit" in lab.submit()


def test_retry_asks_for_more_of_what_was_lacking(lab: Lab) -> None:
    lab.table(table(ONE, seeds=[0, 1, 2, 3]))
    lab.submit()
    lab.failed("Plain 0", "oom", "MemoryError: ")
    lab.fake.end(lab.element("Plain 1"), "TIMEOUT")
    lab.failed("Plain 2", "crashed", "ValueError: no")
    assert lab.kinds() == {"Plain 0": "oom", "Plain 1": "timeout", "Plain 2": "crashed", "Plain 3": "queued"}
    lab.submit("--retry", "oom", "timeout")
    assert lab.times() == {"Plain 0": 2, "Plain 1": 2, "Plain 2": 1, "Plain 3": 1}
    memory, minutes = (lab.fake.options(lab.element(name)) for name in ("Plain 0", "Plain 1"))
    assert (memory["mem"], memory["time"], minutes["mem"], minutes["time"]) == ("8192M", "60", "4096M", "120")
    lab.failed("Plain 0", "oom", "MemoryError: ")
    lab.submit("--retry", "oom")
    assert lab.fake.options(lab.element("Plain 0"))["mem"] == "16384M"
    assert lab.times() == {"Plain 0": 3, "Plain 1": 2, "Plain 2": 1, "Plain 3": 1}
    lab.submit("--retry", "crashed")
    assert lab.times()["Plain 2"] == 2


def test_retry_takes_only_what_it_names_and_what_stands_on_it(lab: Lab) -> None:
    lab.table(table(PAIR, rows={"Plain": {"config": "plain"}, "Replay": {"config": "replay"}}))
    lab.submit("--rows", "Replay")
    lab.failed("Replay 0/1", "oom", "CUDA out of memory")
    lab.fake.end(lab.element("Replay 0"))
    lab.submit("--retry", "oom")
    assert lab.times() == {"Replay 0": 2, "Replay 0/1": 2}
    assert lab.fake.options(lab.element("Replay 0/1"))["mem"] == "8192M"
    assert lab.fake.options(lab.element("Replay 0"))["mem"] == "4096M"


def test_what_stands_on_a_live_job_hangs_on_its_element(lab: Lab) -> None:
    lab.table(table(PAIR, seeds=[0, 1]))
    lab.submit()
    lab.fake.become(lab.element("Replay 0/1"), "RUNNING")
    lab.fake.end(lab.element("Replay 0"), "CANCELLED by 7")
    assert f"after job {lab.element('Replay 0/1')}" in lab.submit("--dry-run")
    lab.submit()
    assert lab.times() == {"Replay 0": 2, "Replay 0/1": 1, "Replay 1": 1, "Replay 1/1": 1}
    assert lab.fake.options(lab.element("Replay 0"))["dependency"] == f"afterok:{lab.element('Replay 0/1')}"
    assert lab.kinds()["Replay 0"] == "waiting"


def test_a_run_of_another_process_is_waited_for_and_what_stands_on_it_left_alone(lab: Lab) -> None:
    lab.table(table(PAIR))
    first = lab.names()["Replay 0/1"]
    with claim(first.folder):
        said = lab.submit()
        assert "left alone: 1" in said and "runs outside SLURM" in said and not lab.ledgers()
    assert "submitting" in lab.submit()


@pytest.mark.parametrize(
    "error",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "sbatch: error: Unable to contact slurm controller (connect failure)",
    ],
)
@pytest.mark.parametrize("how", ["fail", "lost"])
def test_an_unsure_submission_is_taken_back_before_the_next_try(lab: Lab, error: str, how: str) -> None:
    lab.table(table(ONE, seeds=[0, 1]))
    lab.fake.plan("sbatch", f"{how} {error}")
    said = lab.submit()
    assert lab.times() == {"Plain 0": 1, "Plain 1": 1}
    (made,) = lab.ledgers()
    assert {name for name, *_ in lab.fake.queue().values()} == {made.name} and len(lab.fake.queue()) == 2
    (taken_back,) = lab.fake.calls("scancel")
    assert "--name=seval-" in taken_back and made.name not in taken_back
    assert f"job {lab.element('Plain 0').partition('_')[0]}: " in said
    assert "nothing to submit" in lab.submit()


def test_a_refusal_ends_it_but_what_went_before_stays(lab: Lab) -> None:
    lab.fake.plan("sbatch", "ok", "fail sbatch: error: Invalid account or account/partition combination specified")
    said = lab.submit(code=1)
    assert "sbatch failed for 3 elements: " in said and "Invalid account" in said and said.count("\n") == 2
    assert said.startswith("error: ") and "Traceback" not in said
    assert len(lab.ledgers()) == 1 and len(lab.fake.queue()) == 3 and len(lab.fake.calls("sbatch")) == 2
    lab.submit()
    assert len(lab.times()) == 15 and set(lab.times().values()) == {1}
    levels = {lab.fake.options(job).get("dependency") for job in lab.fake.jobs()}
    assert {"afterok:101_0", "afterok:101_1", "afterok:101_2"} <= levels  # on the live elements of the first call


def test_an_unsure_submission_that_cannot_be_taken_back_is_kept_in_mind(lab: Lab) -> None:
    lab.table(table(ONE))
    lab.fake.plan("sbatch", "lost sbatch: error: Socket timed out on send/recv operation")
    lab.fake.plan("scancel", "always scancel: error: Unable to contact slurm controller")
    assert "`scancel` failed 3 times" in lab.submit(code=1)
    assert len(lab.ledgers()) == 1 and "nothing to submit" in lab.submit()
    lab.fake.end(lab.element("Plain 0"))
    lab.submit()
    assert lab.times() == {"Plain 0": 2}


@pytest.mark.parametrize(
    "break_it, message",
    [
        (
            lambda fake: fake.plan("squeue", "always squeue: error: down"),
            "`squeue` failed 3 times: squeue: error: down",
        ),
        (lambda fake: fake.remove("squeue"), "there is no squeue on PATH"),
        (lambda fake: (fake.bin / "squeue").write_text("#!/bin/bash\necho a banner\n"), "squeue"),
    ],
)
def test_without_an_answer_of_squeue_nothing_is_submitted(lab: Lab, break_it: Callable, message: str) -> None:
    lab.submit()
    before = len(lab.fake.calls("sbatch"))
    lab.fake.end(lab.element("Plain 0"), "CANCELLED by 1")
    break_it(lab.fake)
    for more in ([], ["--dry-run"], ["--retry", "oom"], ["--cancel"]):
        said = lab.submit(*more, code=1)
        assert said.startswith("error: ") and message in said and said.count("\n") == 2
    assert len(lab.fake.calls("sbatch")) == before and not lab.fake.calls("scancel")


def test_an_interrupted_submitter_leaves_nothing_that_goes_out_twice(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    hand_over = Launcher._sbatch

    def interrupted(*given: object) -> str:
        hand_over(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Launcher, "_sbatch", interrupted)
    assert "interrupted; jobs in the queue stay there" in lab.submit(code=130)
    monkeypatch.setattr(Launcher, "_sbatch", hand_over)
    lab.submit()
    assert len(lab.times()) == 15 and set(lab.times().values()) == {1} and len(lab.fake.queue()) == 15


def test_a_data_set_that_is_not_there_is_told_before_anything_is_submitted(lab: Lab) -> None:
    (lab.folder / "cifar10.h5").unlink()
    assert "there is no " in lab.submit("--dry-run")
    assert "cifar10.h5" in lab.submit(code=2) and not lab.ledgers() and not lab.fake.calls("sbatch")


@pytest.mark.parametrize("missing", ["sbatch", "srun"])
def test_without_slurm_there_is_one_message_and_no_ledger(lab: Lab, missing: str) -> None:
    lab.fake.remove(missing)
    said = lab.submit(code=1)
    assert f"there is no {missing} on PATH" in said and not lab.ledgers()


def test_a_full_or_read_only_folder_is_a_message(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Path:
        raise OSError("cannot write it: No space left on device")

    monkeypatch.setattr(Submission, "write", full)
    assert "No space left" in lab.submit(code=1) and not lab.fake.calls("sbatch")


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
        sbatch={"exclude": "node7", "mail_type": "FAIL", "nice": 3},
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
        "mail-type": "FAIL",
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


def test_arrays_are_cut_to_what_the_site_allows_and_many_runs_are_few_calls(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.table(table(ONE, seeds=list(range(1000))))
    asked: list[selection.Selection] = []  # configurations that are read once
    monkeypatch.setattr(submit, "select", lambda args: (asked or asked.append(selection.select(args)) or asked)[0])
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


# ---- facts about a site


def read_site(folder: Path, text: str) -> Site:
    path = folder / "site.yaml"
    path.write_text(text)
    return Site.read(path)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "partitions: gpu",
            "unknown key in FILE: 'partitions'; did you mean 'partition'\\? Valid: partition, account, qos",
        ),
        ("1: gpu", "unknown key in FILE: '1'"),
        ("- a", "FILE must be a mapping"),
        ("just text", "FILE must be a mapping"),
        ("a: [", "cannot read FILE"),
        ("\t- x: {", "cannot read FILE"),
        ("partition: 5", "partition in FILE must be of type str, such as '', but is 5"),
        ("qos: yes", "qos in FILE must be of type str"),
        ("modules: module load cuda", "modules in FILE must be of type list"),
        ("modules: [1]", "modules in FILE must be .*text"),
        ("modules: [{a: b}]", "modules in FILE must be .*text"),
        ("sbatch: [x]", "sbatch in FILE must be of type dict"),
        ("sbatch: {job-name: mine}", "sbatch in FILE .*job-name"),
        ("sbatch: {c: 3}", "sbatch in FILE must not set c:.*long names"),
        ("signal_seconds: 600\nresources: {tiny: {minutes: 10}}", "signal_seconds in FILE is 600.* 10 minutes"),
        ("sbatch: {array: 0-3}", "sbatch in FILE .*array"),
        ("sbatch: {cpus_per_task: 8}", "sbatch in FILE must not set cpus_per_task"),
        ("sbatch: {dependency: singleton}", "sbatch in FILE .*dependency"),
        ("probe: 1", "probe in FILE must be of type bool"),
        ("requeue: 'no'", "requeue in FILE must be of type bool"),
        ("tries: 0", "tries in FILE must be more than 0"),
        ("tries: true", "tries in FILE must be of type int"),
        ("patience: -1", "patience in FILE must be more than 0"),
        ("patience: 2.5", "patience in FILE must be of type int"),
        ("array_parallelism: 0", "array_parallelism in FILE must be more than 0"),
        ("signal_seconds: 0", "signal_seconds in FILE must be more than 0"),
        ("resources: 3", "resources in FILE must be of type dict"),
        (
            "resources: {cifar: {}}",
            "unknown data set in resources of FILE: 'cifar'; did you mean 'cifar10'.*Valid: default,",
        ),
        ("resources: {cifar10: 5}", "resources of cifar10 in FILE must be a mapping"),
        (
            "resources: {cifar10: {minute: 5}}",
            "unknown key in resources of cifar10 in FILE: 'minute'.*Valid: minutes, mem",
        ),
        ("resources: {cifar10: {minutes: 5.5}}", "minutes in resources of cifar10 in FILE must be of type int"),
        ("resources: {cifar10: {minutes: '5'}}", "minutes in resources of cifar10 in FILE must be of type int"),
        ("resources: {cifar10: {cpus: 0}}", "cpus in resources of cifar10 in FILE must be more than 0"),
        ("resources: {default: {memory_gb: -2}}", "memory_gb in resources of default in FILE must be more than 0"),
        ("resources: {default: {memory_gb: .nan}}", "memory_gb in resources of default in FILE must be more than 0"),
        ("resources: {default: {memory_gb: .inf}}", "memory_gb in resources of default in FILE must be more than 0"),
        ("resources: {default: {runs_per_gpu: 0}}", "runs_per_gpu in resources of default in FILE must be more than 0"),
        ("resources: {default: {steps_per_second: true}}", "steps_per_second .* must be of type float"),
    ],
)
def test_a_wrong_fact_is_named_with_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("FILE", re.escape(str(tmp_path / "site.yaml")))):
        read_site(tmp_path, text)


def test_a_site_that_cannot_be_read_is_an_input_error(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        Site.read(tmp_path)
    for file in ("none.yaml", "."):
        assert lab.submit("--site", file, code=2).count("\n") == 1
    (tmp_path / "site.yaml").write_bytes(b"\xff\xfe")
    assert lab.submit(code=2).count("\n") == 1


def test_empty_facts_are_the_defaults_and_data_sets_fill_in(tmp_path: Path) -> None:
    assert read_site(tmp_path, "") == Site() == read_site(tmp_path, "partition:\nresources:\nsbatch:\nmodules:\ntries:")
    assert read_site(tmp_path, "gres:").gres == "" and Site().gres
    site = read_site(tmp_path, "resources: {default: {minutes: 7, cpus: 2}, tiny: {cpus: 1}, cifar10: }")
    assert (site.of("tiny").minutes, site.of("tiny").cpus) == (7, 1)
    assert site.of("cifar10") == site.of("stl10") == Resources(minutes=7, cpus=2)


def test_shipped_facts_are_the_defaults_and_each_style_parses(tmp_path: Path) -> None:
    path = ROOT / "slurm" / "cluster.yaml"
    shipped = Site.read(path)
    assert dataclasses.replace(shipped, resources={}) == Site()
    assert set(shipped.resources) <= set(sites.DATA_SETS)
    assert set(yaml.safe_load(path.read_text())) == {each.name for each in dataclasses.fields(Site)}
    styles: list[list[str]] = []
    for line in path.read_text().partition("Styles of site:")[2].splitlines():
        if line.startswith("#   "):
            styles[-1].append(line.removeprefix("#   "))
        elif len(line) > 1:
            styles.append([])
    assert len(styles) == 4 and all(styles)
    for style in styles:
        site = read_site(tmp_path, "\n".join(style))
        assert site.gres and site != Site() and site.of("tiny").minutes > 0


# ---- what has become of a run


class Told:
    """In place of `Queue`: every run's element is in this state."""

    def __init__(self, **facts: object) -> None:
        self.facts = facts

    def jobs(self, made: list[Submission]) -> dict[tuple[str, int], Job]:
        return {(each.name, 0): Job(**({"id": "12", "submission": each} | self.facts)) for each in made if self.facts}


CASES = [  # (files, what SLURM says, kind, words); `own`, `older`, `local`: a failure of that submission
    ("", None, "new", "^$"),
    ("metrics", None, "new", "^$"),
    ("checkpoint", None, "resumable", "checkpoint"),
    ("local", None, "oom", "^it was too much$"),
    ("record checkpoint own", {"state": "RUNNING"}, "done", "^$"),
    ("", {}, "canceled", "no longer knows its element of seval-new"),
    ("checkpoint", {}, "resumable", "checkpoint"),
    ("own", {}, "oom", "^it was too much$"),
    ("older", {}, "canceled", "no longer knows"),
    ("own", {"state": "RUNNING"}, "running", "^job 12$"),
    ("own checkpoint", {"state": "PENDING", "reason": "Priority"}, "queued", "^job 12: Priority$"),
    ("", {"state": "PENDING", "reason": "Dependency"}, "waiting", "^job 12 waits for PREREQUISITE$"),
    ("", {"state": "PENDING", "reason": "DependencyNeverSatisfied"}, "canceled", "depends on PREREQUISITE"),
    ("", {"state": "REQUEUED"}, "queued", "job 12"),
    ("", {"state": "REQUEUE_HOLD", "reason": "launch failed requeued held"}, "queued", "held"),
    ("", {"state": "COMPLETING"}, "running", "job 12"),
    ("", {"state": "CANCELLED"}, "canceled", "never started: it depends on PREREQUISITE, which is not done"),
    ("prerequisite", {"state": "CANCELLED"}, "canceled", "^job 12: CANCELLED$"),
    ("checkpoint", {"state": "TIMEOUT"}, "timeout", "TIMEOUT"),
    ("", {"state": "DEADLINE"}, "timeout", "DEADLINE"),
    ("", {"state": "OUT_OF_MEMORY"}, "oom", "OUT_OF_MEMORY"),
    ("", {"state": "NODE_FAIL"}, "resumable", "NODE_FAIL"),
    ("", {"state": "PREEMPTED"}, "resumable", "PREEMPTED"),
    ("", {"state": "BOOT_FAIL"}, "resumable", "BOOT_FAIL"),
    ("checkpoint", {"state": "FAILED", "exit_code": 75}, "resumable", "stopped"),
    ("checkpoint", {"state": "FAILED", "exit_code": 0, "signal": 15}, "resumable", "stopped"),
    ("checkpoint", {"state": "FAILED", "exit_code": 1}, "crashed", "exit code 1, without a message"),
    ("checkpoint", {"state": "FAILED", "exit_code": 137}, "crashed", "killed by signal 9, .*without a message"),
    ("checkpoint", {"state": "FAILED", "exit_code": 9}, "crashed", "killed by signal 9"),
    ("checkpoint", {"state": "FAILED", "exit_code": 143}, "resumable", "stopped"),
    ("checkpoint", {"state": "FAILED", "exit_code": 139}, "crashed", "exit code 139"),
    ("checkpoint", {"state": "FAILED", "exit_code": 4}, "crashed", "exit code 4"),
    ("", {"state": "FAILED", "exit_code": 0, "signal": 9}, "crashed", "killed by signal 9"),
    ("", {"state": "COMPLETED", "exit_code": 0}, "crashed", "COMPLETED"),
    ("", {"state": "FAILED"}, "crashed", "FAILED"),  # where there is no accounting, nobody knows the exit code
    ("checkpoint", {"state": "FAILED"}, "resumable", "checkpoint"),
    ("", {"state": "FAILED", "exit_code": states.BUSY}, "resumable", "another process"),
    ("own", {"state": "FAILED", "exit_code": 1}, "oom", "^it was too much$"),
    ("older", {"state": "FAILED", "exit_code": 1}, "crashed", "exit code 1"),
    ("older checkpoint", {"state": "NODE_FAIL"}, "resumable", "NODE_FAIL"),
    ("older prerequisite", {"state": "CANCELLED"}, "canceled", "CANCELLED"),
    ("local", {"state": "CANCELLED"}, "oom", "^it was too much$"),  # a later attempt on another machine
    ("earlier", {"state": "CANCELLED"}, "canceled", "never started"),  # one from before the submission
    ("claimed", {"state": "CANCELLED"}, "running", "^process \\d+ on "),
    ("claimed local", None, "running", "^process \\d+ on "),
    ("damaged", None, "new", "^$"),
]


@pytest.mark.parametrize("files, told, kind, message", CASES)
def test_the_latest_word_on_a_run_counts(
    tmp_path: Path, files: str, told: dict | None, kind: str, message: str
) -> None:
    run = Run(small("fixmatch_seval_load", tmp_path))
    before, folder = run.prerequisite(), tmp_path / "slurm"
    run.folder.mkdir()
    ledger = None
    if told is not None:
        submission("seval-old", [run.id], created=1.0).write(folder)
        ledger = submission("seval-new", [run.id], needs={run.id: before.id}, created=2.0).write(folder)
    for name in files.split():
        if name in ("own", "older", "local", "earlier"):
            of = {"own": "seval-new", "older": "seval-old"}.get(name, "")
            states.fail(run.folder, "oom", "it was too much", "", of)
        if name == "earlier":
            stamp = ledger.stat().st_mtime - 60
            os.utime(run.folder / "failure.json", (stamp, stamp))
    (run.folder / "metrics.jsonl").write_text(
        '{"step": 6, "progress": 0.5, "seconds": 1}\n' if "metrics" in files else ""
    )
    if "checkpoint" in files:
        (run.folder / "checkpoint.pt").touch()
        (run.folder / "metrics.jsonl").write_text('{"step": 6, "progress": 0.5, "seconds": 1}\n')
    if "record" in files:
        with_record(run)
    if "prerequisite" in files:
        with_record(before)
    if "damaged" in files:
        (run.folder / "failure.json").write_text('{"kind": "odd"')
    slurm = None if told is None else Told(**told)
    if "claimed" in files:
        with claim(run.folder):
            found = states.states([run], folder, slurm)[run.id]
    else:
        found = states.states([run], folder, slurm)[run.id]
    assert found.kind == kind and re.search(message.replace("PREREQUISITE", before.id), found.detail), found
    if kind == "done":
        assert found.progress == 1.0
    elif "checkpoint" in files or "metrics" in files:
        assert found.progress == 0.5
        assert str(found) == states.STATES[kind] + (" 50%" if kind in ("running", "resumable") else "")


def test_silence_of_slurm_is_not_taken_for_an_empty_queue(tmp_path: Path, fake: Fake) -> None:
    run = Run(small("fixmatch", tmp_path))
    submission("seval-a", [run.id]).write(tmp_path / "slurm")
    fake.plan("squeue", "always down")
    with pytest.raises(SlurmError):
        states.states([run], tmp_path / "slurm", Queue(2, 5))
    with_record(run)
    assert states.states([run], tmp_path / "slurm", Queue(2, 5))[run.id].kind == "done"


def test_counts_are_in_the_order_of_the_states() -> None:
    found = {str(k): states.State(kind) for k, kind in enumerate(["new", "done", "oom", "done"])}
    assert states.counts(found) == "2 done, 1 out of memory, 1 never submitted" and states.counts({}) == "none"


# ---- the worker


class Desk:
    """One ledger of two runs that share an element, and a third alone."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch
        self.runs = [Run(small("fixmatch_seval_load", folder, "SEED", seed)) for seed in range(3)]
        ids = [run.id for run in self.runs]
        self.made = Submission(
            "seval-a",
            [ids[:2], ids[2:]],
            {run.id: words(run) for run in self.runs},
            {id: f"label of {id}" for id in ids},
            {},
            60,
            4,
            versions=versions(),
        )
        for name in ("SLURM_RESTART_COUNT", "SLURM_PROCID"):
            monkeypatch.delenv(name, raising=False)

    def executing(self, outcome: Callable[[Run], None] | BaseException) -> None:
        def execute(run: Run, stop: Callable[[], bool]) -> None:
            assert not stop()
            if isinstance(outcome, BaseException):
                raise outcome
            outcome(run)

        self.patch.setattr(Run, "execute", execute)

    def work(self, index: int = 0, **environment: int) -> None:
        for name, value in environment.items():
            self.patch.setenv(f"SLURM_{name}", str(value))
        worker.work(str(self.made.write(self.folder / "slurm")), index)

    def failure(self, number: int = 0) -> dict | None:
        return states.failure(self.runs[number].folder)

    @property
    def again(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "slurm").glob("*.again.*"))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_each_task_of_an_element_does_its_own_run(desk: Desk) -> None:
    done: list[str] = []
    desk.executing(lambda run: done.append(run.id))
    desk.work(0)
    desk.work(0, PROCID=1)
    desk.work(1, PROCID=0)
    desk.work(1, PROCID=1)  # the last element has one run only
    assert done == [run.id for run in desk.runs] and not any(map(desk.failure, range(3)))


def test_a_worker_with_other_versions_says_which(desk: Desk) -> None:
    desk.made.versions |= {"torch": "1.12.1", "absent": "3"}
    desk.executing(AssertionError("not to be trained"))
    with pytest.raises(worker.WorkerError, match=r"torch \d.*\(expected 1.12.1\), absent None \(expected 3\); fix"):
        desk.work()
    assert desk.failure()["kind"] == "crashed" and desk.failure()["submission"] == "seval-a"
    desk.made.versions = {}  # where the site could not be asked
    desk.executing(lambda run: None)
    desk.work()
    assert desk.failure() is None


def test_a_worker_that_takes_the_run_for_another_is_refused(desk: Desk) -> None:
    settings = desk.made.settings[desk.runs[0].id]
    settings += ["SOLVER.BASE_LR", 0.123]
    desk.executing(AssertionError("not to be trained"))
    with pytest.raises(worker.WorkerError, match=f"takes run {desk.runs[0].id} for .*: it is another version"):
        desk.work()


@pytest.mark.parametrize(
    "step, restarts, again", [(5, 0, True), (5, 9, True), (0, 0, True), (0, 2, True), (0, 3, False)]
)
def test_a_stopped_run_asks_for_another_try_while_it_gets_on(desk: Desk, step: int, restarts: int, again: bool) -> None:
    desk.executing(Interrupted(step, 0, 12))
    with pytest.raises(SystemExit) as left:
        desk.work(1, RESTART_COUNT=restarts)
    assert left.value.code == states.RESUMABLE == 75
    assert desk.again == (["seval-a.again.1"] if again else []) and desk.failure(2) is None


@pytest.mark.parametrize(
    "error, kind, message",
    [
        (MemoryError(), "oom", "MemoryError"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), "oom", "CUDA out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "oom", "allocate memory"),
        (OSError(12, "Cannot allocate memory"), "oom", "Cannot allocate memory"),
        (ValueError("no\nsuch thing"), "crashed", "^ValueError: no"),
        (OSError(28, "No space left on device"), "crashed", "No space left"),
    ],
)
def test_why_a_run_failed_stays_until_it_is_begun_again(desk: Desk, error: Exception, kind: str, message: str) -> None:
    desk.executing(error)
    with pytest.raises(type(error)):
        desk.work()
    found = desk.failure()
    assert found["kind"] == kind and re.search(message, found["error"]) and "Traceback" in found["traceback"]
    desk.executing(lambda run: None if desk.failure() is None else pytest.fail("still there"))
    desk.work()
    assert desk.failure() is None and not desk.again


def test_a_missing_prerequisite_is_no_crash(desk: Desk) -> None:
    with pytest.raises(MissingPrerequisite):
        desk.work()
    assert desk.failure()["kind"] == "canceled" and "no record" in desk.failure()["error"]


def test_a_busy_run_is_waited_for_and_then_left_to_the_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def busy(run: Run) -> None:
        tries.append(run.id)
        if len(tries) < 3:
            raise RunBusy("held by another")

    desk.executing(busy)
    desk.work()
    assert len(tries) == 3
    monkeypatch.setattr(worker, "PATIENCE", -1.0)
    desk.executing(RunBusy("held by another"))
    with pytest.raises(SystemExit) as left:
        desk.work()
    assert left.value.code == states.BUSY and desk.failure() is None


def test_a_data_set_is_copied_to_scratch_once(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, copies, scratch = [], [], tmp_path / "scratch"
    copy = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda *paths: copies.append(paths) or copy(*paths))
    monkeypatch.setenv("NODE_DISK", str(scratch))
    desk.made.scratch = "$NODE_DISK/data"
    desk.executing(lambda run: read.append((run.id, run.cfg.DATASET.ROOT)))
    desk.work()
    desk.work(1)
    target = scratch / "data" / "tiny.h5"
    assert read == [(desk.runs[0].id, str(target.parent)), (desk.runs[2].id, str(target.parent))]
    assert len(copies) == 1 and target.read_bytes() == (ROOT / "data" / "tiny.h5").read_bytes()
    target.write_bytes(b"cut short")
    desk.work()
    assert len(copies) == 2 and len(list(target.parent.iterdir())) == 1


@pytest.mark.parametrize("scratch", ["", "/proc/no-such/place", "$NOT_SET_ANYWHERE"])
def test_without_room_on_scratch_the_data_set_is_read_where_it_is(
    desk: Desk, scratch: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    desk.made.scratch, read = scratch, []
    desk.executing(lambda run: read.append(run.cfg.DATASET.ROOT))
    desk.work()
    assert read == [str(ROOT / "data")] and desk.failure() is None and not list(tmp_path.glob("$*"))


# ---- the host side of a job


def requeue(folder: Path, code: int, state: str = "RUNNING", again: bool | None = None, **environment: str) -> tuple:
    """(exit code, what scontrol was told) of slurm/requeue.sh; `again`: whether the file is there, None for no name."""
    calls, bin = folder / "calls", folder / "bin"
    bin.mkdir(exist_ok=True)
    calls.write_text("")
    for name, text in {
        "squeue": f"[ -n '{state}' ] && echo '{state}'",
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
    done = subprocess.run(["bash", "-c", script], env=wanted, capture_output=True, text=True, timeout=20)
    assert not done.stderr and not (folder / "seval-a.again.0").exists()
    return done.returncode, calls.read_text().splitlines()


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


# ---- how far a table is


@pytest.fixture
def mixed(lab: Lab) -> Lab:
    """Of fifteen runs some are done, running, waiting, timed out, out of memory."""
    lab.submit()
    lab.done("Plain 0", "Replay 0/1")
    lab.fake.become(lab.element("Plain 1"), "RUNNING")
    folder = lab.names()["Plain 1"].folder
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 215, "progress": 0.43, "seconds": 3}\n')
    lab.failed("Plain 2", "oom", "RuntimeError: CUDA out of memory")
    lab.fake.end(lab.element("Replay 1/1"), "TIMEOUT")
    lab.fake.end(lab.element("Replay 1"))
    lab.fake.become(lab.element("Replay 2/1"), "RUNNING")
    folder = lab.names()["Replay 2/1"].folder
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 100, "progress": 0.1, "seconds": 3}\n')
    return lab


def test_the_board_has_a_sign_for_every_seed(mixed: Lab) -> None:
    said = mixed.status()
    rows = {line.split("  ")[0]: line.split()[1:] for line in said.splitlines()}
    assert rows["Plain"] == ["✓", "43%", "M"]
    assert rows["Replay"] == ["w100%", "c", "w10%"]  # with the share of the run it waits for
    assert rows["Deep"] == ["w0%", "w0%", "w0%"]
    assert "sweep: 15 runs: 2 done, 2 running" in said and "1 timed out, 1 canceled, 1 out of memory" in said
    assert "n% running" in said and "GPU-hours spent; left: about" in said and "at 2 runs at once, done in" in said


def test_failures_come_with_reason_and_log(mixed: Lab) -> None:
    made = mixed.ledgers()
    id = mixed.names()["Plain 2"].id
    (index,) = [k for each in made for k, element in enumerate(each.elements) if element == [id]]
    (job,) = {
        number.partition("_")[0]
        for number, (name, *_) in mixed.fake.queue().items()
        if name == next(each.name for each in made if [id] in each.elements)
    }
    log = mixed.runs / "slurm" / "logs" / f"{job}_{index}_0_log.out"
    log.write_text("...")
    said = mixed.status("--failed")
    assert f"{id}  sweep: Plain, LT, seed 2: out of memory\n    RuntimeError: CUDA out of memory\n    log: " in said
    assert str(log.relative_to(mixed.folder)) in said and "--retry oom timeout" in said
    assert f"{mixed.names()['Replay 1/1'].id}  sweep: Replay (prerequisite), LT, seed 1: timed out" in said
    assert said.count(": canceled") == 1 and "done" not in said.replace("which is not done", "")


def test_json_has_every_run(mixed: Lab) -> None:
    found = {each["id"]: each for each in json.loads(mixed.status("--json"))}
    assert len(found) == 15
    names = mixed.names()
    assert found[names["Plain 1"].id]["progress"] == 0.43 and found[names["Plain 1"].id]["state"] == "running"
    assert found[names["Plain 1"].id]["job"] == mixed.element("Plain 1")
    assert found[names["Plain 2"].id]["failure"]["error"] == "RuntimeError: CUDA out of memory"
    assert found[names["Plain 0"].id]["failure"] is None


def test_watching_shows_it_until_it_is_stopped(mixed: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[float] = []

    def sleep(seconds: float) -> None:
        if seconds < 1:  # of `subprocess`
            return
        rounds.append(seconds)
        if len(rounds) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert mixed.status("--watch", "7").count("sweep: 15 runs") == 2 and rounds == [7, 7]


def test_status_says_where_slurm_is_silent_and_shows_the_rest(mixed: Lab) -> None:
    mixed.fake.plan("squeue", "always down")
    mixed.capsys.readouterr()
    assert status.main(["--table", "sweep", "--site", "site.yaml"]) == 0
    out, err = mixed.capsys.readouterr()
    assert "2 done" in out and "SLURM does not answer" in err and err.count("\n") == 1
    assert status.main(["--table", "sweep", "--site", "site.yaml", "--json"]) == 0
    assert len(json.loads(mixed.capsys.readouterr().out)) == 15


@pytest.mark.parametrize("main", [status.main, submit.main])
def test_a_reader_that_leaves_is_no_error(lab: Lab, main: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            return self.file.fileno()

        def isatty(self) -> bool:
            return False

    closed = Closed()
    with (lab.folder / "out").open("w") as closed.file:
        monkeypatch.setattr(sys, "stdout", closed)
        more = ["--cluster", "slurm", "--dry-run"] if main is submit.main else []
        code = main(["--table", "sweep", "--site", "site.yaml", *more])
        monkeypatch.undo()
    assert code == 0


def test_all_is_every_numbered_table_and_shared_runs_count_once(lab: Lab) -> None:
    (lab.folder / "paper_tables/table2.yaml").write_text(table(ONE, seeds=[0, 1]))
    (lab.folder / "paper_tables/table10.yaml").write_text(table(PAIR, rows={"Same": {"config": "plain"}}))
    lab.capsys.readouterr()
    assert status.main(["--all", "--site", "site.yaml"]) == 0
    out = lab.capsys.readouterr().out
    assert out.index("table2: 2 runs") < out.index("table10: 1 runs") and "sweep" not in out
    assert submit.main(["--all", "--cluster", "slurm", "--site", "site.yaml"]) == 0
    assert sum(len(made.settings) for made in lab.ledgers()) == 2
    assert "1 shared with the other tables" in lab.capsys.readouterr().out
    assert status.main(["--table", "2", "10", "--site", "site.yaml", "--failed"]) == 0
    assert lab.capsys.readouterr().out == "nothing failed\n"


def test_no_word_of_status_is_bad_input(lab: Lab) -> None:
    (lab.folder / "site.yaml").write_text("partitions: x")
    assert lab.status(code=2).count("\n") == 1
