"""What a site may add to sbatch's options, how it is written, and when a job may get a GPU."""

from __future__ import annotations

import pytest

from repro.launch.options import MEMORY, OWN, asks_for_gpu, options
from repro.launch.site import Site
from seval.errors import ConfigError
from tests.launch.conftest import ONE, Lab, table

#: Of sbatch 22.05 and later; what is in neither list is for the site.
FREE = """account acctg-freq batch bb bbf begin burst-buffer cluster-constraint comment constraint contiguous core-spec
    cores-per-socket cpu-freq deadline delay-boot distribution exclude exclusive extra-node-info gpu-bind gpu-freq gpus
    gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint ignore-pbs input licenses mail-type mail-user
    mcs-label mem-bind mincpus network nice no-kill nodefile nodelist overcommit oversubscribe partition power prefer
    priority profile propagate qos reboot reservation sockets-per-node spread-job switches thread-spec threads-per-core
    tmp tres-bind tres-per-task use-min-nodes verbose wait-all-nodes wckey""".split()


@pytest.mark.parametrize("name", [*OWN, *MEMORY])
def test_no_option_of_the_launcher_can_be_set_under_any_spelling(name: str) -> None:
    for length in range(1, len(name) + 1):
        for key in {name[:length], name[:length].replace("-", "_")} - set(FREE):
            with pytest.raises(ConfigError, match=f"sbatch in site.yaml must not set {key}"):
                options({key: "x"}, "site.yaml", memory=True)


def test_all_other_options_are_the_sites() -> None:
    given = dict.fromkeys([*FREE, "job_nodes", "clusters-of-a-later-slurm"], "x")
    assert options(given, "site.yaml", memory=True) == {name.replace("_", "-"): "x" for name in given}


@pytest.mark.parametrize(
    "key", ["comment=x --array", "a", "-array", "--array", "Array", "ar\nray", "array ", "", 3, None, True, 1.5]
)
def test_a_name_that_is_none_is_refused(key: object) -> None:
    with pytest.raises(ConfigError, match="must not set"):
        options({key: "0-3"}, "site.yaml", memory=True)


def test_memory_is_the_sites_where_the_launcher_asks_for_none() -> None:
    for name in (*MEMORY, "mem-per-c"):
        assert options({name: "4G"}, "site.yaml", memory=False) == {name: "4G"}
    with pytest.raises(ConfigError, match="memory_gb: 0"):
        options({"mem-per-cpu": "4G"}, "site.yaml", memory=True)


@pytest.mark.parametrize(
    "value, written",
    [
        (0, "0"),
        (0.5, "0.5"),
        (-3, "-3"),
        ("", ""),
        ("a b", "a b"),
        (["FAIL", "END"], "FAIL,END"),
        ([1, 0], "1,0"),
        ("2026-12-01T00:00:00", "2026-12-01T00:00:00"),
        (True, True),
    ],
)
def test_a_value_is_written_as_it_was_given(value: object, written: str | bool) -> None:
    assert options({"mail_type": value}, "site.yaml", memory=True) == {"mail-type": written}


def test_false_and_nothing_are_no_option() -> None:
    assert options({"reboot": False, "comment": None}, "site.yaml", memory=True) == {}


@pytest.mark.parametrize("value", [{"a": 1}, [], [["a"]], [True], "a\n#SBATCH --array=0-9", "a\x00", ["a\nb"], b"a"])
def test_a_value_that_sbatch_cannot_be_told_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="comment of sbatch in site.yaml must be "):
        options({"comment": value}, "site.yaml", memory=True)


def test_an_option_in_two_spellings_is_refused() -> None:
    with pytest.raises(ConfigError, match="sets mail-type twice"):
        options({"mail-type": "FAIL", "mail_type": "END"}, "site.yaml", memory=True)


@pytest.mark.parametrize(
    "facts, gpu",
    [
        ({}, True),
        ({"gres": ""}, False),
        ({"gres": "none"}, False),
        ({"gres": "gpu:0"}, False),
        ({"gres": "gpu:a100:0"}, False),
        ({"gres": "gpu:10"}, True),
        ({"gres": "shard:4"}, True),
        ({"gres": "lscratch:0,gpu:a100"}, True),
        ({"sbatch": {"gres": "none"}}, False),
        ({"sbatch": {"gpus": 0}}, True),
        ({"gres": "", "sbatch": {"gpus": 0}}, False),
        ({"gres": "", "sbatch": {"gpus": 1}}, True),
        ({"gres": "", "sbatch": {"gpus": "a100:1"}}, True),
        ({"gres": "", "sbatch": {"gpus_per_node": 1}}, True),
        ({"gres": "", "sbatch": {"gpus-per-task": "1"}}, True),
        ({"gres": "", "sbatch": {"gpus-per-socket": 1}}, True),
        ({"gres": "", "sbatch": {"gpus-per-n": 1}}, True),
        ({"gres": "", "sbatch": {"gres": ["gpu:1", "tmp:2"]}}, True),
        ({"gres": "", "sbatch": {"tres-per-task": "cpu=2"}}, False),
        ({"gres": "", "sbatch": {"tres-per-task": "gres/gpu:1"}}, True),
        ({"gres": "", "sbatch": {"tres-per-task": "cpu=2,gres/gpu=1"}}, True),
        ({"gres": "", "sbatch": {"exclusive": True}}, True),
        ({"gres": "", "sbatch": {"exclude": "n1", "nice": 3}}, False),
    ],
)
def test_a_job_that_may_get_a_gpu_asks_for_it(facts: dict, gpu: bool) -> None:
    site = Site(**facts)
    assert site.gpu == asks_for_gpu(site.options()) == gpu


@pytest.mark.parametrize("gpu", [True, False])
def test_the_worker_is_told_of_the_gpu_unless_the_run_is_for_the_cpu(lab: Lab, gpu: bool) -> None:
    rows = {"Plain": {"config": "plain"}, "Slow": {"config": "plain", "set": ["GPU_ID", -1, "SOLVER.MAX_ITER", 1000]}}
    lab.table(table(ONE, rows=rows))
    lab.site(gres="", sbatch={"gpus-per-node": 1} if gpu else {})
    lab.submit()
    told = {
        made.labels[id].partition(",")[0]: words[words.index("GPU_ID") + 1]
        for made in lab.ledgers()
        for id, words in made.settings.items()
    }
    assert told == {"Plain": 0 if gpu else -1, "Slow": -1}
    assert lab.fake.options("101").get("gpus-per-node") == ("1" if gpu else None)
