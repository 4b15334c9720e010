"""`palladion incident suspend … --at URL`: the same at a running gate, as the operator who is signed in there.

The gate decides what that role may do alone; everything else becomes a proposal. What it is asked for is a change of
standings, as `palladion operator propose` asks, made from the case's clients so that nobody has to copy names.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from palladion.cli.operator_remote import STANDINGS, at
from palladion.cli.output import echo, print_json, print_table, warn
from palladion.errors import ConflictError, NotFoundError, PalladionError

if TYPE_CHECKING:
    from palladion.gate.administration.remote import Remote

CLIENTS_MAX = 100  # each is asked for by itself
# as incident.response has them, which a test compares
TARGETS = {"throttle": "throttled", "degrade": "degraded", "suspend": "suspended", "restore": "trusted"}


def respond_at(
    gate: str, incident: str, change: str, clients: Sequence[str], *, every: bool, now: bool, reason: str, as_json: bool
) -> None:
    """Propose a change of clients of a case at `gate`, or make it (`now`); then write into the case what was asked."""
    remote = at(gate)
    case = remote.get(f"incidents/{quote(incident, safe='')}")
    if case["state"] == "closed":
        raise ConflictError(f"incident {case['id']} is closed")
    chosen = _chosen(case, clients, every=every)
    standings = {name: _standing(remote, name) for name in chosen}
    moving = [name for name, standing in standings.items() if _moves(standing, change)]
    if not moving:
        raise ConflictError(
            f"nobody's standing changes: {', '.join(f'{name} is {standing}' for name, standing in standings.items())}"
        )
    asked = {"kind": "standing", "clients": moving, "standing": TARGETS[change]}
    answer = remote.post(
        "changes" if now else "proposals", {"change": asked, "reason": f"incident {case['id']}: {reason}"}
    )
    done = f"{change}: {', '.join(moving)}" if now else f"proposed {answer['id']}, {change}: {', '.join(moving)}"
    _note(remote, case["id"], f"{done}: {reason}")
    left = [name for name in chosen if name not in moving]
    if as_json:
        print_json({"incident": case["id"], "clients": moving, "standing": TARGETS[change], "left": left, **answer})
        return
    print_table(("client", "standing"), [[name, TARGETS[change] if now else standings[name]] for name in moving])
    if left:
        echo(f"left as they are: {', '.join(left)}")
    if now:
        echo(f"done in incident {case['id']} (ledger {answer['receipt']})")
    else:
        echo(f"proposed {answer['id']} in incident {case['id']}: somebody else has to decide until {answer['until']}")


def _chosen(case: dict[str, Any], clients: Sequence[str], *, every: bool) -> list[str]:
    known = list(case["clients"])
    if every or (not clients and len(known) == 1):
        found = known
    elif not clients:
        raise click.UsageError("the case concerns several clients: name them with --client, or say --all")
    else:
        found = [name if "/" in name else f"{name}/{name}" for name in clients]
        strangers = [name for name in found if name not in known]
        if strangers:
            raise NotFoundError(f"incident {case['id']} does not concern {strangers[0]}")
    if not 0 < len(found) <= CLIENTS_MAX:
        raise PalladionError(
            f"the case concerns {len(found)} clients, 1 to {CLIENTS_MAX} are changed at once from here"
        )
    return list(dict.fromkeys(found))


def _standing(remote: "Remote", name: str) -> str:
    organisation, _, own = name.partition("/")
    return str(remote.get(f"clients/{quote(organisation, safe='')}/{quote(own, safe='')}")["standing"])


def _moves(standing: str, change: str) -> bool:
    """Whether the change lowers, or of `restore`, whether it raises: nobody is moved the other way by mistake."""
    if change == "restore":
        return standing != TARGETS[change]
    return STANDINGS.index(standing) < STANDINGS.index(TARGETS[change])


def _note(remote: "Remote", case: str, text: str) -> None:
    try:
        remote.post(f"incidents/{quote(case, safe='')}", {"action": "act", "text": text[:1000]})
    except PalladionError as error:
        # what was asked for is done or proposed, and stands in the ledger with the case's id in its reason
        warn(f"the case itself does not say so: {error.message}")
