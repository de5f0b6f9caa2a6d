"""Configuration files: each read once, in one dialect of YAML, and whatever is in them, refused in one short line."""

from __future__ import annotations

import os
import random
import re
import time

import pytest

from seval import config
from seval.config import delta, load
from seval.errors import ConfigError
from seval.run import Run
from tests.settings import ROOT


def refusal(path, content=None) -> str:
    """The one line that says what is wrong with a file."""
    if content is not None:
        path.write_text(content, encoding="utf-8")
    begun = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert time.monotonic() - begun < 5
    message = str(caught.value).replace(str(path.parent), "")
    assert message.isprintable() and len(message) <= 500
    return message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("SEED: 1\nSEED: 2", "line 2: 'SEED' is given twice"),
        ("SOLVER: {MAX_ITER: 4}\nSOLVER: {IMS_PER_BATCH: 16}", "line 2: 'SOLVER' is given twice"),
        ("SOLVER: {MAX_ITER: 4, MAX_ITER: 5}", "'MAX_ITER' is given twice"),
        ("SOLVER: {BASE_LR: 0.5}\nSOLVER.BASE_LR: 0.1", "SOLVER.BASE_LR is given twice"),
        ("_BASE_: a.yaml\n_BASE_: b.yaml", "'_BASE_' is given twice"),
        ("SEED: 010", "line 1: '010' has another meaning in YAML; write it in quotes, or as a decimal number"),
        ("SEED: 1:30", "'1:30' has another meaning"),
        ("SEED: 0x10", "'0x10' has another meaning"),
        ("SEED: 1_000", "'1_000' has another meaning"),
        ("MEMO: no", "'no' has another meaning in YAML; write true or false, or in quotes"),
        ("MODEL: {FROZEN: yes}", "'yes' has another meaning"),
        ("MEMO: true", "MEMO is True in /a.yaml, but must be a str; write it in quotes"),
        ("MEMO: 1.50", "MEMO is 1.5 in /a.yaml, but must be a str; write it in quotes"),
        ("MEMO:", "MEMO is None in /a.yaml, but must be a str; write it in quotes"),
        ('SEED: "010"', "SEED is '010' in /a.yaml, but must be an int in plain decimal digits"),
        ("SOLVER: &a {STEPS: *a}", "it contains itself"),
        ("PREREQUISITE: &a [SEED, *a]", "it contains itself"),
        ("SOLVER: 5", "SOLVER in /a.yaml is a group of keys"),
        ("SOLVER: {}", "SOLVER in /a.yaml is a group of keys"),
        ("DATASET: 5", "set one of DATASET.NAME, .* and [0-9]+ more"),
        ("SEED: {A: 1}", "SEED is {'A': 1}"),
        ("1: 2", "unknown key '1'"),
        ("? [a]\n: 1", "a name must be text"),
        ("SEED: !!python/name:os.system x", "tags such as"),
        ("_BASE_: [a, [b]]", "_BASE_ in /a.yaml must be a list of files"),
        ("_BASE_: {a: b}", "_BASE_ in /a.yaml must be a list of files"),
        ("[" * 5000, "nested too deeply"),
        ("_BASE_: /dev/zero", "cannot read /dev/zero: it is not a regular file"),
        ('_BASE_: "a\\0b"', "cannot read"),
        ("MEMO: \x1b[31m", "cannot read"),
        ("PREREQUISITE: [SEED, x]", "SEED is 'x' in PREREQUISITE, but must be an int"),
        ("PREREQUISITE: [SEEED, 1]", "unknown key 'SEEED' in PREREQUISITE; did you mean 'SEED'"),
    ],
)  # fmt: skip
def test_what_a_file_may_not_say(content, words, tmp_path):
    message = refusal(tmp_path / "a.yaml", content)
    assert re.search(words, message), message


def test_what_a_file_may_say(tmp_path):
    text = (
        '\ufeff# été\r\nMEMO: "010"\r\nSOLVER: {BASE_LR: 1e-3, STEPS: [1, 2], MOMENTUM: .5}\r\nDATASET.NAME: tiny\r\n'
    )
    (tmp_path / "a.yaml").write_bytes(text.encode())
    cfg = load(tmp_path / "a.yaml", ["MEMO", "été"])
    assert (cfg.MEMO, cfg.DATASET.NAME, cfg.SOLVER.BASE_LR, cfg.SOLVER.STEPS) == ("été", "tiny", 0.001, [1, 2])
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")
    assert load(tmp_path / "empty.yaml") == load((), ["METHOD.NAME", "empty"])


def test_aliases_that_multiply_are_refused(tmp_path):
    levels = "\n".join(f"  - &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9))
    assert "more than" in refusal(tmp_path / "a.yaml", f"SOLVER:\n STEPS:\n  - &l0 [x]\n{levels}\n")
    nodes = "\n".join(f" - &l{i} {{{', '.join(f'k{j}: *l{i - 1}' for j in range(9))}}}" for i in range(1, 9))
    assert "more than" in refusal(tmp_path / "b.yaml", f"SOLVER:\n - &l0 {{x: y}}\n{nodes}\n")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    assert "it is not a regular file" in refusal(tmp_path / "fifo.yaml")
    assert "cannot read" in refusal(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("MEMO: été".encode("latin-1"))
    assert "it is not text in UTF-8" in refusal(tmp_path / "latin.yaml")
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    assert "cannot read" in refusal(tmp_path / "loop.yaml")
    assert "no configuration file" in refusal(tmp_path / "no" / "a.yaml")


def test_a_name_that_is_nearly_right_is_corrected(tmp_path):
    for name in ("fixmatch", "supervised", *(f"other{i}" for i in range(20))):
        (tmp_path / f"{name}.yaml").write_text("", encoding="utf-8")
    assert "did you mean fixmatch.yaml?" in refusal(tmp_path / "fixmatch.yml")
    assert "did you mean fixmatch.yaml?" in refusal(tmp_path / "fixmach.yaml")
    assert "and 14 more" in refusal(tmp_path / "zzz.yaml")


def test_each_base_is_read_once(tmp_path, monkeypatch):
    read, counted = [], config.read_text
    monkeypatch.setattr(config, "read_text", lambda path: read.append(path.name) or counted(path))
    for level in range(24):
        (tmp_path / f"{level}.yaml").write_text(f"_BASE_: [{level + 1}.yaml, {level + 1}.yaml]\n", encoding="utf-8")
    (tmp_path / "24.yaml").write_text("SEED: 7", encoding="utf-8")
    assert load(tmp_path / "0.yaml").SEED == 7
    assert len(read) == 25


def test_a_chain_of_bases_has_an_end(tmp_path):
    for level in range(1500):
        (tmp_path / f"{level}.yaml").write_text(f"_BASE_: {level + 1}.yaml\n", encoding="utf-8")
    (tmp_path / "1500.yaml").write_text("SEED: 7", encoding="utf-8")
    assert "more than 50 _BASE_ files deep" in refusal(tmp_path / "0.yaml")
    assert load(tmp_path / "1460.yaml").SEED == 7


def test_a_base_that_is_overridden_must_still_be_right(tmp_path):
    (tmp_path / "a.yaml").write_text("SEED: one", encoding="utf-8")
    assert "SEED is 'one' in /a.yaml" in refusal(tmp_path / "b.yaml", "_BASE_: a.yaml\nSEED: 1")


TOKENS = [*"{}[]:,|>?\"'#\n\t~\0é", "- ", "&a ", "*a", "!!int ", "\n  ", "<<", "0x1", "1_0", "010", "1:30", ".inf",
          "yes", "SEED", "_BASE_", "PREREQUISITE", "SOLVER", "9" * 30]  # fmt: skip


def test_random_files_are_runs_or_one_short_line(tmp_path):
    rng, loaded = random.Random(2), 0
    texts = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "configs/methods").glob("*.yaml"))]
    for _ in range(800):
        text = rng.choice(texts)
        for _ in range(rng.randint(1, 3)):
            place = rng.randrange(len(text))
            text = text[:place] + rng.choice(TOKENS) + text[place + rng.randint(0, 4) :]
        (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
        try:
            runs = Run(load(tmp_path / "a.yaml")).chain()
        except ConfigError as error:
            message = str(error).replace(str(tmp_path), "")
            assert message.isprintable() and len(message) <= 500, text
        else:
            loaded += 1
            words = [str(word) for pair in delta(runs[-1].cfg).items() for word in pair]
            assert Run(load((), words)).id == runs[-1].id, text
    assert 50 < loaded < 750
