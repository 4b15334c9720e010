"""`palladion client reseller` and `palladion client end-user …`: who asks for others, and for whom."""

import click

from palladion.cli.client_options import organisation_option
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

LISTED_MAX = 100_000  # lines of a table, some 10 MB; a reseller can have more end users


@click.command("reseller", epilog="Example: palladion client reseller acme")
@click.argument("name")
@click.option("--off", is_flag=True, help="It resells no more: judge it alone again.")
@organisation_option
@json_option
@click.pass_context
def reseller(ctx: click.Context, name: str, off: bool, organisation: str | None, as_json: bool) -> None:
    """Say that a client asks for end users, who are judged as clients of their own (docs/access.md)."""
    from palladion.lifecycle.end_users import declare_reseller

    row, receipt = declare_reseller(find_installation(ctx), organisation or name, name, resells=not off, actor=actor())
    if as_json:
        print_json({"client": f"{row.organisation}/{row.name}", "reseller": row.reseller, "receipt": str(receipt)})
        return
    resells = "resells now: its end users are clients of their own" if row.reseller else "resells no more"
    echo(f"{row.organisation}/{row.name} {resells} (ledger {receipt})")


@click.group("end-user")
def end_user() -> None:
    """End users of a client that resells: they have no names here, but an id that is made of the name."""


@end_user.command("list", epilog="Example: palladion client end-user list acme")
@click.argument("name")
@click.option(
    "--limit",
    type=click.IntRange(1, LISTED_MAX),
    default=100,
    show_default=True,
    help="At most so many, whoever came last first.",
)
@organisation_option
@json_option
@click.pass_context
def list_end_users(ctx: click.Context, name: str, limit: int, organisation: str | None, as_json: bool) -> None:
    """List the end users of a client that are kept, and how they stand."""
    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        client = records.clients.named(organisation or name, name)
        rows, total = records.end_users.of(client.id, most=limit), records.end_users.count(client.id)
    documents = [
        {"client": f"{row.organisation}/{row.name}", "standing": row.standing, "since": timestamp(row.created)}
        for row in rows
    ]
    if as_json:
        print_json({"reseller": f"{client.organisation}/{client.name}", "total": total, "end_users": documents})
    elif documents:
        print_table(("end user", "standing", "first asked"), [list(document.values()) for document in documents])
        if total > len(rows):
            echo(f"{total - len(rows)} more, who came earlier")
    else:
        echo(f"{client.organisation}/{client.name} has no end users here")


@end_user.command("find", epilog="Example: palladion client end-user find acme ann@example.com")
@click.argument("name")
@click.argument("user")
@organisation_option
@json_option
@click.pass_context
def find(ctx: click.Context, name: str, user: str, organisation: str | None, as_json: bool) -> None:
    """Say what an end user is called here. With that, commands about clients work on it."""
    from palladion.lifecycle.end_users import find_end_user

    row = find_end_user(find_installation(ctx), organisation or name, name, user)
    called = f"{row.organisation}/{row.name}"
    if as_json:
        print_json({"client": called, "id": row.id, "standing": row.standing, "since": timestamp(row.created)})
        return
    echo(f"{called}: {row.standing}")
    print_fields([("id", row.id), ("first asked", timestamp(row.created))])


@end_user.command("forget", epilog="Example: palladion client end-user forget acme ann@example.com")
@click.argument("name")
@click.argument("user")
@organisation_option
@json_option
@click.pass_context
def forget(ctx: click.Context, name: str, user: str, organisation: str | None, as_json: bool) -> None:
    """Erase what the watch knows of an end user, by name or by what it is called here.

    A standing that was ever changed stays, so that nobody gets rid of it by being forgotten. Queries that are kept are
    the reseller's, and go with palladion client forget. Until then, whoever has the gate root, the registry and a guess
    of the name can find its entries in the ledger.
    """
    from palladion.lifecycle.end_users import forget_end_user

    done = forget_end_user(find_installation(ctx), organisation or name, name, user, actor=actor())
    called = f"{done.client.organisation}/{done.client.name}"
    if as_json:
        print_json({"client": called, "states": done.states, "listed": done.listed, "receipt": str(done.receipt)})
        return
    echo(f"erased what was kept of {called}")
    print_fields(
        [
            ("states", str(done.states)),
            ("standing", "stays, it was changed before" if done.listed else None),
            ("ledger", str(done.receipt)),
        ]
    )
    warn(
        "a gate that serves can hold its state in memory until it ends, and writes it again for one who stays listed; "
        "backups from before hold it too"
    )
