"""Every campaign finds what is promised; `TORTURE=all` (make torture) tries whole plans, otherwise a sample of each."""

from __future__ import annotations

import pytest

from tests.torture import damage, disks, fuzz, fuzz_raw, holders, launching, preparing, training
from tests.torture.table import page

CAMPAIGNS = [
    campaign
    for theme in (training, preparing, launching, disks, damage, holders, fuzz, fuzz_raw)
    for campaign in theme.CAMPAIGNS
]
pytestmark = [pytest.mark.torture, pytest.mark.slow]


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: f"{campaign.__module__[14:]}-{campaign.__name__}")
def test_as_promised(campaign, lab, report):
    row = campaign(lab)
    report(row)
    assert row.tried
    if row.unknown():
        pytest.fail("\n".join([page([row]), *row.unknown()]), pytrace=False)
