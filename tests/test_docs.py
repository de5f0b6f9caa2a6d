"""Links in Markdown lead somewhere, files that pages name are there, and the commands of README and docs/ work."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import main
from docs import figures
from repro import aggregate, prepare, prepare_own, report, runs, status, submit
from repro.tables.command_line import is_open
from repro.tables.selection import asked_tables, select
from seval.config import load
from seval.data.hdf5 import data_file
from seval.errors import ConfigError
from seval.policy.language import RULES
from seval.record import read_lines
from seval.run import Run
from tests.settings import ROOT, SMALL, small

MANUAL = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = sorted([*MANUAL, *ROOT.glob("*.md"), *ROOT.glob("paper_tables/*.md"), *ROOT.glob("tests/*/README.md")])
PAGES = list(dict.fromkeys(PAGES))
FOLDERS = "benchmarks configs docs examples image notebooks paper_tables repro seval slurm tests".split()
#: Stand for the reader's own.
PLACEHOLDERS = re.compile(r"mine|site\.yaml|NAME|TABLE|SET|FILE|METHOD|[<>*{}$…]")
STANDS_FOR = {"NAME": "tiny", "birds.yaml": "paper_tables/demo.yaml"}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)) | {".venv/ready"}
#: What takes the arguments of main.py, or a script and its arguments.
IMAGES = ("seval", "seval.sif", "slurm/run.sbatch")


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if re.match(r"https?:|mailto:", link):
            continue
        target = page.parent / path.replace("\\", "") if path else page
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
    return broken


def fences(page: Path, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def spans(page: Path) -> list[str]:
    """The code within lines."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S))


def missing_names(page: Path) -> list[str]:
    text = page.read_text()
    files = re.findall(r"--config-file (\S+\.yaml)", text) + re.findall(r"(?<=[\w:] )(repro/\w+\.py)", text)
    files += [span for span in spans(page) if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/\S+\.\w+", span)]
    tables = re.findall(r"--table ([\w-]+)(?=[\s`])", text)
    files += [f"paper_tables/{f'table{name}' if name.isdecimal() else name}.yaml" for name in tables]
    return [name for name in files if not PLACEHOLDERS.search(name) and not (ROOT / name).exists()]


def shell(text: str) -> Iterator[list[str]]:
    """The words of each simple command; comments are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if set(word) <= set(";&|"):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def commands(page: Path) -> list[list[str]]:
    """What a page runs of this project, each from its name on: `main.py`, `repro/NAME.py`, `make`."""
    texts = fences(page, "bash") + [span for span in spans(page) if span.startswith(("python ", "make "))]
    found = []
    for words in (words for text in texts for words in shell(text)):
        image = next((i for i, word in enumerate(words) if word in IMAGES), None)
        if words[:1] == ["make"]:
            found.append(words)
        elif words[:1] == ["python"] and re.fullmatch(r"main\.py|repro/\w+\.py|benchmarks/\w+\.py", words[1]):
            found.append(words[1:])
        elif image is not None and words[0] in ("docker", "apptainer", "sbatch") and words[image + 1 :]:
            inner = words[image + 1 :]
            found.append(inner if inner[0].startswith("repro/") else ["main.py", *inner])
    return [words for words in found if words != ["main.py", "python"]]


def try_command(words: list[str], folder: Path) -> None:
    """Run a command where that takes a second, else read its words as the command itself would."""
    name, given = words[0], [STANDS_FOR.get(word, word) for word in words[1:]]
    if name == "make":
        assert {word for word in given if "=" not in word} <= TARGETS
    elif name == "main.py":
        try_run(given, folder)
    elif name in ("repro/submit.py", "repro/status.py"):
        args = {"repro/submit.py": submit, "repro/status.py": status}[name].parse(given)
        assert is_open(args) or select(args)
    elif name == "repro/aggregate.py":
        assert aggregate.main([*given, "--output-dir", str(folder), "--out", str(folder)]) == 0
    elif name == "repro/report.py":
        assert asked_tables(report.parse(given)) if given else report.parse(given)
    elif name == "repro/runs.py":
        assert runs.parse(given).command in runs.COMMANDS
    elif given == ["--help"]:
        with pytest.raises(SystemExit, match="0"):
            prepare.main(given)
    elif name == "repro/prepare.py" and given[0] in prepare_own.FORMS:
        assert prepare_own.parser_of(given[0]).parse_args(given[1:]).name
    elif name == "repro/prepare.py":
        assert prepare._parser().parse_args(given).name
    else:
        assert (ROOT / name).exists()


def try_run(given: list[str], folder: Path) -> None:
    """A dry run where there is data, else the configuration alone."""
    if given == ["--help"]:
        with pytest.raises(SystemExit, match="0"):
            main.main(given)
    elif "--list-methods" in given:
        assert main.main(given) == 0
    else:
        args = main._parse([word for word in given if word != "--eval-only"])
        if args.run:
            return
        cfg = load(args.config_file, args.overrides)
        if data_file(cfg.DATASET.NAME, cfg.DATASET.ROOT).exists():
            dry = ["--config-file", args.config_file, *args.overrides, "OUTPUT_DIR", str(folder), "--dry-run"]
            assert main.main(dry) == 0


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example method of docs/methods.md, named as the page says: its rule, and its two files beside our own."""
    page = ROOT / "docs" / "methods.md"
    (code,) = fences(page, "python")
    namespace: dict[str, object] = {"__name__": "keep_share"}
    exec(compile(code, str(page), "exec"), namespace)
    (name, kind) = re.search(r'`"(\w+)": (\w+)` to `RULES`', page.read_text()).groups()
    monkeypatch.setitem(RULES, name, namespace[kind])
    for folder in ("methods", "tiny"):
        (tmp_path / "configs" / folder).mkdir(parents=True)
    shutil.copy(ROOT / "configs" / "tiny" / "dataset.yaml", tmp_path / "configs" / "tiny")
    for folder, content in zip(("methods", "tiny"), fences(page, "yaml"), strict=True):
        (tmp_path / "configs" / folder / "mine.yaml").write_text(content)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_names_exist(page):
    assert broken_links(page) == []
    assert missing_names(page) == []


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_every_command_runs_or_is_read_by_its_own_parser(page, example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(submit.shutil, "which", lambda name: name)  # as on a cluster, also where there is no SLURM
    for words in commands(page):
        words = [str(example / word) if word == "configs/tiny/mine.yaml" else word for word in words]
        try_command(words, tmp_path)


def test_the_manual_shows_commands():
    names = {words[0] for page in MANUAL for words in commands(page)}
    scripts = {f"repro/{name}.py" for name in ("prepare", "submit", "status", "aggregate", "runs")}
    assert names >= {"main.py", "make", *scripts}
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_example_rule_trains_as_its_page_says(example):
    """Its share of the pseudo-labels is kept, and the policy stands in the record."""
    run = Run(load(example / "configs" / "tiny" / "mine.yaml", [*SMALL, "OUTPUT_DIR", str(example / "runs")]))
    record = run.execute()
    assert record["config"]["HEADS.LINEAR.POLICY"] == "keep_share | one_hot"
    lines = read_lines(run.folder / "metrics.jsonl")
    assert len(lines) == 4 and all(0.1 <= line["policy"]["linear"]["keep_share_tau"] < 1 for line in lines)
    assert all(np.isfinite(line["loss"]["linear/unlabeled"]) for line in lines)
    assert 0.4 < lines[-1]["quality"]["kept"] < 0.6


def test_the_table_of_methods_is_what_the_files_say(capsys):
    assert main.main(["--list-methods", "--json"]) == 0
    listed = {method["name"]: method for method in json.loads(capsys.readouterr().out)}
    text = (ROOT / "docs" / "methods.md").read_text().replace("\\|", "\0")
    rows = [[cell.strip().replace("\0", "|") for cell in row.split("|")[1:-1]] for row in text.splitlines()]
    rows = {row[1].strip("`"): row for row in rows if len(row) == 6 and row[1].startswith("`")}
    assert rows.keys() == listed.keys()
    for name, method in listed.items():
        category, algorithm, policies, source = rows[name][2:]
        assert category == method["category"], name
        assert re.match(r"\w+", algorithm)[0] == method["algorithm"].partition("(")[0], name
        assert re.findall("`([^`]+)`", policies) == [policy for policy in method["policy"].values() if policy], name
        assert re.findall(r"\[([\d.]+)\]", source) == re.findall(r"arXiv ([\d.]+)", method["source"]), name


def test_the_curriculum_is_drawn_from_a_run_of_seval_and_of_no_other(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    estimate, plain = (Run(small(method, tmp_path)) for method in ("fixmatch_seval_estim", "supervised"))
    estimate.execute(), plain.execute()
    assert figures.main([str(estimate.folder), "--out", str(tmp_path / "curriculum.svg")]) == 0
    assert (tmp_path / "curriculum.svg").read_text().count("<path") > 20
    assert figures.main([str(plain.folder), "--out", str(tmp_path / "none.svg")]) == 2
    assert "no pi_smoothed, tau_smoothed" in capsys.readouterr().err and not (tmp_path / "none.svg").exists()


def test_labels_of_curves_are_spread_without_changing_their_order():
    heights = np.array([0.5, 0.0, 0.51, 0.01])
    placed = np.sort(spread := figures.spread(heights, 0.1))
    assert np.diff(placed).min() > 0.099 and placed[0] >= -1e-9
    assert np.array_equal(np.argsort(spread), np.argsort(heights))


def test_what_is_missing_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title: of sorts\n[here](page.md#a-title-of-sorts) [not](page.md#another) [nor](gone.md)\n"
        "```bash\nmake tset lint  # make believe\npython repro/gone.py --table gone\n```\n"
        "`configs/tiny/gone.yaml`, `configs/NAME/dataset.yaml`, --config-file configs/tiny/fixmatch.yaml\n"
    )
    assert broken_links(page) == ["page.md#another", "gone.md"]
    assert missing_names(page) == ["repro/gone.py", "configs/tiny/gone.yaml", "paper_tables/gone.yaml"]
    assert commands(page) == [["make", "tset", "lint"], ["repro/gone.py", "--table", "gone"]]
    with pytest.raises(AssertionError):
        try_command(["make", "tset", "lint"], tmp_path)
    with pytest.raises(ConfigError, match="SEDE"):
        try_command(["main.py", "--config-file", "configs/tiny/fixmatch.yaml", "SEDE", "1"], tmp_path)
    with pytest.raises(ConfigError, match="cluter"):
        try_command(["repro/submit.py", "--table", "demo", "--cluter", "local"], tmp_path)
