from __future__ import annotations

import pytest
import torch

from seval.config import defaults, delta, flatten, load, with_overrides
from seval.defaults import CHOICES, NOT_IDENTITY, own_node
from seval.errors import ConfigError
from seval.policy.base import Facts
from seval.policy.language import build_policy
from seval.run import Run, identity
from tests.settings import ROOT

SHIPPED = sorted(path for path in (ROOT / "configs").glob("*/*.yaml") if path.parent.name != "methods")


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_shipped_file_loads_and_names_its_data_set(file):
    assert load(file).DATASET.NAME == file.parent.name


def test_shipped_files_are_different_runs():
    ids = [Run(load(file)).id for file in SHIPPED if file.stem != "dataset"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("file", [f for f in SHIPPED if f.stem == "crest_plus"], ids=lambda path: path.parent.name)
def test_crest_plus_aligns_in_every_generation_ever_less(file):
    chain = Run(load(file)).chain()
    facts = Facts(4, torch.tensor([8.0, 4, 2, 1]), 10)
    rules = [build_policy(run.cfg.HEADS.LINEAR.POLICY, facts) for run in chain]
    prior = torch.tensor([8.0, 4, 2, 1]) / 15
    for generation, policy in enumerate(rules):
        target = prior ** (1 - 0.5 * generation / (len(rules) - 1))
        assert torch.allclose(policy[0].target, target / target.sum())
        assert type(policy[-1]).__name__ == "Crest"
    assert len(rules) == (3 if file.parent.name == "tiny" else 5)
    assert len({run.cfg.SOLVER.MAX_ITER for run in chain}) == 1


@pytest.mark.parametrize("file", [f for f in SHIPPED if f.stem == "crt"], ids=lambda path: path.parent.name)
def test_crt_stands_on_the_supervised_run_of_its_data_set(file):
    assert Run(load(file)).prerequisite().id == Run(load(file.with_name("supervised.yaml"))).id


@pytest.mark.parametrize("file", [f for f in SHIPPED if f.stem == "saw"], ids=lambda path: path.parent.name)
def test_saw_weighs_the_labels_on_every_data_set(file):
    assert load(file).HEADS.LINEAR.LABELED_LOSS.startswith("class_balanced")


def test_files_inherit_in_order_and_the_command_line_wins(tmp_path):
    (tmp_path / "a.yaml").write_text("SEED: 1\nSOLVER: {BASE_LR: 0.5, MOMENTUM: 0.5}")
    (tmp_path / "b.yaml").write_text("SOLVER: {BASE_LR: 0.25}")
    (tmp_path / "c.yaml").write_text("_BASE_: [a.yaml, b.yaml]\nSEED: 2")
    cfg = load(tmp_path / "c.yaml", ["SOLVER.MOMENTUM", "0.75"])
    assert (cfg.SEED, cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM) == (2, 0.25, 0.75)
    with pytest.raises(AttributeError):
        cfg.SEED = 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["SOLVER.BASE_LRR", 1], ["SOLVER.BASE_LRR", "did you mean 'SOLVER.BASE_LR'"]),
        (["DATASET.CIFAR10.NUM_LABELED_HAED", 500], ["did you mean 'DATASET.CIFAR10.NUM_LABELED_HEAD'"]),
        (["SEED", "seven"], ["SEED", "'seven'", "int"]),
        (["SOLVER.MAX_ITER", 1.5], ["SOLVER.MAX_ITER", "1.5", "int"]),
        (["DATASET.REVERSE_UL_DISTRIBUTION", 1], ["bool"]),
        (["SEED"], ["pairs"]),
        (["SEED", -1], ["between 0 and 2**32"]),
        (["SEED", 2**32], ["between 0 and 2**32"]),
        (["SOLVER.WARMUP_ITERS", -5], ["at least 0"]),
        (["SOLVER.BASE_LR", "1e999"], ["finite"]),
        (["SOLVER.STEPS", "['a']"], ["whole numbers"]),
        (["SOLVER", 5], ["group of keys", "SOLVER.BASE_LR"]),
        (["PREREQUISITE", "['SEED']"], ["pairs"]),
        (["HEADS.LINEAR.LABELED_LOSS", ""], ["no head"]),
        (["HEADS.LINEAR.POLICY", "threshold('a')"], ["tau is 'a'", "float"]),
        (["seed", 1], ["did you mean 'SEED'"]),
        (["DATASET.CIFAR10.IMB_FACTOR_L", 0.01], ["0.01", "at least 1"]),
        (["DATASET.CIFAR10.IMB_FACTOR_UL", "0.01"], ["REVERSE_UL_DISTRIBUTION"]),
        (["DATASET.NAME", "../cifar10"], ["'../cifar10'", "name of a prepared set", "letters"]),
        (["DATASET.NAME", "a" * 101], ["at most 100"]),
        (["DATASET.NAME", ""], ["name of a prepared set"]),
        (["MODEL.DEPTH", 27], ["6n + 4"]),
        (["SOLVER.MAX_ITER", 750], ["multiple", "500"]),
        (["PERIODS.EVAL", 0], ["positive"]),
        (["ALGORITHM.NAME", "fixmach"], ["fixmatch"]),
        (["HEADS.LINEAR.POLICY", "treshold(0.9)"], ["unknown rule 'treshold'", "did you mean 'threshold'", "one_hot"]),
        (["HEADS.LINEAR.LABELED_LOSS", "focal"], ["unknown labeled loss 'focal'", "cross_entropy"]),
        (["HEADS.LINEAR.CLASSIFIER", "cosin"], ["unknown classifier 'cosin'", "did you mean 'cosine'"]),
        (["ALGORITHM.NAME", "mixmatch(alpha='a')"], ["alpha is 'a'", "float"]),
        (["ALGORITHM.NAME", "acr"], ["acr needs 2 heads", "LINEAR", "HEADS.BALANCED"]),
        (["MODEL.FROZEN", True], ["PREREQUISITE", "backbone"]),
        (["MODEL.NUM_CLASSES", 100], ["unknown key"]),  # the data set says how many classes there are
    ],
)
def test_bad_input_says_what_to_do(overrides, words):
    with pytest.raises(ConfigError) as error:
        load((), overrides)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_bad_files_say_what_to_do(tmp_path):
    (tmp_path / "loop.yaml").write_text("_BASE_: loop.yaml")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "broken.yaml").write_text("SEED: [1")
    for name, word in (
        ("loop", "includes itself"),
        ("list", "keys and values"),
        ("broken", "cannot read"),
        ("absent", "that folder has broken.yaml"),
    ):
        with pytest.raises(ConfigError, match=word):
            load(tmp_path / f"{name}.yaml")


def test_identity_is_the_delta_without_what_cannot_matter():
    base = load()
    assert delta(base) == {}
    for key in NOT_IDENTITY:
        for leaf in (k for k in flatten(base) if k == key or k.startswith(key + ".")):
            value = flatten(base)[leaf]
            other = not value if isinstance(value, bool) else value + (1 if isinstance(value, int) else "x")
            other = CHOICES[leaf][-1] if leaf in CHOICES else other
            assert identity(load((), [leaf, other])) == identity(base), leaf
    for overrides in (
        ["SEED", 1],
        ["SOLVER.PRECISION", "bfloat16"],
        ["MEMO", "again"],
        ["DATASET.CIFAR10.IMB_FACTOR_L", 50],
    ):
        assert identity(load((), overrides)) != identity(base), overrides


def test_identity_ignores_spelling_and_other_data_sets():
    spelled = [
        identity(load((), ["HEADS.LINEAR.POLICY", text]))
        for text in ("threshold(0.95) | one_hot", "threshold(tau=0.95)|one_hot()", "threshold | one_hot")
    ]
    assert len(set(spelled)) == 1
    assert identity(load((), ["DATASET.CIFAR10.IMB_FACTOR_L", "100"])) == identity(load())
    assert identity(load((), ["DATASET.TINY.IMB_FACTOR_L", 7])) == identity(load())


def test_published_names_are_accepted_and_own_nodes_found():
    assert load((), ["DATASET.NAME", "aves"]).DATASET.NAME == "semi_aves"
    assert own_node(load((), ["DATASET.NAME", "imagenet"])).LABELED == "batch_1"
    assert load((), ["MEMO", "SGD"]).MEMO == "SGD"
    assert load((), ["DATASET.NAME", "Adam"]).DATASET.NAME == "Adam", "an own set may have any name"
    assert own_node(load((), ["DATASET.NAME", "birds-2.0_new"])).NUM_LABELED_HEAD == 0
    one, other = (load((), ["DATASET.NAME", "semi_aves", "DATASET.AVES.UL_SOURCE", source]) for source in ("in", "all"))
    assert identity(one) != identity(other)


def test_overrides_do_not_touch_the_original():
    cfg = load((), ["SEED", 5])
    assert with_overrides(cfg, ["SEED", 6]).SEED == 6 and cfg.SEED == 5 and defaults().SEED == 0


def test_the_load_phase_stands_on_the_estimate_phase():
    keys = ["DATASET.CIFAR10.NUM_LABELED_HEAD", 500, "SEED", 79]
    estimate, replay = (
        Run(load(ROOT / f"configs/cifar10/fixmatch_seval_{phase}.yaml", keys)) for phase in ("estim", "load")
    )
    assert [run.id for run in replay.chain()] == [estimate.id, replay.id]
    assert estimate.chain() == [estimate]


#: Table 10 of the paper: classes C, steps T, targets t and t_V, curriculum length L, classes a tau group B, decays.
TABLE_10 = {
    ("cifar10", ""): (10, 250_000, 0.75, 0.9, 500, 2, 0.999, 0.999),
    ("cifar100", "_n50"): (100, 250_000, 0.5, 0.65, 100, 25, 0.95, 0.95),
    ("cifar100", ""): (100, 250_000, 0.65, 0.7, 100, 10, 0.9, 0.9),
    ("stl10", "_n150"): (10, 250_000, 0.7, 0.95, 500, 2, 0.995, 0.9995),
    ("stl10", ""): (10, 250_000, 0.6, 0.85, 500, 1, 0.995, 0.999),
    ("semi_aves", ""): (200, 45_000, 0.9, None, 90, 10, 0.99, 0.99),
    ("semi_aves", "_all"): (200, 45_000, 0.99, None, 90, 10, 0.9, 0.9),
    ("small_imagenet127", ""): (127, 100_000, 0.65, None, 100, 13, 0.99, 0.99),  # not in the table: the published YAML
}


@pytest.mark.parametrize(("name", "suffix"), TABLE_10)
def test_seval_configurations_have_the_values_of_table_10(name, suffix):
    classes, steps, target, target_valid, length, size, decay_pi, decay_tau = TABLE_10[name, suffix]
    facts = Facts(classes, torch.ones(classes), 9, num_held_out=9)

    def rules(phase: str):
        cfg = load(ROOT / f"configs/{name}/fixmatch_seval{phase}{suffix}.yaml")
        return cfg, build_policy(cfg.HEADS.LINEAR.POLICY, facts)

    for phase in ("_estim", "_load"):
        cfg, (refine, threshold, _) = rules(phase)
        assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.MAX_ITER // cfg.PERIODS.EVAL) == (steps, length)
        assert (refine.curriculum.decay, threshold.curriculum.decay) == (decay_pi, decay_tau)
        assert threshold.target == target and (threshold.groups == 0).sum() == size
        assert cfg.DATASET.HELD_OUT == {"_estim": "labeled", "_load": "none"}[phase]
    if target_valid is not None:
        cfg, (_, threshold, _) = rules("")
        assert threshold.target == target_valid and cfg.DATASET.HELD_OUT == "valid"
