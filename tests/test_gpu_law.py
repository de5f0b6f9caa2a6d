"""The law of the step (docs/methods.md, "Adding a method"), for every method on a pretended GPU.

In a step nothing mixes devices, nothing is read back, no shape depends on values, and nothing is sent from pageable
memory; in an evaluation nothing mixes devices.
"""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from repro.tables import table as tables
from seval.build import Training, build
from seval.data import hdf5
from seval.data.image_set import Part
from seval.evaluate import evaluate
from seval.policy.base import PseudoLabels, Rule, Step
from seval.policy.darp import refine
from seval.run import Run
from seval.train import update
from tests.pretended_gpu import CUDA, MIXES, READS, SENDS, SHAPE, Finding, pretended_gpu
from tests.settings import ROOT, SMALL, small
from tests.standins import ENCODED_SIDE, write_jpegs

#: File and function of what may break the law in a step, with the reason.
EXCEPTIONS = {
    ("seval/data/rand_augment.py", "_tables"): "sent once in a run, at its first strong view, and kept",
    ("seval/data/augment.py", "_resampling"): "sent once in a run, at its first view of another size, and kept",
}
#: Small, and late in training, when every rule acts. DARP refines at the tenth step, here the second.
FEW = ["SOLVER.IMS_PER_BATCH", 4, "DATASET.NUM_VALID", 10, "DATASET.NUM_TEST", 1, "SOLVER.EVAL_BATCH", 512]
STEPS = (10, 11)
METHODS = sorted(file.stem for file in (ROOT / "configs" / "tiny").glob("*.yaml") if file.stem != "dataset")


@cache
def runs() -> dict[str, Run]:
    """Every configuration of tiny with its prerequisites, and every row of the demo tables in half precision."""
    found = {}
    for name in METHODS:
        last = Run(small(name, Path("runs"), *FEW))
        found |= {f"{name}: {i}" if last.prerequisite() else name: each for i, each in enumerate(last.chain())}
    for name in ("demo", "methods_demo"):
        cells = tables.find_table(name).forcing(seeds=[0]).cells([*SMALL, *FEW, "SOLVER.PRECISION", "bfloat16"])
        found |= {f"{cell.row} in bfloat16": cell.runs[0] for cell in cells if cell.runs}
    return {name: run for name, run in found.items() if run is {each.id: each for each in found.values()}[run.id]}


@cache
def tiny():
    return hdf5.read(ROOT / "data" / "tiny.h5")


def artifacts(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """What any prerequisite could have left."""
    values = np.linspace(0.4, 0.6, 10)
    rows = np.tile(values, (run.cfg.SOLVER.MAX_ITER // run.cfg.PERIODS.EVAL, 1))
    left = {"pi_smoothed": rows, "tau_smoothed": rows, "unlabeled_counts": values}
    left |= {"selected": np.arange(3), "selected_labels": np.arange(3)}
    return {name.lower(): left for name in run.cfg.HEADS} if run.prerequisite() else {}


def built(run: Run, place: torch.device = CUDA) -> Training:
    run.__dict__.setdefault("image_set", tiny())
    return build(run.cfg, run.image_set, run.splits, artifacts(run), place)


def findings(run: Run) -> list[Finding]:
    """What two steps and an evaluation, which is never in half precision, do against the law on a pretended GPU."""
    with pretended_gpu() as gpu:
        training = built(run)
        for head in training.heads:
            for rule in head.policy:
                if hasattr(rule, "period"):
                    rule.steps.fill_(rule.period - len(STEPS))
        gpu.findings.clear()
        for step in STEPS:
            losses = update(training, step)
        assert {loss.device for loss in losses.values()} == {CUDA}
        found = [each for each in gpu.findings if (each.file, each.function) not in EXCEPTIONS]
        gpu.findings.clear()
        if not training.net.half_precision:
            evaluate(training, STEPS[-1] + 1)
        return found + [each for each in gpu.findings if each.what == MIXES]


@pytest.mark.parametrize("name", runs())
def test_no_step_waits_for_a_gpu(name):
    assert not (found := sorted({str(each) for each in findings(runs()[name])})), "\n".join(found)


def test_no_step_on_encoded_images_waits_for_a_gpu(tmp_path):
    """And where the views are resized."""
    size = ["DATASET.DECODED_SIZE", ENCODED_SIDE, "DATASET.CROP", ENCODED_SIDE - 4, "DATASET.RESOLUTION", 16]
    size += ["DATASET.TINY.NUM_LABELED_HEAD", 10, "DATASET.TINY.NUM_UNLABELED_HEAD", 10]
    run, train = Run(small("fixmatch", tmp_path, *FEW, *size, "RUNTIME.WORKERS", 0)), tiny().train
    first = np.concatenate([np.flatnonzero(train.labels == c)[:30] for c in range(10)])
    part = Part(write_jpegs(tmp_path / "jpegs", train.images[first]), train.labels[first])
    run.__dict__["image_set"] = tiny()._replace(train=part, test=part, mean=(0.3,) * 3, std=(0.3,) * 3)
    assert not [str(each) for each in findings(run)]


class Planted(Rule):
    """A rule that breaks the law in one way."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, pseudo: PseudoLabels, step: Step | None) -> PseudoLabels:
        probs = pseudo.probs
        match self.way:
            case "item":
                probs.max().item()
            case "tolist":
                probs.tolist()
            case "float":
                float(probs.sum())
            case "if":
                if probs.sum() > 0:
                    pass
            case "index":
                _ = probs[probs[0, 0].long()]
            case "cpu":
                probs.cpu()
            case "copied":
                torch.empty(1).copy_(probs[0, :1])
            case "mask":
                _ = probs[probs[:, 0] > 0]
            case "masked write":
                probs.clone()[probs[:, 0] > 0] = 0
            case "nonzero":
                probs.nonzero()
            case "bincount":
                torch.bincount(probs.argmax(1), minlength=10)
            case "unique":
                probs.unique()
            case "masked_select":
                probs.masked_select(probs > 0)
            case "mixed":
                _ = probs * torch.ones(10)
            case "to":
                torch.ones(10).to(probs.device)
            case "tensor":
                torch.tensor([1.0], device=probs.device)
            case "pinned, but waits":
                torch.ones(10).pin_memory().to(probs.device)
            case "nothing":
                torch.ones(10).pin_memory().to(probs.device, non_blocking=True) * 2 * torch.tensor(0.5)
        return pseudo


WAYS = dict.fromkeys(("item", "tolist", "float", "if", "cpu", "copied"), READS)
WAYS |= dict.fromkeys(("mask", "masked write", "nonzero", "bincount", "unique", "masked_select"), SHAPE)
WAYS |= {"index": READS, "mixed": MIXES, "to": SENDS, "tensor": SENDS, "pinned, but waits": SENDS}


@pytest.mark.parametrize("way", [*WAYS, "nothing"])
def test_a_planted_violation_is_found_with_its_file_and_line(way):
    with pretended_gpu() as gpu:
        probs = torch.full((4, 10), 0.1, device=CUDA)
        gpu.findings.clear()
        Planted(way)(PseudoLabels.of(probs), None)
    lines, first = inspect.getsourcelines(Planted.forward)
    here = first + next(i for i, line in enumerate(lines) if line.strip() == f'case "{way}":') + 1
    found = {(each.what, each.file, each.function, each.line) for each in gpu.findings}
    expected = (WAYS.get(way), "tests/test_gpu_law.py", "forward", here)
    assert found == ({expected} if way in WAYS else set())


def test_a_step_on_the_pretended_gpu_computes_what_the_cpu_does():
    """Else the findings could be those of another step."""
    run, trained = Run(small("daso", Path("runs"), *FEW)), []
    for place in (torch.device("cpu"), CUDA):
        with pretended_gpu():
            training = built(run, place)
            update(training, 10)
            trained.append({key: value.cpu() for key, value in training.net.state_dict().items()})
    assert all(torch.allclose(trained[0][key], trained[1][key], atol=1e-5) for key in trained[0])


def test_newtons_steps_beyond_convergence_change_no_bit_of_darps_refinement():
    """The CPU stops there; a GPU, which would have to be asked, does them."""
    probs = (3 * torch.randn(200, 5, generator=torch.Generator().manual_seed(0))).softmax(1)
    target = torch.tensor([90.0, 50, 30, 20, 10])
    with pretended_gpu() as gpu:
        refined = refine(probs.to(CUDA), target.to(CUDA)).values
        assert not [each for each in gpu.findings if each.file != "tests/test_gpu_law.py"]
    assert torch.equal(refined, refine(probs, target))
