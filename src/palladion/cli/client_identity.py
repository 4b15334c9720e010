"""`palladion client identity …`: by what else than API keys a client is known."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from palladion.cli.client_options import organisation_option
from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, print_table
from palladion.clock import timestamp

if TYPE_CHECKING:
    from palladion.registry.rows import IdentityKind

_Command = TypeVar("_Command", bound=Callable[..., Any])

# As the registry has them, which only commands that run load; a test compares.
KINDS = ("jwt", "spiffe", "certificate")


def value_options(command: _Command) -> _Command:
    """Which identity is meant."""
    command = click.option(
        "--issuer", default="", metavar="URL", help="Whose tokens, where the policy names several issuers."
    )(command)
    command = click.argument("value")(command)
    return click.argument("kind", type=click.Choice(KINDS))(command)


@click.group("identity")
def identity() -> None:
    """Tokens, SPIFFE ids and certificates by which a client is known (docs/access.md)."""


@identity.command("add", epilog="Example: palladion client identity add acme spiffe spiffe://example.org/scoring")
@click.argument("name")
@value_options
@organisation_option
@json_option
@click.pass_context
def add_client_identity(
    ctx: click.Context,
    name: str,
    kind: "IdentityKind",
    value: str,
    issuer: str,
    organisation: str | None,
    as_json: bool,
) -> None:
    """Let a client in by VALUE: what its tokens call it, its SPIFFE id, or its certificate's SHA-256."""
    from palladion.lifecycle.identities import add_identity

    row, receipt = add_identity(
        find_installation(ctx), organisation or name, name, kind, value, issuer=issuer, actor=actor()
    )
    if as_json:
        client = f"{organisation or name}/{name}"
        print_json({"client": client, "kind": row.kind, "identity": row.value, "receipt": str(receipt)})
    else:
        echo(f"{organisation or name}/{name} is let in by the {row.kind} {row.value} (ledger {receipt})")


@identity.command("list", epilog="Example: palladion client identity list acme")
@click.argument("name")
@organisation_option
@json_option
@click.pass_context
def list_client_identities(ctx: click.Context, name: str, organisation: str | None, as_json: bool) -> None:
    """List the identities of a client, revoked ones included."""
    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        rows = records.identities.of(records.clients.named(organisation or name, name).id)
    documents = [
        {
            "kind": row.kind,
            "identity": row.value,
            "created": timestamp(row.created),
            "revoked": timestamp(row.revoked_at) if row.revoked_at else None,
        }
        for row in rows
    ]
    if as_json:
        print_json({"identities": documents})
    elif documents:
        print_table(("kind", "identity", "created", "revoked"), [list(document.values()) for document in documents])
    else:
        echo(f"{organisation or name}/{name} has API keys alone: palladion client identity add")


@identity.command("revoke", epilog="Example: palladion client identity revoke spiffe spiffe://example.org/scoring")
@value_options
@json_option
@click.pass_context
def revoke_client_identity(ctx: click.Context, kind: "IdentityKind", value: str, issuer: str, as_json: bool) -> None:
    """Let nobody in by VALUE any more. Its client's keys and other identities go on."""
    from palladion.lifecycle.identities import revoke_identity

    row, receipt = revoke_identity(find_installation(ctx), kind, value, issuer=issuer, actor=actor())
    if as_json:
        print_json({"kind": row.kind, "identity": row.value, "revoked": True, "receipt": str(receipt)})
    else:
        echo(f"revoked the {row.kind} {row.value} (ledger {receipt})")


@identity.command("check", epilog="Example: palladion client identity check token.jwt")
@click.argument("token", type=click.File("rb"))
@json_option
@click.pass_context
def check_token(ctx: click.Context, token: BinaryIO, as_json: bool) -> None:
    """Say whom a token lets in, or why nobody: the gate itself tells no caller. `-` reads standard input."""
    from palladion.access.tokens import TOKEN_BYTES_MAX
    from palladion.errors import ConflictError, NotFoundError
    from palladion.gate.issuers import examine_token

    installation = find_installation(ctx)
    text = token.read(TOKEN_BYTES_MAX + 1).strip()
    now = installation.clock.now().timestamp()
    found = examine_token(installation.policy.issuer, installation.paths.home, text, now)
    with installation.open_registry() as registry, registry.read() as records:
        known = [row for row in records.identities.live() if (row.kind, row.value) == ("jwt", found.identity)]
        if not known:
            raise NotFoundError(
                f"the token is right, and no client has its identity: {found.client} of {found.issuer}",
                "palladion client identity add",
            )
        client = records.clients.get(known[0].client)
        standing = records.standings.current()[client.id].standing
    name = f"{client.organisation}/{client.name}"
    if client.revoked_at is not None:
        raise ConflictError(f"the token is right, and its client {name} was revoked on {client.revoked_at:%Y-%m-%d}")
    said = {"identity": found.identity, "user": found.user}
    if as_json:
        print_json({"client": name, "standing": standing, **said, "bound_to": found.bound_to})
        return
    suspended = standing == "suspended"
    echo(f"the token lets in {name}" if not suspended else f"the token is that of {name}, which is suspended")
    print_fields([*said.items(), ("only with certificate", found.bound_to)])
