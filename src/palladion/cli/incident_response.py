"""`palladion incident suspend|restore|…`: what is done to the clients of a case, with a reason, by a person."""

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palladion.cli.client_options import DurationType, expires, key_options
from palladion.cli.incident_remote import respond_at
from palladion.cli.operator_remote import gate_option
from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    print_fields,
    print_json,
    print_table,
    warn,
)
from palladion.clock import timestamp
from palladion.errors import PalladionError

if TYPE_CHECKING:
    from palladion.incident.response import Change, Responded
    from palladion.lifecycle.installation import Installation

_Command = TypeVar("_Command", bound=Callable[..., Any])

_reason_option = click.option(
    "--reason", required=True, metavar="TEXT", help="Why; it stays in the case and in the ledger: let it name nobody."
)


def _clients_options(command: _Command) -> _Command:
    """Which clients of a case are meant."""
    command = click.option("--all", "every", is_flag=True, help="All clients of the case.")(command)
    return click.option(
        "--client",
        "clients",
        multiple=True,
        metavar="NAME",
        help="A client of the case; not needed where there is only one. May be repeated.",
    )(command)


@click.command("join", epilog="Example: palladion incident join 3f2a --client acme/app --reason 'same payment card'")
@click.argument("id")
@click.option("--client", "clients", multiple=True, required=True, metavar="NAME", help="A client. May be repeated.")
@_reason_option
@json_option
@click.pass_context
def join(ctx: click.Context, id: str, clients: tuple[str, ...], reason: str, as_json: bool) -> None:  # noqa: A002
    """Let a case concern further clients. The gate does so itself when it suspends others together with a known one."""
    from palladion.incident.cases import join_case

    case, joined, receipt = join_case(find_installation(ctx), id, clients, text=reason, actor=actor())
    if as_json:
        print_json({"incident": case.id, "joined": joined, "receipt": str(receipt)})
    else:
        echo(f"incident {case.id} concerns {', '.join(joined)} as well (ledger {receipt})")


def _responding(change: "Change", meaning: str, example: str) -> click.Command:
    @click.command(change, epilog=f"Example: palladion incident {change} 3f2a {example}", help=meaning)
    @click.argument("id")
    @_clients_options
    @_reason_option
    @gate_option(required=False)
    @click.option("--now", is_flag=True, help="With --at: do it at once, where your role permits that alone.")
    @json_option
    @click.pass_context
    def command(
        ctx: click.Context,
        id: str,  # noqa: A002
        clients: tuple[str, ...],
        every: bool,
        reason: str,
        gate: str | None,
        now: bool,
        as_json: bool,
    ) -> None:
        from palladion.incident.response import respond

        if gate is not None:
            respond_at(gate, id, change, clients, every=every, now=now, reason=reason, as_json=as_json)
            return
        if now:
            raise click.UsageError("--now goes with --at: here it is done at once")
        installation = find_installation(ctx)
        done = respond(installation, id, change, clients, every=every, reason=reason, actor=actor())
        _told(installation, done, as_json=as_json)

    return command


@click.command("reinstate", epilog="Example: palladion incident reinstate 3f2a --client acme/web --reason 'a new use'")
@click.argument("id")
@click.option("--client", required=True, metavar="NAME", help="Whose appeal is granted.")
@_reason_option
@json_option
@click.pass_context
def reinstate(ctx: click.Context, id: str, client: str, reason: str, as_json: bool) -> None:  # noqa: A002
    """Grant an appeal: trust a client again, and let the watch begin anew with it. `incident notice` tells it so."""
    from palladion.incident.response import respond

    installation = find_installation(ctx)
    done = respond(installation, id, "reinstate", [client], reason=reason, actor=actor())
    _told(installation, done, as_json=as_json)


@click.command(
    "escalate", epilog="Example: palladion incident escalate 3f2a --to 'head of legal' --reason 'a contract'"
)
@click.argument("id")
@click.option("--to", required=True, metavar="TEXT", help="Who decides from here on.")
@_reason_option
@json_option
@click.pass_context
def escalate(ctx: click.Context, id: str, to: str, reason: str, as_json: bool) -> None:  # noqa: A002
    """Say that somebody else decides from here on. It is recorded; telling that person is yours."""
    from palladion.incident.response import escalate as escalate_case

    case, receipt = escalate_case(find_installation(ctx), id, to, reason=reason, actor=actor())
    if as_json:
        print_json({"incident": case.id, "to": to, "receipt": str(receipt)})
    else:
        echo(f"incident {case.id} is escalated to {to} (ledger {receipt})")


@click.command("revoke-keys", epilog="Example: palladion incident revoke-keys 3f2a --all --reason 'found on a forum'")
@click.argument("id")
@_clients_options
@_reason_option
@json_option
@click.pass_context
def revoke_keys(
    ctx: click.Context,
    id: str,  # noqa: A002
    clients: tuple[str, ...],
    every: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Accept none of the clients' API keys any more. Other identities of theirs go on: `palladion client identity`."""
    from palladion.incident.response import revoke_keys as revoke

    case, revoked, receipt = revoke(find_installation(ctx), id, clients, every=every, reason=reason, actor=actor())
    prefixes = [row.prefix for row in revoked]
    if as_json:
        print_json({"incident": case.id, "revoked": prefixes, "receipt": str(receipt)})
    else:
        echo(f"revoked {', '.join(f'{prefix}…' for prefix in prefixes)} in incident {case.id} (ledger {receipt})")


@click.command("rotate-keys", epilog="Example: palladion incident rotate-keys 3f2a --client acme/web --reason 'a leak'")
@click.argument("id")
@click.option("--client", default="", metavar="NAME", help="Whose keys; not needed where the case concerns only one.")
@click.option(
    "--overlap",
    type=DurationType(),
    default="0m",
    show_default=True,
    help="How long the old keys go on, such as 30m, 12h or 7d; 0m ends them at once.",
)
@_reason_option
@key_options
@json_option
@click.pass_context
def rotate_keys(
    ctx: click.Context,
    id: str,  # noqa: A002
    client: str,
    overlap: timedelta,
    reason: str,
    environment: str,
    days: int | None,
    as_json: bool,
) -> None:
    """Give a client of a case a new key, and its old ones an end. Shows the new one once."""
    from palladion.incident.cases import label
    from palladion.incident.response import check_rotation, note_keys
    from palladion.lifecycle.clients import rotate_key

    installation = find_installation(ctx)
    case, found = check_rotation(installation, id, [client] if client else [])
    made, ending, _ = rotate_key(
        installation,
        found.organisation,
        found.name,
        overlap=overlap,
        environment=environment,
        expires=expires(installation, days),
        actor=actor(),
    )
    ends = {row.prefix: timestamp(row.expires) for row in ending if row.expires}
    document = {"incident": case.id, "client": label(found), "key": made.text, "ending": ends}
    try:
        receipt = note_keys(installation, case, "rotate-keys", [found.id], list(ends), reason=reason, actor=actor())
    except PalladionError:
        # the new key is in force, and nobody can show it again
        _show_key({**document, "receipt": None}, as_json=as_json)
        raise
    _show_key({**document, "receipt": str(receipt)}, as_json=as_json)


RESPONSES = (
    join,
    _responding("throttle", "Answer clients of a case less often, and with less detail.", "--reason 'until they call'"),
    _responding("degrade", "Answer clients of a case with the least that a route gives.", "--all --reason 'one hand'"),
    _responding("suspend", "Refuse requests of clients of a case.", "--client acme/web --reason 'a harvest'"),
    _responding("restore", "Trust clients of a case again; the watch begins anew.", "--all --reason 'a load test'"),
    reinstate,
    escalate,
    revoke_keys,
    rotate_keys,
)


def _told(installation: "Installation", done: "Responded", *, as_json: bool) -> None:
    from palladion.incident.response import two_persons_elsewhere

    if len(done.changes) > 1:
        with installation.open_registry() as registry, registry.read() as records:
            alone = two_persons_elsewhere(records)
        if alone:
            warn("done by one person; operators need a second one for this: palladion operator propose")
    if as_json:
        print_json(
            {
                "incident": done.case.id,
                "changed": {name: change.standing for name, change in sorted(done.changes.items())},
                "left": list(done.left),
                "receipt": str(done.receipt),
            }
        )
        return
    print_table(("client", "standing"), [[name, change.standing] for name, change in sorted(done.changes.items())])
    if done.left:
        echo(f"left as they are: {', '.join(done.left)}")
    echo(f"recorded in incident {done.case.id} (ledger {done.receipt})")


def _show_key(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    ends = [(f"{prefix}… ends", end) for prefix, end in document["ending"].items()]
    print_fields([("key", document["key"]), *ends, ("ledger", document["receipt"])])
    warn("the key is shown this once and cannot be shown again")
