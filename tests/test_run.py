from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import pytest
import torch

from seval import record
from seval.claim import claim
from seval.data import hdf5
from seval.data.image_set import fingerprint, fingerprint_0_1
from seval.errors import ConfigError, MissingPrerequisite, RecordError, RunBusy
from seval.run import Run
from tests.settings import result, small
from tests.standins import TINY

METHODS = ["supervised", "supervised_la", "fixmatch", "fixmatch_la", "fixmatch_seval_estim", "fixmatch_seval"]


@pytest.mark.parametrize("method", METHODS)
def test_same_id_same_record(method, tmp_path):
    first, second = (Run(small(method, tmp_path / name)) for name in "ab")
    assert first.id == second.id
    assert result(first.execute()) == result(second.execute())
    lines = record.read_lines(first.folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert all(math.isfinite(value) for line in lines for value in line["loss"].values())


def test_another_seed_is_another_record(tmp_path):
    a, b = (Run(small("fixmatch", tmp_path, "SEED", seed)) for seed in (0, 1))
    assert a.id != b.id and result(a.execute())["splits"] != result(b.execute())["splits"]


def test_a_record_holds_what_a_reader_needs(tmp_path):
    done = Run(small("fixmatch_seval", tmp_path)).execute()
    top1 = done["results"]["test"]["ema"]["seval"]["top1"]
    assert top1.keys() == {"last", "median20", "mean20", "best_on_valid", "best_on_test"}
    assert done["results"]["test"].keys() == {"ema", "raw"}
    assert done["results"]["test"]["ema"].keys() == {"none", "logit_adjusted", "seval", "seval_smoothed"}
    assert done["per_class"]["seval"].keys() == {"recall", "precision"}
    assert sum(done["splits"]["labeled"]["class_counts"]) == 240 and len(done["splits"]["labeled"]["sha256"]) == 64
    assert {"kept", "gain", "correctness", "precision", "recall"} <= done["pseudo_labels"].keys()
    assert done["provenance"]["packages"]["torch"] and done["provenance"]["device"].startswith("cpu")
    assert json.loads((tmp_path / done["id"] / "record.json").read_text()) == done


def test_two_phases(tmp_path):
    replay = Run(small("fixmatch_seval_load", tmp_path))
    with pytest.raises(MissingPrerequisite) as error:
        replay.execute()
    estimate = error.value.run
    assert estimate.id == Run(small("fixmatch_seval_estim", tmp_path)).id == replay.chain()[0].id
    assert not (replay.folder / "record.json").exists()
    for run in replay.chain():
        run.execute()
    assert replay.record()["prerequisites"] == [estimate.id]
    learned, replayed = (record.load_artifacts(run.folder / "artifacts.h5")["linear"] for run in (estimate, replay))
    assert learned["pi_fitted"].shape == (4, 10) and all(np.array_equal(learned[k], replayed[k]) for k in learned)
    halves = estimate.record()["splits"]
    whole = replay.record()["splits"]["labeled"]["class_counts"]
    assert halves["held_out"]["class_counts"] == [n // 2 for n in whole]
    assert np.add(halves["labeled"]["class_counts"], halves["held_out"]["class_counts"]).tolist() == whole
    assert halves["unlabeled"] == replay.record()["splits"]["unlabeled"]


def test_a_second_execution_trains_nothing(tmp_path, monkeypatch):
    run = Run(small("supervised", tmp_path))
    done = run.execute()
    monkeypatch.setattr("seval.run.train", None)
    assert Run(run.cfg).execute() == done


def test_seval_without_refinement_equals_fixmatch_bit_for_bit(tmp_path, monkeypatch):
    """pi = 1 and tau = 0.95 for ever: the two networks have the same weights."""
    monkeypatch.setattr("seval.policy.seval.fit_offsets", lambda z, y, **_: np.ones(10))
    monkeypatch.setattr(
        "seval.policy.seval.SevalThreshold.fit", lambda self, *_: self.curriculum.append(np.full(10, 0.95))
    )
    runs = [Run(small(m, tmp_path, "DATASET.HELD_OUT", "valid")) for m in ("fixmatch", "fixmatch_seval")]
    nets = []
    for run in runs:
        run.execute()
        nets.append(record.load_checkpoint(run.folder / "checkpoint.pt")["net"])
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


def test_a_checkpoint_of_another_configuration_or_data_is_refused(tmp_path):
    one, two = (Run(small("supervised", tmp_path, "SEED", seed)) for seed in (0, 1))
    one.execute()
    two.folder.mkdir()
    (one.folder / "checkpoint.pt").rename(two.folder / "checkpoint.pt")
    with pytest.raises(RecordError, match="belongs to another configuration"):
        two.execute()
    (two.folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(RecordError, match="checkpoint.pt is damaged .* move it away"):
        two.execute()


def test_a_damaged_record_is_named(tmp_path):
    run = Run(small("supervised", tmp_path))
    run.folder.mkdir(parents=True)
    (run.folder / "record.json").write_text("{")
    with pytest.raises(RecordError, match="record.json is damaged"):
        run.execute()


def test_two_processes_never_train_one_run(tmp_path):
    run = Run(small("supervised", tmp_path))
    with claim(run.folder), pytest.raises(RunBusy, match=f"process {os.getpid()}"):
        run.execute()
    assert run.execute()["id"] == run.id


def test_hold_out_that_leaves_a_class_without_labels(tmp_path):
    with pytest.raises(ConfigError, match="every class must keep labels"):
        small("fixmatch_seval_estim", tmp_path, "DATASET.HELD_OUT_PORTION", 1.0)
    with pytest.raises(ConfigError, match="class 9 gets no labels"):
        Run(small("fixmatch_seval_estim", tmp_path, "DATASET.TINY.NUM_LABELED_HEAD", 9)).execute()


def test_a_redundant_pair_in_the_prerequisite_is_the_same_run(tmp_path):
    cfg = small("fixmatch_seval_load", tmp_path)
    pairs = [*cfg.PREREQUISITE, "SEED", 0, "OUTPUT_DIR", "elsewhere"]
    assert Run(small("fixmatch_seval_load", tmp_path, "PREREQUISITE", pairs)).id == Run(cfg).id


def test_progress_is_read_from_disk(tmp_path):
    run = Run(small("supervised", tmp_path))
    assert run.progress() is None
    run.execute()
    assert run.progress() == 1.0
    (run.folder / "record.json").unlink()
    assert run.progress() == 1.0 and not run.record()
    (run.folder / "metrics.jsonl").unlink()
    assert run.progress() == 0.0
    for file in run.folder.glob("claim.*"):
        file.unlink()
    assert run.progress() is None


def test_a_record_of_other_data_is_refused_where_the_data_is_here(tmp_path):
    run = Run(small("supervised", tmp_path / "runs", "DATASET.ROOT", str(tmp_path)))
    shutil.copy(TINY, tmp_path)
    run.execute()
    images = hdf5.read(TINY)
    hdf5.write(tmp_path / "tiny.h5", images._replace(mean=tuple(value / 2 for value in images.mean)))
    with pytest.raises(RecordError, match="belongs to another data"):
        run.record()
    (tmp_path / "tiny.h5").write_bytes(b"damaged")
    assert run.record()
    (tmp_path / "tiny.h5").unlink()
    assert run.record()


def test_a_record_of_version_0_1_is_matched_by_the_arrays_of_its_data(tmp_path):
    run = Run(small("supervised", tmp_path))
    done = {key: value for key, value in run.execute().items() if key not in ("sha256", "artifacts", "method")}
    for data, right in ((fingerprint_0_1(run.image_set), True), (fingerprint(run.image_set), False)):
        (run.folder / "record.json").write_text(json.dumps(done | {"data": data}), encoding="utf-8")
        if right:
            assert run.record()["data"] == data
        else:
            with pytest.raises(RecordError, match="belongs to another data"):
                run.record()


def test_a_curriculum_that_changes_meanwhile_is_refused(tmp_path):
    for name in ("pi", "thres"):
        np.save(tmp_path / f"c_estim_{name}.npy", np.full((4, 10), 0.9))
    run = Run(small("fixmatch_seval_load", tmp_path, "CURRICULUM", str(tmp_path / "c")))
    assert run.artifacts()[0]["linear"]["pi_smoothed"].shape == (4, 10)
    np.save(tmp_path / "c_estim_pi.npy", np.full((4, 10), 0.8))
    with pytest.raises(ConfigError, match="has changed since this run began"):
        run.artifacts()
