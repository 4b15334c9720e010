"""`palladion license …`: who may open a model on whose premises, until when."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from palladion.canonical import INTEGER_MAX
from palladion.cli.output import (
    HOST_IDENTITIES,
    PUBLISHER,
    KeyType,
    actor,
    echo,
    find_host,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    print_table,
    warn,
)
from palladion.clock import SystemClock
from palladion.errors import FormatError, InstallationError
from palladion.files import read_limited

if TYPE_CHECKING:
    from palladion.lifecycle.license import Issued
    from palladion.seal.license import License
    from palladion.seal.machine import Challenge, MachineKind

KINDS = ("host", "machine-id", "vm", "pod", "tpm")  # those that a machine can show; a test compares
DAY = click.DateTime(["%Y-%m-%d"])
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
until_option = click.option("--until", type=DAY, required=True, metavar="DATE", help="Its last day, in UTC.")


def _parse_range(text: str) -> tuple[int, int]:
    """First and last of `3`, `3-5`, or `3-` for everything from 3 on."""
    first, dash, last = text.partition("-")
    if not all(part.isascii() and part.isdecimal() and len(part) <= 9 for part in (first, last or "0")):
        raise FormatError(f"{text!r} is no range of versions: 3, 3-5 or 3- was expected")
    return int(first), int(last) if last else INTEGER_MAX if dash else int(first)


RANGE = KeyType("range", _parse_range)


@click.group("license")
def license_group() -> None:
    """Licences: who may open a model on whose premises, until when, and on which machine."""


@license_group.command(
    "issue",
    epilog="Example: palladion license issue acme.sealed --licensee Acme --until 2027-06-30 --machine acme.request",
)
@click.argument("target")
@click.option("--licensee", required=True, metavar="NAME", help="Who gets it.")
@until_option
@click.option("--from", "begins", type=DAY, metavar="DATE", help="Its first day, in UTC; without it, from now on.")
@click.option("--versions", type=RANGE, multiple=True, help="Versions, 3-5 or 3-, instead of one file. Repeatable.")
@click.option("--machine", "requests", type=FILE, multiple=True, help="The request of a machine it is for. Repeatable.")
@click.option(
    "--bind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=["host"],
    show_default=True,
    help="By what a machine is known. Repeatable: then all of it has to fit.",
)
@click.option("--grace-days", type=click.IntRange(0, 366), default=0, help="Days after its end that only warn.")
@click.option("--purpose", default="use", show_default=True, help="What the model may be used for.")
@click.option("--feature", "features", multiple=True, help="A feature that an engine may ask for. Repeatable.")
@click.option("--out", type=NEW_FILE, help="The new licence file; for a sealed file, by default beside it.")
@passphrase_option
@json_option
@click.pass_context
def issue(
    ctx: click.Context,
    target: str,
    licensee: str,
    until: datetime,
    begins: datetime | None,
    versions: tuple[tuple[int, int], ...],
    requests: tuple[Path, ...],
    kinds: "tuple[MachineKind, ...]",
    grace_days: int,
    purpose: str,
    features: tuple[str, ...],
    out: Path | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Sign a licence for TARGET: a sealed file, a version such as fraud@3, or a model with --versions.

    The customer puts it beside the sealed file, with .license after its name. Without --machine it is good on any
    machine. What a licence is worth, and what it is not, stands in docs/licenses.md.
    """
    from palladion.host.host import LICENSE_SUFFIX
    from palladion.lifecycle import license as life
    from palladion.seal.license import VersionRange

    path = Path(target) if Path(target).is_file() else None
    if out is None and path is None:
        raise click.UsageError("--out FILE is needed where the licence is not for one sealed file")
    out = out or Path(f"{target}{LICENSE_SUFFIX}")
    challenges = _challenges(requests)
    installation = find_installation(ctx)
    grant = life.Grant(
        licensee=licensee,
        not_after=_end_of(until),
        not_before=begins.replace(tzinfo=UTC) if begins else None,
        versions=tuple(VersionRange(first, last) for first, last in versions),
        grace_days=grace_days,
        purpose=purpose,
        features=features,
    )
    done = life.issue(
        installation,
        installation.open_owner_root(owner_identities(passphrase_file)),
        path or target,
        grant,
        out,
        challenges=challenges,
        kinds=kinds,
        actor=actor(),
    )
    _say_issued("issued", done, challenges, as_json)
    if not done.license.machines:
        warn("the licence is good on any machine: --machine REQUEST binds it to one")
    if done.required is False:
        warn(f"{target} is opened without a licence too: it has to be sealed with --license-required")


@license_group.command("request", epilog="Example: palladion license request --out acme.request")
@click.option("--out", type=NEW_FILE, required=True, metavar="FILE", help="The new file, to be sent to the publisher.")
@click.option("--license", "held", type=FILE, metavar="FILE", help="The licence that is to be renewed.")
@HOST_IDENTITIES
@json_option
def request(out: Path, held: Path | None, identities: tuple[str, ...], as_json: bool) -> None:
    """Ask for a licence or its renewal from the machine that opens the model: by a file, without a network.

    The file holds digests of what the machine can show, and no secret. Only this machine accepts the answer. Needs no
    installation.
    """
    from palladion.lifecycle.license import ask
    from palladion.seal.license import decode_license

    terms = decode_license(_read(held), what=str(held)) if held else None
    challenge = ask(find_host(identities), out, held=terms)
    _show_request(out, challenge, as_json)
    if not as_json:
        echo("send it to the publisher, and compare the code over another channel")


@license_group.command("renew", epilog="Example: palladion license renew acme.request --until 2028-06-30 --out next")
@click.argument("requests", nargs=-1, type=FILE)
@click.option("--serial", help="The licence, where no request names it. Its first characters will do.")
@until_option
@click.option("--out", type=NEW_FILE, required=True, metavar="FILE", help="The new licence file, to be sent back.")
@click.option(
    "--replace-machine",
    type=click.IntRange(min=1),
    is_flag=False,
    flag_value=0,
    metavar="[NUMBER]",
    help="Whoever asks takes the place of the licence's machine (of this number, where it names several).",
)
@passphrase_option
@json_option
@click.pass_context
def renew(
    ctx: click.Context,
    requests: tuple[Path, ...],
    serial: str | None,
    until: datetime,
    out: Path,
    replace_machine: int | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Sign the next sequence of a licence, as REQUESTS ask for it, until another day.

    Only the machines that made the requests accept it; with --serial and without a request, every machine of the
    licence does. The sequence before is refused wherever the new one has been used.
    """
    from palladion.lifecycle import license as life

    challenges = _challenges(requests)
    serials = {challenge.serial for challenge in challenges if challenge.serial} | ({serial} if serial else set())
    if not serials:
        raise click.UsageError("which licence? give a request that names it, or --serial SERIAL")
    installation = find_installation(ctx)
    done = life.renew(
        installation,
        installation.open_owner_root(owner_identities(passphrase_file)),
        serial or next(iter(serials)),
        _end_of(until),
        out,
        challenges=challenges,
        replace_machine=replace_machine,
        actor=actor(),
    )
    _say_issued("renewed", done, challenges, as_json)


@license_group.command("revoke", epilog="Example: palladion license revoke 3f2a9c01 --reason 'contract ended'")
@click.argument("serial")
@click.option("--reason", required=True, help="Why; it goes onto the list, which customers see, and into the ledger.")
@passphrase_option
@json_option
@click.pass_context
def revoke(ctx: click.Context, serial: str, reason: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Put the licence SERIAL on the list of revocations, and sign the list anew. A host refuses what it lists.

    A host learns of it when the list reaches it: one that nothing reaches goes on until the licence ends.
    """
    from palladion.lifecycle import license as life

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    terms, listed, receipt = life.revoke_license(installation, owner, serial, reason=reason, actor=actor())
    path = installation.paths.revocations
    if as_json:
        print_json({"serial": terms.serial, "list": listed.sequence, "file": str(path), "receipt": str(receipt)})
        return
    echo(f"revoked licence {terms.serial} of {terms.licensee} (ledger {receipt})")
    print_fields([("list", f"{path}, number {listed.sequence}: give it to hosts (palladion host update)")])


@license_group.command("list", epilog="Example: palladion license list")
@json_option
@click.pass_context
def list_licenses(ctx: click.Context, as_json: bool) -> None:
    """List the newest sequence of every licence that was issued here."""
    from palladion.lifecycle import license as life
    from palladion.lifecycle.revoke import read_revocations

    installation = find_installation(ctx)
    listed = read_revocations(installation)
    revoked = {serial: f"revoked: {reason}" for serial, reason in (listed.serials if listed else {}).items()}
    now = installation.clock.now()
    found = [(terms, revoked.get(terms.serial) or _state(terms, now)) for terms in life.issued(installation)]
    if as_json:
        print_json({"licenses": [{**msgspec.to_builtins(terms), "state": state} for terms, state in found]})
    elif found:
        columns = ("serial", "sequence", "licensee", "model", "until", "state")
        print_table(columns, [(t.serial, t.sequence, t.licensee, t.model, _until(t), state) for t, state in found])
    else:
        echo("no licences yet: palladion license issue FILE --licensee NAME --until DATE")


@license_group.command("inspect", epilog="Example: palladion license inspect fraud.sealed.license")
@click.argument("file", type=FILE)
@click.option(
    "--publisher",
    "publishers",
    type=PUBLISHER,
    multiple=True,
    metavar="KEY",
    help="Accept this publisher's signature (pallp1…) and no other. Repeatable.",
)
@json_option
@click.pass_context
def inspect(ctx: click.Context, file: Path, publishers: tuple[bytes, ...], as_json: bool) -> None:
    """Show what FILE says: a licence, or a request for one. Needs no key.

    Its signature is checked against --publisher, or else against those that this installation or this host trusts.
    """
    from palladion.seal.license import decode_license, verify_license
    from palladion.seal.machine import decode_challenge

    data = _read(file)
    if data.startswith(b'{"challenge":'):
        _show_request(file, decode_challenge(data, what=str(file)), as_json)
        return
    terms = decode_license(data, what=str(file))
    pinned = publishers or _known(ctx, terms.publisher)
    if pinned:
        verify_license(data, pinned, what=str(file))
    _show_license(file, terms, checked=bool(pinned), as_json=as_json)


def _say_issued(verb: str, done: "Issued", challenges: "Sequence[Challenge]", as_json: bool) -> None:
    terms = done.license
    if as_json:
        document = {"serial": terms.serial, "sequence": terms.sequence, "file": str(done.out), "until": terms.not_after}
        print_json({**document, "receipt": str(done.receipt)})
        return
    echo(f"{verb} licence {terms.serial} of {terms.licensee}, sequence {terms.sequence} (ledger {done.receipt})")
    codes = ", ".join(challenge.code for challenge in challenges)
    answers = f"request {codes}: compare the code with whoever sent it" if codes else None
    print_fields([("file", str(done.out)), *_scope_fields(terms), ("answers", answers)])


def _show_license(file: Path, terms: "License", *, checked: bool, as_json: bool) -> None:
    state = _state(terms, SystemClock().now())
    document = {"license": msgspec.to_builtins(terms), "signature_checked": checked, "state": state}
    fields = [
        ("licensee", terms.licensee),
        *_scope_fields(terms),
        ("state", state),
        ("answers", f"requests: {len(terms.nonces)}" if terms.nonces else None),
        ("issued", terms.issued),
        ("publisher", terms.publisher),
    ]
    signature = "its signature holds" if checked else "its signature not checked here"
    _show(file, f"licence {terms.serial}, sequence {terms.sequence}, {signature}", document, fields, as_json)


def _show(file: Path, what: str, document: dict[str, Any], fields: Sequence[tuple[str, object]], as_json: bool) -> None:
    if as_json:
        print_json({"file": str(file), **document})
    else:
        echo(f"{file}: {what}")
        print_fields(fields)


def _scope_fields(terms: "License") -> list[tuple[str, object]]:
    grace = f", then {terms.grace_days} days of grace" if terms.grace_days else ""
    machines: list[tuple[str, object]] = [
        (f"machine {number}", ", ".join(f"{kind} {digest[:16]}…" for kind, digest in entry.items()))
        for number, entry in enumerate(terms.machines, 1)
    ]
    return [
        ("model", terms.model),
        ("versions", ", ".join(map(str, terms.versions)) or None),
        ("files", ", ".join(f"{digest[:16]}…" for digest in terms.files) or None),
        *(machines or [("machines", "any")]),
        ("from", terms.not_before),
        ("until", f"{_until(terms)}{grace}"),
        ("purpose", terms.purpose),
        ("features", ", ".join(terms.features) or None),
    ]


def _until(terms: "License") -> str:
    day = terms.expires - timedelta(microseconds=1)
    return f"the end of {day:%Y-%m-%d} in UTC" if terms.not_after.endswith("T00:00:00.000000Z") else terms.not_after


def _state(terms: "License", now: datetime) -> str:
    if now < terms.begins:
        return "not yet"
    if now < terms.expires:
        return f"valid for {(terms.expires - now).days} days"
    return "in its grace" if now < terms.ends else "expired"


def _show_request(file: Path, challenge: "Challenge", as_json: bool) -> None:
    shown = [(kind, ", ".join(f"{digest[:16]}…" for digest in digests)) for kind, digests in challenge.machine.items()]
    fields = [("code", challenge.code), ("recipient", challenge.recipient or None), *shown]
    held = f"licence {challenge.serial}, sequence {challenge.sequence}" if challenge.serial else "a licence"
    document = {"request": msgspec.to_builtins(challenge), "code": challenge.code}
    _show(file, f"a request for {held}", document, fields, as_json)


def _challenges(paths: Sequence[Path]) -> "list[Challenge]":
    from palladion.seal.machine import decode_challenge

    return [decode_challenge(_read(path), what=str(path)) for path in paths]


def _read(path: Path) -> bytes:
    from palladion.seal.license import LICENSE_BYTES_MAX

    # a request is smaller, and has a limit of its own
    return read_limited(path, size_max=LICENSE_BYTES_MAX, what="the file")


def _known(ctx: click.Context, publisher: str) -> list[bytes]:
    """The key of that publisher, if this installation or this host trusts it."""
    from palladion.seal.sign import publisher_id

    keys = [key for key, _ in find_host().trusted()]
    with suppress(InstallationError):  # a customer's machine has none
        keys += find_installation(ctx).publishers()
    return [key for key in keys if publisher_id(key) == publisher]


def _end_of(day: datetime) -> datetime:
    """The moment at which `day` is over, in UTC."""
    try:
        return day.replace(tzinfo=UTC) + timedelta(days=1)
    except OverflowError:
        raise click.UsageError(f"{day:%Y-%m-%d} is later than calendars go") from None
