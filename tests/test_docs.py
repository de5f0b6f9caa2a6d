"""Links in Markdown lead somewhere, and the files, tables and targets that its commands name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.settings import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("paper_tables/*.md"), *ROOT.glob("tests/curricula/*.md")])
FOLDERS = ("benchmarks", "configs", "image", "paper_tables", "repro", "seval", "slurm", "tests")
#: Stand for the reader's own.
PLACEHOLDERS = re.compile(r"mine|NAME|TABLE|SET|FILE|METHOD|[<>*{}$…]")


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


def missing_names(page: Path) -> list[str]:
    text = page.read_text()
    fences = "\n".join(re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S))
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    files = re.findall(r"--config-file (\S+\.yaml)", text) + re.findall(r"(?<=[\w:] )(repro/\w+\.py)", text)
    files += [span for span in spans if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/\S+\.\w+", span)]
    tables = re.findall(r"--table ([\w-]+)(?=[\s`])", text)
    files += [f"paper_tables/{f'table{name}' if name.isdecimal() else name}.yaml" for name in tables]
    wrong = [name for name in files if not PLACEHOLDERS.search(name) and not (ROOT / name).exists()]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    made = re.findall(r"^make ((?:[a-z-]+\b ?)+)", re.sub(r" #.*", "", "\n".join([fences, *spans])), re.M)
    return wrong + [f"make {name}" for words in made for name in words.split() if name not in targets]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_names_exist(page):
    assert broken_links(page) == []
    assert missing_names(page) == []


def test_what_is_missing_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title: of sorts\n[here](page.md#a-title-of-sorts) [not](page.md#another) [nor](gone.md)\n"
        "```bash\nmake tset lint  # make believe\npython repro/gone.py --table gone\n```\n"
        "`configs/tiny/gone.yaml`, `configs/NAME/dataset.yaml`, --config-file configs/tiny/fixmatch.yaml\n"
    )
    assert broken_links(page) == ["page.md#another", "gone.md"]
    gone = ["repro/gone.py", "configs/tiny/gone.yaml", "paper_tables/gone.yaml", "make tset"]
    assert missing_names(page) == gone
