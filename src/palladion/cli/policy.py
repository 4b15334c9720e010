"""`palladion policy …`: is palladion.toml right, what would it change, and make a running gate take it over."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_json, print_table, warn
from palladion.cli.policy_dry_run import dry_run
from palladion.errors import FINDING, InstallationError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.policy import Policy
    from palladion.policy.compare import Change

DIGEST_SHOWN = 16
VALUE_SHOWN = 60
TABLE_SHOWN = 200  # of a whole table: a client's contract, a route

_file = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.group()
def policy() -> None:
    """The settings of this installation: check palladion.toml, compare it, and put it into effect."""


policy.add_command(dry_run)


@policy.command("check", epilog="Example: palladion policy check next.toml")
@click.argument("file", type=_file, required=False)
@json_option
@click.pass_context
def check(ctx: click.Context, file: Path | None, as_json: bool) -> None:
    """Check FILE, or palladion.toml, for all that would keep `palladion serve` from starting.

    Every setting, the files that it names, and whether models are registered and routes stand in each other's way.
    Opens no model and asks nobody.
    """
    from palladion.gate.checks import check_routes
    from palladion.gate.operations.precheck import check_servable
    from palladion.lifecycle.installation import Installation
    from palladion.policy import load_policy
    from palladion.policy.compare import digest

    installation = find_installation(ctx)
    found = load_policy(file) if file is not None else installation.policy
    candidate = Installation(installation.paths, found, installation.clock)
    if found.route:
        check_routes(candidate)
    check_servable(candidate)
    _warn_of_nobodys(candidate)
    name = digest(found)
    if as_json:
        print_json({"digest": name, "routes": [route.route for route in found.route]})
    else:
        echo(f"{file or installation.paths.policy} is a policy with {len(found.route)} routes: {name[:DIGEST_SHOWN]}")


@policy.command("diff", epilog="Example: palladion policy diff next.toml")
@click.argument("file", type=_file, required=False)
@click.argument("other", type=_file, required=False)
@json_option
@click.pass_context
def diff(ctx: click.Context, file: Path | None, other: Path | None, as_json: bool) -> int:
    """Compare the running gate's policy with FILE, or with palladion.toml; or FILE with OTHER.

    Says of each setting whether a running gate could take it over (palladion policy reload). Exits with 1 where
    something differs.
    """
    from palladion.gate.operations.access import read_digests
    from palladion.gate.operations.policies import compare_files, restart_needed
    from palladion.policy import load_policy
    from palladion.policy.compare import compare, digest

    installation = find_installation(ctx)
    files: list[Change] = []
    if other is not None and file is not None:
        before, after = load_policy(file), load_policy(other)
    else:
        before, opened = _in_force(installation)
        after = load_policy(file) if file is not None else installation.policy
        files = compare_files(opened, read_digests(after, installation.paths.home))
    changes = [*compare(before, after), *files]
    marking = any(route.flipped > 0 for route in before.route)
    fixed = restart_needed(compare(before, after), before, after, marking=marking)
    if as_json:
        listed = [
            {"setting": item.name, "before": item.before, "after": item.after, "live": item.name not in fixed}
            for item in changes
        ]
        print_json({"before": digest(before), "after": digest(after), "changes": listed})
    elif changes:
        rows = [
            [item.name, _shown(item.before), _shown(item.after), "restart" if item.name in fixed else "reload"]
            for item in changes
        ]
        print_table(("setting", "before", "after", "takes a"), rows)
    else:
        echo("nothing differs")
    return FINDING if changes else 0


@policy.command("reload", epilog="Example: palladion policy reload")
@json_option
@click.pass_context
def reload(ctx: click.Context, as_json: bool) -> None:
    """Make the running gate take over palladion.toml, between two requests. Refused whole, where a setting cannot."""
    from palladion.ledger.remote import reload_policy

    installation = find_installation(ctx)
    answer = reload_policy(installation.paths.admin, actor())
    if answer is None:
        raise _no_gate()
    digest, changes = answer
    _warn_of_nobodys(installation)
    if as_json:
        print_json({"digest": digest, "changes": changes})
        return
    if changes:
        columns = ("setting", "before", "after")
        print_table(columns, [[_shown(change[column]) for column in columns] for change in changes])
    echo(f"{'the gate goes by' if changes else 'nothing differs:'} policy {digest[:DIGEST_SHOWN]}")


@policy.command("openapi", epilog="Example: palladion policy openapi > openapi.json")
@click.pass_context
def openapi(ctx: click.Context) -> None:
    """Print what palladion.toml serves as an OpenAPI 3.1 document, for clients and their tools.

    Opens the promoted version of each model in memory, as `palladion serve` does, to see what it takes. Asks no
    upstream, so of open-inference at one, names and shapes are left open.
    """
    import asyncio

    from palladion.gate.checks import check_routes
    from palladion.gate.openapi import document
    from palladion.gate.served import open_route

    installation = find_installation(ctx)
    check_routes(installation)
    served = [
        open_route(installation, route)
        for route in installation.policy.route
        if route.protocol == "json" or not route.upstream
    ]

    async def close() -> None:
        for item in served:
            await item.source.close()

    print_json(document(installation.policy, served))
    asyncio.run(close())


def _in_force(installation: "Installation") -> tuple["Policy", dict[str, str]]:
    """The running gate's policy, and the digests of the files that go with it."""
    import msgspec

    from palladion.errors import FormatError
    from palladion.gate.operations.policies import FILES
    from palladion.ledger.remote import read_settings
    from palladion.policy import Policy

    settings = read_settings(installation.paths.admin)
    if settings is None:
        raise _no_gate()
    try:
        opened = msgspec.convert(settings.pop(FILES, {}), dict[str, str])
        return msgspec.convert(settings, Policy), opened
    except msgspec.ValidationError as error:
        raise FormatError(
            f"the running gate's policy is not one of this version: {error}", "restart it after the upgrade"
        ) from None


def _no_gate() -> InstallationError:
    return InstallationError("no gate is running here", "palladion serve")


def _warn_of_nobodys(installation: "Installation") -> None:
    """A contract of nobody has no effect, and would go unnoticed."""
    from palladion.gate.limits import nobodys

    if not installation.policy.contract:
        return
    with installation.open_registry() as registry, registry.read() as records:
        clients = [client for client in records.clients.registered() if client.revoked_at is None]
    for name in nobodys(installation.policy, clients):
        warn(f"there is no client {name}, which has a contract")


def _shown(value: Any) -> str:
    from palladion.policy.compare import told

    text, most = told(value), TABLE_SHOWN if isinstance(value, dict) else VALUE_SHOWN
    return text if len(text) <= most else f"{text[:most]}…"
