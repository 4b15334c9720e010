"""`palladion doctor`: is everything there, private, sound and recoverable?"""

import click

from palladion.cli.output import echo, find_installation, json_option, print_json
from palladion.errors import FINDING

_SIGNS = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}


@click.command(epilog="Example: palladion doctor")
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> int:
    """Look the installation over and say what to do. Exit code 1 if there is a problem; warnings do not count.

    `palladion key list` says what the loss and the theft of each key would cost.
    """
    from palladion.intel import freshness
    from palladion.lifecycle.doctor import examine

    checks = examine(find_installation(ctx), also=[(freshness.NAME, freshness.look)])
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
