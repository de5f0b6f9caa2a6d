"""The table of an own set: the rule of thumb, the file that it becomes, and that every command reads it."""

from __future__ import annotations

from itertools import product

import pytest
import yaml

from repro import aggregate, prepare, status, submit
from repro.tables.own import POLICY, Facts, facts, rule_of_thumb, write_table
from repro.tables.table import CONFIGS, Table
from seval.config import load
from seval.data.hdf5 import read
from seval.errors import ConfigError, DataError
from seval.policy.language import canonical
from seval.policy.seval import neighbors
from tests.own_sets import write_own


def values(of: Facts) -> dict[str, object]:
    return {key: value for key, (value, _) in rule_of_thumb(of).items()}


def laid_over(of: Facts):
    """The configuration of SEVAL's first phase under the rule."""
    pairs = [word for pair in values(of).items() for word in pair]
    return load(CONFIGS / "own" / "fixmatch_seval_estim.yaml", ["DATASET.NAME", "birds", *pairs])


SIDES, IMAGES, CLASSES = (
    (0, 4, 16, 32, 100),
    (10, 300, 7_000, 99_999, 10**7),
    (2, 3, 4, 10, 21, 127, 1000),
)


@pytest.mark.parametrize("gpu", [True, False])
def test_every_set_gets_settings_that_hold_together(gpu):
    for side, images, classes in product(SIDES, IMAGES, CLASSES):
        cfg = laid_over(Facts(side, images, classes, gpu))  # which checks them
        assert cfg.SOLVER.MAX_ITER == cfg.PERIODS.EVAL * (100 if gpu else 20)
        assert (18_000 if gpu else 900) < cfg.SOLVER.MAX_ITER <= (250_000 if gpu else 10_000)
        used = side or cfg.DATASET.DECODED_SIZE
        assert cfg.DATASET.PADDING < used and cfg.DATASET.CUTOUT <= (cfg.DATASET.CROP or used)
        assert (cfg.DATASET.RESOLUTION or cfg.DATASET.CROP or used) <= (224 if not side and gpu else 64 if gpu else 32)


def test_groups_cover_all_classes_and_are_at_most_twenty():
    assert "groups" not in values(Facts(32, 1000, 3, True))[POLICY]
    assert values(Facts(32, 1000, 10, True))[POLICY].count("groups=5") == 1
    assert values(Facts(32, 1000, 200, True))[POLICY].count("groups=20") == 2
    for classes in range(2, 700):
        shared = -(-classes // 20)
        assert len(set(neighbors(classes, -(-classes // shared)))) <= 20  # which also checks that the groups are equal


def test_the_configurations_are_the_rule_for_small_images_on_a_gpu():
    rule = values(Facts(32, 8_000, 10, True))
    cfg = load(CONFIGS / "own" / "fixmatch_seval_estim.yaml")
    assert f"({rule.pop(POLICY).partition('(')[2][:10]})" == f"({cfg.HEADS.LINEAR.POLICY.partition('(')[2][:10]})"
    for key, value in rule.items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node == value, key


def test_the_facts_of_pixels_and_of_jpeg_files(tmp_path):
    plain = read(write_own(tmp_path))
    encoded = read(write_own(tmp_path, "photos", encoded=True), in_blocks=True)
    assert facts(plain, False) == Facts(16, 42 + 40, 3, False)
    assert facts(encoded, True) == Facts(0, 42 + 40, 3, True)


def test_the_written_table_is_read_by_every_command(tmp_path, capsys):
    write_own(tmp_path)
    file = tmp_path / "birds.yaml"
    given = ["birds", "--root", str(tmp_path), "--table", str(file), "--device", "cpu"]
    assert prepare.main(given) == 0 and prepare.main(given) == 2  # it is not written over
    said = write_table("birds", tmp_path, file, gpu=False, force=True)
    assert "6 rows and 3 seeds" in said[0] and "2 of 3 classes have fewer than 10" in said[1]
    table = Table.read(file)
    assert list(table.rows) == [
        "Supervised",
        "Supervised + LA",
        "FixMatch",
        "FixMatch + post-hoc LA",
        "SEVAL-PL",
        "SEVAL",
    ]
    assert "# Note: 2 of 3 classes" in file.read_text() and yaml.safe_load(file.read_text())["title"] == "birds"
    runs = {cell.row: cell.runs[0] for cell in table.cells()}
    assert runs["SEVAL"].id == runs["SEVAL-PL"].id and runs["FixMatch"].id == runs["FixMatch + post-hoc LA"].id
    seval, rule = runs["SEVAL"].cfg, values(Facts(16, 82, 3, False))
    assert seval.HEADS.LINEAR.POLICY == canonical(rule[POLICY]) and seval.SOLVER.MAX_ITER == rule["SOLVER.MAX_ITER"]
    assert len(runs["SEVAL"].chain()) == 2 and runs["SEVAL"].chain()[0].splits.held_out.size
    given = ["--table", str(file), "--output-dir", str(tmp_path / "runs")]
    assert submit.main([*given, "--dry-run", "--cluster", "local"]) == 0
    assert status.main(given) == 0
    assert aggregate.main([*given, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "birds.md").exists()


def test_what_cannot_be_written_says_why(tmp_path):
    write_own(tmp_path, "labeled", unlabeled=0)
    file = tmp_path / "t.yaml"
    said = write_table("labeled", tmp_path, file, gpu=True)
    assert "2 rows" in said[0] and "no unlabeled images" in said[-1]
    assert list(Table.read(file).rows) == ["Supervised", "Supervised + LA"]
    before = file.read_text()
    with pytest.raises(ConfigError, match="--force"):
        write_table("labeled", tmp_path, file, gpu=False)
    assert file.read_text() == before
    write_table("labeled", tmp_path, file, gpu=False, force=True)
    assert file.read_text() != before
    with pytest.raises(ConfigError, match="configs/tiny"):
        write_table("tiny", None, tmp_path / "tiny.yaml", gpu=False)
    with pytest.raises(ConfigError, match=".yaml"):
        write_table("labeled", tmp_path, tmp_path / "t.yml", gpu=False)
    with pytest.raises(DataError, match="did you mean labeled"):
        write_table("label", tmp_path, tmp_path / "other.yaml", gpu=False)
