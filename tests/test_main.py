from __future__ import annotations

import json
import shlex

import h5py
import numpy as np
import pytest
import torch

import main
from repro import prepare as prepare_cli
from seval.data.hdf5 import read
from tests.command_line import command, run
from tests.settings import ROOT, SMALL
from tests.standins import TINY, write_small_cifar10

pytestmark = pytest.mark.usefixtures("in_root")

#: The commands of the paper's README, in its order.
PAPER = "DATASET.CIFAR10.NUM_LABELED_HEAD 500 DATASET.CIFAR10.NUM_UNLABELED_HEAD 4000 SEED 79 GPU_ID 0".split()
LISTED = "Zhang et al., arXiv 2110.08263"
FILES = ["fixmatch", "fixmatch_seval_estim", "fixmatch_seval_load", "fixmatch_seval"]


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """A prepared stand-in for CIFAR-10, from files in its official format."""
    root = tmp_path_factory.mktemp("cifar10")
    write_small_cifar10(root / "raw", read(TINY), per_class=60, test_per_class=6)
    assert prepare_cli.main(["cifar10", "--root", str(root), "--raw", str(root / "raw")]) == 0
    return root


def test_the_papers_four_commands_in_order(cifar10, tmp_path, capsys):
    """The README's command lines, with as many images and steps as the stand-in has."""
    few = [
        "DATASET.ROOT",
        cifar10,
        "OUTPUT_DIR",
        tmp_path,
        "DATASET.NUM_VALID",
        50,
        "SOLVER.MAX_ITER",
        4,
        "PERIODS.EVAL",
        2,
        "DATASET.CIFAR10.NUM_LABELED_HEAD",
        20,
        "DATASET.CIFAR10.NUM_UNLABELED_HEAD",
        30,
        "SOLVER.IMS_PER_BATCH",
        4,
        "DATASET.CIFAR10.IMB_FACTOR_L",
        5,
        "RUNTIME.PROGRESS",
        False,
        "MODEL.DEPTH",
        10,
    ]
    ids = []
    for name in FILES:
        code, out, err = run(capsys, *command(name, *PAPER, *few, folder="cifar10"))
        assert code == 0, err
        assert err.count("no GPU was found: running on the CPU") == 1
        ids.append(next(path.parent.name for path in tmp_path.glob("*/record.json") if path.parent.name not in ids))
        assert f"run {ids[-1]} done" in out and ("seval" in out) == ("seval" in name)
    assert json.loads((tmp_path / ids[2] / "record.json").read_text())["prerequisites"] == [ids[1]]
    config = json.loads((tmp_path / ids[3] / "record.json").read_text())["config"]
    assert config["SEED"] == 79 and config["DATASET.HELD_OUT"] == "valid" and config["MODEL.WIDTH"] == 2


@pytest.mark.parametrize("name", FILES)
def test_the_papers_commands_mean_what_they_meant(name):
    from seval.config import load

    cfg = load(ROOT / f"configs/cifar10/{name}.yaml", PAPER)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.UNLABELED_BATCH_RATIO) == (250_000, 64, 2)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.SCHEDULE, cfg.SOLVER.WEIGHT_DECAY) == (0.03, "constant", 5e-4)
    assert (cfg.MODEL.DEPTH, cfg.MODEL.WIDTH, cfg.MODEL.EMA_DECAY, cfg.PERIODS.EVAL) == (28, 2, 0.999, 500)
    assert (cfg.DATASET.NUM_VALID, cfg.DATASET.CIFAR10.IMB_FACTOR_L, cfg.SEED) == (5000, 100, 79)
    policy = {
        "fixmatch": "threshold | one_hot",
        "fixmatch_seval": "seval_refine | seval_threshold(target=0.9) | one_hot",
    }
    load_policy = "seval_refine | seval_threshold(groups=5) | one_hot"  # 0.75 and 0.999 are the rules' defaults
    assert cfg.HEADS.LINEAR.POLICY == policy.get(name, load_policy)


def test_the_load_phase_names_the_command_to_run_first(tmp_path, capsys):
    few = [*SMALL, "OUTPUT_DIR", tmp_path]
    code, _, err = run(capsys, *command("fixmatch_seval_load", *few))
    assert code == 2
    first = err.splitlines()[-2].strip()
    assert first.startswith("python main.py --config-file configs/tiny/fixmatch_seval_estim.yaml DATASET.ROOT")
    assert run(capsys, *first.split()[2:])[0] == 0
    assert run(capsys, *command("fixmatch_seval_load", *few))[0] == 0


def test_with_prerequisites_runs_the_chain_and_eval_only_measures_it(tmp_path, capsys):
    few = [*SMALL, "OUTPUT_DIR", tmp_path]
    assert run(capsys, *command("fixmatch_seval_load", "--with-prerequisites", *few))[0] == 0
    code, out, _ = run(capsys, *command("fixmatch_seval_load", "--eval-only", *few))
    done = next(d for d in (json.loads(p.read_text()) for p in tmp_path.glob("*/record.json")) if d["prerequisites"])
    assert code == 0
    for offset, metrics in done["results"]["test"]["ema"].items():
        line = next(line for line in out.splitlines() if line.split()[:3] == ["test", "ema", offset])
        assert f"{metrics['top1']['last']:.2%}" in line


def test_dry_run_trains_nothing_and_prints_the_plan(tmp_path, capsys):
    args = command("fixmatch_seval_load", "--dry-run", "--json", *SMALL, "OUTPUT_DIR", tmp_path)
    code, out, _ = run(capsys, *args)
    about = json.loads(out)
    assert code == 0 and not list(tmp_path.iterdir())
    assert [link["state"] for link in about["chain"]] == ["new", "new"] and about["chain"][1]["id"] == about["id"]
    assert about["splits"]["labeled"]["class_counts"] == [60, 46, 35, 27, 21, 16, 12, 10, 7, 6]
    code, out, _ = run(capsys, *args[:2], *args[4:], "--dry-run")
    assert about["id"] in out and "60 46 35" in out


def test_the_last_generation_names_the_commands_to_run_first(tmp_path, capsys):
    wanted, done = [command("crest", *SMALL, "OUTPUT_DIR", tmp_path)], 0
    while wanted:
        code, _, err = run(capsys, *wanted[-1])
        if code == 0:
            done += 1
            wanted.pop()
        else:
            wanted.append(shlex.split(err.splitlines()[-2])[2:])
    assert done == len(list(tmp_path.glob("*/record.json"))) == 3


def test_the_authors_curriculum_is_replayed_from_the_command_line(tmp_path, capsys):
    prefix = ROOT / "tests/curricula/cifar10_l_500_100_ul_4000_100_seed_79"
    few = [*SMALL, "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 4, "PERIODS.EVAL", 2]
    code, _, err = run(capsys, *command("fixmatch_seval_load", *few, "CURRICULUM", prefix))
    assert code == 2 and "has 500 rows, but this run has 2 evaluations" in err
    for name in ("pi", "thres"):  # two of them are enough here
        np.save(tmp_path / f"short_estim_{name}.npy", np.load(f"{prefix}_estim_{name}.npy")[-2:])
    code, _, err = run(capsys, *command("fixmatch_seval_load", *few, "CURRICULUM", tmp_path / "short"))
    assert code == 0, err
    with h5py.File(next(tmp_path.glob("*/artifacts.h5"))) as file:
        assert np.allclose(file["linear/pi_smoothed"], np.load(f"{prefix}_estim_pi.npy")[-2:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_checkpoint_of_a_gpu_resumes_there_and_is_evaluated_anywhere(tmp_path, capsys):
    few = [*SMALL, "OUTPUT_DIR", tmp_path]
    assert run(capsys, *command("fixmatch_seval", *few))[0] == 0
    next(tmp_path.glob("*/record.json")).unlink()
    assert run(capsys, *command("fixmatch_seval", "--resume", *few))[0] == 0
    assert run(capsys, *command("fixmatch_seval", "--eval-only", *few, "GPU_ID", -1))[0] == 0


def test_methods_are_listed_with_category_policy_source_and_licence(capsys):
    code, out, _ = run(capsys, "--list-methods")
    line = next(line for line in out.splitlines() if line.startswith("flexmatch "))
    assert code == 0 and line.split() == [
        "flexmatch",
        "THA",
        "fixmatch",
        "flexmatch",
        "|",
        "one_hot",
        *LISTED.split(),
        "MIT",
    ]
    methods = {about["name"]: about for about in json.loads(run(capsys, "--list-methods", "--json")[1])}
    assert methods.keys() == {file.stem for file in (ROOT / "configs" / "methods").glob("*.yaml")}
    assert methods["abc"]["policy"] == {"linear": "threshold | one_hot", "balanced": "threshold | bernoulli_balance"}


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as done:
        main.main(["--help"])
    out = capsys.readouterr().out
    assert done.value.code == 0 and "--with-prerequisites" in out and "python main.py --config-file" in out
