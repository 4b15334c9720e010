"""`palladion serve`: the API."""

import click

from palladion.cli.output import echo, find_installation, printable


@click.command(epilog="Example: palladion serve")
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Serve the routes of palladion.toml until it is stopped (Ctrl-C, SIGTERM).

    Opens the promoted version of each route's model in memory. Commands go on working meanwhile, through the admin
    socket: `palladion model promote` swaps a version live, `palladion client standing` takes effect at once, and
    `palladion policy reload` (or SIGHUP) takes over what was changed in palladion.toml.
    """
    from palladion.gate import server
    from palladion.gate.operations.logs import start_logs

    installation = find_installation(ctx)
    # a message can quote what a stranger sent: it must not move the cursor
    start_logs(installation.policy.operations.log, show=printable)
    server.serve(installation, announce=echo)
