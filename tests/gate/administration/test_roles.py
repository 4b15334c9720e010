"""The table of roles, compared cell by cell with the one that people were promised."""

import itertools

import pytest

from palladion.gate.administration.roles import ACTIONS, DECIDERS, PERMITTED, ROLES, ForbiddenError, require

# Written down a second time on purpose: who edits the table has to say it twice.
TABLE = """
                  viewer analyst approver admin auditor
status.read       x      x       x        x     x
clients.read      x      x       x        x     x
incidents.read    x      x       x        x     x
proposals.read    x      x       x        x     x
operators.read    .      .       .        x     x
ledger.read       .      .       .        .     x
incident.work     .      x       x        x     .
incident.close    .      .       x        x     .
standing.propose  .      x       x        x     .
standing.restore  .      .       x        x     .
proposal.decide   .      .       x        x     .
key.revoke        .      .       .        x     .
client.revoke     .      .       .        x     .
operator.change   .      .       .        x     .
policy.reload     .      .       .        x     .
"""
_HEADER, *_ROWS = (line.split() for line in TABLE.strip().splitlines())
EXPECTED = {(role, row[0]): cell == "x" for row in _ROWS for role, cell in zip(_HEADER, row[1:], strict=True)}


def test_the_table_names_every_role_and_every_action() -> None:
    assert set(EXPECTED) == set(itertools.product(ROLES, ACTIONS))
    assert set(PERMITTED) == set(ROLES)


@pytest.mark.parametrize(("role", "action"), list(EXPECTED))
def test_a_role_may_do_what_the_table_says_and_nothing_else(role: str, action: str) -> None:
    if EXPECTED[role, action]:
        require(role, action)
    else:
        with pytest.raises(ForbiddenError, match=f"this operator is {role}, and {action} is not for that role"):
            require(role, action)


@pytest.mark.parametrize(("role", "action"), [("root", "status.read"), ("", "status.read"), ("admin", "shell")])
def test_what_is_not_in_the_table_is_refused(role: str, action: str) -> None:
    with pytest.raises(ForbiddenError):
        require(role, action)


def test_an_auditor_changes_nothing() -> None:
    assert all(action.endswith(".read") for action in PERMITTED["auditor"])


def test_who_may_decide_is_told() -> None:
    assert sorted(DECIDERS) == ["admin", "approver"]
    with pytest.raises(ForbiddenError) as caught:
        require("analyst", "proposal.decide")
    assert caught.value.hints == ("approver or admin may",)
