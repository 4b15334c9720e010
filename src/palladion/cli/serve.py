"""`palladion serve`: the API."""

import click

from palladion.cli.output import echo, find_installation, printable
from palladion.errors import BusyError


@click.command(epilog="Example: palladion serve")
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Serve the routes of palladion.toml until it is stopped (Ctrl-C, SIGTERM).

    Opens the promoted version of each route's model in memory. Commands go on working meanwhile, through the admin
    socket: `palladion model promote` swaps a version live, `palladion client standing` takes effect at once, and
    `palladion policy reload` (or SIGHUP) takes over what was changed in palladion.toml.
    """
    from palladion.gate import server
    from palladion.gate.operations.logs import announcer, start_logs

    installation = find_installation(ctx)
    # before models are opened, which takes a while, to find the ledger locked
    if installation.server_status() is not None:
        raise BusyError(
            "a gate is running here already", "palladion policy reload takes over a changed policy; else stop it first"
        )
    form = installation.policy.operations.log
    # a message can quote what a stranger sent: it must not move the cursor
    start_logs(form, show=printable)
    server.serve(installation, announce=announcer(form, say=echo))
