"""A run: one configuration, its identity, its folder, the run it depends on, and its execution."""

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from seval import files, record
from seval.build import Training, build, check_sizes, check_unlabeled, chosen_test, device
from seval.checks import check_recipes
from seval.claim import claim
from seval.config import delta, settings
from seval.data import hdf5, splits
from seval.data.image_set import ImageSet, fingerprint
from seval.data.own_set import draws_unlabeled
from seval.defaults import Node
from seval.errors import ConfigError, MissingPrerequisite, RecordError
from seval.evaluate import by_class, evaluate, protocols
from seval.identity import FORMAT, identity, prerequisite
from seval.memory import keep_memory
from seval.places import ROOT
from seval.policy.base import Facts
from seval.policy.language import rules_of
from seval.policy.seval import published
from seval.provenance import code, made, provenance
from seval.text import printable
from seval.train import never, refuse_other_code, train


class Run:
    """One network trained with one algorithm. Two runs are the same if and only if their `id`s are equal."""

    def __init__(self, cfg: Node) -> None:
        self.cfg = cfg
        self.id = identity(cfg)
        self.folder = Path(cfg.OUTPUT_DIR) / self.id
        self.phase = ""  # such as "phase 1 of 2", where this run is done as one of a chain
        self._before: Run | None = None

    def __repr__(self) -> str:
        state = "done" if self.done() else "resumable" if (self.folder / "checkpoint.pt").exists() else "new"
        return f"<Run {self.id}: {self.name}, {state}>"

    @property
    def name(self) -> str:
        """What people call it: `fixmatch · tiny · seed 1`."""
        return f"{self.method} · {self.cfg.DATASET.NAME} · seed {self.cfg.SEED}"

    @property
    def title(self) -> str:
        """The same with the phase, if there is one."""
        return ", ".join(filter(None, (self.name, self.phase)))

    @property
    def method(self) -> str:
        """The method's name: METHOD.NAME, else the algorithm."""
        return printable(self.cfg.METHOD.NAME) or self.cfg.ALGORITHM.NAME

    @cached_property
    def code(self) -> str:
        """SHA-256 over the sources that take part in this run."""
        return code(rules_of(head.POLICY for head in self.cfg.HEADS.values()))

    def prerequisite(self) -> "Run | None":
        """The run this one depends on: the same configuration with the keys of PREREQUISITE changed; None if none."""
        if self.cfg.PREREQUISITE and self._before is None:
            self._before = Run(prerequisite(self.cfg))
        return self._before

    def chain(self) -> list["Run"]:
        """All runs to execute, in order: the prerequisites, then this run."""
        before = self.prerequisite()
        return [*(before.chain() if before else []), self]

    def record(self) -> dict | None:
        """The content of record.json, or None. A run is done if and only if it has a record.

        Raises `RecordError` if the record is damaged, of another run or, where the data set is here, of other data.
        """
        path = self.folder / "record.json"
        if done := record.read_record(path):
            now, in_0_1 = hdf5.fingerprints(hdf5.data_file(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT))
            data = now if "sha256" in done else in_0_1
            record.agree(path, done, {"id": self.id} | ({"data": data} if data and "data" in done else {}))
        return done

    def done(self) -> bool:
        """Whether there is a record, which is not read."""
        return (self.folder / "record.json").exists()

    def state(self) -> str:
        """Returns "done", "resumable" (there is a checkpoint) or "new"."""
        if self.record():
            return "done"
        return "resumable" if (self.folder / "checkpoint.pt").exists() else "new"

    def progress(self) -> float | None:
        """The share of steps done at the last evaluation; None if the run was never started."""
        if self.record():
            return 1.0
        if line := record.last_line(self.folder / "metrics.jsonl"):
            return line["progress"]
        files = (self.folder / "metrics.jsonl", *self.folder.glob("claim.*"))
        return 0.0 if any(file.exists() for file in files) else None

    def history(self) -> list[dict]:
        """All evaluations so far, each with what metrics.jsonl has: step, losses, metrics, what the policies log."""
        return record.read_lines(self.folder / "metrics.jsonl")

    def learned(self) -> dict[str, dict[str, np.ndarray]]:
        """What each head's policy learned: `pi_fitted` (L, C) and the like for SEVAL. Raises `RecordError`."""
        if not (done := self.record()):
            raise RecordError(f"run {self.id} is not done: there is no record in {self.folder}; train it first")
        return record.load_artifacts(self.folder / "artifacts.h5", done.get("artifacts"))

    @cached_property
    def image_set(self) -> ImageSet:
        """The prepared data set, after its checks; without its unlabeled part where others are drawn instead."""
        images = hdf5.read(hdf5.data_file(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT))
        return images._replace(unlabeled=None) if draws_unlabeled(self.cfg) else images

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the content of the data set and its header."""
        return fingerprint(self.image_set)

    @cached_property
    def splits(self) -> splits.Splits:
        """Which training images this run uses, for each purpose."""
        return splits.split_of(self.image_set, self.cfg)

    def manifest(self) -> dict:
        """Per-class counts and the SHA-256 of the indices of each split, the test images included."""
        own, tested = self.image_set.unlabeled, self.image_set.test.labels
        found = splits.manifest(self.splits, self.image_set.train.labels, None if own is None else own.labels)
        test = splits.described(chosen_test(self.cfg, tested), tested, self.image_set.num_classes)
        return found | {"test": test}

    def check(self) -> None:
        """Raise the errors that building would raise; needs no result of a prerequisite."""
        check_sizes(self.cfg, self.image_set)
        check_unlabeled(self.cfg, self.splits)
        held_out = 1 if self.cfg.PREREQUISITE or self.cfg.CURRICULUM else len(self.splits.held_out)
        facts = Facts.of(np.ones(self.image_set.num_classes), 1, held_out, feature_dim=1)
        check_recipes(self.cfg, facts)

    def execute(self, stop: Callable[[], bool] = never) -> dict:
        """Return the record. If the run is not done, train it first, from its checkpoint if there is one.

        `for each in run.chain(): each.execute()` also does the runs that `run` depends on. When `stop()` returns true,
        saves a checkpoint and raises `Interrupted` before the next step. Can also raise
        `MissingPrerequisite`, `RunBusy`, `ConfigError`, `DataError`, `RecordError` or `TrainingError`.
        """
        if done := self.record():
            return done
        artifacts, prerequisites = self.artifacts()
        with claim(self.folder) as held:
            if done := self.record():  # another process was faster
                return done
            self._begin(held.check)
            files.replace(self.folder / "config.yaml", self.cfg.dump(sort_keys=False).encode(), held.check)
            begun = time.monotonic()
            training = self.build(artifacts)
            history = train(training, self.folder, self.meta(), held.check, stop, self.title)
            sha256 = record.save_artifacts(
                self.folder / "artifacts.h5",
                {head.name: head.policy.artifact() for head in training.heads},
                {"run": self.id, **{head.name: head.policy.text for head in training.heads}},
                held.check,
            )
            done = self.summarize(history, prerequisites, time.monotonic() - begun) | {"artifacts": sha256}
            record.write_record(self.folder / "record.json", done, held.check)
        return record.sealed(done)

    def _begin(self, check: Callable[[], object]) -> None:
        """Write run.json, which says what this folder is. Raises `OtherCode`."""
        path, before = self.folder / "run.json", self.prerequisite()
        about = {
            "id": self.id,
            "method": self.method,
            "dataset": self.cfg.DATASET.NAME,
            "seed": self.cfg.SEED,
            "delta": delta(self.cfg),
            "needs": before.id if before else None,
            "steps": self.cfg.SOLVER.MAX_ITER,
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "code": self.code,
        }
        if (checkpoint := self.folder / "checkpoint.pt").exists() and (said := record.read_about(path)):
            refuse_other_code(checkpoint, said, about, self.cfg)
            about["began"] = said["began"]
        files.write_json(path, files.sealed(about), check)

    def set_aside(self) -> Path | None:
        """Move the folder to OUTPUT_DIR/.old/ID.N, so that the run starts anew; None if there is none.

        Raises `RunBusy` if a process trains the run.
        """
        if not self.folder.is_dir():
            return None
        with claim(self.folder):
            return files.set_aside(self.folder)

    def made_by_other_code(self, done: dict) -> str:
        """What `made` says, if the code here differs from what made a record; "" otherwise, and for records of 0.1."""
        other = done.get("provenance", {}).get("code") not in (None, self.code)
        return (made(done) or "at another time") if other else ""

    def build(self, artifacts: dict) -> Training:
        """The training state before the first step, on the configured device."""
        keep_memory()
        if threads := self.cfg.RUNTIME.THREADS:
            torch.set_num_threads(threads)
        # For the whole process: the same kernels in every session, so that a run on a GPU resumes bit for bit.
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        start, before = None, self.prerequisite() if self.cfg.MODEL.FROZEN else None
        if before:
            expected = {"configuration": before.id, "data": self.fingerprint}
            start = record.load_network(before.folder / "checkpoint.pt", expected, before.cfg.SOLVER.MAX_ITER)
        return build(self.cfg, self.image_set, self.splits, artifacts, device(self.cfg.GPU_ID), start)

    def artifacts(self) -> tuple[dict, list[str]]:
        """(arrays by head, ids of the runs): what this run depends on. Raises `MissingPrerequisite`."""
        if self.cfg.CURRICULUM:
            arrays = published(self.cfg.CURRICULUM)
            if identity(self.cfg) != self.id:
                raise ConfigError(f"curriculum {self.cfg.CURRICULUM} has changed since this run began; start it again")
            return {name.lower(): arrays for name in self.cfg.HEADS}, []
        before = self.prerequisite()
        if before is None:
            return {}, []
        if not before.record():
            raise MissingPrerequisite(before)
        return before.learned(), [run.id for run in before.chain()]

    def evaluate(self) -> dict:
        """Load the checkpoint and measure both networks, as an evaluation does. Raises `RecordError`."""
        checkpoint = self.folder / "checkpoint.pt"
        if not checkpoint.exists():
            raise RecordError(f"run {self.id} has no checkpoint in {self.folder}; train it first")
        training = self.build(self.artifacts()[0])
        expected = {key: self.meta()[key] for key in ("configuration", "data")}
        state = record.restore(checkpoint, expected, training.load_networks)
        return evaluate(training, state["step"], refresh=False)

    def meta(self) -> dict[str, str]:
        """Values that a checkpoint must share with this run to be loaded."""
        return {
            "configuration": self.id,
            "data": self.fingerprint,
            "device": device(self.cfg.GPU_ID).type,
            "code": self.code,
        }

    def summarize(self, history: list[dict], prerequisites: list[str], seconds: float) -> dict:
        """The content of record.json."""
        last = history[-1]
        return {
            "id": self.id,
            "format": FORMAT,
            "method": self.method,
            "delta": delta(self.cfg),
            "config": settings(self.cfg),
            "results": protocols(history),
            "per_class": by_class(last),
            "pseudo_labels": last.get("quality"),
            "splits": self.manifest(),
            "data": self.fingerprint,
            "prerequisites": prerequisites,
            "evaluations": len(history),
            "steps": last["step"],
            "provenance": provenance(device(self.cfg.GPU_ID), ROOT) | {"code": self.code},
            "seconds": round(sum(line["seconds"] for line in history), 1),
            "seconds_last_session": round(seconds, 1),
        }
