"""Shapes of the unlabeled images: which classes are frequent, how many images each has, and which ones are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from seval.config import load
from seval.data.splits import split
from seval.data.tails import by_powers, long_tail, ranks
from seval.errors import ConfigError
from seval.run import Run
from tests.data.published_splits import BALANCED, config, published, tail

RANKS = {  # from 1, of classes 0 to 9
    "long_tail": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    "middle": [9, 7, 5, 3, 1, 2, 4, 6, 8, 10],
    "head_tail": [1, 3, 5, 7, 9, 10, 8, 6, 4, 2],
}
#: Counts of classes 0 to 9 where the most frequent has 4,000 images, by shape and gamma.
COUNTS = {
    ("long_tail", 100): [4000, 2397, 1437, 861, 516, 309, 185, 111, 66, 40],
    ("middle", 100): [66, 185, 516, 1437, 4000, 2397, 861, 309, 111, 40],
    ("head_tail", 100): [4000, 1437, 516, 185, 66, 40, 111, 309, 861, 2397],
    ("long_tail", 150): [4000, 2292, 1313, 752, 431, 247, 141, 81, 46, 26],
    ("middle", 150): [46, 141, 431, 1313, 4000, 2292, 752, 247, 81, 26],
    ("head_tail", 150): [4000, 1313, 431, 141, 46, 26, 81, 247, 752, 2292],
}
LABELED = [500, 299, 179, 107, 64, 38, 23, 13, 8, 5]  # gamma 100


def drawn(**given):
    return split(BALANCED, config(**given))


def unlabeled(**given) -> list[int]:
    return np.bincount(BALANCED[drawn(**given).unlabeled], minlength=10).tolist()


@pytest.mark.parametrize("shape", RANKS)
def test_the_ranks_of_ten_classes(shape):
    assert [rank + 1 for rank in ranks(10, shape)] == RANKS[shape]
    assert [rank + 1 for rank in ranks(10, shape, reverse=True)] == RANKS[shape][::-1]
    assert ranks(1, shape) == [0]


@pytest.mark.parametrize("classes", [2, 3, 9, 100, 127])
def test_frequencies_fall_from_the_middle_or_from_both_ends(classes):
    for shape in RANKS:
        assert sorted(ranks(classes, shape)) == list(range(classes))
    middle, ends = ranks(classes, "middle"), ranks(classes, "head_tail")
    top, low = middle.index(0), ends.index(classes - 1)
    assert abs(top - (classes - 1) / 2) <= 0.5 >= abs(low - (classes - 1) / 2)
    for falling in (middle[top:], middle[top::-1], ends[low::-1][::-1], ends[low:][::-1]):
        assert falling == sorted(falling)
    assert {ends[0], ends[-1]} == {0, 1}


@pytest.mark.parametrize("protocol", ["seval", "usb", "acr"])
@pytest.mark.parametrize(("shape", "factor"), COUNTS)
def test_class_counts_of_every_protocol(protocol, shape, factor):
    repeated = LABELED if protocol == "acr" else [0] * 10  # acr has the labeled images among the unlabeled ones
    for reverse in (False, True):
        given = dict(PROTOCOL=protocol, UL_SHAPE=shape, REVERSE_UL_DISTRIBUTION=reverse, **tail(500, 4000, 100, factor))
        want = COUNTS[shape, factor][:: -1 if reverse else 1]
        assert unlabeled(**given) == [k + u for k, u in zip(repeated, want, strict=True)]


def test_a_uniform_set_has_so_many_images_of_each_class_or_for_usb_in_all():
    assert unlabeled(**tail(1500, 3000, 100, 1)) == [3000] * 10
    assert unlabeled(PROTOCOL="usb", **tail(1500, 3000, 100, 1)) == [300] * 10
    assert unlabeled(PROTOCOL="usb", **tail(1500, 30_000, 100, 1)) == [3000] * 10


@pytest.mark.parametrize("protocol", ["seval", "usb", "acr"])
@pytest.mark.parametrize("shape", RANKS)
def test_the_labels_are_the_same_whatever_the_shape(protocol, shape):
    plain, shaped = (drawn(PROTOCOL=protocol, UL_SHAPE=name) for name in ("long_tail", shape))
    assert np.array_equal(plain.labeled, shaped.labeled) and np.array_equal(plain.valid, shaped.valid)


@pytest.mark.parametrize("seed", [0, 79])
@pytest.mark.parametrize("shape", RANKS)
def test_the_most_frequent_class_is_drawn_first_as_in_the_published_procedure(shape, seed):
    order = [RANKS[shape].index(rank) for rank in range(1, 11)]
    want = published(BALANCED, seed, 5000, 500, 4000, 100.0, 50.0, falling=order)
    got = drawn(SEED=seed, UL_SHAPE=shape, **tail(500, 4000, 100, 50))
    assert [got.labeled.tolist(), got.unlabeled.tolist()] == want[:2]


@pytest.mark.parametrize("shape", RANKS)
def test_usb_draws_each_class_from_where_its_labels_end(shape):
    rng, want = np.random.RandomState(3), []
    n, falling = (by_powers(head, 100, num_classes=10) for head in (500, 4000))
    for c in range(10):
        order = np.flatnonzero(BALANCED == c)
        rng.shuffle(order)
        want += order[n[c] :][: falling[RANKS[shape][c] - 1]].tolist()
    assert drawn(SEED=3, PROTOCOL="usb", UL_SHAPE=shape, **tail(500, 4000, 100)).unlabeled.tolist() == want


def test_a_set_that_is_not_built_in_has_the_shapes_too():
    keys = {"NUM_LABELED_HEAD": 100, "NUM_UNLABELED_HEAD": 200, "IMB_FACTOR_L": 10, "IMB_FACTOR_UL": 5}
    given = [word for key, value in keys.items() for word in (f"DATASET.OWN.{key}", value)]
    cfg = load((), ["DATASET.NAME", "birds", "DATASET.NUM_VALID", 0, "DATASET.UL_SHAPE", "middle", *given])
    got = np.bincount(BALANCED[split(BALANCED, cfg).unlabeled]).tolist()
    assert sorted(got, reverse=True) == long_tail(200, 5, num_classes=10) and got[4] == 200


def test_a_shape_that_changes_nothing_has_no_part_in_the_id():
    same = ["DATASET.CIFAR10.IMB_FACTOR_UL", 1]
    assert Run(load((), [*same, "DATASET.UL_SHAPE", "middle"])).id == Run(load((), same)).id
    ids = {Run(load((), ["DATASET.UL_SHAPE", shape])).id for shape in RANKS}
    assert len(ids) == 3 and Run(load(())).id in ids


@pytest.mark.parametrize("name", ["stl10", "semi_aves", "small_imagenet127", "birds"])
def test_a_set_whose_unlabeled_images_are_not_drawn_has_no_shape(name):
    with pytest.raises(ConfigError, match=f"UL_SHAPE is middle, but no unlabeled images of {name} are drawn .* set it"):
        load((), ["DATASET.NAME", name, "DATASET.UL_SHAPE", "middle"])


def test_an_unknown_shape_names_the_known_ones():
    with pytest.raises(ConfigError, match="UL_SHAPE is .*pyramid.*, but must be one of long_tail, middle, head_tail"):
        load((), ["DATASET.UL_SHAPE", "pyramid"])
