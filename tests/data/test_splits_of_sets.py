"""The splits of the protocols usb and acr, and of the sets with their own unlabeled images or batches."""

from __future__ import annotations

import numpy as np
import pytest

from seval.config import load
from seval.data.splits import long_tail, manifest, split
from seval.errors import ConfigError, DataError
from tests.data.published_splits import BALANCED, CIFAR100, config, published, tail


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
    labeled, unlabeled = by_loops(BALANCED.tolist(), seed, USB_TAIL, long_tail(3000, 100, num_classes=10))
    assert got.labeled.tolist() == labeled and got.unlabeled.tolist() == unlabeled
    assert (len(got.labeled), len(got.unlabeled), len(got.valid)) == (3720, 7443, 0)


def test_usb_reads_a_uniform_head_count_as_the_total():
    got = split(BALANCED, config(PROTOCOL="usb", **tail(1500, 3000, 100, 1)))
    assert manifest(got, BALANCED)["unlabeled"]["class_counts"] == [300] * 10


def test_acr_takes_the_first_images_whatever_the_seed_and_repeats_the_labeled_ones():
    got, other = (split(BALANCED, config(SEED=s, PROTOCOL="acr", **tail(500, 4000, 100, 1))) for s in (0, 5))
    assert all(np.array_equal(a, b) for a, b in zip(got, other, strict=True))
    for c, n in enumerate(long_tail(500, 100, num_classes=10)):
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
    for c, n in enumerate(long_tail(450, 20, num_classes=10)):
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


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 199, 7, 0, 30]])
def test_semi_aves_draws_in_the_order_of_the_numbers_in_the_class_names(order):
    names = [f"species {number}" for number in order]
    got = split(AVES, natural("semi_aves", HELD_OUT="labeled"), pool=np.ones(3, bool), class_names=names)
    rng, held_out = np.random.RandomState(79), {}
    for _, c in sorted(zip(order, range(5), strict=True)):
        members = [i for i, y in enumerate(AVES) if y == c]
        rng.shuffle(members)
        held_out[c] = members[: len(members) // 2]
    assert got.held_out.tolist() == [i for c in range(5) for i in held_out[c]]


def test_semi_aves_shuffles_each_class_whatever_the_number_held_out():
    labels, given = np.repeat([0, 1, 2], 4), {"HELD_OUT": "labeled"}
    half = split(labels, natural("semi_aves", **given), pool=np.ones(3, bool))
    two = split(labels, natural("semi_aves", HELD_OUT_PER_CLASS=2, **given), pool=np.ones(3, bool))
    assert two.held_out.tolist() == half.held_out.tolist() != [0, 1, 4, 5, 8, 9]


@pytest.mark.parametrize("names", [["a", "b", "c", "d", "e"], ["species 1"] * 5, ["species 1", "species 2"]])
def test_semi_aves_refuses_class_names_without_published_numbers(names):
    with pytest.raises(DataError, match=r"5 classes of Semi-Aves must have names 'species N'.*prepare the set again"):
        split(AVES, natural("semi_aves", HELD_OUT="labeled"), pool=np.ones(3, bool), class_names=names)


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
