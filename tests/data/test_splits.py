"""The splits against an independent derivation of the published procedure, and against published counts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seval.data.hdf5 import read
from seval.data.splits import Splits, long_tail, manifest, split
from seval.errors import ConfigError
from tests.data.published_splits import BALANCED, CIFAR100, config, published, tail
from tests.standins import TINY


@pytest.mark.parametrize("seed", [0, 1, 79])
@pytest.mark.parametrize(
    "case",
    [
        dict(n_valid=5000, n1=1500, m1=3000, gamma_l=100.0, gamma_u=100.0),
        dict(n_valid=5000, n1=1500, m1=3000, gamma_l=100.0, gamma_u=100.0, portion=0.5),
        dict(n_valid=5000, n1=500, m1=4000, gamma_l=100.0, gamma_u=100.0, reverse=True, portion=0.3),
        dict(n_valid=5000, n1=500, m1=4000, gamma_l=100.0, gamma_u=1.0),
        dict(n_valid=0, n1=500, m1=4000, gamma_l=1.0, gamma_u=50.0, reverse=True),
        dict(n_valid=1010, n1=1500, m1=1500, gamma_l=1.0, gamma_u=1.0, portion=0.5),
    ],
    ids=["long tail", "half held out", "reversed", "uniform unlabeled", "uniform labeled", "uniform"],
)
def test_indices_and_their_order_are_the_published_ones(seed, case):
    expected = published(BALANCED, seed, **case)
    got = split(
        BALANCED,
        config(
            SEED=seed,
            NUM_VALID=case["n_valid"],
            HELD_OUT="labeled" if "portion" in case else "none",
            HELD_OUT_PORTION=case.get("portion", 0.5),
            REVERSE_UL_DISTRIBUTION=case.get("reverse", False),
            **tail(case["n1"], case["m1"], case["gamma_l"], case["gamma_u"]),
        ),
    )
    for name, indices, want in zip(Splits._fields, got, expected, strict=True):
        assert indices.dtype == np.int64, name
        assert indices.tolist() == want, name


def test_a_small_split_worked_out_by_hand():
    # RandomState(0) turns [0, 1, 2] into [2, 1, 0] and then [3, 4, 5] into [5, 3, 4]: 2 and 5 validate.
    # Afresh, it swaps the first pair it is given, [1, 0], and leaves the second, [3, 4].
    got = split(np.array([0, 0, 0, 1, 1, 1]), config(SEED=0, NUM_VALID=2, **tail(1, 1, 1.0)))
    assert [indices.tolist() for indices in got] == [[0, 3], [1, 4], [], [2, 5]]


@pytest.mark.parametrize(
    ("n1", "m1", "counts", "total", "held_out", "unlabeled"),
    [
        (500, 4000, [500, 299, 179, 107, 64, 38, 23, 13, 8, 5], 1236, 615, 9922),
        (1500, 3000, [1500, 899, 539, 323, 193, 116, 69, 41, 25, 15], 3720, 1856, 7443),
    ],
)
def test_published_counts_of_cifar10(n1, m1, counts, total, held_out, unlabeled):
    assert long_tail(n1, 100.0, num_classes=10) == counts
    got = split(BALANCED, config(HELD_OUT="labeled", **tail(n1, m1, 100.0)))
    assert np.bincount(BALANCED[got.held_out]).tolist() == [n // 2 for n in counts]
    assert len(got.labeled) + len(got.held_out) == total
    assert (len(got.held_out), len(got.unlabeled), len(got.valid)) == (held_out, unlabeled, 5000)
    assert np.bincount(BALANCED[got.valid]).tolist() == [500] * 10


@pytest.mark.parametrize(
    ("n1", "m1", "total", "held_out", "unlabeled"), [(150, 300, 5835, 2893, 11720), (50, 400, 1911, 930, 15651)]
)
def test_published_counts_of_cifar100(n1, m1, total, held_out, unlabeled):
    got = split(CIFAR100, config(HELD_OUT="labeled", **tail(n1, m1, 10.0)))
    assert (len(got.labeled) + len(got.held_out), len(got.held_out), len(got.unlabeled)) == (total, held_out, unlabeled)


@pytest.mark.parametrize(("factor", "total"), [(10.0, 1835), (20.0, 1528)])
def test_published_counts_of_stl10(factor, total):
    assert sum(long_tail(450, factor, num_classes=10)) == total


def test_class_counts():
    assert long_tail(4000, 100.0, num_classes=10) == [4000, 2397, 1437, 861, 516, 309, 185, 111, 66, 40]
    assert long_tail(4000, 100.0, num_classes=10, reverse=True) == long_tail(4000, 100.0, num_classes=10)[::-1]
    assert long_tail(4000, 1.0, num_classes=10) == [4000] * 10
    assert long_tail(7, 10.0, num_classes=1) == [7]


def test_reversed_and_uniform_unlabeled_leave_the_labels_alone():
    plain, turned, uniform = (
        split(BALANCED, config(REVERSE_UL_DISTRIBUTION=reverse, **tail(500, 4000, 100.0, factor)))
        for reverse, factor in ((False, 100.0), (True, 100.0), (True, 1.0))
    )
    assert np.bincount(BALANCED[turned.unlabeled]).tolist() == long_tail(4000, 100.0, num_classes=10)[::-1]
    assert np.bincount(BALANCED[uniform.unlabeled]).tolist() == [4000] * 10
    for other in (turned, uniform):
        assert np.array_equal(other.labeled, plain.labeled) and np.array_equal(other.valid, plain.valid)


@pytest.mark.parametrize("held_out", ["none", "labeled", "valid"])
def test_splits_are_disjoint(held_out):
    got = split(BALANCED, config(HELD_OUT=held_out, SEED=3))
    together = np.concatenate(got)
    assert len(np.unique(together)) == len(together)
    assert 0 <= together.min() and together.max() < len(BALANCED)


@pytest.mark.parametrize(
    "n1, source", [(1500, "labeled"), (1100, "labeled"), (1000, "valid"), (500, "valid"), (4, "valid")]
)
def test_darp_holds_out_the_first_labels_of_each_class_or_validation_images_where_a_class_has_no_more(n1, source):
    given = tail(n1, 1000, 100.0 if n1 > 4 else 1.0)
    whole, got = (
        split(BALANCED, config(**given, **more)) for more in ({}, {"HELD_OUT": "darp", "HELD_OUT_PER_CLASS": 10})
    )
    parts = whole._asdict()
    first = [[i for i in parts[source] if BALANCED[i] == c][:10] for c in range(10)]
    assert got.held_out.tolist() == [i for members in first for i in members]
    for name in ("labeled", "unlabeled", "valid"):
        held_out = got.held_out if name == source else ()
        assert getattr(got, name).tolist() == [i for i in parts[name] if i not in held_out]


@pytest.mark.parametrize("number", [1, 4])
def test_so_many_labels_of_each_class_are_the_first_of_a_long_tail(number):
    whole = split(BALANCED, config(**tail(500, 1000, 100.0)))
    got = split(BALANCED, config(HELD_OUT="labeled", HELD_OUT_PER_CLASS=number, **tail(500, 1000, 100.0)))
    first = [[i for i in whole.labeled if BALANCED[i] == c][:number] for c in range(10)]
    assert got.held_out.tolist() == [i for members in first for i in members]
    assert got.labeled.tolist() == [i for i in whole.labeled if i not in got.held_out]


@pytest.mark.parametrize("given", [{"HELD_OUT_PER_CLASS": 0}, {"NUM_VALID": 90}, {"NUM_VALID": 0}])
def test_darp_needs_enough_labels_or_validation_images(given):
    given = {"HELD_OUT": "darp", "HELD_OUT_PER_CLASS": 10} | given
    with pytest.raises(ConfigError, match=r"HELD_OUT is darp and the rarest class has 5 labels.*set it to 10"):
        split(BALANCED, config(**given, **tail(500, 1000, 100.0)))


def test_held_out_valid_is_the_validation_split():
    none, valid = (split(BALANCED, config(HELD_OUT=held_out)) for held_out in ("none", "valid"))
    assert np.array_equal(valid.held_out, none.valid) and not len(valid.valid)
    assert np.array_equal(valid.labeled, none.labeled) and np.array_equal(valid.unlabeled, none.unlabeled)


def test_estimate_and_plain_runs_share_all_but_the_held_out_labels():
    plain, estimate = (split(BALANCED, config(HELD_OUT=held_out)) for held_out in ("none", "labeled"))
    assert set(plain.labeled) == set(estimate.labeled) | set(estimate.held_out)
    assert np.array_equal(plain.unlabeled, estimate.unlabeled) and np.array_equal(plain.valid, estimate.valid)


def test_a_class_of_one_label_keeps_it():
    got = split(BALANCED, config(HELD_OUT="labeled", **tail(100, 0, 100.0)))
    assert np.bincount(BALANCED[got.labeled])[-1] == 1
    assert np.bincount(BALANCED[got.held_out], minlength=10)[-1] == 0
    assert not len(got.unlabeled)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (tail(1500, 3500, 100.0), "class 0 has 5000 training images, but 500 for validation, 1500 for labels and 3500"),
        (tail(4600, 0, 100.0), "class 0 has 5000 training images, but 500 for validation, 4600 for labels"),
        (tail(50, 100, 100.0), "class 8 gets no labels; raise DATASET.CIFAR10.NUM_LABELED_HEAD"),
        (tail(-1, 100, 100.0), "DATASET.CIFAR10.NUM_LABELED_HEAD is -1, but must not be negative"),
        ({"HELD_OUT": "valid", "NUM_VALID": 0}, "there are no validation images .DATASET.NUM_VALID 0"),
        ({"NUM_VALID": 9}, "DATASET.NUM_VALID is 9, but must be a multiple of 10, the number of classes: 0 or 10"),
        ({"NUM_VALID": 4995}, "NUM_VALID is 4995, but must be a multiple of 10, the number of classes: 4990 or 5000"),
        (
            tail(4005, 0, 1.0) | {"PROTOCOL": "usb"},
            "NUM_LABELED_HEAD is 4005, .* multiple of 10, .* 4000 or 4010",
        ),
        (tail(40, 4001, 1.0) | {"PROTOCOL": "usb"}, "CIFAR10.NUM_UNLABELED_HEAD is 4001, .* multiple of 10"),
        (
            {"HELD_OUT": "labeled", "HELD_OUT_PORTION": 0.0001},
            "HELD_OUT_PORTION 0.0001 holds out no label of any",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        split(BALANCED, config(**given))
    assert "\n" not in str(caught.value)


def test_a_class_may_run_short_where_its_share_of_the_tail_still_fits():
    labels = np.concatenate([BALANCED[BALANCED != 9], np.full(2100, 9)])
    got = split(labels, config(**tail(1500, 3000, 100.0)))
    assert np.bincount(labels[got.unlabeled]).tolist() == long_tail(3000, 100.0, num_classes=10)


def test_the_caller_keeps_labels_and_global_randomness():
    labels, before = BALANCED.copy(), np.random.get_state()[1].copy()
    split(labels, config())
    assert np.array_equal(labels, BALANCED) and np.array_equal(np.random.get_state()[1], before)


def test_manifest_is_stable_and_fit_for_json():
    got = manifest(split(BALANCED, config(HELD_OUT="labeled", **tail(500, 4000, 100.0))), BALANCED)
    assert json.loads(json.dumps(got)) == got
    assert got["held_out"]["class_counts"] == [250, 149, 89, 53, 32, 19, 11, 6, 4, 2]
    assert {name: part["sha256"][:16] for name, part in got.items()} == {
        "labeled": "683b360b6a26692e",
        "unlabeled": "408d5d4d895eb6ca",
        "held_out": "8c26a89676fa5fc7",
        "valid": "6a7b2f15773e6c4d",
    }


def test_seeds_differ_on_real_labels():
    labels = read(TINY).train.labels
    seen = {
        tuple(
            part["sha256"]
            for part in manifest(split(labels, config(SEED=seed, NUM_VALID=2000, HELD_OUT="labeled")), labels).values()
        )
        for seed in range(5)
    }
    assert len(seen) == 5 and all(len({row[k] for row in seen}) == 5 for k in range(4))
