"""An exported network is used without this package, and gives the probabilities that --predict gives."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seval.card import card
from seval.data import augment
from seval.data.pictures import pixels
from seval.export import resize
from seval.inference import load_network
from seval.run import Run
from tests.command_line import run as call
from tests.settings import small

pytestmark = pytest.mark.usefixtures("in_root")

#: What a stranger runs: reads model.pt2 and images, writes probabilities; `import seval` must fail.
STRANGER = """
import json, sys
sys.modules["seval"] = None
import numpy as np, torch
from PIL import Image
extra = {"about.json": "", "model.md": ""}
model = torch.export.load(sys.argv[1], extra_files=extra).module()
about = json.loads(extra["about.json"])
found = {}
for path in sys.argv[2:]:
    image = torch.from_numpy(np.array(Image.open(path).convert(about["input"]["mode"])))
    found[path] = dict(zip(about["class_names"], model(image[None, None])[0].tolist()))
together = torch.cat([torch.from_numpy(np.array(Image.open(path)))[None, None] for path in sys.argv[2:4]])
print(json.dumps({"about": about, "card": extra["model.md"], "found": found, "both": model(together).tolist()}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    run = Run(small("fixmatch_seval", tmp_path_factory.mktemp("export"), "SOLVER.MAX_ITER", 6))
    run.execute()
    return run


def test_a_stranger_gets_the_probabilities_of_predict(run, tmp_path, capsys, monkeypatch):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    shapes = [(16, 16), (16, 16), (40, 40), (9, 50)]  # as stored, and of sizes that are resized
    for path, shape in zip(paths, shapes, strict=True):
        Image.fromarray(np.random.RandomState(len(path.name)).randint(0, 256, shape, np.uint8)).save(path)
    words = ["--run", run.folder, "DATASET.ROOT", run.cfg.DATASET.ROOT, "RUNTIME.PROGRESS", "off", "--offset", "seval"]
    model, table = tmp_path / "model.pt2", tmp_path / "table.csv"
    code, out, err = call(capsys, *words, "--export", model, "--predict", *paths, "--out", table, "--top", 10)
    assert code == 0, err
    assert f"{model}, described in {tmp_path / 'model.md'}" in out
    command = [sys.executable, "-c", STRANGER, str(model), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    answer, names = json.loads(done.stdout), run.image_set.class_names
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            own = answer["found"][row["path"]]
            pairs = [(row[f"label{k}"], row[f"probability{k}"]) for k in ("", *(f"_{k}" for k in range(2, 11)))]
            assert max(abs(own[name] - float(share)) for name, share in pairs) < 1e-6
    singly = [[answer["found"][str(path)][name] for name in names] for path in paths[:2]]
    assert np.allclose(answer["both"], singly, rtol=0, atol=1e-6)
    about = answer["about"]
    assert about["class_names"] == list(names) and about["run"] == run.id and about["offset"] == "seval"
    assert about["data"]["license"] == run.image_set.attributes["license"] and "commit" in about
    assert about["input"]["shape"] == ["N", 1, "H", "W"] and about["input"]["resized_to"] == [16, 16]
    assert answer["card"] == (tmp_path / "model.md").read_text() and not list(tmp_path.glob(".*"))


def test_the_card_has_the_numbers_of_the_record(run):
    done = run.record() or {}
    text = card(done, load_network(run), "seval", "m.pt2")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    for offset, metrics in done["results"]["test"]["ema"].items():
        numbers = ["—" if v is None else f"{100 * v:.2f}" for v in metrics["balanced_accuracy"].values()]
        assert [f"`{offset}`", "balanced_accuracy", *numbers] in cells
    for i, name in enumerate(run.image_set.class_names):
        recalls = [f"{100 * done['per_class'][offset]['recall'][i]:.2f}" for offset in done["per_class"]]
        assert [name, str(done["splits"]["labeled"]["class_counts"][i]), *recalls] in cells
    for part in (run.id, run.fingerprint, str(run.image_set.attributes["license"]), "To be written by whoever"):
        assert part in text
    assert (
        "all classes are equally frequent where the network is used" in text and "labeled images: 240, 6 to 60" in text
    )


@pytest.mark.parametrize("shape", [(16, 16), (40, 40), (9, 50), (5, 7), (1, 1), (31, 100)])
def test_images_are_resized_as_for_a_data_set(shape):
    images = torch.randint(0, 256, (3, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = [pixels(Image.fromarray(image.permute(1, 2, 0).numpy()), (16, 16), 3) for image in images]
    assert np.array_equal(resize(images, 16, 16), np.stack(expected))
    assert torch.equal(resize(images, 23, 23), augment.resize(images, 23))


def test_pillow_may_round_in_another_order_where_images_are_tall():
    """Newer versions shrink very tall images vertically first; a gray level is rounded another way then."""
    images = torch.randint(0, 256, (3, 3, 97, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = np.stack([pixels(Image.fromarray(image.permute(1, 2, 0).numpy()), (16, 16), 3) for image in images])
    assert np.abs(resize(images, 16, 16).numpy().astype(int) - expected).max() <= 1


def test_an_export_that_fails_leaves_what_was_there(run, tmp_path, capsys, monkeypatch):
    model: Path = tmp_path / "model.pt2"
    model.write_bytes(b"old")
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: None)
    monkeypatch.setattr(torch.export, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
    words = ["--run", run.folder, "DATASET.ROOT", run.cfg.DATASET.ROOT, "--export", model]
    code, _, err = call(capsys, *words)
    assert code == 2 and "No space left" in err and err.count("\n") == 1
    assert model.read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
