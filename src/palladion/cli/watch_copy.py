"""`palladion watch export` and `palladion watch join`: clients who ask at two gates of one house (docs/access.md)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.gate_files import OPENED_WITH, PUBLISHED_BY, REPLACE, SEALED_TO
from palladion.cli.output import (
    actor,
    ask_pin,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    print_table,
)
from palladion.clock import timestamp
from palladion.errors import ConflictError, FormatError

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from palladion.keys import Recipient
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.watch_copy import Told
    from palladion.policy import WatchPolicy
    from palladion.watch.client import ClientState
    from palladion.watch.merging import Together

COLUMNS = ("client", "p together", "p here", "p there", "queries", "covered", "here", "there", "asks for")
SHOWN = 50  # to people; --json has all


@click.command("export", epilog="Example: palladion watch export fraud states.sealed --to pallr1x…")
@click.argument("model")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@SEALED_TO
@REPLACE
@passphrase_option
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    model: str,
    file: Path,
    recipients: "tuple[Recipient, ...]",
    replace: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Write what the watch knows of MODEL's clients to FILE, so that another gate can join it with its own.

    Sealed to RECIPIENT and signed by the owner. It holds the calibration as well, which is secret, and no rows: sums
    of scores, which buckets were covered, and of the last queries coordinates and digests.
    """
    from palladion.lifecycle.watch_copy import export_states

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    made = export_states(installation, owner, model, file, recipients, actor=actor(), replace=replace)
    if as_json:
        document = {"file": str(file), "model": model, "clients": made.clients}
        print_json({**document, "calibration": made.digest, "receipt": str(made.receipt)})
        return
    echo(f"wrote {file}")
    print_fields([("clients", str(made.clients)), ("calibration", made.digest), ("ledger", str(made.receipt))])


@click.command("join", epilog="Example: palladion watch join states.sealed --publisher pallp1e…")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@PUBLISHED_BY
@OPENED_WITH
@click.option(
    "--take-calibration",
    is_flag=True,
    help="Go by its calibration from now on, if it is of the version served here: all clients begin anew.",
)
@json_option
@click.pass_context
def join(
    ctx: click.Context,
    file: Path,
    publisher: bytes | None,
    identities: tuple[str, ...],
    take_calibration: bool,
    as_json: bool,
) -> None:
    """Say what clients come to by what this gate and the one that wrote FILE have seen of them together.

    Both have to go by one calibration. Changes no standing: palladion client standing does.
    """
    from palladion.gate.served import load_calibration
    from palladion.lifecycle.watch_copy import calibrated, open_states, purpose_of
    from palladion.seal.recipients import parse_identity
    from palladion.watch.merging import together

    installation = find_installation(ctx)
    told = open_states(
        installation, file, [parse_identity(text, ask_pin=ask_pin) for text in identities], publisher=publisher
    )
    taken = _take(installation, told) if take_calibration else None
    with installation.open_registry() as registry, registry.read() as records:
        version, row = calibrated(records, told.model)
        names = {item.id: f"{item.organisation}/{item.name}" for item in records.clients.all()}
        saved = records.gate_states.load(purpose_of(told.model, row.digest))
    if row.digest != told.digest:
        raise ConflictError(
            f"gate {told.gate} goes by another calibration of {told.model}, under which states mean something else",
            "palladion watch join FILE --take-calibration",
        )
    found = together(
        load_calibration(installation, version, row),
        _decoded(saved, told.states),
        _decoded(told.states, saved),
    )
    unknown = len(told.states.keys() - names.keys())
    clients = [_document(item, names, installation.policy.watch) for item in found]
    document = {
        "gate": told.gate,
        "issued": timestamp(told.issued),
        "model": told.model,
        "clients": clients,
        "unknown": unknown,
        "calibration_taken": taken,
    }
    if as_json:
        print_json(document)
        return
    if taken is not None:
        echo(f"took over the calibration {told.digest[:16]} of gate {told.gate} (ledger {taken}): all begin anew")
    echo(f"{len(found)} clients of {told.model} asked here and at gate {told.gate}, as of {document['issued']}")
    if found:
        print_table(COLUMNS, [_row(item) for item in clients[:SHOWN]])
    if len(found) > SHOWN:
        echo(f"and {len(found) - SHOWN} more clients: --json shows all")
    if unknown:
        echo(f"{unknown} clients of that gate are not known here (palladion client import)")


def _take(installation: "Installation", told: "Told") -> str | None:
    """Register the other gate's calibration as the newest of the version that is served; the receipt, if it was not."""
    from palladion.lifecycle.open import find_version
    from palladion.redteam.calibrate import register_calibration
    from palladion.watch.calibration_file import decode_calibration, encode_calibration

    version = find_version(installation, told.model)
    with installation.open_registry() as registry, registry.read() as records:
        newest = records.calibrations.newest(version.model, version.number)
    if newest is not None and newest.digest == told.digest:
        return None
    calibration = decode_calibration(told.calibration, what="the other gate's calibration")
    if calibration.about.content != version.content_digest:
        raise ConflictError(
            f"the calibration of gate {told.gate} is of another version than {version.model}@{version.number}",
            "promote the same version at both gates",
        )
    if encode_calibration(calibration) != told.calibration:
        raise FormatError("the other gate's calibration is not written as this release writes it")
    _, receipt = register_calibration(installation, version, calibration, actor(), {"from": told.gate})
    return str(receipt)


def _decoded(states: "Mapping[str, bytes]", wanted: "Container[str]") -> "dict[str, ClientState]":
    from palladion.watch.client import ClientState

    return {client: ClientState.from_bytes(data) for client, data in states.items() if client in wanted}


def _document(item: "Together", names: "Mapping[str, str]", policy: "WatchPolicy") -> dict[str, Any]:
    from palladion.watch.spending import spent_weight

    times = spent_weight(item.epoch) if policy.alpha_spent == "lifetime" else 1.0
    p_value = min(1.0, item.p_value * times)
    asks = "suspected" if p_value <= policy.alpha_suspected else "watched" if p_value <= policy.alpha_watched else None
    return {
        "client": names.get(item.client, item.client),
        "p_value": p_value,
        "p_value_here": item.p_values[0],
        "p_value_there": item.p_values[1],
        "queries": item.queries,
        "buckets": item.united,
        "buckets_here": item.buckets[0],
        "buckets_there": item.buckets[1],
        "asks_for": asks,
    }


def _row(item: dict[str, Any]) -> list[object]:
    return [
        item["client"],
        *(f"{item[name]:.3g}" for name in ("p_value", "p_value_here", "p_value_there")),
        *(item[name] for name in ("queries", "buckets", "buckets_here", "buckets_there")),
        item["asks_for"] or "",
    ]
