"""`palladion policy …`: is palladion.toml right, what would it change, and make a running gate take it over."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_json, print_table
from palladion.errors import FINDING, InstallationError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.policy import Policy

DIGEST_SHOWN = 16
VALUE_SHOWN = 60

_file = click.Path(dir_okay=False, exists=True, path_type=Path)


@click.group()
def policy() -> None:
    """The settings of this installation: check palladion.toml, compare it, and put it into effect."""


@policy.command("check", epilog="Example: palladion policy check next.toml")
@click.argument("file", type=_file, required=False)
@json_option
@click.pass_context
def check(ctx: click.Context, file: Path | None, as_json: bool) -> None:
    """Check FILE, or palladion.toml: every setting, and whether routes stand in each other's way. Opens no model."""
    from palladion.gate.server import check_routes
    from palladion.lifecycle.installation import Installation
    from palladion.policy import load_policy
    from palladion.policy.compare import digest

    installation = find_installation(ctx)
    found = load_policy(file) if file is not None else installation.policy
    if found.route:
        check_routes(Installation(installation.paths, found, installation.clock))
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
    from palladion.gate.operations.policies import restart_needed
    from palladion.policy import load_policy
    from palladion.policy.compare import compare, digest

    installation = find_installation(ctx)
    if other is not None and file is not None:
        before, after = load_policy(file), load_policy(other)
    else:
        before = _in_force(installation)
        after = load_policy(file) if file is not None else installation.policy
    changes = compare(before, after)
    marking = any(route.flipped > 0 for route in before.route)
    fixed = restart_needed(changes, before, after, marking=marking)
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

    answer = reload_policy(find_installation(ctx).paths.admin, actor())
    if answer is None:
        raise _no_gate()
    digest, changes = answer
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

    from palladion.gate.openapi import document
    from palladion.gate.served import open_route
    from palladion.gate.server import check_routes

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


def _in_force(installation: "Installation") -> "Policy":
    import msgspec

    from palladion.errors import FormatError
    from palladion.ledger.remote import read_settings
    from palladion.policy import Policy

    settings = read_settings(installation.paths.admin)
    if settings is None:
        raise _no_gate()
    try:
        return msgspec.convert(settings, Policy)
    except msgspec.ValidationError as error:
        raise FormatError(
            f"the running gate's policy is not one of this version: {error}", "restart it after the upgrade"
        ) from None


def _no_gate() -> InstallationError:
    return InstallationError("no gate is running here", "palladion serve")


def _shown(value: Any) -> str:
    if value is None:
        return ""
    text = ", ".join(f"{key} = {item}" for key, item in value.items()) if isinstance(value, dict) else str(value)
    return text if len(text) <= VALUE_SHOWN else f"{text[:VALUE_SHOWN]}…"
