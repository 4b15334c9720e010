"""`palladion key-broker …`: releases file keys to machines that prove themselves, for a while."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from palladion.cli.output import actor, ask_pin, echo, find_installation, json_option, print_json, printable

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation


@click.group("key-broker")
def key_broker() -> None:
    """Release file keys to machines that prove themselves, for a while (docs/broker.md)."""


@key_broker.command("serve", epilog="Example: palladion key-broker serve")
@click.pass_context
def serve(ctx: click.Context) -> None:
    """Answer hosts until it is stopped (Ctrl-C, SIGTERM).

    Each decision is in the ledger before anything leaves. Cedar policies, revocations and the registry are read at each
    request; changes of palladion.toml count after a restart.
    """
    from palladion.broker.opening import open_broker
    from palladion.broker.server import BrokerApp, serve_broker
    from palladion.host.supervise import hardened

    installation = find_installation(ctx)
    with ExitStack() as held:
        # before a key is read: what is in memory stays there
        held.enter_context(hardened())
        app = BrokerApp(open_broker(installation, ask_pin=ask_pin))
        _record(installation, "broker.started", installation.paths.home.name)
        serve_broker(
            app, installation.policy.broker, installation.paths.home, started=lambda url: echo(f"broker on {url}")
        )
        _record(installation, "broker.stopped", installation.paths.home.name)


@key_broker.command("leases", epilog="Example: palladion key-broker leases")
@json_option
@click.pass_context
def leases(ctx: click.Context, as_json: bool) -> None:
    """List who may use which key until when."""
    import msgspec

    from palladion.broker.leases import Leases

    installation = find_installation(ctx)
    now = installation.clock.now()
    found = [one for one in Leases(installation.paths.directory).all() if one.ends_at > now]
    if as_json:
        print_json([msgspec.to_builtins(one) for one in found])
        return
    for one in found:
        machine = f" on {one.machine[:16]}…" if one.machine else ""
        name, recipient = printable(one.name), printable(one.recipient)
        copy = f" (copy of {recipient})" if recipient else ""
        echo(f"{one.id}  {one.model}@{one.version}{copy}  {name}{machine}  for {one.purpose}  until {one.until}")
    if not found:
        echo("no key is out")


@key_broker.command("end", epilog="Example: palladion key-broker end 5f0c…")
@click.argument("lease")
@json_option
@click.pass_context
def end(ctx: click.Context, lease: str, as_json: bool) -> None:
    """End LEASE: whoever has it loses the key when it next asks, or when its time is up.

    To keep a client from asking anew, revoke the client, its certificate, the version, or the policy that permits it.
    """
    from palladion.broker.leases import Leases

    installation = find_installation(ctx)
    kept = Leases(installation.paths.directory)
    found = next((one for one in kept.all() if one.id == lease), None)
    if found is not None:
        _record(installation, "broker.ended", f"{found.model}@{found.version}", lease=lease)
    ended = kept.end(lease)
    if as_json:
        print_json({"lease": ended.id, "until": ended.until})
    else:
        echo(f"ended: {printable(ended.name)} has the key of {ended.model}@{ended.version} until {ended.until} at most")


def _record(installation: "Installation", kind: str, subject: str, **details: str) -> None:
    from palladion.ledger.record import Record

    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.append([Record(kind, installation.clock.now(), actor(), subject, dict(details))])
