"""The network of a finished run gives, bit for bit, what an evaluation of the run gave."""

from __future__ import annotations

import shutil

import pytest
import torch

from repro.tables import table as tables
from seval.data import hdf5
from seval.errors import ConfigError, DataError, RecordError
from seval.evaluate import predict
from seval.inference import load_network
from seval.policy import darp
from seval.run import Run
from tests.settings import SMALL, small
from tests.standins import TINY


@pytest.fixture(scope="module")
def seval(tmp_path_factory) -> Run:
    run = Run(small("fixmatch_seval", tmp_path_factory.mktemp("seval"), "SOLVER.EVAL_BATCH", 64))
    run.execute()
    return run


@pytest.mark.parametrize("method", ["fixmatch_seval_load", "acr", "cossl", "crt"])
def test_logits_and_offsets_are_those_of_an_evaluation(method, tmp_path):
    run = Run(small(method, tmp_path, "SOLVER.EVAL_BATCH", 64))
    for each in run.chain():
        each.execute()
    training = run.build(run.artifacts()[0])
    training.load_state_dict(torch.load(run.folder / "checkpoint.pt", weights_only=True))
    images = training.data["test"]
    expected = training.algorithm.predict(predict(training.ema.network, images, training.mean, training.std, 64))
    state, classifier = torch.get_rng_state(), load_network(run)
    found = torch.cat([classifier(part) for part in images.in_order(classifier.batch)])
    assert torch.equal(found, expected) and torch.equal(torch.get_rng_state(), state)
    learned = training.heads[-1].policy.offsets()
    assert classifier.offsets.keys() == {"none", "logit_adjusted", *learned}
    assert all(torch.equal(classifier.offsets[name], offset) for name, offset in learned.items())
    assert classifier.class_names == run.image_set.class_names and not classifier.training


def test_crop_and_resolution_are_inside(tmp_path):
    run = Run(small("supervised", tmp_path, "DATASET.CROP", 12, "DATASET.RESOLUTION", 8, "SOLVER.EVAL_BATCH", 100))
    done, classifier = run.execute(), load_network(run)
    test, index = run.image_set.test, [i for c in range(10) for i in (run.image_set.test.labels == c).nonzero()[0][:10]]
    logits = classifier(torch.from_numpy(test.pixels[index]))
    for name, offset in classifier.offsets.items():
        right = (logits - offset).argmax(1) == torch.from_numpy(test.labels[index])
        assert right.double().mean() == pytest.approx(done["results"]["test"]["ema"][name]["top1"]["last"], abs=1e-12)


def test_the_default_offset_is_what_the_run_learned(seval, tmp_path):
    classifier = load_network(seval)
    assert classifier.offset()[0] == "seval" and classifier.offset("none")[0] == "none"
    with pytest.raises(ConfigError, match="no offset 'la'; it has none, logit_adjusted, seval, seval_smoothed"):
        classifier.offset("la")
    plain = Run(small("supervised", tmp_path))
    plain.execute()
    assert load_network(plain).offset()[0] == "none"


def test_a_run_that_cannot_be_loaded_says_why(seval, tmp_path):
    with pytest.raises(RecordError, match="is not done"):
        load_network(Run(small("supervised", tmp_path)))
    shutil.copytree(seval.folder, tmp_path / seval.id)
    there = ["SOLVER.EVAL_BATCH", 64]
    copied = Run(small("fixmatch_seval", tmp_path, *there))
    with pytest.raises(DataError, match=r"no file .*elsewhere/tiny.h5"):
        load_network(Run(small("fixmatch_seval", tmp_path, *there, "DATASET.ROOT", str(tmp_path / "elsewhere"))))
    other, images = tmp_path / "other" / "tiny.h5", hdf5.read(TINY)
    other.parent.mkdir()
    hdf5.write(other, images._replace(mean=(0.5,)))
    with pytest.raises(RecordError, match="belongs to another data"):
        load_network(Run(small("fixmatch_seval", tmp_path, *there, "DATASET.ROOT", str(other.parent))))
    content = (copied.folder / "checkpoint.pt").read_bytes()
    (copied.folder / "checkpoint.pt").write_bytes(content[:-1])
    with pytest.raises(RecordError, match="is damaged"):
        load_network(copied)
    (copied.folder / "checkpoint.pt").unlink()
    with pytest.raises(RecordError, match="has no checkpoint"):
        load_network(copied)


@pytest.mark.slow
@pytest.mark.parametrize("row", list(tables.find_table("methods_demo").rows))
def test_every_method_can_be_loaded(row, tmp_path, monkeypatch):
    # so short a supervised run gives DARP no estimate that it would accept
    monkeypatch.setattr(darp, "unlabeled_counts", lambda held_out, probs, condition: probs.double().sum(0))
    table = tables.find_table("methods_demo").forcing(rows=[row], columns=["none"], seeds=[0])
    few = ["DATASET.TINY.NUM_LABELED_HEAD", 150, "DATASET.TINY.NUM_UNLABELED_HEAD", 150]
    (cell,) = table.cells([*SMALL, *few, "OUTPUT_DIR", str(tmp_path)])
    run = cell.runs[0]
    for each in run.chain():
        each.execute()
    classifier = load_network(run)
    assert classifier(torch.zeros(3, 1, 16, 16, dtype=torch.uint8)).isfinite().all()
