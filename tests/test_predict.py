"""Image files are classified exactly as an evaluation classifies the images that were prepared from them."""

from __future__ import annotations

import csv
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from seval.data import hdf5
from seval.data.blocks import Blocks
from seval.data.image_set import ImageSet, Part
from seval.inference import load_network
from seval.predict import Files, ranked
from seval.run import Run
from tests.command_line import run as call
from tests.settings import small
from tests.standins import TINY, write_jpegs

pytestmark = pytest.mark.usefixtures("in_root")
FEW = ["SOLVER.MAX_ITER", 6, "SOLVER.EVAL_BATCH", 32]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Run, Path]:
    """A run of SEVAL, and a folder of its test images: c/i.png, of class c, among hidden and other files."""
    folder = tmp_path_factory.mktemp("predict")
    run = Run(small("fixmatch_seval", folder / "runs", *FEW))
    run.execute()
    test = run.image_set.test
    for c in range(10):
        (folder / "images" / str(c)).mkdir(parents=True)
        for i in np.flatnonzero(test.labels == c)[:10]:
            Image.fromarray(test.pixels[i, 0]).save(folder / "images" / str(c) / f"{i}.PNG")
    (folder / "images" / ".hidden.png").write_bytes(b"not looked at")
    (folder / "images" / "note.txt").write_text("no image")
    return run, folder / "images"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_run(run: Run) -> list[object]:
    return ["--run", run.folder, "DATASET.ROOT", run.cfg.DATASET.ROOT, "RUNTIME.PROGRESS", "off"]


@pytest.mark.parametrize("offset", ["none", "logit_adjusted", "seval", "seval_smoothed"])
def test_predictions_on_the_test_images_have_the_accuracy_of_the_record(offset, trained, tmp_path, capsys):
    run, images = trained
    out = tmp_path / "table.csv"
    code, said, err = call(capsys, *of_run(run), "--predict", images, "--offset", offset, "--out", out)
    assert code == 0 and err == "" and f"100 images: {out} (run {run.id}, offset {offset})" in said
    table, names = rows(out), run.image_set.class_names
    right = [row["label"] == names[int(Path(row["path"]).parent.name)] for row in table]
    assert np.mean(right) == (run.record() or {})["results"]["test"]["ema"][offset]["top1"]["last"]
    assert [row["path"] for row in table] == sorted(str(path) for path in images.glob("*/*.PNG"))


def test_each_row_says_what_the_network_says(trained, tmp_path, capsys):
    run, images = trained
    out = tmp_path / "table.csv"
    assert call(capsys, *of_run(run), "--predict", images / "3", images / "1", "--top", 3, "--out", out)[0] == 0
    table, classifier = rows(out), load_network(run)
    pixels = [np.asarray(Image.open(row["path"]))[None] for row in table]
    probs = (classifier(torch.from_numpy(np.stack(pixels))) - classifier.offsets["seval"]).softmax(1).numpy()
    assert list(table[0]) == "path label probability margin label_2 probability_2 label_3 probability_3".split()
    for row, own in zip(table, probs, strict=True):
        best = np.argsort(-own, kind="stable")[:3]
        assert [row["label"], row["label_2"], row["label_3"]] == [classifier.class_names[c] for c in best]
        found = [float(row[key]) for key in ("probability", "probability_2", "probability_3", "margin")]
        assert np.allclose(found, [*own[best], own[best[0]] - own[best[1]]], rtol=0, atol=1e-7)
    assert {Path(row["path"]).parent.name for row in table[:10]} == {"3"}  # in the order in which they were named


def test_encoded_images_are_decoded_as_for_an_evaluation(tmp_path, capsys):
    source, parts = hdf5.read(TINY), {}
    for name, part, count in (("train", source.train, 170), ("test", source.test, 10)):
        index = np.concatenate([np.flatnonzero(part.labels == c)[:count] for c in range(10)])
        write_jpegs(tmp_path / name, part.pixels[index])
        content = [np.fromfile(tmp_path / name / f"{i}.jpg", np.uint8) for i in range(len(index))]
        joined, offsets = np.concatenate(content), np.cumsum([0, *map(len, content)])
        parts[name] = Part(Blocks(joined.shape, partial(iter, [joined]), offsets), part.labels[index])
    encoded = source._replace(**parts, mean=source.mean * 3, std=source.std * 3)
    (tmp_path / "data").mkdir()
    hdf5.write(tmp_path / "data" / "tiny.h5", encoded)
    views = ["DATASET.DECODED_SIZE", 20, "DATASET.CROP", 16, "DATASET.ROOT", str(tmp_path / "data")]
    run = Run(small("supervised", tmp_path / "runs", *views, *FEW))
    done, out = run.execute(), tmp_path / "table.csv"
    assert call(capsys, *of_run(run), "--predict", tmp_path / "test", "--out", out)[0] == 0
    right = [source.class_names.index(row["label"]) == int(Path(row["path"]).stem) // 10 for row in rows(out)]
    assert len(right) == 100 and np.mean(right) == done["results"]["test"]["ema"]["none"]["top1"]["last"]
    assert load_network(run).stored == (3, 20, 20, True)


def test_bad_images_are_reported_at_the_end_and_do_not_stop_it(trained, tmp_path, capsys):
    run, images = trained
    whole = next(images.glob("0/*.PNG")).read_bytes()
    for i in range(25):
        (tmp_path / f"bad{i:02}.png").write_bytes([b"", b"no image", whole[:60], whole[: len(whole) // 2]][i % 4])
    (tmp_path / "good é.png").write_bytes(whole)
    out = tmp_path / "table.csv"
    code, said, err = call(capsys, *of_run(run), "--predict", tmp_path, "--out", out, "--json")
    about = json.loads(said)
    assert code == 0 and [Path(row["path"]).name for row in rows(out)] == ["good é.png"]
    assert about["images"] == 1 and about["bad"] == 25 and len(about["reasons"]) == 20
    assert sum(about["classes"].values()) == 1 and list(about["classes"]) == list(run.image_set.class_names)
    assert err.startswith("warning: 25 files could not be read") and "bad01.png: it is no picture" in err
    assert err.endswith("and 5 more\n")
    (tmp_path / "good é.png").unlink()
    before = out.read_bytes()
    code, _, err = call(capsys, *of_run(run), "--predict", tmp_path, "--out", out)
    assert code == 2 and "none of the 25 files can be read as an image; " in err and out.read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_a_list_names_files_of_any_name_and_may_name_missing_ones(trained, tmp_path):
    _, images = trained
    odd = os.fsdecode(b"\xff space.txt")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + os.fsencode(f"{images}/1\r\n\n{odd}\nmissing.png\n"))
    found = list(Files([f"@{tmp_path}/list.txt"]))
    assert found == [*sorted((images / "1").iterdir()), Path(odd), Path("missing.png")]
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "link.jpg").symlink_to(found[0])
    assert list(Files([str(tmp_path)])) == [tmp_path / "link.jpg"]


def test_the_likeliest_class_is_that_of_an_evaluation_also_where_probabilities_are_equal():
    logits = torch.tensor([[0.0, 40.0, 40.00001, -1e30], [1.0, 1.0, 0.0, 1.0]])
    probs, order = ranked(logits)
    assert order[:, 0].tolist() == logits.argmax(1).tolist() and order[1].tolist() == [0, 1, 3, 2]
    assert (probs.sort(dim=1, descending=True).values == probs).all()


def test_class_names_are_written_as_they_are(trained, tmp_path, capsys):
    run, images = trained
    names = ("=1+1", "+ü", "-", "@x", 'a "b", c', *run.image_set.class_names[5:])
    source: ImageSet = hdf5.read(TINY)
    hdf5.write(tmp_path / "tiny.h5", source._replace(class_names=names))
    other = Run(small("supervised", tmp_path / "runs", *FEW, "DATASET.ROOT", str(tmp_path)))
    other.execute()
    out = tmp_path / "table.csv"
    assert call(capsys, *of_run(other), "--predict", images / "0", "--top", 10, "--out", out)[0] == 0
    for row in rows(out):
        assert {row["label"], *(row[f"label_{k}"] for k in range(2, 11))} == set(names)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--predict", "missing"], "no file or folder missing"),
        (["--predict", "{tmp}"], "no images in {tmp}: it has no files"),
        (["--predict", "docs"], "has the name of an image"),
        (["--predict", "@configs/tiny/none.txt"], "cannot read configs/tiny/none.txt"),
        (["--predict", "{images}", "--out", "missing/x.csv"], "there is no folder missing; create it first"),
        (["--predict", "{images}", "--out", "{tmp}"], "it is a folder"),
        (["--predict", "{images}", "--out", "/dev/full"], "not a regular file"),
        (["--predict", "{images}", "--offset", "la"], "no offset 'la'; it has none, logit_adjusted, seval"),
        (["--predict", "{images}", "--top", "11"], "--top is '11', but must be a whole number from 1 to 10"),
        (["--predict", "{images}", "--top", "0"], "from 1 to 10"),
        (["--predict", "{images}", "SEED", "1"], "'SEED' after --predict is a key"),
        (["--predict", "{images}", "seed=1"], "'seed=1' after --predict is a key"),
        (["SEED", "1", "--predict", "{images}"], "with these settings it would be run"),
        (["--export", "model.pth"], "must end in .pt2"),
        (["--export", "missing/model.pt2"], "there is no folder missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_before_work_begins(words, said, trained, tmp_path, capsys, monkeypatch):
    run, images = trained
    places = {"tmp": tmp_path, "images": images}
    code, out, err = call(capsys, *of_run(run), *(word.format(**places) for word in words))
    assert code == 2 and out == "" and said.format(**places) in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    ["--run 3f9a --config-file x.yaml", "--run 3f9a --top 3", "SEED 1 --offset none", "--predict x --again SEED 1"],
)
def test_options_that_contradict_each_other(words, capsys):
    with pytest.raises(SystemExit) as done:
        main.main(words.split())
    assert done.value.code == 2 and capsys.readouterr().err.startswith("error: --")
