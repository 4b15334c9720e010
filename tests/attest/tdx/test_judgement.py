"""Intel's judgements, put together as its own library does."""

from typing import get_args

import pytest

from palladion.attest.tdx.collateral import Status
from palladion.attest.tdx.judgement import worse
from palladion.policy.attestation import TcbStatus

# Intel's QVL, convergeTcbStatusWithQeTcbStatus: platform, part, both.
TABLE: tuple[tuple[Status, Status, Status], ...] = (
    ("UpToDate", "UpToDate", "UpToDate"),
    ("SWHardeningNeeded", "UpToDate", "SWHardeningNeeded"),
    ("OutOfDate", "UpToDate", "OutOfDate"),
    ("ConfigurationNeeded", "UpToDate", "ConfigurationNeeded"),
    ("UpToDate", "OutOfDate", "OutOfDate"),
    ("SWHardeningNeeded", "OutOfDate", "OutOfDate"),
    ("ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
    ("ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
    ("OutOfDate", "OutOfDate", "OutOfDate"),
    ("OutOfDateConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded"),
    ("Revoked", "UpToDate", "Revoked"),
    ("UpToDate", "Revoked", "Revoked"),
    ("OutOfDate", "Revoked", "Revoked"),
    ("UpToDate", "ConfigurationNeeded", "OutOfDateConfigurationNeeded"),
)


@pytest.mark.parametrize(("platform", "part", "both"), TABLE)
def test_a_part_makes_a_platform_no_better(platform: Status, part: Status, both: Status) -> None:
    assert worse(platform, part) == both


def test_nothing_makes_a_platform_up_to_date() -> None:
    statuses: tuple[Status, ...] = get_args(Status)
    better = [(a, b) for a in statuses for b in statuses if worse(a, b) == "UpToDate" and (a, b) != ("UpToDate",) * 2]

    assert better == []


def test_a_policy_can_accept_every_judgement_but_revoked() -> None:
    assert set(get_args(TcbStatus)) == set(get_args(Status)) - {"Revoked"}
