"""What a log shows of a training."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from seval.progress import Progress, clock
from tests.settings import ROOT, SMALL

LINE = {
    **{"step": 4, "loss": {"a": 0.5, "b": 0.53}},
    "test": {"ema": {"none": {"top1": 0.181, "balanced_accuracy": 0.1812, "few": None}}},
}


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00"), (4.4, "0:04"), (61, "1:01"), (3723, "1:02:03"), (183845, "2 d 03:04")]
)
def test_times_are_short(seconds, words):
    assert clock(seconds) == words


def test_a_log_has_a_line_for_the_start_and_one_for_each_evaluation(capsys):
    with Progress("fixmatch · tiny · seed 1", "new, 8 steps", 0, 8, "auto") as progress:
        for _ in range(4):
            progress.update()
        progress.evaluated(LINE)
    first, line = capsys.readouterr().err.splitlines()
    assert first == "fixmatch · tiny · seed 1  new, 8 steps"
    expected = r"\d\d:\d\d:\d\d  fixmatch · tiny · seed 1  step 4/8  loss 1\.03  "
    expected += r"test 18\.1 % \(balanced 18\.1, few —\)  \S+ steps/s  left \d+:\d\d"
    assert re.fullmatch(expected, line)


def test_a_bar_shows_loss_and_accuracy_and_off_shows_nothing(capsys):
    for kind in ("bar", "off"):
        with Progress("name", "new", 0, 8, kind) as progress:
            progress.update()
            progress.evaluated(LINE)
    err = capsys.readouterr().err
    assert err.startswith("name  new\n") and "loss 1.03, test 18.1 %" in err and err.count("new") == 1


def test_a_log_of_five_evaluations_is_a_start_five_lines_and_the_table(tmp_path):
    words = [
        *SMALL,
        "OUTPUT_DIR",
        tmp_path / "runs",
        "RUNTIME.PROGRESS",
        "auto",
        "SOLVER.MAX_ITER",
        10,
        "PERIODS.EVAL",
        2,
    ]
    command = [sys.executable, "main.py", "--config-file", "configs/tiny/fixmatch.yaml", *map(str, words)]
    texts = []
    for _ in range(2):
        with (tmp_path / "log").open("w") as log:
            assert not subprocess.run(command, cwd=ROOT, stdout=log, stderr=log).returncode
        texts.append((tmp_path / "log").read_text(encoding="utf-8").splitlines())
    lines, again = texts
    assert re.match(r"fixmatch · tiny · seed 0  run \w{10} in \S+: new, 10 steps, ", lines[0])
    steps = [re.search(r"step (\d+)/10", line)[1] for line in lines[1:6]]
    assert steps == ["2", "4", "6", "8", "10"] and not any("\r" in line for line in lines)
    assert lines[6].startswith("run ") and lines[9].split()[0] == "offset" and len(lines) == 13
    assert "median20 (of 5)" in lines[9] and lines[9].split()[-2:] == ["balanced", "few-shot"]
    assert re.match(r"fixmatch · tiny · seed 0  run \w{10} in \S+: done before on \d{4}-", again[0])
    assert "code here differs" not in again[0] and again[1:] == lines[6:]
