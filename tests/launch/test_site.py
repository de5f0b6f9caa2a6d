"""Facts about a site: each mistake is named, an empty value is the default, and the shipped files can be read."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from repro.launch import site as sites
from repro.launch.site import Resources, Site
from seval.errors import ConfigError
from tests.launch.conftest import Lab
from tests.settings import ROOT


def read_site(folder: Path, text: str) -> Site:
    path = folder / "site.yaml"
    path.write_text(text)
    return Site.read(path)


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "partitions: gpu",
            "unknown key in FILE: 'partitions'; did you mean 'partition'\\? Valid: partition, account, qos",
        ),
        ("1: gpu", "unknown key in FILE: '1'"),
        ("- a", "FILE must be a mapping"),
        ("just text", "FILE must be a mapping"),
        ("a: [", "cannot read FILE"),
        ("\t- x: {", "cannot read FILE"),
        ("partition: 5", "partition in FILE must be of type str, such as '', but is 5"),
        ("qos: yes", "cannot read FILE, line 1: 'yes' has another meaning.*in quotes"),
        ("qos: true", "qos in FILE must be of type str"),
        ("modules: module load cuda", "modules in FILE must be of type list"),
        ("modules: [1]", "modules in FILE must be .*text"),
        ("modules: [{a: b}]", "modules in FILE must be .*text"),
        ("sbatch: [x]", "sbatch in FILE must be of type dict"),
        ("sbatch: {job-name: mine}", "sbatch in FILE .*job-name"),
        ("sbatch: {c: 3}", "sbatch in FILE must not set c:.*long names"),
        ("signal_seconds: 600\nresources: {tiny: {minutes: 10}}", "signal_seconds in FILE is 600.* 10 minutes"),
        ("sbatch: {array: 0-3}", "sbatch in FILE .*array"),
        ("sbatch: {cpus_per_task: 8}", "sbatch in FILE must not set cpus_per_task"),
        ("sbatch: {dependency: singleton}", "sbatch in FILE .*dependency"),
        ("probe: 1", "probe in FILE must be of type bool"),
        ("requeue: 'no'", "requeue in FILE must be of type bool"),
        ("tries: 0", "tries in FILE must be more than 0"),
        ("tries: true", "tries in FILE must be of type int"),
        ("patience: -1", "patience in FILE must be more than 0"),
        ("patience: 2.5", "patience in FILE must be of type int"),
        ("array_parallelism: 0", "array_parallelism in FILE must be more than 0"),
        ("signal_seconds: 0", "signal_seconds in FILE must be more than 0"),
        ("resources: 3", "resources in FILE must be of type dict"),
        (
            "resources: {cifar: {}}",
            "unknown data set in resources of FILE: 'cifar'; did you mean 'cifar10'.*Valid: default,",
        ),
        ("resources: {cifar10: 5}", "resources of cifar10 in FILE must be a mapping"),
        (
            "resources: {cifar10: {minute: 5}}",
            "unknown key in resources of cifar10 in FILE: 'minute'.*Valid: minutes, mem",
        ),
        ("resources: {cifar10: {minutes: 5.5}}", "minutes in resources of cifar10 in FILE must be of type int"),
        ("resources: {cifar10: {minutes: '5'}}", "minutes in resources of cifar10 in FILE must be of type int"),
        ('partition: "a\\nb"', "partition in FILE must be one line of text"),
        ("sbatch: {clust: c1}", "sbatch in FILE must not set clust .*short for cluster"),
        ("sbatch: {comment: [a, {}]}", "comment of sbatch in FILE must be text"),
        ("sbatch: {mem-per-cpu: 4G}", "sbatch in FILE must not set mem-per-cpu.*memory_gb: 0"),
        (
            "sbatch: {mem-per-cpu: 4G}\nresources: {default: {memory_gb: 0}, tiny: {memory_gb: 1}}",
            "sbatch in FILE must not set mem-per-cpu",
        ),
        ("resources: {tiny: {memory_gb: 1.0e+308}}", "memory_gb in resources of tiny in FILE must be .* less than"),
        ("resources: {cifar10: {cpus: 0}}", "cpus in resources of cifar10 in FILE must be more than 0"),
        ("resources: {default: {memory_gb: -2}}", "memory_gb in resources of default in FILE must be more than 0"),
        ("resources: {default: {memory_gb: .nan}}", "cannot read FILE.*'.nan'"),
        ("resources: {default: {memory_gb: .inf}}", "cannot read FILE.*'.inf'"),
        ("resources: {default: {runs_per_gpu: 0}}", "runs_per_gpu in resources of default in FILE must be more than 0"),
        ("resources: {default: {steps_per_second: true}}", "steps_per_second .* must be of type float"),
    ],
)
def test_a_wrong_fact_is_named_with_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("FILE", re.escape(str(tmp_path / "site.yaml")))):
        read_site(tmp_path, text)


def test_a_site_that_cannot_be_read_is_an_input_error(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        Site.read(tmp_path)
    for file in ("none.yaml", "."):
        assert lab.submit("--site", file, code=2).count("\n") == 1
    (tmp_path / "site.yaml").write_bytes(b"\xff\xfe")
    assert lab.submit(code=2).count("\n") == 1


def test_empty_facts_are_the_defaults_and_data_sets_fill_in(tmp_path: Path) -> None:
    assert read_site(tmp_path, "") == Site() == read_site(tmp_path, "partition:\nresources:\nsbatch:\nmodules:\ntries:")
    assert read_site(tmp_path, "gres:").gres == "" and Site().gres
    site = read_site(tmp_path, "resources: {default: {minutes: 7, cpus: 2}, tiny: {cpus: 1}, cifar10: }")
    assert (site.of("tiny").minutes, site.of("tiny").cpus) == (7, 1)
    assert site.of("cifar10") == site.of("stl10") == Resources(minutes=7, cpus=2)
    assert site.asks_for_memory
    site = read_site(tmp_path, "sbatch: {mem-per-gpu: 4G}\nresources: {default: {memory_gb: 0}, tiny: {cpus: 3}}")
    assert read_site(tmp_path, "sbatch: {begin: 2026-12-01T00:00:00}").options()["begin"] == "2026-12-01T00:00:00"
    assert not site.asks_for_memory and site.options() == {"gres": "gpu:1", "mem-per-gpu": "4G"}


def test_shipped_facts_are_the_defaults_and_each_style_parses(tmp_path: Path) -> None:
    path = ROOT / "slurm" / "cluster.yaml"
    shipped = Site.read(path)
    assert dataclasses.replace(shipped, resources={}) == Site()
    assert set(shipped.resources) <= set(sites.DATA_SETS)
    assert set(yaml.safe_load(path.read_text())) == {each.name for each in dataclasses.fields(Site)}
    styles: list[list[str]] = []
    for line in path.read_text().partition("Examples of sites:")[2].splitlines():
        if line.startswith("#   "):
            styles[-1].append(line.removeprefix("#   "))
        elif len(line) > 1:
            styles.append([])
    assert len(styles) == 4 and all(styles)
    for style in styles:
        site = read_site(tmp_path, "\n".join(style))
        assert site.gres and site != Site() and site.of("tiny").minutes > 0


def test_the_file_of_a_site_is_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "ROOT", tmp_path)
    monkeypatch.setenv("SEVAL_SITE", "of/environment.yaml")
    assert sites.find_site("given.yaml") == Path("given.yaml")
    assert sites.find_site(None) == Path("of/environment.yaml")
    monkeypatch.delenv("SEVAL_SITE")
    assert sites.find_site(None) == tmp_path / "slurm" / "cluster.yaml"
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "site.yaml").touch()
    assert sites.find_site(None) == tmp_path / "slurm" / "site.yaml"


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="no git checkout")
def test_a_site_of_ones_own_does_not_change_the_checkout() -> None:
    assert subprocess.run(["git", "-C", ROOT, "check-ignore", "-q", "slurm/site.yaml"]).returncode == 0
    assert subprocess.run(["git", "-C", ROOT, "check-ignore", "-q", "slurm/cluster.yaml"]).returncode == 1
