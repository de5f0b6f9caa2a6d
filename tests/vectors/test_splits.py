"""Which images are labeled, unlabeled, held out and for validation: equal to the published codes, index by index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from seval.config import load
from seval.data.splits import Splits, split
from tests.settings import ROOT
from tests.vectors.loading import digest, uses

#: Of each set: the seed that shuffles the stand-in labels, classes, images a class, unlabeled images of its own.
SETS = {"cifar10": (0, 10, 5000, 0), "cifar100": (1, 100, 500, 0), "stl10": (2, 10, 500, 100_000)}
PARTS = ("labeled", "unlabeled", "valid")


@cache
def labels_of(name: str) -> np.ndarray:
    seed, classes, images, _ = SETS[name]
    return np.random.RandomState(seed).permutation(np.repeat(np.arange(classes), images))


def published(v, name: str, phase: str):
    """Each (setting, seed) of a phase with its place in the arrays, and the configuration of ours."""
    for i, setting in enumerate(v[f"{name}/settings"]):
        for j, seed in enumerate(v["seeds"]):
            yield (i, j), setting, config(name, phase, setting, int(seed), int(v[f"{name}/num_valid"]))


def config(name: str, phase: str, setting, seed: int, num_valid: int):
    file = {"train": "fixmatch", "estim": "fixmatch_seval_estim", "darp_estim": "darp"}[phase]
    head, factor, unlabeled, unlabeled_factor, reverse = setting.tolist()
    tail = f"DATASET.{name.upper()}"
    given = ["SEED", seed, "DATASET.NUM_VALID", num_valid]
    given += [f"{tail}.NUM_LABELED_HEAD", head, f"{tail}.IMB_FACTOR_L", factor]
    if unlabeled >= 0:
        given += [f"{tail}.NUM_UNLABELED_HEAD", unlabeled, f"{tail}.IMB_FACTOR_UL", unlabeled_factor]
        given += ["DATASET.REVERSE_UL_DISTRIBUTION", bool(reverse)]
    if phase == "darp_estim":
        # the published code has no rule of its own for CIFAR-100, where the estimate is fitted on the validation images
        own = load(ROOT / "configs" / "methods" / "darp.yaml").PREREQUISITE
        given += ["DATASET.HELD_OUT", "valid"] if name == "cifar100" else own
    return load(ROOT / "configs" / name / f"{file}.yaml", given)


def drawn(name: str, cfg) -> Splits:
    pool = SETS[name][3]
    return split(labels_of(name), cfg, pool=np.zeros(pool, bool) if pool else None)


def sha256(indices: np.ndarray) -> bytes:
    return digest(np.asarray(indices).astype("<i8").tobytes())


def counts(name: str, indices: np.ndarray) -> list[int]:
    return np.bincount(labels_of(name)[indices], minlength=SETS[name][1]).tolist()


@pytest.mark.parametrize("name", SETS)
@uses("splits", "{name}/labels_sha256")
def test_the_stand_in_labels_are_those_of_the_vectors(v, name):
    assert sha256(labels_of(name)) == v[f"{name}/labels_sha256"]


@pytest.mark.parametrize("phase", ["train", "estim", "darp_estim"])
@pytest.mark.parametrize("name", SETS)
@uses("splits", "seeds", "{name}/settings", "{name}/num_valid", "{name}/{phase}_*_sha256", "{name}/{phase}_*_counts")
def test_splits_of_the_published_code(v, name, phase):
    for at, _, cfg in published(v, name, phase):
        splits = drawn(name, cfg)
        # the published estimate phases call what they hold out their validation images
        ours = {**splits._asdict(), "valid": splits.valid if phase == "train" else splits.held_out}
        for part in PARTS:
            assert sha256(ours[part]) == v[f"{name}/{phase}_{part}_sha256"][at], (at, part)
            if part != "unlabeled" or not SETS[name][3]:
                assert counts(name, ours[part]) == v[f"{name}/{phase}_{part}_counts"][at].tolist(), (at, part)


@pytest.mark.parametrize(
    "phase, part", [("train", "labeled"), ("train", "valid"), ("estim", "labeled"), ("estim", "valid")]
)
@uses("splits", "cifar10/settings", "cifar10/num_valid", "cifar10/{phase}_{part}_indices_setting10_seed79")
def test_the_smallest_setting_in_full(v, phase, part):
    cfg = config("cifar10", phase, v["cifar10/settings"][10], 79, int(v["cifar10/num_valid"]))
    splits = drawn("cifar10", cfg)
    ours = splits.held_out if (phase, part) == ("estim", "valid") else getattr(splits, part)
    np.testing.assert_array_equal(ours, v[f"cifar10/{phase}_{part}_indices_setting10_seed79"])


@uses("splits", "cifar10/settings", "cifar10/num_valid", "cifar10/darp_estim_*_indices_*")
def test_what_darp_holds_out_in_full(v):
    """The first labels of each class; with n1 = 4, validation images, and every label is kept."""
    settings, num_valid = v["cifar10/settings"], int(v["cifar10/num_valid"])
    large, small = (drawn("cifar10", config("cifar10", "darp_estim", settings[i], 79, num_valid)) for i in (1, 10))
    np.testing.assert_array_equal(large.held_out, v["cifar10/darp_estim_valid_indices_setting1_seed79"])
    np.testing.assert_array_equal(small.labeled, v["cifar10/darp_estim_labeled_indices_setting10_seed79"])
    np.testing.assert_array_equal(small.held_out, v["cifar10/darp_estim_valid_indices_setting10_seed79"])


def by_frequency(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels re-numbered so that class 0 is the most frequent one, as in a prepared file; the number each class had."""
    published = np.argsort(-np.bincount(labels), kind="stable")
    return published.argsort()[labels], published


def estimate(name: str, labels: np.ndarray, seed: int, published: Sequence[int] = ()) -> Splits:
    cfg = load(ROOT / "configs" / name / "fixmatch_seval_estim.yaml", ["SEED", int(seed)])
    if name == "semi_aves":
        return split(labels, cfg, pool=np.ones(1, bool), class_names=[f"species {number}" for number in published])
    return split(labels, cfg, batch=np.ones(len(labels), np.uint8))


@uses("splits", "seeds", "imagenet127/*")
def test_hold_out_of_small_imagenet127(v):
    ordered = v["imagenet127/labels_ordered"].astype(np.int64)
    ranked, _ = by_frequency(v["imagenet127/labels_published_numbers"].astype(np.int64))
    for j, seed in enumerate(v["seeds"]):
        splits = estimate("small_imagenet127", ordered, seed)
        assert sha256(splits.labeled) == v["imagenet127/ordered_labeled_sha256"][j]
        assert sha256(splits.held_out) == v["imagenet127/ordered_held_out_sha256"][j]
        splits = estimate("small_imagenet127", ranked, seed)
        assert sha256(np.sort(splits.labeled)) == v["imagenet127/renumbered_labeled_sorted_sha256"][j]
        assert sha256(np.sort(splits.held_out)) == v["imagenet127/renumbered_held_out_sorted_sha256"][j]
    np.testing.assert_array_equal(np.sort(splits.held_out), np.sort(v["imagenet127/renumbered_held_out_seed79"]))


@uses("splits", "seeds", "semi_aves/*")
def test_hold_out_of_semi_aves_draws_in_the_order_of_the_published_class_numbers(v):
    """However the classes are numbered here: the names of a prepared file's classes hold the published numbers."""
    labels = v["semi_aves/labels_published_numbers"].astype(np.int64)
    ranked, published = by_frequency(labels)
    for j, seed in enumerate(v["seeds"]):
        for splits in (estimate("semi_aves", ranked, seed, published), estimate("semi_aves", labels, seed)):
            assert sha256(np.sort(splits.held_out)) == v["semi_aves/held_out_sorted_sha256"][j]
            assert sha256(np.sort(splits.labeled)) == v["semi_aves/labeled_sorted_sha256"][j]
    held_out = v["semi_aves/held_out_seed79"]
    np.testing.assert_array_equal(np.sort(splits.held_out), np.sort(held_out))
    splits = estimate("semi_aves", ranked, 79, published)
    assert (np.diff(ranked[splits.held_out]) >= 0).all()  # class by class, as in every split
    np.testing.assert_array_equal(np.bincount(labels[splits.held_out]), np.bincount(labels[held_out]))


@uses("splits", "seeds", "usb/*", "acr/*")
def test_splits_of_the_other_protocols(v):
    for i, setting in enumerate(v["usb/settings"]):
        for j, seed in enumerate(v["seeds"]):
            head, factor, unlabeled, unlabeled_factor = setting.tolist()
            given = [
                "SEED",
                int(seed),
                "DATASET.CIFAR10.NUM_LABELED_HEAD",
                head,
                "DATASET.CIFAR10.IMB_FACTOR_L",
                factor,
            ]
            given += ["DATASET.CIFAR10.NUM_UNLABELED_HEAD", unlabeled]
            given += ["DATASET.CIFAR10.IMB_FACTOR_UL", unlabeled_factor]
            for protocol in ("usb", "acr"):
                cfg = load(ROOT / "configs" / "cifar10" / "fixmatch.yaml", [*given, "DATASET.PROTOCOL", protocol])
                splits = drawn("cifar10", cfg)
                theirs = (
                    v["usb/labeled_unlabeled_sha256"][i, j]
                    if protocol == "usb"
                    else v["acr/labeled_unlabeled_sha256"][i]
                )
                assert [sha256(splits.labeled), sha256(splits.unlabeled)] == theirs.tolist()
                assert not len(splits.valid)
