"""A run: one configuration, its identity, its folder, the run it stands on, and its execution."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from seval import record
from seval.build import Training, build, check_penalties
from seval.claim import claim
from seval.config import delta, settings, with_overrides
from seval.data import hdf5, splits
from seval.data.image_set import ImageSet
from seval.defaults import Node
from seval.errors import ConfigError, MissingPrerequisite
from seval.evaluate import evaluate, protocols
from seval.policy.base import Facts
from seval.policy.language import build_policy
from seval.policy.seval import published
from seval.train import never, train

FORMAT = 1  # of identities: raised when a default changes in meaning, so that old records are not taken for new ones


class Run:
    """One network trained with one algorithm. Two runs are the same exactly when their `id` is."""

    def __init__(self, cfg: Node) -> None:
        self.cfg = cfg
        self.id = identity(cfg)
        self.folder = Path(cfg.OUTPUT_DIR) / self.id

    def prerequisite(self) -> Run | None:
        """The run it stands on: the same configuration with the keys of PREREQUISITE changed."""
        return self._prerequisite

    @cached_property
    def _prerequisite(self) -> Run | None:
        return Run(_prerequisite(self.cfg)) if self.cfg.PREREQUISITE else None

    def chain(self) -> list[Run]:
        """The runs to execute, in order, this one last."""
        prerequisite = self.prerequisite()
        return [*(prerequisite.chain() if prerequisite else []), self]

    def record(self) -> dict | None:
        """The finished record; its presence is what makes a run done."""
        return record.read_record(self.folder / "record.json")

    def done(self) -> bool:
        """Whether there is a record, without a look into it."""
        return (self.folder / "record.json").exists()

    def state(self) -> str:
        """done, resumable (there is a checkpoint) or new."""
        if self.record():
            return "done"
        return "resumable" if (self.folder / "checkpoint.pt").exists() else "new"

    def progress(self) -> float | None:
        """The share of steps done at the last evaluation; None where nothing was ever begun."""
        if self.record():
            return 1.0
        if line := record.last_line(self.folder / "metrics.jsonl"):
            return line["progress"]
        files = (self.folder / "metrics.jsonl", *self.folder.glob("claim.*"))
        return 0.0 if any(file.exists() for file in files) else None

    @cached_property
    def image_set(self) -> ImageSet:
        """The prepared data set, checked."""
        return hdf5.read(hdf5.data_file(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the data set's content."""
        return _fingerprint(self.image_set)

    @cached_property
    def splits(self) -> splits.Splits:
        """Which training images this run uses for what."""
        train, own = self.image_set.train, self.image_set.unlabeled
        pool = None
        if own is not None:  # batch 1 of it is of the training classes
            pool = own.batch == 1 if own.batch is not None else np.ones(len(own.labels), bool)
        return splits.split(train.labels, self.cfg, pool=pool, batch=train.batch)

    def manifest(self) -> dict:
        """Per-class counts and a SHA-256 of each split's indices."""
        own = self.image_set.unlabeled
        return splits.manifest(self.splits, self.image_set.train.labels, None if own is None else own.labels)

    def check(self) -> None:
        """Raise what its policies would raise when they are built, without what they stand on."""
        classes = self.image_set.num_classes
        held_out = 1 if self.cfg.PREREQUISITE or self.cfg.CURRICULUM else len(self.splits.held_out)
        facts = Facts(classes, torch.ones(classes), num_unlabeled=1, num_held_out=held_out, feature_dim=1)
        policies = [build_policy(head.POLICY, facts) for head in self.cfg.HEADS.values()]
        check_penalties(self.cfg.ALGORITHM.NAME.partition("(")[0], policies)

    def execute(self, stop: Callable[[], bool] = never) -> dict:
        """The record: read if the run is done, else trained, from its checkpoint if there is one.

        Once `stop()` is true, the state is saved and `Interrupted` raised, before any further step. Raises also
        `MissingPrerequisite`, `RunBusy`, `ConfigError`, `DataError`, `RecordError` or `TrainingError`.
        """
        if done := self.record():
            return self._agrees(done)
        artifacts, prerequisites = self.artifacts()
        with claim(self.folder) as held:
            if done := self.record():  # another process was faster
                return done
            record.replace(self.folder / "config.yaml", self.cfg.dump(sort_keys=False).encode())
            begun = time.monotonic()
            training = self.build(artifacts)
            history = train(training, self.folder, self.meta(), held.check, stop)
            held.check()
            record.save_artifacts(
                self.folder / "artifacts.h5",
                {head.name: head.policy.artifact() for head in training.heads},
                {"run": self.id, **{head.name: head.policy.text for head in training.heads}},
            )
            done = self.summarize(history, prerequisites, time.monotonic() - begun)
            held.check()
            record.write_json(self.folder / "record.json", done)
        return done

    def build(self, artifacts: dict) -> Training:
        """Its training state before the first step, on the configured device."""
        runtime = self.cfg.RUNTIME
        if runtime.THREADS:
            torch.set_num_threads(runtime.THREADS)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        before = self.prerequisite() if self.cfg.MODEL.FROZEN else None
        start = record.load_checkpoint(before.folder / "checkpoint.pt")["ema"] if before else None
        return build(self.cfg, self.image_set, self.splits, artifacts, device(self.cfg.GPU_ID), start)

    def artifacts(self) -> tuple[dict, list[str]]:
        """(arrays of each head, ids): what this run stands on. Raises `MissingPrerequisite`."""
        if self.cfg.CURRICULUM:
            return {name.lower(): published(self.cfg.CURRICULUM) for name in self.cfg.HEADS}, []
        prerequisite = self.prerequisite()
        if prerequisite is None:
            return {}, []
        if not (done := prerequisite.record()):
            raise MissingPrerequisite(
                f"this run depends on run {prerequisite.id}, which has no record in {prerequisite.folder.parent}",
                prerequisite,
            )
        prerequisite._agrees(done)
        found = record.load_artifacts(prerequisite.folder / "artifacts.h5")
        return found, [run.id for run in prerequisite.chain()]

    def _agrees(self, done: dict) -> dict:
        """The record, unless it is of another data set than the one at hand; where there is none it is believed."""
        file = hdf5.data_file(self.cfg.DATASET.NAME, self.cfg.DATASET.ROOT)
        if file.is_file():
            data = _fingerprint(hdf5.read(file, in_blocks=True))
            record.agree(self.folder / "record.json", done, {"id": self.id, "data": data})
        return done

    def evaluate(self) -> dict:
        """Load the checkpoint and measure both networks once more, as at an evaluation. Raises `RecordError`."""
        checkpoint = self.folder / "checkpoint.pt"
        if not checkpoint.exists():
            raise record.RecordError(
                f"run {self.id} has no checkpoint in {self.folder}; leave --eval-only out to train it"
            )
        training = self.build(self.artifacts()[0])
        state = record.load_checkpoint(checkpoint)
        record.agree(checkpoint, state["meta"], {key: self.meta()[key] for key in ("configuration", "data")})
        record.restore(checkpoint, state, training.load_networks)
        return evaluate(training, state["step"], refresh=False)

    def meta(self) -> dict[str, str]:
        """What a checkpoint must agree with to be this run's."""
        return {"configuration": self.id, "data": self.fingerprint, "device": device(self.cfg.GPU_ID).type}

    def summarize(self, history: list[dict], prerequisites: list[str], seconds: float) -> dict:
        """The content of record.json."""
        final = history[-1]["test"]["ema"]
        spent = sum(line["seconds"] for line in history)
        return {
            "id": self.id,
            "format": FORMAT,
            "delta": delta(self.cfg),
            "config": settings(self.cfg),
            "results": protocols(history),
            "per_class": {
                offset: {key: values[key] for key in ("recall", "precision")} for offset, values in final.items()
            },
            "pseudo_labels": history[-1].get("quality"),
            "splits": self.manifest(),
            "data": self.fingerprint,
            "prerequisites": prerequisites,
            "evaluations": len(history),
            "steps": history[-1]["step"],
            "provenance": record.provenance(device(self.cfg.GPU_ID), Path(__file__).parents[1]),
            "seconds": round(spent, 1),
            "seconds_last_session": round(seconds, 1),
        }


def _prerequisite(cfg: Node) -> Node:
    return with_overrides(cfg, ["PREREQUISITE", [], *cfg.PREREQUISITE])


def _fingerprint(image_set: ImageSet) -> str:
    return hashlib.sha256(json.dumps(dict(image_set.sha256), sort_keys=True).encode()).hexdigest()


def identity(cfg: Node) -> str:
    """10 hexadecimal digits of what differs from the defaults.

    A published curriculum counts by its content, a prerequisite by its own identity.
    """
    changed = delta(cfg)
    if cfg.PREREQUISITE:
        changed["PREREQUISITE"] = identity(_prerequisite(cfg))
    if cfg.CURRICULUM:
        arrays = published(cfg.CURRICULUM)
        changed["CURRICULUM"] = hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()
    text = json.dumps({"format": FORMAT, **changed}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def device(gpu_id: int) -> torch.device:
    """The CUDA device of that number, or the CPU for -1 and where there is none."""
    if gpu_id >= 0 and torch.cuda.is_available():
        if gpu_id >= torch.cuda.device_count():
            raise ConfigError(f"GPU_ID is {gpu_id}, but there are {torch.cuda.device_count()} GPUs, numbered from 0")
        return torch.device("cuda", gpu_id)
    return torch.device("cpu")
