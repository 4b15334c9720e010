"""`palladion doctor`: is everything there, private, sound and recoverable?"""

from typing import TYPE_CHECKING

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_json
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.lifecycle.doctor import Check
    from palladion.lifecycle.installation import Installation

_SIGNS = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}


@click.command(epilog="Example: palladion doctor --probe")
@click.option(
    "--probe",
    is_flag=True,
    help="Also ask the model servers of the policy, as somebody without a credential, whether they answer around the "
    "gate; goes into the ledger.",
)
@json_option
@click.pass_context
def doctor(ctx: click.Context, probe: bool, as_json: bool) -> int:
    """Look the installation over and say what to do. Exit code 1 if there is a problem; warnings do not count.

    `palladion key list` says what the loss and the theft of each key would cost.
    """
    from palladion.intel import freshness
    from palladion.lifecycle import approval_look, egress
    from palladion.lifecycle.doctor import examine
    from palladion.lifecycle.privacy import check_privacy

    installation = find_installation(ctx)
    also = [(approval_look.NAME, approval_look.look), (freshness.NAME, freshness.look), ("privacy", check_privacy)]
    also.append((egress.NAME, egress.look))
    checks = examine(installation, also=also)
    if probe:
        checks += _probed(installation)
    problems = [check for check in checks if check.status == "problem"]
    if as_json:
        print_json(
            {
                "ok": not problems,
                "checks": [
                    {"name": item.name, "status": item.status, "message": item.message, "hint": item.hint}
                    for item in checks
                ],
            }
        )
    else:
        for item in checks:
            echo(f"{_SIGNS[item.status]}{item.name}: {item.message}")
            if item.hint and item.status != "ok":
                echo(f"        → {item.hint}")
    return FINDING if problems else 0


def _probed(installation: "Installation") -> "list[Check]":
    from palladion.gate import side_doors
    from palladion.lifecycle.doctor import Check

    probed = side_doors.probe(installation.policy)
    record = side_doors.probed_record(probed, at=installation.clock.now(), actor=actor())
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.append([record])
    return list(side_doors.look(probed)) or [Check(side_doors.NAME, "ok", "no route asks a model server elsewhere")]
