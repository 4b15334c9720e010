"""What each role of operators may do: one table. Pure.

Whoever is not in it, or asks for what is not in it, may do nothing. What needs a second person is in `changes`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from palladion.errors import PalladionError
from palladion.registry.rows import Role

Action = Literal[
    "status.read",
    "clients.read",
    "incidents.read",
    "proposals.read",
    "operators.read",
    "ledger.read",
    "incident.work",
    "incident.close",
    "standing.propose",
    "standing.restore",
    "proposal.decide",
    "key.revoke",
    "client.revoke",
    "operator.change",
    "policy.reload",
]
ACTIONS: tuple[Action, ...] = get_args(Action)
ROLES: tuple[Role, ...] = get_args(Role)

_READ: frozenset[Action] = frozenset({"status.read", "clients.read", "incidents.read", "proposals.read"})
_ANALYSE: frozenset[Action] = _READ | {"incident.work", "standing.propose"}
_APPROVE: frozenset[Action] = _ANALYSE | {"incident.close", "standing.restore", "proposal.decide"}
_ADMINISTER: frozenset[Action] = _APPROVE | {
    *("operators.read", "operator.change", "key.revoke", "client.revoke", "policy.reload")
}

PERMITTED: Mapping[Role, frozenset[Action]] = MappingProxyType(
    {
        "viewer": _READ,
        "analyst": _ANALYSE,
        "approver": _APPROVE,
        "admin": _ADMINISTER,
        # sees everything and changes nothing: whoever checks the work of the others has no part in it
        "auditor": _READ | {"operators.read", "ledger.read"},
    }
)
DECIDERS: frozenset[Role] = frozenset(role for role in PERMITTED if "proposal.decide" in PERMITTED[role])
PROPOSERS: frozenset[Role] = frozenset(role for role in PERMITTED if "standing.propose" in PERMITTED[role])


class ForbiddenError(PalladionError):
    """What somebody who is known may not do; `second_person` where somebody else could, together with him."""

    def __init__(self, message: str, *hints: str, second_person: bool = False) -> None:
        super().__init__(message, *hints)
        self.second_person = second_person


def require(role: str, action: str) -> None:
    """Raise ForbiddenError unless `role` may do `action`; a role or an action that is none may nothing."""
    for known, permitted in PERMITTED.items():
        if known == role and action in permitted:
            return
    able = [known for known, permitted in PERMITTED.items() if action in permitted]
    raise ForbiddenError(
        f"this operator is {role}, and {action} is not for that role",
        f"{' or '.join(able)} may" if able else "nobody may",
    )
