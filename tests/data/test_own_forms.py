"""Folders, lists and arrays of the same images are the same set, and what that set is."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from seval.data.decode import decode
from seval.data.image_set import fingerprint_0_1, statistics
from seval.data.pictures import as_jpeg
from tests.data.own import Picture, pictures, save, write_csv, write_folder, write_npz


def digest(array: np.ndarray) -> str:
    rgb = np.asarray(Image.fromarray(array).convert("RGB"))
    return hashlib.sha256(json.dumps(list(rgb.shape[:2])).encode() + rgb.tobytes()).hexdigest()


@pytest.mark.parametrize("options", [(), ("--size", 12)], ids=["as they are", "resized"])
@pytest.mark.parametrize("color", [False, True], ids=["gray", "color"])
def test_the_three_forms_give_the_same_arrays(own, tmp_path, tiny, color, options):
    given = pictures(tiny, color)
    write_folder(tmp_path / "folder", given)
    write_csv(tmp_path / "list/list.csv", given)
    write_npz(tmp_path / "arrays.npz", given)
    forms = [
        ("folder", "--raw", tmp_path / "folder"),
        ("csv", tmp_path / "list/list.csv"),
        ("npz", tmp_path / "arrays.npz"),
    ]
    sets = [own.made(*form, *options) for form in forms]
    assert len({fingerprint_0_1(images) for images in sets}) == 1
    assert len({(images.class_names, images.mean, images.std) for images in sets}) == 1
    sources = [images.attributes["source"] for images in sets]
    assert sources == ["folder folder", "csv list.csv", "npz arrays.npz"]
    assert len({json.dumps(images.attributes["sources_sha256"]) for images in sets}) == 1


def test_encoded_sets_are_the_same_too(own, tmp_path, tiny):
    given = [picture._replace(array=np.kron(picture.array, np.ones((7, 7), np.uint8))) for picture in pictures(tiny)]
    write_folder(tmp_path / "folder", given)
    write_npz(tmp_path / "arrays.npz", given)
    one, other = own.made("folder", "--raw", tmp_path / "folder"), own.made("npz", tmp_path / "arrays.npz")
    assert fingerprint_0_1(one) == fingerprint_0_1(other) and one.train.offsets is not None
    assert one.attributes["preparation"]["encoded_again"] == len(given)


def test_what_the_set_is(own, tmp_path, tiny):
    """Against a loop over the pictures: classes by falling frequency, images by content, validation in batch 2."""
    given = pictures(tiny, color=True)
    write_folder(tmp_path / "folder", given)
    images = own.made("folder", "--raw", tmp_path / "folder", "--license", "CC0")
    assert images.name == "own" and images.class_names == ("b", "a", "été 2")  # 9, 5 and 5 labels
    ordered = sorted(given, key=lambda picture: digest(picture.array))
    for name, splits in (("train", ("train", "valid")), ("test", ("test",)), ("unlabeled", ("unlabeled",))):
        inside, part = [picture for picture in ordered if picture.split in splits], images.parts[name]
        assert (part.pixels == np.stack([picture.array.transpose(2, 0, 1) for picture in inside])).all()
        labels = [images.class_names.index(picture.label) if picture.label else -1 for picture in inside]
        assert part.labels.tolist() == labels
        if name == "train":
            assert part.batch.tolist() == [2 if picture.split == "valid" else 1 for picture in inside]
        else:
            assert part.batch is None
    measured = np.stack([picture.array for picture in given if picture.split in ("train", "unlabeled")])
    mean, std = statistics(measured.transpose(0, 3, 1, 2))
    assert np.allclose(images.mean, mean, atol=1e-12) and np.allclose(images.std, std, atol=1e-12)
    about = images.attributes
    assert about["license"] == "CC0" and about["official"] is None and str(tmp_path) not in json.dumps(dict(about))
    lines = "\n".join(sorted(digest(picture.array) for picture in given))
    assert about["sources_sha256"] == {f"{len(given)} images": hashlib.sha256(lines.encode()).hexdigest()}
    assert about["preparation"] == {
        "stored": "arrays of 16 x 16",
        "resized": 0,
        "encoded_again": 0,
        "duplicates_allowed": False,
    }
    assert "b" in own.out and "prepare.py own --root" in own.out and "--show own.png" in own.out
    counts = [line.split() for line in own.out.splitlines() if line.split()[:1] in (["0"], ["1"], ["2"])]
    assert counts == [["0", "b", "9", "2", "2"], ["1", "a", "5", "2", "1"], ["2", "été", "2", "5", "2", "0"]]


def test_images_of_several_sizes_are_jpeg_and_each_counts_alike(own, tmp_path):
    random, bands, folder = np.random.default_rng(0), {}, tmp_path / "folder"
    for part, label in [("train", "a"), ("train", "b"), ("test", "a"), ("unlabeled", "")] * 3:
        array = random.integers(256, size=(*random.integers(20, 120, 2), 3), dtype=np.uint8)
        name = f"{part}/{label}/{len(bands)}" if label else f"{part}/{len(bands)}"
        save(folder / f"{name}.{'jpg' if len(bands) % 2 else 'png'}", array)
        bands[name] = array
    images = own.made("folder", "--raw", folder)
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*.*")}
    stored = {images.parts[name].images.read(i) for name in images.parts for i in range(len(images.parts[name].labels))}
    assert stored == {as_jpeg(path.read_bytes()) for path in files.values()}
    assert images.attributes["preparation"]["encoded_again"] == 6
    decoded = [np.asarray(Image.open(path).convert("RGB")) / 255 for name, path in files.items() if name[:4] != "test"]
    mean = np.mean([image.mean((0, 1)) for image in decoded], axis=0)
    std = np.sqrt(np.mean([(image**2).mean((0, 1)) for image in decoded], axis=0) - mean**2)
    assert np.allclose(images.mean, mean) and np.allclose(images.std, std)
    assert all(decode(content, 16).shape == (3, 16, 16) for content in stored)


def test_gray_and_color_together_are_color(own, tmp_path, tiny):
    given = pictures(tiny)
    given[3] = given[3]._replace(array=np.dstack([given[3].array] * 3))
    write_folder(tmp_path / "folder", given)
    images = own.made("folder", "--raw", tmp_path / "folder")
    assert images.train.pixels.shape[1:] == (3, 16, 16) and len(images.mean) == 3


def test_a_constant_channel_has_a_standard_deviation(own, tmp_path):
    for i, (part, label) in enumerate([("train", "a"), ("train", "b"), ("test", "a")]):
        save(tmp_path / "folder" / part / label / "x.png", np.full((8, 8), i, np.uint8))
    assert own.made("folder", "--raw", tmp_path / "folder").std[0] == pytest.approx(1 / 255)


def test_sides_other_than_squares_stay(own, tmp_path, tiny):
    given = [picture._replace(array=picture.array[:, :9]) for picture in pictures(tiny)]
    write_folder(tmp_path / "folder", given)
    assert own.made("folder", "--raw", tmp_path / "folder").train.pixels.shape[1:] == (1, 16, 9)


def test_test_images_are_drawn_per_class(own, tmp_path, tiny):
    given = [picture for picture in pictures(tiny) if picture.split != "test"]
    given += [Picture("train", "one", tiny.test.pixels[0, 0])]
    write_folder(tmp_path / "folder", given)
    assert "no test images" in own.fails("folder", "--raw", tmp_path / "folder")
    assert "--test-portion 0.2" in own.err
    images = own.made("folder", "--raw", tmp_path / "folder", "--test-portion", 0.4)
    assert images.attributes["preparation"] | {"test_portion": 0.4, "test_seed": 0} == images.attributes["preparation"]
    trained = images.train.labels[images.train.batch == 1]
    assert np.bincount(images.test.labels, minlength=4).tolist() == [4, 2, 2, 0]  # b, a, été 2, one
    assert np.bincount(trained, minlength=4).tolist() == [5, 3, 3, 1]
    write_csv(tmp_path / "list/list.csv", given)
    again = own.made("csv", tmp_path / "list/list.csv", "--test-portion", 0.4)
    assert fingerprint_0_1(again) == fingerprint_0_1(images)
    assert own.made("folder", "--raw", tmp_path / "folder", "--test-portion", 0.99).train.labels.tolist().count(1) >= 1


def test_a_drawn_test_set_shares_no_image_with_training(own, tmp_path, tiny):
    """Copies move together, and an image of two classes stays."""
    given = [picture for picture in pictures(tiny) if picture.split == "train"]
    given += [given[6], given[6]._replace(label="a"), given[7], given[7]]
    write_folder(tmp_path / "folder", given)
    for portion in (0.1, 0.5, 0.9):
        images = own.made("folder", "--raw", tmp_path / "folder", "--test-portion", portion)
        both = [{image.tobytes() for image in part.pixels} for part in (images.train, images.test)]
        assert not both[0] & both[1] and len(images.train.labels) + len(images.test.labels) == len(given)
        assert set(images.train.labels) == {0, 1, 2} and given[6].array.tobytes() in both[0]


@pytest.mark.parametrize("count", [1200, pytest.param(20_000, marks=pytest.mark.slow)])
def test_many_classes_stay_bounded(own, tmp_path, count):
    images = np.zeros((count, 8, 8), np.uint8)
    images[:, 0, :3] = np.stack([np.arange(count) >> 8, np.arange(count) & 255, np.ones(count)], 1)
    np.savez(
        tmp_path / "many.npz",
        train_images=images,
        train_labels=np.arange(count),
        test_images=255 - images[:5],
        test_labels=np.arange(5),
    )
    made = own.made("npz", tmp_path / "many.npz")
    assert made.num_classes == count and made.class_names == tuple(sorted(map(str, range(count))))  # ties by name
    assert len(own.out) < 4000 and f"{count} classes" in own.out and "fewer than two" in own.out and "more" in own.out
