"""Batches of encoded images equal those of images in memory, in training and in evaluation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seval import build, evaluate, train
from seval.data import augment, splits
from seval.data.augment import Geometry
from seval.data.decode import Decoder
from seval.data.image_set import Part
from seval.data.loader import HeldImages, LazyImages, Loader, Sampler, class_weights, sent
from seval.errors import ConfigError
from tests.settings import small
from tests.standins import ENCODED_SIDE as SIDE
from tests.standins import slowly

CROP = 32

CPU = torch.device("cpu")

FEW = [
    "DATASET.NUM_VALID", 20, "DATASET.NUM_TEST", 4, "DATASET.TINY.NUM_LABELED_HEAD", 12,
    "DATASET.TINY.NUM_UNLABELED_HEAD", 16, "DATASET.DECODED_SIZE", SIDE, "DATASET.CROP", CROP,
]  # fmt: skip


def lazy(part: Part, index: np.ndarray, decoder: Decoder) -> LazyImages:
    labels = torch.from_numpy(part.labels[index])
    return LazyImages(labels=labels, source=part.images, index=index, decoder=decoder)


def loader(encoded, decoder: Decoder | None, seed: int = 0, balanced: bool = False) -> Loader:
    """Of 100 labeled and 150 unlabeled images; without a decoder from memory."""
    source, labels = encoded.train[:2]
    splits = []
    for index in (np.arange(0, 300, 3), np.arange(1, 300, 2)):
        if decoder:
            splits.append(lazy(encoded.train, index, decoder))
        else:
            pixels = torch.from_numpy(slowly(source, index))
            splits.append(HeldImages(torch.from_numpy(labels[index]), pixels))
    return Loader(
        labeled=splits[0],
        unlabeled=splits[1],
        labeled_views=("weak",),
        views=("weak", "strong"),
        batch=8,
        ratio=3,
        geometry=Geometry(crop=CROP),
        mean=torch.tensor(encoded.mean),
        std=torch.tensor(encoded.std),
        seed=seed,
        balanced=balanced,
    )


def same(one, other) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(
            (*one.labeled, one.labels, *one.views, one.index),
            (*other.labeled, other.labels, *other.views, other.index),
            strict=True,
        )
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streamed_batches_equal_those_from_memory(workers, encoded, decoders):
    memory, streamed = loader(encoded, None), loader(encoded, decoders[workers])
    for _ in range(20):  # more than an epoch of either
        batch = next(streamed)
        assert batch.images.shape == (8, 3, CROP, CROP) and batch.views[1].shape == (24, 3, CROP, CROP)
        assert same(batch, next(memory))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_is_that_of_the_batches_consumed(workers, encoded, decoders):
    memory, streamed, resumed = (loader(encoded, d) for d in (None, decoders[workers], decoders[workers]))
    for _ in range(7):
        next(memory), next(streamed)
    state = streamed.state_dict()
    for name, stream in memory.state_dict()["streams"].items():
        assert all(torch.equal(stream[key], state["streams"][name][key]) for key in stream)
    rest = [next(streamed) for _ in range(8)]
    next(resumed), next(resumed)  # what was read ahead must be forgotten
    for each in (resumed, streamed):
        each.load_state_dict(state)
        assert all(same(next(each), batch) for batch in rest)


def test_balanced_batches_are_drawn_when_they_are_asked_for_and_disturb_no_others(encoded, decoders):
    plain, memory = loader(encoded, None), loader(encoded, None, balanced=True)
    streamed, resumed = (loader(encoded, decoders[0], balanced=True) for _ in range(2))
    state, drawn = streamed.state_dict(), []
    for i in range(8):
        one, two, three = next(plain), next(memory), next(streamed)
        assert same(one, two) and same(one, three)
        if i == 4:
            state = streamed.state_dict()
        if i % 2:
            drawn.append((two.balanced(), three.balanced()))
            assert all(map(torch.equal, *drawn[-1])) and drawn[-1][0][0].shape == (8, 3, CROP, CROP)
    resumed.load_state_dict(state)
    batch = next(resumed)
    assert all(map(torch.equal, batch.balanced(), drawn[2][0]))
    with pytest.raises(RuntimeError, match="no class-balanced images"):
        one.balanced()


@pytest.mark.parametrize("workers", [0, 2])
def test_selected_images_follow_the_labeled_ones(workers, encoded, decoders):
    part = encoded.train
    labeled, unlabeled = np.arange(0, 300, 3), np.arange(1, 300, 2)
    selected, guessed = np.array([140, 3, 77]), np.array([9, 0, 4])
    images = [lazy(part, index, decoders[workers]) for index in (labeled, unlabeled)]
    joined = build.with_selected(*images, {"selected": selected, "selected_labels": guessed})
    assert len(joined.index) == 103 and joined.labels.tolist() == [*part.labels[labeled], 9, 0, 4]
    batches = [torch.tensor([100, 5, 101]), torch.tensor([102, 99])]
    wanted = [unlabeled[140], labeled[5], unlabeled[3], unlabeled[77], labeled[99]]
    positions, pixels = zip(*joined.batches(batches), strict=True)
    assert all(map(torch.equal, positions, batches))
    assert np.array_equal(np.concatenate(pixels), slowly(part.images, wanted))


def test_what_a_gpu_is_sent_comes_from_pinned_memory_and_nothing_waits_for_it(monkeypatch):
    calls, positions = [], torch.arange(3)
    assert sent(positions, CPU) is positions
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: calls.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device, **keys: calls.append((device.type, keys)) or tensor)
    assert sent(positions, torch.device("cuda", 0)) is positions
    assert calls == ["pinned", ("cuda", {"non_blocking": True})]


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_views_are_the_central_crops_in_order(workers, encoded, decoders):
    source, index = encoded.test.images, np.arange(49, 0, -2)
    images = lazy(encoded.test, index, decoders[workers])
    expected = torch.from_numpy(slowly(source, index))[..., 2:-2, 2:-2]
    for resolution in (0, 16):
        parts = list(images.evaluated(Geometry(crop=CROP, resolution=resolution), 10).in_order(10))
        assert [len(part) for part in parts] == [10, 10, 5]
        assert torch.equal(torch.cat(parts), augment.resize(expected, resolution))


def prepared(encoded, folder: Path, *overrides: object) -> build.Training:
    cfg = small("fixmatch_seval", folder, *FEW, *overrides)
    torch.set_num_threads(1)
    return build.build(cfg, encoded, splits.split(encoded.train.labels, cfg), {}, CPU)


def test_a_run_on_an_encoded_set_is_the_same_with_any_workers_and_after_a_resume(encoded, tmp_path, monkeypatch):
    def history(workers: int, stop=train.never) -> list[dict]:
        (folder := tmp_path / str(workers)).mkdir(exist_ok=True)
        training = prepared(encoded, tmp_path, "RUNTIME.WORKERS", workers)
        lines = train.train(training, folder, {"configuration": "", "data": ""}, stop=stop)
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]

    expected, real = history(0), train.update
    assert [line["step"] for line in expected] == [3, 6, 9, 12] and expected[-1]["quality"]
    polls = iter(range(13))
    with pytest.raises(train.Interrupted):
        history(2, lambda: next(polls) == 5)

    def interrupted(training, step):
        if step == 8:
            raise KeyboardInterrupt
        return real(training, step)

    monkeypatch.setattr(train, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        history(2)
    monkeypatch.undo()
    assert history(2) == expected


def test_predictions_equal_those_from_memory(encoded, tmp_path):
    training = prepared(encoded, tmp_path, "RUNTIME.WORKERS", 0)
    images = training.data["test"]
    memory = HeldImages(images.labels, torch.from_numpy(slowly(images.source, images.index))[..., 2:-2, 2:-2])
    logits = [evaluate.predict(training.net, i, training.mean, training.std, 16)["linear"] for i in (images, memory)]
    assert logits[0].shape == (40, 10) and torch.equal(*logits)


def test_images_in_memory_are_evaluated_at_the_resolution_and_augmented_at_their_own(tiny, tmp_path):
    cfg = small("fixmatch", tmp_path, "DATASET.RESOLUTION", 8, "DATASET.CROP", 14)
    training = build.build(cfg, tiny, splits.split(tiny.train.labels, cfg), {}, CPU)
    chosen = np.concatenate([np.flatnonzero(tiny.test.labels == c)[:10] for c in range(10)])
    stored = torch.from_numpy(tiny.test.images[chosen])
    assert torch.equal(training.data["test"].pixels, augment.resize(stored[..., 1:-1, 1:-1], 8))
    assert {images.pixels.shape[2:] for images in training.data.values()} == {(8, 8)}
    state = training.loader.state_dict()["views"]["unlabeled views"]
    batch, generator = next(training.loader), torch.Generator()
    generator.set_state(state)
    stored = training.loader.feeds["unlabeled"].images.pixels[batch.index]
    for name, view in zip(training.loader.views, batch.views, strict=True):
        geometry = Geometry(padding=cfg.DATASET.PADDING, cutout=cfg.DATASET.CUTOUT, crop=14)
        pixels = geometry.view(name, stored, generator)
        expected = augment.resize(pixels, 8)
        assert torch.equal(view, augment.normalize(expected, training.mean, training.std))


@pytest.mark.parametrize("method", ["fixmatch", "usadtm", "acr", "remixmatch"])
def test_only_remixmatch_augments_what_was_resized(method, tiny, tmp_path):
    cfg = small(method, tmp_path, "DATASET.RESOLUTION", 8)
    training = build.build(cfg, tiny, splits.split(tiny.train.labels, cfg), {}, CPU)
    assert training.loader.geometry == replace(Geometry.of(cfg.DATASET), resized_first=method == "remixmatch")
    assert {view.shape[2:] for view in next(training.loader).views} == {(8, 8)}


@pytest.mark.parametrize("kind", ["in memory", "encoded"])
def test_a_crop_larger_than_the_images_is_refused(kind, tiny, encoded, tmp_path):
    image_set, side = (tiny, 16) if kind == "in memory" else (encoded, SIDE)
    cfg = small("fixmatch", tmp_path, *FEW, "DATASET.CROP", SIDE + 1)
    with pytest.raises(ConfigError, match=f"DATASET.CROP is {SIDE + 1}, but the images have {side} pixels"):
        build.build(cfg, image_set, splits.split(image_set.train.labels, cfg), {}, CPU)


def test_class_weights_make_every_class_equally_likely():
    counts, g = (64, 7, 16, 0, 1, 3), torch.Generator().manual_seed(0)
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    labels = labels[torch.randperm(len(labels), generator=g)]
    weights, draws = class_weights(labels), 64 * 400
    sampler = Sampler(size=len(labels), batch=64, generator=g, weights=weights)
    times = torch.bincount(torch.cat([next(sampler) for _ in range(400)]), minlength=len(labels))
    for c, n in enumerate(counts):
        assert math.isclose(float(weights[labels == c].sum()), n > 0, abs_tol=1e-12)
        for chance, seen in ((0.2 * (n > 0), times[labels == c].sum()), *((0.2 / n, t) for t in times[labels == c])):
            assert abs(float(seen) - chance * draws) <= 5 * math.sqrt(draws * chance * (1 - chance))


@pytest.mark.parametrize("beta, head, tail", [(1.0, 0.1, 0.1), (0.999, 0.159, 0.083), (0.0, 1500 / 3720, 15 / 3720)])
def test_the_class_aware_sampler_can_be_the_published_one_between_images_alike_and_classes_alike(beta, head, tail):
    labels = torch.arange(10).repeat_interleave(torch.tensor(splits.long_tail(1500, 100, num_classes=10)))
    weights = class_weights(labels, beta)
    share = torch.bincount(labels, weights) / weights.sum()
    assert share[0].item() == pytest.approx(head, abs=5e-4) and share[9].item() == pytest.approx(tail, abs=5e-4)
    assert share.sum().item() == pytest.approx(1)


def test_a_run_draws_with_the_configured_beta(tiny, tmp_path):
    for given, beta in (([], 1.0), (["DATASET.SAMPLER_BETA", 0.999], 0.999)):
        cfg = small("supervised", tmp_path, "DATASET.SAMPLER_NAME", "ClassAwareSampler", *given)
        training = build.build(cfg, tiny, splits.split(tiny.train.labels, cfg), {}, CPU)
        expected = class_weights(training.loader.labels, beta)
        assert torch.equal(training.loader.feeds["labeled"].sampler.weights, expected)
