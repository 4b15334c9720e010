"""`palladion client …`: who may ask, with which keys, and how it stands."""

from typing import TYPE_CHECKING, Any

import click

from palladion.cli.client_copy import export_clients, import_clients
from palladion.cli.client_end_user import end_user, reseller
from palladion.cli.client_forget import forget_client
from palladion.cli.client_identity import identity
from palladion.cli.client_key import key
from palladion.cli.client_options import expires, key_options, organisation_option
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

if TYPE_CHECKING:
    from palladion.registry.rows import Standing

# As the registry has them, which only commands that run load; a test compares.
STANDINGS = ("trusted", "watched", "throttled", "degraded", "suspended")


@click.group()
def client() -> None:
    """Clients of the API: who may ask, with which keys, and how they stand."""


@client.command("add", epilog="Example: palladion client add acme --model fraud")
@click.argument("name")
@organisation_option
@click.option("--model", "models", multiple=True, metavar="NAME", help="A model it may ask; without any, all of them.")
@click.option("--route", "routes", multiple=True, metavar="PATH", help="A route it may ask on, whatever its model.")
@click.option("--reseller", "resells", is_flag=True, help="It asks for end users, who are judged one by one.")
@key_options
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    organisation: str | None,
    models: tuple[str, ...],
    routes: tuple[str, ...],
    resells: bool,
    environment: str,
    days: int | None,
    as_json: bool,
) -> None:
    """Register a client and show its API key, once: it is kept nowhere, only its keyed hash is."""
    from palladion.lifecycle.clients import add_client

    installation = find_installation(ctx)
    made, key, receipt = add_client(
        installation,
        organisation or name,
        name,
        models=models,
        routes=routes,
        reseller=resells,
        environment=environment,
        expires=expires(installation, days),
        actor=actor(),
    )
    if as_json:
        resold = {"reseller": True} if made.reseller else {}
        print_json({"client": f"{made.organisation}/{made.name}", "key": key.text, **resold, "receipt": str(receipt)})
        return
    echo(f"added client {made.organisation}/{made.name}")
    print_fields(
        [
            ("key", key.text),
            ("may ask", ", ".join([*models, *routes]) or "every model"),
            ("asks for", "end users" if made.reseller else None),
            ("ledger", str(receipt)),
        ]
    )
    warn("the key is shown this once and cannot be shown again")


@client.command("list", epilog="Example: palladion client list")
@json_option
@click.pass_context
def list_clients(ctx: click.Context, as_json: bool) -> None:
    """List the clients, revoked ones included."""
    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        documents: list[dict[str, Any]] = [
            {
                "client": f"{row.organisation}/{row.name}",
                "standing": row.standing,
                "keys": sum(key.revoked_at is None for key in records.clients.keys(row.id)),
                "may_ask": [scope.partition(":")[2] for scope in row.scopes],
                "created": timestamp(row.created),
                "revoked": timestamp(row.revoked_at) if row.revoked_at else None,
            }
            for row in records.clients.registered()
        ]
    if as_json:
        print_json({"clients": documents})
    elif documents:
        columns = ("client", "standing", "keys", "may_ask", "created", "revoked")
        rows = [{**document, "may_ask": ", ".join(document["may_ask"]) or "every model"} for document in documents]
        print_table(columns, [[row[column] for column in columns] for row in rows])
    else:
        echo("no clients yet: palladion client add NAME")


@client.command("show", epilog="Example: palladion client show acme")
@click.argument("name")
@organisation_option
@json_option
@click.pass_context
def show(ctx: click.Context, name: str, organisation: str | None, as_json: bool) -> None:
    """Show a client's keys (their beginnings) and every standing it had, with the reason."""
    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        row = records.clients.named(organisation or name, name)
        keys = records.clients.keys(row.id)
        history = records.standings.history(row.id)
        parent = None if row.parent is None else records.clients.get(row.parent)
    document: dict[str, Any] = {
        "client": f"{row.organisation}/{row.name}",
        "id": row.id,
        "standing": row.standing,
        "may_ask": [scope.partition(":")[2] for scope in row.scopes],
        "reseller": row.reseller,
        "end_user_of": f"{parent.organisation}/{parent.name}" if parent else None,
        "revoked": timestamp(row.revoked_at) if row.revoked_at else None,
        "keys": [
            {
                "prefix": key.prefix,
                "created": timestamp(key.created),
                "expires": timestamp(key.expires) if key.expires else None,
                "revoked": timestamp(key.revoked_at) if key.revoked_at else None,
            }
            for key in keys
        ],
        "history": [
            {"at": timestamp(change.at), "standing": change.standing, "by": change.actor, "reason": change.reason}
            for change in history
        ],
    }
    if as_json:
        print_json(document)
        return
    echo(f"{document['client']}: {row.standing}")
    print_fields(
        [
            ("id", row.id),
            ("may ask", None if parent else ", ".join(document["may_ask"]) or "every model"),
            ("asks for", "end users" if row.reseller else None),
            ("end user of", document["end_user_of"]),
            ("revoked", document["revoked"]),
        ]
    )
    print_table(("key", "created", "expires", "revoked"), [list(key.values()) for key in document["keys"]])
    print_table(("since", "standing", "by", "reason"), [list(change.values()) for change in document["history"]])


@client.command("revoke", epilog="Example: palladion client revoke acme")
@click.argument("name")
@organisation_option
@json_option
@click.pass_context
def revoke(ctx: click.Context, name: str, organisation: str | None, as_json: bool) -> None:
    """Let a client in no more, with whatever key. It stays listed, because the ledger speaks of it."""
    from palladion.lifecycle.clients import revoke_client

    row, receipt = revoke_client(find_installation(ctx), organisation or name, name, actor=actor())
    if as_json:
        print_json({"client": f"{row.organisation}/{row.name}", "revoked": True, "receipt": str(receipt)})
    else:
        echo(f"revoked client {row.organisation}/{row.name} (ledger {receipt})")


@client.command("standing", epilog="Example: palladion client standing acme trusted --reason 'load test, called them'")
@click.argument("name")
@click.argument("standing", type=click.Choice(STANDINGS))
@click.option("--reason", required=True, help="Why; it stays with the client and in the ledger.")
@organisation_option
@json_option
@click.pass_context
def standing(
    ctx: click.Context, name: str, standing: "Standing", reason: str, organisation: str | None, as_json: bool
) -> None:
    """Put a client into another standing. Raising it makes the watch begin anew with this client."""
    from palladion.lifecycle.clients import set_standing

    change, receipt = set_standing(
        find_installation(ctx), organisation or name, name, standing, reason=reason, actor=actor()
    )
    if as_json:
        print_json({"client": f"{organisation or name}/{name}", "standing": change.standing, "receipt": str(receipt)})
    else:
        echo(f"{organisation or name}/{name} is {change.standing} now (ledger {receipt})")


client.add_command(key)
client.add_command(identity)
client.add_command(export_clients)
client.add_command(import_clients)
client.add_command(forget_client)
client.add_command(reseller)
client.add_command(end_user)
