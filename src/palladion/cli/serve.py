"""`palladion serve`: the API."""

import logging

import click

from palladion.cli.output import echo, find_installation, printable


class _Formatter(logging.Formatter):
    """A message can quote what a stranger sent: it must not move the cursor."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the standard library calls it so)
        return printable(super().formatMessage(record))


@click.command(epilog="Example: palladion serve")
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Serve the routes of palladion.toml until it is stopped (Ctrl-C, SIGTERM).

    Opens the promoted version of each route's model in memory. Commands go on working meanwhile, through the admin
    socket: `palladion model promote` swaps a version live, `palladion client standing` takes effect at once.
    """
    from palladion.gate import server

    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("palladion: %(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    server.serve(find_installation(ctx), announce=echo)
