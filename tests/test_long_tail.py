"""The splits against an independent derivation of the published procedure, and against published counts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seval.config import load
from seval.data.hdf5 import read
from seval.data.splits import Splits, class_counts, manifest, split
from seval.errors import ConfigError
from tests.standins import TINY

BALANCED = np.random.RandomState(7).permutation(np.repeat(np.arange(10), 5000))  # CIFAR-10's counts, in no order
CIFAR100 = np.random.RandomState(8).permutation(np.repeat(np.arange(100), 500))


def config(**given: object):
    """A frozen configuration; keys of the long tail by their last name, others after DATASET."""
    pairs: list[object] = []
    for key, value in given.items():
        tail = key.startswith(("NUM_LABELED", "NUM_UNLABELED", "IMB"))
        pairs += [key if key == "SEED" else f"DATASET.CIFAR10.{key}" if tail else f"DATASET.{key}", value]
    return load(overrides=pairs)


def tail(labeled: int, unlabeled: int, factor: float, factor_unlabeled: float | None = None) -> dict[str, object]:
    return {
        "NUM_LABELED_HEAD": labeled,
        "NUM_UNLABELED_HEAD": unlabeled,
        "IMB_FACTOR_L": factor,
        "IMB_FACTOR_UL": factor if factor_unlabeled is None else factor_unlabeled,
    }


def published(labels, seed, n_valid, n1, m1, gamma_l, gamma_u, reverse=False, portion=None):
    """The published procedure in plain loops over rows (index, label); returns lists of indices."""
    rows = [(i, int(y)) for i, y in enumerate(labels)]
    num_classes = max(y for _, y in rows) + 1

    def by_class(rows):
        found = {c: [] for c in range(num_classes)}
        for row in rows:
            found[row[1]].append(row)
        return found

    valid = []
    if n_valid > 0:
        rng, found, rest = np.random.RandomState(seed), by_class(rows), []
        for c in range(num_classes):
            order = list(range(len(found[c])))
            rng.shuffle(order)
            for place, position in enumerate(order):
                (valid if place < n_valid // num_classes else rest).append(found[c][position])
        rows = rest

    rng, found, labeled, unlabeled = np.random.RandomState(seed), by_class(rows), [], []
    for c in range(num_classes):
        order = list(range(len(found[c])))
        rng.shuffle(order)
        for place, position in enumerate(order):
            if place < n1:
                labeled.append(found[c][position])
            elif place < n1 + m1:
                unlabeled.append(found[c][position])

    def long_tailed(rows, head, gamma, classes):
        rng, found, kept = np.random.RandomState(seed), by_class(rows), []
        for rank, c in enumerate(classes):
            count = int(head * (1 / gamma) ** (rank / (num_classes - 1)))
            order = list(range(len(found[c])))
            rng.shuffle(order)
            for position in order[:count]:
                kept.append(found[c][position])
        return kept

    if gamma_l > 1:
        labeled = long_tailed(labeled, n1, gamma_l, list(range(num_classes)))
    held_out = []
    if portion is not None:
        found, labeled = by_class(labeled), []
        for c in range(num_classes):
            count = int(len(found[c]) * portion)
            held_out += found[c][:count]
            labeled += found[c][count:]
    if gamma_u > 1:
        classes = list(range(num_classes))
        if reverse:
            classes.reverse()
        unlabeled = long_tailed(unlabeled, m1, gamma_u, classes)
    return [[i for i, _ in rows] for rows in (labeled, unlabeled, held_out, valid)]


@pytest.mark.parametrize("seed", [0, 1, 79])
@pytest.mark.parametrize(
    "case",
    [
        dict(n_valid=5000, n1=1500, m1=3000, gamma_l=100.0, gamma_u=100.0),
        dict(n_valid=5000, n1=1500, m1=3000, gamma_l=100.0, gamma_u=100.0, portion=0.5),
        dict(n_valid=5000, n1=500, m1=4000, gamma_l=100.0, gamma_u=100.0, reverse=True, portion=0.3),
        dict(n_valid=5000, n1=500, m1=4000, gamma_l=100.0, gamma_u=1.0),
        dict(n_valid=0, n1=500, m1=4000, gamma_l=1.0, gamma_u=50.0, reverse=True),
        dict(n_valid=1007, n1=1500, m1=1500, gamma_l=1.0, gamma_u=1.0, portion=0.5),
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
    assert class_counts(n1, 100.0, 10) == counts
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
    assert sum(class_counts(450, factor, 10)) == total


def test_class_counts():
    assert class_counts(4000, 100.0, 10) == [4000, 2397, 1437, 861, 516, 309, 185, 111, 66, 40]
    assert class_counts(4000, 100.0, 10, reverse=True) == class_counts(4000, 100.0, 10)[::-1]
    assert class_counts(4000, 1.0, 10) == [4000] * 10
    assert class_counts(7, 10.0, 1) == [7]


def test_reversed_and_uniform_unlabeled_leave_the_labels_alone():
    plain, turned, uniform = (
        split(BALANCED, config(REVERSE_UL_DISTRIBUTION=reverse, **tail(500, 4000, 100.0, factor)))
        for reverse, factor in ((False, 100.0), (True, 100.0), (True, 1.0))
    )
    assert np.bincount(BALANCED[turned.unlabeled]).tolist() == class_counts(4000, 100.0, 10)[::-1]
    assert np.bincount(BALANCED[uniform.unlabeled]).tolist() == [4000] * 10
    for other in (turned, uniform):
        assert np.array_equal(other.labeled, plain.labeled) and np.array_equal(other.valid, plain.valid)


@pytest.mark.parametrize("held_out", ["none", "labeled", "valid"])
def test_splits_are_disjoint(held_out):
    got = split(BALANCED, config(HELD_OUT=held_out, SEED=3))
    together = np.concatenate(got)
    assert len(np.unique(together)) == len(together)
    assert 0 <= together.min() and together.max() < len(BALANCED)


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
        ({"HELD_OUT": "valid", "NUM_VALID": 9}, "there are no validation images .DATASET.NUM_VALID 9"),
    ],
)
def test_what_does_not_fit_is_an_error(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        split(BALANCED, config(**given))
    assert "\n" not in str(caught.value)


def test_a_class_may_run_short_where_its_share_of_the_tail_still_fits():
    labels = np.concatenate([BALANCED[BALANCED != 9], np.full(2100, 9)])
    got = split(labels, config(**tail(1500, 3000, 100.0)))
    assert np.bincount(labels[got.unlabeled]).tolist() == class_counts(3000, 100.0, 10)


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


def by_loops(labels, seed, n, m):
    """USB's procedure: one stream, each class shuffled in turn, its labeled images, then its unlabeled ones."""
    rng, labeled, unlabeled = np.random.RandomState(seed), [], []
    for c in range(max(labels) + 1):
        found = [i for i, y in enumerate(labels) if y == c]
        order = np.array(found)
        rng.shuffle(order)
        labeled += list(order[: n[c]])
        unlabeled += list(order[n[c] : n[c] + m[c]])
    return labeled, unlabeled


USB_TAIL = [1500, 899, 539, 323, 193, 116, 69, 41, 25, 15]  # gamma 100, as its logs print it


@pytest.mark.parametrize("seed", [0, 1, 79])
def test_usb_draws_from_all_images_and_keeps_no_validation(seed):
    got = split(BALANCED, config(SEED=seed, PROTOCOL="usb", **tail(1500, 3000, 100)))
    labeled, unlabeled = by_loops(BALANCED.tolist(), seed, USB_TAIL, class_counts(3000, 100, 10))
    assert got.labeled.tolist() == labeled and got.unlabeled.tolist() == unlabeled
    assert (len(got.labeled), len(got.unlabeled), len(got.valid)) == (3720, 7443, 0)


def test_usb_reads_a_uniform_head_count_as_the_total():
    got = split(BALANCED, config(PROTOCOL="usb", **tail(1500, 3000, 100, 1)))
    assert manifest(got, BALANCED)["unlabeled"]["class_counts"] == [300] * 10


def test_acr_takes_the_first_images_whatever_the_seed_and_repeats_the_labeled_ones():
    got, other = (split(BALANCED, config(SEED=s, PROTOCOL="acr", **tail(500, 4000, 100, 1))) for s in (0, 5))
    assert all(np.array_equal(a, b) for a, b in zip(got, other, strict=True))
    for c, n in enumerate(class_counts(500, 100, 10)):
        first = [i for i, y in enumerate(BALANCED) if y == c]
        assert got.labeled[BALANCED[got.labeled] == c].tolist() == first[:n]
        assert got.unlabeled[BALANCED[got.unlabeled] == c].tolist() == first[: n + 4000]


@pytest.mark.parametrize("protocol", ["usb", "acr"])
def test_other_protocols_reverse_hold_out_and_refuse(protocol):
    got = manifest(
        split(
            BALANCED, config(PROTOCOL=protocol, REVERSE_UL_DISTRIBUTION=True, HELD_OUT="labeled", **tail(500, 400, 100))
        ),
        BALANCED,
    )
    assert got["held_out"]["class_counts"] == [250, 149, 89, 53, 32, 19, 11, 6, 4, 2]
    first, last = got["unlabeled"]["class_counts"][0], got["unlabeled"]["class_counts"][-1]
    assert last - first > 390 - 500 * (protocol == "acr")
    with pytest.raises(ConfigError, match="no validation images"):
        split(BALANCED, config(PROTOCOL=protocol, HELD_OUT="valid", **tail(500, 400, 100)))
    with pytest.raises(ConfigError, match="class 0 has 5000 training images"):
        split(BALANCED, config(PROTOCOL=protocol, **tail(1500, 4000, 100)))


STL10 = np.random.RandomState(9).permutation(np.repeat(np.arange(10), 500))


def stl10(**given):
    pairs = [word for key, value in given.items() for word in (key.replace("__", "."), value)]
    return load(overrides=["DATASET.NAME", "stl10", "DATASET.NUM_VALID", 500, *pairs])


@pytest.mark.parametrize("seed", [0, 79])
@pytest.mark.parametrize(
    ("head", "factor", "total", "held"),
    [(450, 20.0, 1528, 761), (450, 10.0, 1835, 915), (150, 20.0, 507, 251), (150, 10.0, 609, 301)],
)
def test_stl10_equals_the_published_procedure(seed, head, factor, total, held):
    """Validation, then the long tail of what is left, without a pool; every image of its unlabeled part."""
    cfg = stl10(SEED=seed, DATASET__STL10__NUM_LABELED_HEAD=head, DATASET__STL10__IMB_FACTOR_L=factor)
    got = split(STL10, cfg, pool=np.ones(1000, bool))
    rng, train, valid = np.random.RandomState(seed), [], []
    for c in range(10):
        order = [i for i, y in enumerate(STL10) if y == c]
        rng.shuffle(order)
        valid += order[:50]
        train += order[50:]
    rng, labeled = np.random.RandomState(seed), []
    for c in range(10):
        order = [i for i in train if STL10[i] == c]
        rng.shuffle(order)
        labeled += order[: int(head * (1 / factor) ** (c / 9))]
    assert got.labeled.tolist() == labeled and got.valid.tolist() == valid and len(labeled) == total
    assert got.unlabeled.tolist() == list(range(1000))
    halves = split(
        STL10,
        stl10(
            SEED=seed,
            DATASET__STL10__NUM_LABELED_HEAD=head,
            DATASET__STL10__IMB_FACTOR_L=factor,
            DATASET__HELD_OUT="labeled",
        ),
        pool=np.ones(1000, bool),
    )
    assert len(halves.held_out) == held and sorted([*halves.labeled, *halves.held_out]) == sorted(labeled)


@pytest.mark.parametrize("protocol", ["usb", "acr"])
def test_other_protocols_of_stl10_keep_no_validation(protocol):
    cfg = stl10(SEED=3, DATASET__PROTOCOL=protocol, DATASET__STL10__IMB_FACTOR_L=20.0)
    got, rng, labeled = split(STL10, cfg, pool=np.ones(9, bool)), np.random.RandomState(3), []
    for c, n in enumerate(class_counts(450, 20, 10)):
        order = [i for i, y in enumerate(STL10) if y == c]
        if protocol == "usb":
            rng.shuffle(order)
        labeled += order[:n]
    assert got.labeled.tolist() == labeled and len(got.valid) == 0 and got.unlabeled.tolist() == list(range(9))


AVES = np.repeat(np.arange(5), [9, 7, 4, 2, 1])[np.random.RandomState(3).permutation(23)]


def natural(name, **given):
    pairs = [word for key, value in given.items() for word in (f"DATASET.{key.replace('__', '.')}", value)]
    return load(overrides=["DATASET.NAME", name, "DATASET.NUM_VALID", 0, "SEED", 79, *pairs])


def test_semi_aves_uses_all_labels_and_one_or_both_unlabeled_sources():
    pool = np.array([True] * 6 + [False] * 10)
    got = split(AVES, natural("semi_aves"), pool=pool)
    assert got.labeled.tolist() == list(range(23)) and got.unlabeled.tolist() == list(range(6))
    assert split(AVES, natural("semi_aves", AVES__UL_SOURCE="all"), pool=pool).unlabeled.tolist() == list(range(16))
    described = manifest(got, AVES, np.full(16, -1))
    assert described["unlabeled"]["unknown"] == 6 and described["labeled"]["class_counts"] == [9, 7, 4, 2, 1]


def test_semi_aves_holds_out_half_of_each_shuffled_class():
    got = split(AVES, natural("semi_aves", HELD_OUT="labeled"), pool=np.ones(3, bool))
    rng, held_out = np.random.RandomState(79), []
    for c in range(5):
        members = [i for i, y in enumerate(AVES) if y == c]
        rng.shuffle(members)
        held_out += members[: int(len(members) * 0.5)]
    assert got.held_out.tolist() == held_out and sorted([*got.labeled, *held_out]) == list(range(23))


def test_imagenet_127_labels_are_those_of_the_first_file_or_a_random_tenth():
    labels, batch = np.random.RandomState(4).randint(0, 3, 600), np.repeat(np.arange(1, 11), 60)
    first = split(labels, natural("small_imagenet127"), batch=batch)
    assert first.labeled.tolist() == list(range(60)) and first.unlabeled.tolist() == list(range(60, 600))
    tenth = split(labels, natural("small_imagenet127", IMAGENET__LABELED="random"), batch=batch)
    assert np.bincount(labels[tenth.labeled]).tolist() == [round(n / 10) for n in np.bincount(labels)]
    assert sorted([*tenth.labeled, *tenth.unlabeled]) == list(range(600))


def test_imagenet_127_holds_out_as_many_of_each_class_in_the_order_of_one_shuffle():
    labels, batch = np.random.RandomState(4).randint(0, 3, 600), np.repeat(np.arange(1, 11), 60)
    cfg = natural("small_imagenet127", HELD_OUT="labeled", HELD_OUT_PER_CLASS=4)
    got = split(labels, cfg, batch=batch)
    order, taken = list(range(60)), {0: [], 1: [], 2: []}
    np.random.RandomState(79).shuffle(order)
    for i in order:
        if len(taken[labels[i]]) < 4:
            taken[labels[i]].append(i)
    assert got.held_out.tolist() == taken[0] + taken[1] + taken[2]
    with pytest.raises(ConfigError, match="leaves none"):
        split(labels, natural("small_imagenet127", HELD_OUT="labeled", HELD_OUT_PER_CLASS=60), batch=batch)


#: Every setting of Tables 2, 4 and 5 on CIFAR: n1, m1, gamma_l, gamma_u, reversed.
PAPER = {
    "cifar10": [
        *[(n, m, 100.0, 100.0, False) for n, m in ((500, 4000), (1500, 3000))],
        *[(n, m, 100.0, 1.0, False) for n, m in ((500, 4000), (1500, 3000))],
        *[(n, m, 100.0, 100.0, True) for n, m in ((500, 4000), (1500, 3000))],
        *[(n, m, 150.0, 150.0, False) for n, m in ((500, 4000), (1500, 3000))],
        (200, 4000, 100.0, 100.0, False),
        *[(n, 4000, 1.0, 100.0, False) for n in (10, 4)],
    ],
    "cifar100": [(n, m, 10.0, 10.0, False) for n, m in ((50, 400), (150, 300))],
}


@pytest.mark.parametrize("seed", [0, 1, 79])
@pytest.mark.parametrize(("name", "setting"), [(name, setting) for name in PAPER for setting in PAPER[name]])
def test_every_setting_of_the_papers_tables_is_split_as_published(name, setting, seed):
    n1, m1, gamma_l, gamma_u, reverse = setting
    labels, node = {"cifar10": BALANCED, "cifar100": CIFAR100}[name], f"DATASET.{name.upper()}"
    pairs = ["DATASET.NAME", name, "SEED", seed, "DATASET.HELD_OUT", "labeled"]
    pairs += [
        "DATASET.REVERSE_UL_DISTRIBUTION",
        reverse,
        f"{node}.IMB_FACTOR_L",
        gamma_l,
        f"{node}.IMB_FACTOR_UL",
        gamma_u,
    ]
    pairs += [f"{node}.NUM_LABELED_HEAD", n1, f"{node}.NUM_UNLABELED_HEAD", m1]
    got = split(labels, load(overrides=pairs))
    expected = published(labels, seed, 5000, n1, m1, gamma_l, gamma_u, reverse, 0.5)
    assert [indices.tolist() for indices in got] == expected
