"""`palladion serve`: the API."""

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.broker_options import Asked, asked, broker_client, broker_options
from palladion.cli.output import echo, find_installation, printable
from palladion.errors import BusyError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation


@click.command(epilog="Example: palladion serve")
@broker_options
@click.pass_context
def serve(ctx: click.Context, /, **options: Any) -> None:
    """Serve the routes of palladion.toml until it is stopped (Ctrl-C, SIGTERM).

    Opens the promoted version of each route's model in memory. Commands go on working meanwhile, through the admin
    socket: `palladion model promote` swaps a version live, `palladion client standing` takes effect at once, and
    `palladion policy reload` (or SIGHUP) takes over what was changed in palladion.toml.

    With --broker, the keys of the models come from a key broker, which is asked again and again; when it says no, or is
    not reached in time, the routes of that model answer 503 and the model leaves the memory. Sealed programs of
    [[encrypted]] are not opened so: their gate does without --broker.
    """
    from palladion.gate import server
    from palladion.gate.operations.logs import announcer, start_logs

    said = asked(options)
    installation = find_installation(ctx)
    # before models are opened, which takes a while, to find the ledger locked
    if installation.server_status() is not None:
        raise BusyError(
            "a gate is running here already", "palladion policy reload takes over a changed policy; else stop it first"
        )
    form = installation.policy.operations.log
    # a message can quote what a stranger sent: it must not move the cursor
    start_logs(form, show=printable)
    with ExitStack() as held:
        if said is not None:
            _borrow(held, installation, said)
        server.serve(installation, announce=announcer(form, say=echo))


def _borrow(held: ExitStack, installation: "Installation", said: Asked) -> None:
    """Open models with what a broker lends, until `held` ends. Raises PolicyError for what it cannot lend keys of."""
    from palladion.gate.brokered import BrokeredKeys
    from palladion.gate.encrypted.routes import not_lent
    from palladion.host.host import Host

    sealed = next((one.model for one in installation.policy.encrypted if not one.program), None)
    if sealed is not None:
        # else it would be opened with a key that lies here, of which the broker knows nothing
        raise not_lent(sealed)
    keys = BrokeredKeys(broker_client(said, Host.find().folder), approval=said.approval)
    installation.file_keys = keys
    keys.start()
    held.callback(keys.stop)
