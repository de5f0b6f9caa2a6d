"""main.py where it is asked to stop."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from seval import train
from seval.claim import holder
from seval.run import Run
from seval.signals import ASKING
from tests.command_line import command, run
from tests.settings import ROOT, SMALL, result, small

pytestmark = pytest.mark.usefixtures("in_root")


def test_a_job_that_its_scheduler_stops_goes_on_with_the_same_command(tmp_path):
    more = ["SOLVER.MAX_ITER", 45, "RUNTIME.THREADS", 1]
    whole = Run(small("fixmatch", tmp_path / "whole", *more)).execute()
    folder = tmp_path / "stopped"
    arguments = [sys.executable, "main.py", *command("fixmatch", *SMALL, "OUTPUT_DIR", folder, *more)]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in folder.glob("*/metrics.jsonl")):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGUSR2)
    out, err = child.communicate()
    assert child.returncode == 75 and not out
    (words,) = re.findall(r"^SIGUSR2: stopped after (\d+) of 45 steps; the same command resumes from there$", err, re.M)
    stopped = folder / whole["id"]
    assert torch.load(stopped / "checkpoint.pt", weights_only=True)["step"] == int(words) and holder(stopped) is None
    done = subprocess.run(arguments, capture_output=True)
    assert done.returncode == 0 and result(json.loads((stopped / "record.json").read_text())) == result(whole)


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        ([signal.SIGTERM], 75, "SIGTERM: stopped after 5 of 12 steps"),
        ([signal.SIGTERM, signal.SIGINT], 75, "SIGTERM: stopped after 5 of 12 steps"),
        ([signal.SIGINT], 130, "SIGINT: stopped after 5 of 12 steps"),
        ([signal.SIGINT, signal.SIGINT], 130, "error: interrupted"),
    ],
)
def test_signals_that_ask_to_stop(sent, code, words, tmp_path, capsys, monkeypatch):
    real, before = train.update, [signal.getsignal(number) for number in ASKING]

    def update(training, step):
        if step == 4:
            for number in sent:
                signal.raise_signal(number)
        return real(training, step)

    monkeypatch.setattr(train, "update", update)
    arguments = command("supervised", *SMALL, "OUTPUT_DIR", tmp_path)
    answer, out, err = run(capsys, *arguments)
    assert answer == code and not out and err.splitlines()[-1].startswith(words)
    assert [signal.getsignal(number) for number in ASKING] == before
    assert len(list(tmp_path.glob("*/checkpoint.pt"))) == (not err.splitlines()[-1].startswith("error"))
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    assert run(capsys, *arguments)[0] == 0
