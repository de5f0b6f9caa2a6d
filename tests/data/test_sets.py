"""Every data set of the paper, from files in its official format through both phases of SEVAL, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import main
from repro import prepare as cli
from seval.data.hdf5 import read
from tests.settings import ROOT
from tests.standins import TINY, write_cifar100, write_imagenet, write_semi_aves, write_small_cifar10, write_stl10

FEW = "SOLVER.MAX_ITER 4 PERIODS.EVAL 2 SOLVER.IMS_PER_BATCH 4 MODEL.DEPTH 10 MODEL.WIDTH 1 MODEL.NAME wide_resnet"
FEW += " MODEL.PRETRAINED False RUNTIME.PROGRESS False RUNTIME.TENSORBOARD False RUNTIME.WORKERS 0 GPU_ID -1"

#: By set: how to write its stand-in, and what makes a run of it small.
SETS = {
    "cifar10": (
        lambda raw, tiny: write_small_cifar10(raw, tiny, 60, 4),
        "DATASET.NUM_VALID 50 DATASET.CIFAR10.NUM_LABELED_HEAD 20 DATASET.CIFAR10.NUM_UNLABELED_HEAD 30 "
        "DATASET.CIFAR10.IMB_FACTOR_L 5",
    ),
    "cifar100": (
        lambda raw, tiny: write_cifar100(raw, tiny, 9, 1),
        "DATASET.NUM_VALID 100 DATASET.CIFAR100.NUM_LABELED_HEAD 4 DATASET.CIFAR100.NUM_UNLABELED_HEAD 4 "
        "DATASET.CIFAR100.IMB_FACTOR_L 2 DATASET.CIFAR100.IMB_FACTOR_UL 2",
    ),
    "stl10": (
        lambda raw, tiny: write_stl10(raw, tiny, 400, 40, 50),
        "DATASET.NUM_VALID 20 DATASET.STL10.NUM_LABELED_HEAD 20 DATASET.STL10.IMB_FACTOR_L 4",
    ),
    "semi_aves": (lambda raw, tiny: write_semi_aves(raw, tiny), "DATASET.DECODED_SIZE 36 DATASET.CROP 32"),
    "small_imagenet127": (
        lambda raw, tiny: write_imagenet(raw, tiny, 32, 1200),
        "DATASET.HELD_OUT_PER_CLASS 0 DATASET.NUM_TEST 1 "  # and not the minutes of Nelder-Mead over 254 variables
        "HEADS.LINEAR.POLICY seval_refine(solver='exact')|seval_threshold(groups=10)|one_hot",
    ),
}


def run(*words: object) -> int:
    return main.main([str(word) for word in words])


@pytest.mark.parametrize("name", SETS)
def test_from_official_files_through_both_phases(name, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    write, small = SETS[name]
    write(tmp_path / "raw", tiny)
    raw = tmp_path / "raw" / "semi_fgvc" if name == "semi_aves" else tmp_path / "raw"
    assert cli.main([name, "--root", str(tmp_path), "--raw", str(raw)]) == 0
    assert cli.main([name, "--root", str(tmp_path), "--verify"]) == 0
    base = ["--config-file", f"configs/{name}/fixmatch_seval_load.yaml"]
    more = [*FEW.split(), *small.split(), "DATASET.ROOT", tmp_path, "OUTPUT_DIR", tmp_path / "runs"]
    capsys.readouterr()
    assert run(*base, "--dry-run", "--json", *more) == 0
    about = json.loads(capsys.readouterr().out)
    assert run(*base, "--with-prerequisites", *more) == 0
    done = json.loads((tmp_path / "runs" / about["id"] / "record.json").read_text())
    assert done["splits"] == about["splits"] and done["prerequisites"] == [about["chain"][0]["id"]]
    assert done["steps"] == 4 and {"none", "seval"} <= done["results"]["test"]["ema"].keys()
    unlabeled = about["splits"]["unlabeled"]
    known = name not in ("stl10", "semi_aves")
    assert (unlabeled["unknown"] == 0) == known and bool(done["pseudo_labels"]) == known


def test_both_labels_and_both_test_sets_of_imagenet_127(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    write_imagenet(tmp_path / "raw", tiny, 32, 300)
    assert cli.main(["small_imagenet127", "--root", str(tmp_path), "--raw", str(tmp_path / "raw")]) == 0
    image_set = read(tmp_path / "small_imagenet127.h5")
    capsys.readouterr()
    counts = {}
    for labeled in ("batch_1", "random"):
        arguments = ["--config-file", "configs/small_imagenet127/fixmatch.yaml", "--dry-run", "--json",
                     "DATASET.ROOT", tmp_path, "DATASET.IMAGENET.LABELED", labeled]  # fmt: skip
        assert run(*arguments) == 0
        counts[labeled] = json.loads(capsys.readouterr().out)["splits"]["labeled"]["class_counts"]
    assert sum(counts["batch_1"]) == 300 and counts["batch_1"] == sorted(counts["batch_1"], reverse=True)
    assert counts["random"] != counts["batch_1"] and abs(sum(counts["random"]) - 300) < 64
    assert image_set.num_classes == 127


def test_split_hashes_of_protocols_differ_and_are_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    hashes = set()
    for protocol in ("seval", "usb", "acr"):
        assert (
            run("--config-file", "configs/tiny/fixmatch.yaml", "--dry-run", "--json", "DATASET.PROTOCOL", protocol) == 0
        )
        hashes.add(json.loads(capsys.readouterr().out)["splits"]["labeled"]["sha256"])
    assert len(hashes) == 3


def test_two_processes_read_one_file_at_once(tmp_path):
    code = "import sys; from seval.data.hdf5 import read; print(len(read(sys.argv[1]).train.labels))"
    command = [sys.executable, "-c", code, str(TINY)]
    pair = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in pair] == ["47000"] * 2
