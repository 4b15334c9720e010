"""Options that several commands about clients share."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation

_Command = TypeVar("_Command", bound=Callable[..., Any])
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}

organisation_option = click.option(
    "--organisation", metavar="NAME", help="The organisation it belongs to; without it, one of the client's own name."
)


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """A time such as 30m, 12h or 7d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The length of a text."""
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"([0-9]{1,4})([mhd])", value, re.ASCII)
        if found is None:
            self.fail(f"{value!r}: minutes, hours or days were expected, such as 30m, 12h or 7d", param, ctx)
        return timedelta(**{_UNITS[found[2]]: int(found[1])})


def key_options(command: _Command) -> _Command:
    """What a new key is for, and how long it lives."""
    command = click.option("--days", type=click.IntRange(1, 3650), help="Let the key expire after so many days.")(
        command
    )
    return click.option(
        "--environment",
        default="live",
        show_default=True,
        callback=_environment,
        help="A word in the key itself, such as live or test.",
    )(command)


def expires(installation: "Installation", days: int | None) -> datetime | None:
    """When a key ends that lives so many days."""
    return None if days is None else installation.clock.now() + timedelta(days=days)


def _environment(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    from palladion.access.identity import new_api_key

    try:
        new_api_key(text)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, parameter) from None
    return text
