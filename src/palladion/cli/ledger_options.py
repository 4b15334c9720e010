"""Options that commands about a ledger share: which ledger, which of its entries; and what they make of these."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from palladion.cli.client_options import DurationType
from palladion.cli.output import VERIFIER_KEY, find_installation
from palladion.errors import NotFoundError

if TYPE_CHECKING:
    from palladion.ledger.checkpoint import Checkpoint, VerifierKey
    from palladion.ledger.index import Question
    from palladion.ledger.reader import LedgerReader
    from palladion.lifecycle.installation import Installation

_Command = TypeVar("_Command", bound=Callable[..., Any])
_DURATION = DurationType()


class MomentType(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """A day or a time in UTC such as 2026-11-24 or 2026-11-24T09:30, or how long ago such as 7d."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The moment of a text; a length of time stays one, until it is known what now is."""
        if not isinstance(value, str):
            return value
        if re.fullmatch(r"[0-9]{4}-.+", value):
            try:
                found = datetime.fromisoformat(value)
            except ValueError:
                self.fail(f"{value!r} is no day and no time such as 2026-11-24 or 2026-11-24T09:30", param, ctx)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found
        return _DURATION.convert(value, param, ctx)


MOMENT = MomentType()  # a datetime in UTC, or a timedelta of how long ago

_OF_A_QUESTION = (
    click.option(
        "--kind", "kinds", multiple=True, metavar="KIND", help="Of this kind (docs/ledger.md). May be repeated."
    ),
    click.option(
        "--client", metavar="NAME", help="By or about this client of the API, whose name in the ledger is keyed."
    ),
    click.option("--actor", metavar="TEXT", help="By this actor, as the ledger has it."),
    click.option("--subject", metavar="TEXT", help="About this subject, such as fraud@3 or incident:ab12…."),
    click.option("--since", type=MOMENT, metavar="TIME", help="From then on: 2026-11-24, 2026-11-24T09:30, or 7d ago."),
    click.option("--until", type=MOMENT, metavar="TIME", help="Before then."),
    click.option(
        "--detail",
        "details",
        multiple=True,
        metavar="NAME=VALUE",
        help="With this member of its details, such as route=/v1/fraud. May be repeated.",
    ),
)

key_option = click.option(
    "--key",
    type=VERIFIER_KEY,
    metavar="KEY",
    help="The log's verifier key (palladion key list), for a log that is not this installation's.",
)
ledger_option = click.option(
    "--ledger",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="A ledger's folder, for example a copy; without it, this installation's.",
)


class EntryType(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """The number of an entry, or a receipt of one: the log's origin, a slash and the number."""

    name = "entry"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The origin, None where it is not said, and the number."""
        if not isinstance(value, str):
            return value
        origin, slash, number = value.rpartition("/")
        if not re.fullmatch(r"0|[1-9][0-9]{0,14}", number, re.ASCII) or (slash and not origin):
            self.fail(f"{value!r} is no number of an entry, and no receipt such as ledger.example/fraud/12", param, ctx)
        return origin or None, int(number)


ENTRY = EntryType()


def question_options(command: _Command) -> _Command:
    """Which entries are wanted; `question_of` reads them."""
    for option in reversed(_OF_A_QUESTION):
        command = option(command)
    return command


def ledger_options(help_text: str) -> Callable[[_Command], _Command]:
    """Which ledger is meant, where it is not this installation's."""
    directory = click.option(
        "--ledger",
        "directory",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="FOLDER",
        help=help_text,
    )
    key = click.option("--key", type=VERIFIER_KEY, metavar="KEY", help="The log's verifier key, for another log.")

    def decorate(command: _Command) -> _Command:
        return directory(key(command))

    return decorate


def question_of(ctx: click.Context, asked: dict[str, Any]) -> "Question":
    """The question that options make. Raises NotFoundError on a client that is not known, and click's errors."""
    from palladion.ledger.index import Question

    party = _pseudonym(find_installation(ctx), asked["client"]) if asked["client"] is not None else None
    details = []
    for text in asked["details"]:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--detail")
        details.append((name, value))
    now = datetime.now(UTC)
    since, until = (
        now - moment if isinstance(moment, timedelta) else moment for moment in (asked["since"], asked["until"])
    )
    return Question(tuple(asked["kinds"]), asked["actor"], asked["subject"], party, since, until, tuple(details))


def _pseudonym(installation: "Installation", name: str) -> str:
    from palladion.access.pseudonyms import pseudonym

    key = installation.open_gate_root().derive("pseudonyms")
    with installation.open_registry() as registry, registry.read() as records:
        clients = records.clients.all()
    found = [item for item in clients if name in {item.id, item.name, f"{item.organisation}/{item.name}"}]
    if len(found) != 1:
        raise NotFoundError(
            f"no client is called {name!r}" if not found else f"{len(found)} clients are called {name!r}",
            "palladion client list; name it as organisation/name",
        )
    return pseudonym(key, found[0].id)


def directory_of(ctx: click.Context, directory: Path | None) -> Path:
    """The ledger's folder that is meant."""
    return directory if directory is not None else find_installation(ctx).paths.ledger


def log_key_of(ctx: click.Context, key: "VerifierKey | None") -> "VerifierKey":
    """The log's key that is meant."""
    return key if key is not None else find_installation(ctx).ledger_key()


def reader_of(ctx: click.Context, directory: Path | None, key: "VerifierKey | None") -> "LedgerReader":
    """The ledger that is meant, at its last checkpoint."""
    from palladion.ledger.reader import LedgerReader

    return LedgerReader(directory_of(ctx, directory), log_key_of(ctx, key))


def witnessed_note(ctx: click.Context, key: "VerifierKey") -> "tuple[bytes, Checkpoint, list[str]] | None":
    """This installation's last witnessed note, its checkpoint, and who cosigned it; None without witnesses."""
    from palladion.lifecycle.witnesses import read_witnessed, witnesses_of

    installation = find_installation(ctx)
    policy = installation.policy.ledger
    known = [witness.key for witness in witnesses_of(policy)]
    found = read_witnessed(installation.paths.ledger, key, known, policy.witness_quorum) if known else None
    return None if found is None else (found[0], found[1], [witness.name for witness in found[2]])
