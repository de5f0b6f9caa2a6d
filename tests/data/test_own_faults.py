"""Everything that can be wrong with a user's folder is one line that names it."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from repro import prepare as cli
from tests.data.own import Own


def problems(own: Own, folder: Path) -> list[str]:
    """What is listed, on the screen as in the file, for a folder that must be refused; without it the rest is made."""
    error = own.fails("folder", "--raw", folder)
    listed = (own.root / "own.unreadable.txt").read_text().splitlines()
    assert error.startswith(f"{len(listed)} files cannot be used; ") and "--skip-unreadable" in error
    assert own.out.splitlines()[: len(listed)][:20] == listed[:20]
    images = own.made("folder", "--raw", folder, "--skip-unreadable")
    assert images.class_names == ("b", "a", "été 2") and f"left out {len(listed)} files" in own.out
    return listed


def test_every_file_that_cannot_be_used_is_listed(own, folder, tiny):
    sound = (folder / "train/b/005.png").read_bytes()
    (folder / "train/b/cut.png").write_bytes(sound[:100])
    (folder / "train/a/zero.JPG").touch()
    (folder / "train/a/notes.txt").write_text("what I did")
    (folder / "train/loose.png").write_bytes(sound)
    (folder / "train/b/more/deep").mkdir(parents=True)
    (folder / "train/b/more/x.png").write_bytes(sound)
    (folder / "train/linked").symlink_to(folder / "train/b")
    (folder / "train/b/inner").symlink_to(folder / "test")
    (folder / "train/a/gone.png").symlink_to(folder / "nowhere.png")
    (folder / "train/gone").symlink_to(folder / "nowhere")
    (folder / "unlabeled/linked").symlink_to(folder / "train")
    os.mkfifo(folder / "unlabeled/pipe")
    (folder / "valid/a/\x1b[1m.png").write_text("no")
    os.makedirs(os.fsencode(folder / "train") + b"/\xff\xfe")
    found = dict(line.split(": ", 1) for line in problems(own, folder))
    for name, reason in {
        "train/b/cut.png": "image file is truncated",
        "train/a/zero.JPG": "it is empty",
        "train/a/notes.txt": "it is no picture of a known format",
        "train/loose.png": "it lies in no folder of a class",
        "train/b/more": "it is a folder inside the folder of a class",
        "train/linked": "it is a link to a folder, which is not followed",
        "train/b/inner": "it is a link to a folder inside",
        "train/a/gone.png": "it is a broken link",
        "train/gone": "it is a broken link",
        "unlabeled/linked": "it is a link to a folder, which is not followed",
        "unlabeled/pipe": "it is no regular file",
        "valid/a/\\x1b[1m.png": "it is no picture",
    }.items():
        assert found.pop(name).startswith(reason), name
    assert len(found) == 1 and "is not printable text in UTF-8" in str(found)


def test_of_many_problems_the_screen_has_some_and_the_file_all(own, folder):
    for i in range(50):
        (folder / f"unlabeled/{i}.txt").touch()
    assert len(problems(own, folder)) == 50
    assert own("folder", "--raw", folder) == 0 and "there already and valid; --force" in own.out
    assert own("folder", "--raw", folder, "--force") == 2
    assert "... and 30 more" in own.out and len(own.out.splitlines()) == 21
    for i in range(50):
        (folder / f"unlabeled/{i}.txt").unlink()
    own.made("folder", "--raw", folder)
    assert not (own.root / "own.unreadable.txt").exists()


def test_what_is_accepted_without_a_word(own, folder, tiny):
    before = own.made("folder", "--raw", folder)
    for name in (".DS_Store", "Thumbs.db", "train/.hidden", "train/a/thumbs.db", "train/.git/x", "unlabeled/._1.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    (folder / "train/b/005.png").rename(folder / "elsewhere.png")
    (folder / "train/b/linked.png").symlink_to(folder / "elsewhere.png")
    (folder / "unlabeled/a/b c").mkdir(parents=True)
    next(folder.glob("unlabeled/*.png")).rename(folder / "unlabeled/a/b c/É.PnG")
    after = own.made("folder", "--raw", folder)
    assert after.sha256 == before.sha256 and "1 files directly in" in own.out and "elsewhere.png" in own.out


def test_two_spellings_of_a_class_are_one(own, folder):
    spelled = folder / "train" / unicodedata.normalize("NFD", "été 2")
    spelled.mkdir()
    moved = next(folder.glob("train/été 2/*.png"))
    before = own.made("folder", "--raw", folder).sha256
    moved.rename(spelled / moved.name)
    assert own.made("folder", "--raw", folder).sha256 == before
    assert "2 folders spell the class 'été 2' in different Unicode: one class" in own.out


def test_an_empty_class_is_a_note(own, folder):
    (folder / "train/empty").mkdir()
    assert own.made("folder", "--raw", folder).num_classes == 3
    assert "note: train/empty is empty" in own.out


def change(folder: Path, what: str) -> None:
    if what == "case":
        (folder / "train/a").rename(folder / "train/B")
    elif what == "test only":
        (folder / "test/new").mkdir()
        next(folder.glob("test/a/*.png")).rename(folder / "test/new/x.png")
    elif what == "one class":
        for name in ("train/a", "train/été 2", "test/a", "test/été 2", "valid/a"):
            (folder / name).rename(folder / f"unlabeled/{name.replace('/', '')}")
    elif what == "val":
        (folder / "valid").rename(folder / "val")
    elif what == "no train":
        (folder / "train").rename(folder / "unlabeled/train")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("case", "the classes 'B' and 'b' differ only by case; rename one of them"),
        ("test only", "1 classes have images in test, but no labeled image in train, such as 'new'"),
        ("one class", "all labels are of one class, 'b'"),
        ("val", "raw/val is none of train, valid, test, unlabeled; rename it"),
        ("no train", "raw has no folder train"),
    ],
)
def test_a_folder_that_is_no_set(own, folder, what, message):
    if what == "case":
        for part in ("test", "valid"):
            (folder / part / "a").rename(folder / part / "B")
    change(folder, what)
    assert message in own.fails("folder", "--raw", folder)


def test_few_labels_and_no_unlabeled_images_are_notes(own, folder):
    for path in list(folder.glob("train/a/*.png"))[1:]:
        path.unlink()
    for path in folder.glob("unlabeled/*"):
        path.unlink()
    own.made("folder", "--raw", folder)
    assert "1 classes have fewer than two training labels, such as 'a'" in own.out
    assert "there are no unlabeled images, so that only supervised training is possible" in own.out


@pytest.mark.parametrize(("one", "other"), [("train/b", "test/a"), ("train/b", "valid/b"), ("valid/b", "test/b")])
def test_an_image_in_two_parts_is_refused(own, folder, one, other):
    content = next(folder.glob(f"{one}/*.png")).read_bytes()
    (folder / other / "copy.png").write_bytes(content)
    parts = " and ".join(name.partition("/")[0] for name in (one, other))
    error = own.fails("folder", "--raw", folder)
    assert error.startswith(f"1 images are in {parts}, such as ") and f"{other}/copy.png" in error
    assert own.made("folder", "--raw", folder, "--allow-duplicates").attributes["preparation"]["duplicates_allowed"]
    assert f"note: 1 images are in {parts}" in own.out


def test_other_duplicates_are_notes(own, folder):
    """The same pixels, whatever the file."""
    for target in ("train/b/copy.bmp", "train/a/other.png", "unlabeled/copy.tif"):
        with Image.open(folder / "train/b/005.png") as image:
            image.save(folder / target)
    own.made("folder", "--raw", folder)
    for kind in ("twice in train", "in train and unlabeled", "with two labels"):
        assert f"note: 1 images are {kind}, such as 'train/" in own.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["folder", "--raw", "x", "--name", "cifar10"],
            "argument --name: 'cifar10' is the name of something else here",
        ),
        (["folder", "--raw", "x", "--name", "csv"], "argument --name: 'csv' is the name of something else"),
        (["folder", "--raw", "x", "--name", "a/b"], "argument --name: 'a/b' must begin with a-z and go on with a-z"),
        (["folder", "--raw", "x", "--name", "Birds"], "argument --name: 'Birds' must begin with a-z"),
        (["folder", "--raw", "x", "--name", ""], "argument --name: '' must begin with a-z"),
        (["folder", "--raw", "x"], "the following arguments are required: --name"),
        (["folder", "--name", "x"], "the following arguments are required: --raw"),
        (["csv", "--name", "x"], "the following arguments are required: FILE"),
        (["folder", "--raw", "x", "--name", "x", "--size", "7"], "argument --size: 7 must lie in 8..256"),
        (["npz", "x", "--name", "x", "--test-portion", "1"], "argument --test-portion: '1' must lie between 0 and 1"),
        (["folder", "--raw", "none", "--name", "x"], "none is no folder; --raw names that with the folders"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message, capsys, tmp_path):
    assert cli.main([*words, "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


def test_a_test_part_is_not_drawn_again(own, folder):
    assert "there are test images already" in own.fails("folder", "--raw", folder, "--test-portion", 0.2)
