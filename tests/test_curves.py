"""TensorBoard curves: readable by TensorBoard, and never a reason for a run to end."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from seval import curves
from seval.curves import Curves

LINE = {
    **{"step": 3, "lr": 0.03, "loss": {"linear/labeled": 2.5}, "policy": {"linear": {"kept": 0.5}}},
    "test": {"ema": {"none": {"top1": 0.25}}},
    "quality": {"precision": 0.75, "per_class": [1.0]},
}


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_reads_what_was_drawn_and_a_resumed_run_draws_again(tmp_path):
    with Curves(tmp_path, 0, True) as board:
        for step in (3, 6, 9):
            board.draw(LINE | {"step": step})
    with Curves(tmp_path, 7, True) as board:
        board.draw(LINE | {"step": 9, "lr": 0.5})
    found = read(tmp_path)
    assert set(found) == {
        "lr",
        "loss/linear/labeled",
        "test/ema/none/top1",
        "policy/linear/kept",
        "pseudo_labels/precision",
    }
    assert found["lr"][-1] == (9, 0.5) and len(found["lr"]) == 3 and found["pseudo_labels/precision"][0] == (3, 0.75)


def test_unwanted_curves_leave_nothing(tmp_path):
    with Curves(tmp_path, 0, False) as board:
        board.draw(LINE)
    assert not list(tmp_path.iterdir())


def test_curves_have_the_name_of_the_run_its_settings_and_all_accuracies(tmp_path):
    found = {"top1": 0.25, "balanced_accuracy": 0.5, "few": None}
    with Curves(tmp_path, 0, True, "fixmatch · tiny · seed 1", {"SEED": 1, "SOLVER.STEPS": [1, 2]}) as board:
        board.draw(LINE | {"test": {"ema": {"none": found}}})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "fixmatch_tiny_seed_1")).Reload()
    assert {"test/ema/none/top1", "test/ema/none/balanced_accuracy"} <= set(events.Tags()["scalars"])
    assert "test/ema/none/few" not in events.Tags()["scalars"]
    assert "SOLVER.STEPS" in str(events.PluginTagToContent("hparams"))


def test_what_cannot_be_written_is_said_once_and_the_run_goes_on(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("in the way")
    with Curves(tmp_path, 0, True) as board:
        board.draw(LINE)
    assert capsys.readouterr().err.count("no more TensorBoard curves") == 1


@pytest.mark.parametrize("method", ["write", "flush", "close"])
def test_a_disk_that_fills_up_ends_the_curves_only(method, tmp_path, capsys, monkeypatch):
    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def __getattr__(self, name: str) -> object:
            if name == method:
                self.file.close()
                raise OSError(28, "No space left on device")
            return getattr(self.file, name)

    real = Path.open
    monkeypatch.setattr(curves.Path, "open", lambda *a, **k: Full(real(*a, **k)))
    with Curves(tmp_path, 0, True) as board:
        board.draw(LINE)
        board.draw(LINE)
    err = capsys.readouterr().err
    assert err.count("no more TensorBoard curves") == 1 and "No space left" in err
