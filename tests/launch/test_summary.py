"""What submit.py and status.py say is next: commands of their own, and what runs cost in words that fit."""

from __future__ import annotations

import pytest

from repro import status, submit
from repro.launch.costs import amount
from tests.launch.conftest import ONE, PAIR, Lab, table, with_record
from tests.tables.hints import MAINS, hints, parsed

SITE = ["--site", "site.yaml"]
MORE = ["--output-dir", "runs", "--rows", "Plain"]


def after(said: str) -> list[tuple[str, list[str]]]:
    """The commands in what was said, each of them about the table and site that the caller named; all are called."""
    for script, args in parsed(said):
        assert args.table == ["sweep"] and (script == "aggregate" or args.site == "site.yaml")
        assert script != "submit" or args.cluster == "slurm"
    for script, words in hints(said):
        assert MAINS[script]([*words, *(["--dry-run"] if script == "submit" else [])]) == 0
    return [(script, words[2:]) for script, words in hints(said)]


def test_what_is_next_on_slurm(lab: Lab) -> None:
    lab.table(table(ONE, seeds=[0, 1]))
    slurm = [*SITE, "--cluster", "slurm"]
    said = lab.submit("--retry", "oom")
    assert "no run is out of memory" in said and after(said) == [("submit", slurm)]
    assert after(lab.submit()) == after(lab.submit()) == [("status", SITE)]
    lab.failed("Plain 0", "crashed", "ValueError: no")
    said = lab.submit()
    assert "nothing to submit" in said and "left alone: 1" in said
    retry = [("status", [*SITE, "--failed"]), ("submit", [*slurm, "--retry", "crashed"])]
    assert after(said) == [*retry, ("status", SITE)]
    lab.done("Plain 1")
    assert after(lab.submit()) == retry, "the table is not yet what is next"
    ((script, args),) = parsed(lab.status("--failed"))
    assert (script, args.retry, args.site) == ("submit", ["crashed"], "site.yaml")
    with_record(lab.names()["Plain 0"])
    said = lab.submit()
    assert "nothing to submit\nevery run has a record" in said and after(said) == [("aggregate", [])]


def test_commands_keep_what_narrows_them(lab: Lab) -> None:
    ((script, args),) = parsed(lab.submit(*MORE, "--seeds", "1", "2"))
    assert (script, args.rows, args.seeds, args.output_dir) == ("status", ["Plain"], [1, 2], "runs")


def test_a_failure_outside_slurm_is_tried_again_without_retry(lab: Lab) -> None:
    lab.table(table(ONE))
    lab.submit()
    lab.failed("Plain 0", "oom", "MemoryError: ")
    lab.fake.remove("sbatch")
    ((_, args),) = parsed(lab.status("--failed"))  # it was a job, so it is submitted again from where there is SLURM
    assert args.retry == ["oom"] and args.cluster == "slurm"
    for ledger in (lab.runs / "slurm").glob("*.json"):
        ledger.unlink()
    ((_, args),) = parsed(lab.status("--failed"))
    assert not args.retry and args.cluster is None


def test_of_a_single_configuration_the_number_is_printed(lab: Lab) -> None:
    given = ["--config", "configs/small/plain.yaml", "MEMO", "a", *SITE]
    assert submit.main([*given, "--cluster", "slurm"]) == 0
    ((script, args),) = parsed(lab.capsys.readouterr().out)
    assert (script, args.config, args.overrides) == ("status", "configs/small/plain.yaml", ["MEMO", "a"])
    (made,) = lab.ledgers()
    for folder in (lab.runs / id for (id,) in made.elements):
        folder.mkdir(parents=True)
        result = '{"test": {"ema": {"none": {"top1": {"median20": 0.625}}}}}'
        (folder / "record.json").write_text(f'{{"id": "{folder.name}", "results": {result}}}')
    for main, more in ((submit.main, ["--cluster", "slurm"]), (status.main, [])):
        assert main([*given, *more]) == 0
        assert "plain, seed 0: 62.50\nTop-1 accuracy on the test images" in lab.capsys.readouterr().out


@pytest.mark.parametrize("words", [["--jobs", "2"], ["--retry", "oom", "--cancel"]])
def test_an_option_that_would_count_for_nothing_is_refused(lab: Lab, words: list[str]) -> None:
    assert lab.submit(*words, code=2).startswith("error: --")
    lab.capsys.readouterr()
    for more in (["--array-parallelism", "2"], ["--retry", "oom"], ["--cancel"]):
        assert submit.main(["--table", "sweep", "--cluster", "local", *more]) == 2
    assert status.main(["--table", "sweep", "--json", "--failed"]) == 2


def test_a_pair_that_the_machine_decides_is_named(lab: Lab) -> None:
    given = ["--config", "configs/small/plain.yaml", "GPU_ID", "3", "RUNTIME.THREADS", "7", "PERIODS.CHECKPOINT", "50"]
    assert submit.main([*given, *SITE, "--cluster", "slurm"]) == 0
    out = lab.capsys.readouterr().out
    assert "note: GPU_ID 3 does not count here" in out and "note: RUNTIME.THREADS 7 does not count here" in out
    (made,) = lab.ledgers()
    ((pairs,),) = ([dict(zip(each[::2], each[1::2], strict=True))] for each in made.settings.values())
    assert pairs["PERIODS.CHECKPOINT"] == 50 and out.count("note: ") == 2


def test_a_gpu_that_nobody_asks_for_is_named(lab: Lab) -> None:
    lab.site(gres="")
    given = ["--config", "configs/small/plain.yaml", "GPU_ID", "1", *SITE, "--cluster", "slurm", "--dry-run"]
    assert submit.main(given) == 0
    assert "note: GPU_ID 1 does not count here; it is decided by the site file, which" in lab.capsys.readouterr().out


def test_a_missing_set_is_made_by_the_command_that_is_named(lab: Lab) -> None:
    given = ["--config", "configs/small/plain.yaml", "DATASET.ROOT", "my data", *SITE, "--cluster", "slurm"]
    assert submit.main(given) == 2
    ((script, args),) = parsed(lab.capsys.readouterr().err)
    assert (script, args.name, args.root) == ("prepare", "cifar10", "my data")


@pytest.mark.parametrize(
    "seconds, processor, words",
    [
        (0, "GPU", "0 GPU-seconds"),
        (1, "CPU", "1 CPU-second"),
        (59, "CPU", "59 CPU-seconds"),
        (360, "CPU", "6 CPU-minutes"),
        (5400, "GPU", "1.5 GPU-hours"),
        (36000, "GPU", "10 GPU-hours"),
        (7_200_000, "GPU", "2,000 GPU-hours"),
    ],
)
def test_an_amount_has_a_unit_of_its_size(seconds: float, processor: str, words: str) -> None:
    assert amount(seconds, processor) == words


def test_hours_on_a_cpu_are_not_called_those_of_a_gpu(lab: Lab) -> None:
    lab.table(table(PAIR))
    assert "GPU-" in lab.submit("--dry-run")
    lab.site(gres="")
    assert "CPU-" in (said := lab.submit("--dry-run")) and "GPU-" not in said
    run = lab.names()["Replay 0/1"]
    run.folder.mkdir(parents=True)
    device = ' "provenance": {\n  "device": "cpu (x86_64)"\n },\n "steps": 4,\n "seconds": 7200\n}'
    (run.folder / "record.json").write_text(f'{{\n "id": "{run.id}",\n "results": {{}},\n{device}')
    lab.site()
    said = lab.status()
    assert "2.0 CPU-hours spent; left: about 6 GPU-seconds, assuming A100 at 70% of its peak rates" in said
    lab.site(resources={"cifar10": {"steps_per_second": 0.001}})
    assert "left: about 278 GPU-hours, assuming 0.001 steps/s on cifar10" in lab.status()
