"""Settings of approvals: off unless they are asked for, and within limits."""

import pytest

from palladion.approvals.request import HOURS_MAX
from palladion.approvals.roster import APPROVERS_MAX
from palladion.errors import PolicyError
from palladion.policy import ApprovalsPolicy, parse_policy


def _parse(text: str) -> ApprovalsPolicy:
    return parse_policy(f"[approvals]\n{text}\n".encode(), "palladion.toml").approvals


def test_nobody_has_to_agree_unless_it_is_asked_for() -> None:
    assert _parse("") == ApprovalsPolicy(needed=0, hours=8, break_glass=False)


def test_limits_are_those_of_requests_and_statements() -> None:
    assert _parse(f"needed = {APPROVERS_MAX}\nhours = {HOURS_MAX}").hours == HOURS_MAX
    for text in (f"needed = {APPROVERS_MAX + 1}", f"hours = {HOURS_MAX + 1}", "needed = -1", "hours = 0", "other = 1"):
        with pytest.raises(PolicyError, match="approvals"):
            _parse(text)
