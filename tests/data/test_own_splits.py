"""The splits of a set that is not built in: as given, or with a long tail drawn from it; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from seval.config import load
from seval.data.hold_out import members_of
from seval.data.image_set import ImageSet, Part
from seval.data.own_set import notes
from seval.data.splits import split
from seval.defaults import SETS, node_of
from seval.errors import ConfigError
from tests.data.published_splits import BALANCED, config, published

NATURAL = np.random.RandomState(3).permutation(np.repeat(np.arange(4), [40, 25, 9, 4]))
BATCH = np.where(np.random.RandomState(4).rand(len(NATURAL)) < 0.2, 2, 1).astype(np.uint8)
POOL = np.ones(50, bool)


def own(*pairs: object):
    return load((), ["DATASET.NAME", "birds", "DATASET.NUM_VALID", 0, *pairs])


def drawn(labeled: int, unlabeled: int, factor: float, *pairs: object):
    keys = ("NUM_LABELED_HEAD", labeled, "NUM_UNLABELED_HEAD", unlabeled, "IMB_FACTOR_L", factor, "IMB_FACTOR_UL", 2)
    tail = [f"DATASET.OWN.{word}" if isinstance(word, str) else word for word in keys]
    return own(*tail, *pairs)


def refused(cfg, labels=NATURAL, **given) -> str:
    with pytest.raises(ConfigError) as error:
        split(labels, cfg, **given)
    assert "\n" not in str(error.value)
    return str(error.value)


def same(got, want) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(got, want, strict=True))


def test_every_set_that_is_not_built_in_has_the_node_own():
    assert {node_of(name) for name in ("birds", "own", "CIFAR10", "aves", "tiny2")} == {"OWN"}
    assert "OWN" not in {node_of(name) for name in SETS}


def test_as_given_every_image_has_the_use_that_the_file_says():
    got = split(NATURAL, own(), pool=POOL, batch=BATCH)
    assert sorted(got.labeled) == [i for i, b in enumerate(BATCH) if b == 1]
    assert sorted(got.valid) == [i for i, b in enumerate(BATCH) if b == 2]
    assert got.unlabeled.tolist() == list(range(50)) and len(got.held_out) == 0
    assert same(got, split(NATURAL, own("SEED", 5), pool=POOL, batch=BATCH)), "nothing is drawn, so no seed counts"
    plain = split(NATURAL, own())
    assert sorted(plain.labeled) == list(range(len(NATURAL))) and len(plain.unlabeled) == len(plain.valid) == 0


@pytest.mark.parametrize("seed", [0, 79])
def test_the_hold_out_is_a_seeded_shuffle_of_each_class(seed):
    got = split(NATURAL, own("DATASET.HELD_OUT", "labeled", "SEED", seed), pool=POOL, batch=BATCH)
    rng, held_out, labeled = np.random.RandomState(seed), [], []
    for c in range(4):
        order = rng.permutation([i for i in range(len(NATURAL)) if NATURAL[i] == c and BATCH[i] == 1])
        held_out += order[: len(order) // 2].tolist()
        labeled += order[len(order) // 2 :].tolist()
    assert got.held_out.tolist() == held_out and got.labeled.tolist() == labeled
    by_number = own("DATASET.HELD_OUT", "labeled", "DATASET.HELD_OUT_PER_CLASS", 2, "SEED", seed)
    got = split(NATURAL, by_number, batch=BATCH)
    assert np.bincount(NATURAL[got.held_out]).tolist() == [2, 2, 2, 2]
    assert [held_out[0], held_out[1]] == got.held_out[:2].tolist()


def test_validation_images_are_taken_off_the_labels_of_a_set_that_has_none():
    got = split(NATURAL, own("DATASET.NUM_VALID", 8, "DATASET.HELD_OUT", "valid"), pool=POOL)
    assert np.bincount(NATURAL[got.held_out]).tolist() == [2, 2, 2, 2] and len(got.valid) == 0
    assert sorted([*got.labeled, *got.held_out]) == list(range(len(NATURAL)))
    own_valid = split(NATURAL, own("DATASET.HELD_OUT", "valid"), batch=BATCH)
    assert sorted(own_valid.held_out) == np.flatnonzero(BATCH == 2).tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_drawn_tail_is_the_published_one_over_the_training_images(seed):
    labels = BALANCED[:8000]
    batch = np.where(np.arange(8000) % 5 == 0, 2, 1).astype(np.uint8)
    train = np.flatnonzero(batch == 1)
    got = split(labels, drawn(100, 200, 10, "SEED", seed), batch=batch)
    labeled, unlabeled, *_ = published(labels[train], seed, 0, 100, 200, 10, 2)
    assert [train[i] for i in labeled] == got.labeled.tolist()
    assert [train[i] for i in unlabeled] == got.unlabeled.tolist()
    assert sorted(got.valid) == np.flatnonzero(batch == 2).tolist()


@pytest.mark.parametrize("protocol", ["seval", "usb", "acr"])
def test_every_protocol_draws_from_an_own_set_as_from_cifar10(protocol):
    numbers = {"NUM_LABELED_HEAD": 100, "NUM_UNLABELED_HEAD": 200, "IMB_FACTOR_L": 10, "IMB_FACTOR_UL": 2}
    got = split(BALANCED, drawn(100, 200, 10, "DATASET.PROTOCOL", protocol))
    assert same(got, split(BALANCED, config(NUM_VALID=0, PROTOCOL=protocol, **numbers)))


def test_without_a_number_of_unlabeled_images_the_own_part_is_used_beside_a_drawn_tail():
    got = split(NATURAL, drawn(4, 0, 4), pool=POOL)
    assert np.bincount(NATURAL[got.labeled]).tolist() == [4, 2, 1, 1] and got.unlabeled.tolist() == list(range(50))
    got = split(NATURAL, drawn(2, 2, 1), pool=POOL)  # indices into the training images
    assert np.bincount(NATURAL[got.unlabeled]).tolist() == [2, 1, 1, 1]
    assert not set(got.unlabeled) & set(got.labeled)
    assert np.bincount(NATURAL[split(NATURAL, drawn(4, 0, 1)).labeled]).tolist() == [4] * 4, "also without a tail"


def test_what_cannot_be_drawn_says_what_to_do():
    assert "one class only" in refused(own(), np.zeros(9, int))
    missing = refused(own(), batch=np.where(NATURAL == 2, 2, 1))
    assert "1 classes of birds have no labeled training image (the first is class 2)" in missing
    assert "set DATASET.NUM_VALID to 0" in refused(own("DATASET.NUM_VALID", 4), batch=BATCH)
    assert "class 3 of birds has 4; lower it" in refused(own("DATASET.NUM_VALID", 16))
    assert "multiple of 4" in refused(own("DATASET.NUM_VALID", 6))
    assert "set NUM_LABELED_HEAD" in refused(own("DATASET.PROTOCOL", "usb"))
    assert "set NUM_LABELED_HEAD" in refused(own("DATASET.OWN.NUM_UNLABELED_HEAD", 5))
    assert "lower DATASET.NUM_VALID, DATASET.OWN.NUM_LABELED_HEAD" in refused(drawn(8, 8, 1))
    assert "gets no labels" in refused(drawn(4, 0, 40))
    assert "set it to labeled" in refused(own("DATASET.HELD_OUT", "valid"))
    rest = refused(own("DATASET.HELD_OUT", "labeled", "DATASET.HELD_OUT_PER_CLASS", 4))
    assert "holding out 4 labels of class 3 leaves none" in rest


def test_members_are_those_of_a_loop_and_thousands_of_classes_take_no_time():
    order = np.random.RandomState(0).permutation(len(NATURAL))[:60]
    for got, c in zip(members_of(NATURAL, order), range(4), strict=True):
        assert got.tolist() == [i for i in order if NATURAL[i] == c]
    assert [m.tolist() for m in members_of(np.array([0, 2, 0]), np.array([2]))] == [[2], [], []]
    labels = np.random.RandomState(0).permutation(np.repeat(np.arange(20_000), 5))
    got = split(labels, own("DATASET.HELD_OUT", "labeled"))
    assert (np.bincount(labels[got.held_out]) == 2).all() and len(got.labeled) == 60_000


def image_set(labels: np.ndarray, num_classes: int) -> ImageSet:
    part = Part(np.zeros((len(labels), 1, 4, 4), np.uint8), labels)
    return ImageSet("birds", part, part, tuple(f"bird {c}" for c in range(num_classes)), (0.5,), (0.5,), {})


def test_a_small_hold_out_names_its_classes_and_a_large_set_its_memory():
    got = split(NATURAL, own("DATASET.HELD_OUT", "labeled"))
    (note,) = notes(image_set(NATURAL, 4), got.held_out)
    assert "2 of 4 classes have fewer than 10 held-out images (bird 3 2, bird 2 4)" in note
    assert notes(image_set(np.repeat(np.arange(4), 10), 4), np.arange(40)) == []
    assert notes(image_set(NATURAL, 4), np.arange(0)) == []
    (few,) = notes(image_set(np.arange(30), 30), np.arange(30))
    assert "30 of 30" in few and "and 25 more" in few
    (large,) = notes(image_set(NATURAL, 20_000), np.arange(0))
    assert "20000 classes" in large and "GB of memory" in large
