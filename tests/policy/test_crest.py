"""CReST's selection, against a slow loop and its laws."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from torch import Tensor

from seval.policy.base import Policy
from tests.policy.four_classes import COUNTS, ORDER, C, build, probs


def crest(text: str = "crest", counts: Tensor = COUNTS, predicted: Tensor | None = None) -> Policy:
    policy = build(text, counts)
    policy.refresh(None, lambda: probs(n=200) if predicted is None else predicted, 1.0)
    return policy


def picked(policy: Policy) -> dict[int, int]:
    return dict(zip(*(policy.artifact()[key].tolist() for key in ("selected", "selected_labels")), strict=True))


@pytest.mark.parametrize("power", [1 / 3, 1.0, 0.0])
def test_crest_equals_a_slow_loop(power):
    table, counts, expected = probs(n=200).numpy(), COUNTS.tolist(), {}
    ranking = sorted(range(C), key=lambda c: -counts[c])
    for rank, c in enumerate(ranking):
        members = sorted((i for i in range(200) if np.argmax(table[i]) == c), key=lambda i: -max(table[i]))
        rate = (counts[ranking[C - 1 - rank]] / counts[ranking[0]]) ** power
        expected |= {i: c for i in members[: int(np.floor(rate * len(members)))]}
        assert rank < C - 1 or all(i in expected for i in members)  # of the rarest class all
    assert picked(crest(f"crest({power})")) == expected


def test_crest_selects_everything_where_the_counts_are_uniform():
    assert picked(crest(counts=torch.full((C,), 5.0))) == dict(enumerate(probs(n=200).argmax(1).tolist()))


def test_crest_takes_a_share_that_is_a_whole_number():
    predicted = torch.linspace(0.6, 0.9, 90)  # all as class 0, of which 0.7 * 90, less than 63 in floating point
    policy = crest("crest(1.0)", torch.tensor([10.0, 7.0]), torch.stack([predicted, 1 - predicted], 1))
    assert len(picked(policy)) == 63


def test_crest_commutes_with_relabeling_the_classes():
    permuted = picked(crest(counts=COUNTS[ORDER], predicted=probs(n=200)[:, ORDER]))
    assert picked(crest()) == {i: int(ORDER[c]) for i, c in permuted.items()}


def test_crest_selects_nothing_before_the_end_and_its_selection_survives_saving():
    fresh, buffer = build("crest"), io.BytesIO()
    fresh.refresh(None, probs, 0.99)
    assert not picked(fresh)
    torch.save(crest().state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert picked(fresh) == picked(crest()) and len(picked(fresh)) > 0
