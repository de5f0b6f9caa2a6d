from __future__ import annotations

import json
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest
import torch

import main
from repro import prepare as prepare_cli
from seval import train
from seval.claim import holder
from seval.data.hdf5 import read, write
from seval.run import Run
from seval.signals import ASKING, listening
from tests.settings import ROOT, SMALL, result, small
from tests.standins import TINY, write_small_cifar10

#: The commands of the paper's README, in its order.
PAPER = "DATASET.CIFAR10.NUM_LABELED_HEAD 500 DATASET.CIFAR10.NUM_UNLABELED_HEAD 4000 SEED 79 GPU_ID 0".split()
LISTED = "Zhang et al., arXiv 2110.08263"
FILES = ["fixmatch", "fixmatch_seval_estim", "fixmatch_seval_load", "fixmatch_seval"]


@pytest.fixture(autouse=True)
def _here(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)


def command(name: str, *more: object, folder: str = "tiny") -> list[str]:
    return ["--config-file", f"configs/{folder}/{name}.yaml", *map(str, more)]


def run(capsys, *args: object) -> tuple[int, str, str]:
    code = main.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err


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


@pytest.mark.parametrize(
    "policy",
    ["threshold(2)", "seval_refine(groups=7)", "seval_refine|seval_refine", "darp_estimate", "template_label"],
)
def test_dry_run_finds_a_policy_that_cannot_be_built(policy, capsys):
    code, out, err = run(capsys, *command("fixmatch", "--dry-run", *SMALL, "HEADS.LINEAR.POLICY", policy))
    assert code == 2 and not out and err.startswith("error: ")


def test_resume_needs_something_to_resume(tmp_path, capsys):
    code, _, err = run(capsys, *command("supervised", "--resume", *SMALL, "OUTPUT_DIR", tmp_path))
    assert code == 2 and "nothing to resume" in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["SOLVER.BASE_LRR", "1"], ["unknown key", "did you mean 'SOLVER.BASE_LR'"]),
        (["SEED", "one"], ["SEED is 'one'", "int"]),
        (["HEADS.LINEAR.POLICY", "treshold(0.9)"], ["unknown rule 'treshold'", "threshold"]),
        (["DATASET.TINY.IMB_FACTOR_L", "0.5"], ["at least 1"]),
        (["DATASET.HELD_OUT", "labeled", "DATASET.HELD_OUT_PORTION", "1.0"], ["every class must keep labels"]),
        (["DATASET.TINY.NUM_LABELED_HEAD", "4"], ["class 6 gets no labels"]),
        (["DATASET.ROOT", "/nowhere"], ["/nowhere/tiny.h5", "python repro/prepare.py"]),
        (["DATASET.NAME", "cifar10", "DATASET.ROOT", "/nowhere"], ["cifar-10", "python repro/prepare.py cifar10"]),
        (["CURRICULUM", "/nowhere/x"], ["/nowhere/x_estim_pi.npy"]),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(change, words, tmp_path, capsys):
    code, out, err = run(capsys, *command("fixmatch", *SMALL, "OUTPUT_DIR", tmp_path, *change))
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and not out
    assert all(word in lines[0] for word in words), lines


def test_damaged_data_is_one_clear_line_and_exit_code_2(tmp_path, capsys):
    whole = (ROOT / "data/tiny.h5").read_bytes()
    (tmp_path / "tiny.h5").write_bytes(whole[: len(whole) // 2])
    arguments = command("fixmatch", *SMALL, "OUTPUT_DIR", tmp_path, "DATASET.ROOT", tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "tiny.h5" in err and "repro/prepare.py" in err
    shutil.copy(ROOT / "data/tiny.h5", tmp_path / "tiny.h5")
    with h5py.File(tmp_path / "tiny.h5") as file:
        chunk = file["train/images"].id.get_chunk_info(0)
    altered = bytearray(whole)
    altered[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    (tmp_path / "tiny.h5").write_bytes(altered)
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "tiny.h5" in err and len([line for line in err.splitlines() if line.startswith("error")]) == 1


def test_a_disk_that_is_full_while_writing_a_checkpoint(tmp_path, capsys):
    arguments = command("fixmatch", *SMALL, "OUTPUT_DIR", tmp_path, "PERIODS.CHECKPOINT", 3)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # no file may grow beyond 100 kB
    try:
        code, _, err = run(capsys, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2 and "cannot write" in err and "checkpoint.pt" in err and "the same command resumes" in err
    assert len(err.strip().splitlines()) == 2  # the word about the CPU, and the error
    assert run(capsys, *arguments)[0] == 0


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


def test_a_run_is_not_confused_with_that_of_other_data(tmp_path, capsys):
    """Same name, same settings, other images: record, checkpoint and curriculum are not taken for its own."""
    image_set = read(TINY)
    inverted = image_set._replace(train=image_set.train._replace(images=255 - image_set.train.images))
    write(tmp_path / "tiny.h5", inverted)
    few = [*SMALL, "OUTPUT_DIR", tmp_path / "runs"]
    assert run(capsys, *command("fixmatch_seval_load", "--with-prerequisites", *few))[0] == 0
    for options in ([], ["--eval-only"]):
        code, _, err = run(capsys, *command("fixmatch_seval_load", *options, *few, "DATASET.ROOT", tmp_path))
        assert code == 2 and "belongs to another data" in err
    records = [path for path in (tmp_path / "runs").glob("*/record.json")]
    done = next(path for path in records if json.loads(path.read_text())["prerequisites"])
    shutil.rmtree(done.parent)
    code, _, err = run(capsys, *command("fixmatch_seval_load", *few, "DATASET.ROOT", tmp_path))
    assert code == 2 and "belongs to another data" in err and not done.parent.exists()


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


def test_only_the_main_thread_listens():
    heard = []

    def listen():
        with listening() as stop:
            heard.append((stop(), signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert heard == [(False, before)]


DAMAGES = [("checkpoint.pt", b""), ("checkpoint.pt", "list"), ("checkpoint.pt", "strange"), ("record.json", b"5"),
           ("record.json", b"[]"), ("metrics.jsonl", b"\xff\n5\n")]  # fmt: skip


@pytest.mark.parametrize(("name", "content"), DAMAGES)
def test_damaged_files_of_a_run_are_named(name, content, tmp_path, capsys):
    arguments = command("supervised", *SMALL, "OUTPUT_DIR", tmp_path)
    assert run(capsys, *arguments)[0] == 0
    folder = next(tmp_path.glob("*/record.json")).parent
    (folder / "record.json").unlink()
    if isinstance(content, str):
        state = torch.load(folder / "checkpoint.pt", weights_only=True)
        torch.save([1] if content == "list" else state | {"net": {"x": 1}}, folder / name)
    else:
        (folder / name).write_bytes(content)
    code, _, err = run(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2 and len(lines) == 1 and name in lines[0] and "delete" in lines[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_checkpoint_of_a_gpu_resumes_there_and_is_evaluated_anywhere(tmp_path, capsys):
    few = [*SMALL, "OUTPUT_DIR", tmp_path]
    assert run(capsys, *command("fixmatch_seval", *few))[0] == 0
    next(tmp_path.glob("*/record.json")).unlink()
    assert run(capsys, *command("fixmatch_seval", "--resume", *few))[0] == 0
    assert run(capsys, *command("fixmatch_seval", "--eval-only", *few, "GPU_ID", -1))[0] == 0


def test_methods_are_listed_with_category_policy_and_source(capsys):
    code, out, _ = run(capsys, "--list-methods")
    line = next(line for line in out.splitlines() if line.startswith("flexmatch "))
    assert code == 0 and line.split(maxsplit=6)[1:] == ["THA", "fixmatch", "flexmatch", "|", "one_hot", LISTED]
    methods = {about["name"]: about for about in json.loads(run(capsys, "--list-methods", "--json")[1])}
    assert methods.keys() == {file.stem for file in (ROOT / "configs" / "methods").glob("*.yaml")}
    assert methods["abc"]["policy"] == {"linear": "threshold | one_hot", "balanced": "threshold | bernoulli_balance"}


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as done:
        main.main(["--help"])
    out = capsys.readouterr().out
    assert done.value.code == 0 and "--with-prerequisites" in out and "python main.py --config-file" in out
