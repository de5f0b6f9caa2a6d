"""Which runs a filter means, and mistakes on the command line."""

from __future__ import annotations

import pytest

from tests.listing.test_list import A, B, C, rows


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], "abc"),
        (["method=fixmatch"], "ab"),
        (["method=FixMatch", "SEED=1"], "b"),
        (["seed=1"], "bc"),
        (["SEED=0", "SEED=1"], "abc"),
        (["SEED!=1"], "a"),
        (["state=done"], "abc"),
        (["state=running"], ""),
        (["SOLVER.BASE_LR=0.1"], "c"),
        (["base_lr=1e-1"], "c"),
        (["NUM_LABELED_HEAD=500"], "b"),
        (["DATASET.TINY.NUM_LABELED_HEAD=500"], "b"),
        (["DATASET.CIFAR10.NUM_LABELED_HEAD=1500"], ""),
        (["dataset=tiny"], "abc"),
        (["DATASET.NAME=cifar10"], ""),
        (["POLICY=threshold(0.95)|one_hot"], "a"),
        (["HEADS.LINEAR.POLICY=thresh*"], "a"),
        (["method=fix*", "id=b"], "b"),
        (["code=0123", "finished=2026-11"], "c"),
        (["job=41"], "c"),
        (["HEADS.LINEAR.POLICY="], "bc"),
    ],
)
def test_filters(write, call, words, found):
    write(A, HEADS_LINEAR_POLICY="threshold(0.95) | one_hot")
    write(B, SEED=1, DATASET_TINY_NUM_LABELED_HEAD=500)
    about = {"commit": "0123", "finished": "2026-11-26T04:47:00+01:00", "job": "41"}
    write(C, SEED=1, method="mixmatch", SOLVER_BASE_LR=0.1, provenance=about)
    code, out, err = call(*words)
    assert (code, err, {id[0] for id in rows(out)}) == (0, "", set(found))
    if not found:
        assert f"none of the 3 runs in runs fits {' '.join(words)}" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["SEDE=1"], "did you mean SEED"),
        (["metod=x"], "did you mean method"),
        (["SOLVER.BASELR=1"], "SOLVER.BASE_LR"),
        (["zzzz=1"], "filters are id, method"),
        (["state=don"], "did you mean done?"),
        (["SEED=x"], "SEED is 'x' in the filter, but must be an int"),
        (["GPU_ID=0"], "GPU_ID cannot change a result"),
        (["=1"], "is no filter"),
        (["lst"], "did you mean list?"),
        (["3f9a"], "write show before its id"),
        (["csv", "3f9a"], "is no filter"),
        (["--out", "x.csv"], "--out is for curves and csv, not for list"),
        (["show", "a", "--yes"], "--yes is for rm, not for show"),
        (["show"], "show takes at least one id, not 0"),
        (["diff", "a"], "diff takes two ids, not 1"),
        (["--output-dir", "rnus"], "there is no folder rnus"),
    ],
)
def test_mistakes_are_one_line(write, call, words, said):
    write(A)
    code, out, err = call(*words)
    assert (code, out) == (2, "") and said in err and err.startswith("error: ") and err.count("\n") == 1
