"""The timings: known ratios, shares that add up, methods that are put back, and a report that says what failed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_check, step, timing

CPU = torch.device("cpu")
FAST = ["SOLVER.IMS_PER_BATCH", 8, "DATASET.NUM_VALID", 50, "DATASET.NUM_TEST", 10]


def test_a_ratio_is_that_of_pairs_and_not_of_medians() -> None:
    found = timing.Ratio.of([0.002, 0.004, 0.020], [0.001, 0.002, 0.010])
    assert found == pytest.approx((4.0, 2.0, 2.0, 2.0, 2.0))
    slow_spell = timing.Ratio.of([0.001, 0.1, 0.001, 0.1], [0.001, 0.1, 0.001, 0.1])
    assert slow_spell.ratio == 1.0
    few = timing.Ratio.of([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert (few.low, few.ratio, few.high) == (1.0, 2.0, 3.0), "three pairs allow no narrower interval"


def test_a_row_has_all_parts_and_leaves_the_training_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "WARM_UP", 1)
    found = step.row("fixmatch", "here", gpu.Setting(), FAST, 3, CPU)
    parts = [found[name] for name in ("data", "policy", "optimizer", "average")]
    assert all(0 < part < 1 for part in parts) and sum(parts) < 1
    assert found["steps_per_second"] == pytest.approx(1000 / found["ours"])
    line = step.shown([found]).splitlines()[-1]
    assert line.startswith("| fixmatch | here") and f"{found['ratio']:.3f}" in line

    training = step.prepared("fixmatch", CPU, FAST).build({})
    before = type(training.loader).__next__, training.ema.update.__func__, training.optimizer.step.__func__
    timing.shares(training, step.whole(training), 1)
    assert before == (type(training.loader).__next__, training.ema.update.__func__, training.optimizer.step.__func__)


def test_a_method_that_depends_on_a_run_or_is_unknown_is_named() -> None:
    with pytest.raises(ValueError, match="unknown method 'fixmach'; known methods: abc"):
        step.prepared("fixmach", CPU, [])
    with pytest.raises(ValueError, match="fixmatch_seval_load depends on a finished run"):
        step.prepared("fixmatch_seval_load", CPU, [])


def test_switches_of_cudnn_hold_inside_only() -> None:
    before = torch.backends.cudnn.deterministic
    with gpu.Setting(deterministic=False).flags():
        assert torch.backends.cudnn.benchmark and not torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.deterministic is before


def test_the_report_of_a_check_says_what_passed_and_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    commands = {"good": ["-c", "print('fine')"], "bad": ["-c", "print('so'); raise SystemExit(3)"]}
    commands["slow"] = ["-c", "import time; print('begun', flush=True); time.sleep(60)"]
    monkeypatch.setattr(gpu_check, "parts", lambda folder, cpu: commands)
    monkeypatch.setattr(gpu_check, "LIMIT", 1)
    report = tmp_path / "check.md"
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--cpu", "--report", str(report)])
    assert gpu_check.main() == 1
    text = report.read_text()
    assert "## good: passed in" in text and "## bad: failed with exit code 3" in text and "\nso\n" in text
    assert "## slow: stopped after 1 s" in text and "begun" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_check_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--report", str(tmp_path / "none.md")])
    assert gpu_check.main() == 2 and not (tmp_path / "none.md").exists()
    assert capsys.readouterr().err.startswith("error: no GPU that PyTorch can use; PyTorch ")


def test_the_machine_is_fit_for_json() -> None:
    about = timing.machine(CPU)
    assert json.loads(json.dumps(about)) == about and about["versions"]["torch"]
