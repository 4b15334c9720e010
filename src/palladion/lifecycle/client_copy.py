"""Clients of one gate let in at another: what is handed over, sealed and signed, and how it is taken over, on record.

The file is a sealed file like any other (docs/format.md); what it changes here is decided in `client_merge`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from palladion import canonical, files
from palladion.access.pseudonyms import identity_pseudonym, pseudonym
from palladion.clock import timestamp
from palladion.errors import ConflictError, FormatError, KeysError, PalladionError, StorageError, TamperError
from palladion.keys import Identity, Recipient, Root, parse_wrap, wrap_document
from palladion.ledger.record import Record
from palladion.ledger.remote import LedgerWriter
from palladion.ledger.writer import BATCH_MAX, Receipt
from palladion.lifecycle.client_bundle import (
    BUNDLE_BYTES_MAX,
    CLIENTS_FILE,
    Bundle,
    client_there,
    decode_bundle,
    encode_bundle,
    new_bundle,
)
from palladion.lifecycle.client_merge import Merge, Step, merge, read_here
from palladion.lifecycle.installation import Installation, gate_identity
from palladion.registry import ClientIdentity, ClientKey, ClientSource, Records
from palladion.seal.header import HEADER_BYTES_MAX, new_header
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import read_identity
from palladion.seal.sign import publisher_id, publisher_text
from palladion.seal.structure import SealedInfo
from palladion.seal.writer import seal_files

PEPPER = "client-key-pepper"
CLOCKS_APART_MAX = timedelta(minutes=10)  # a file of next year would keep out every later one until then
FILE_BYTES_MAX = BUNDLE_BYTES_MAX + HEADER_BYTES_MAX + 4 * 1024 * 1024  # the payload, segments' tags and wraps
BATCHES_BETWEEN_CHECKPOINTS = 32  # of 64: a ledger holds 65,536 records that no checkpoint has

_SCRATCH = ".clients.unfinished"
_CONTEXT = b"palladion/v1/client-source"


@dataclass(frozen=True)
class Exported:
    """What was handed over: the file, how many clients and keys it tells of, and the record of it."""

    path: Path
    clients: int
    keys: int
    publisher: bytes
    receipt: Receipt


@dataclass(frozen=True)
class Imported:
    """What was taken over, or would be: whose clients, as of when, and the changes. Without a receipt nothing was."""

    gate: str
    issued: datetime
    publisher: bytes
    changes: Merge
    receipt: Receipt | None


def export_clients(
    installation: Installation,
    owner: Root,
    out: Path,
    recipients: Sequence[Recipient],
    *,
    actor: str,
    replace: bool = False,
) -> Exported:
    """Write the clients that this gate registered to `out`, sealed to `recipients` and signed by the owner.

    Those that were taken over from others are theirs to tell of. Raises StorageError if `out` exists, unless `replace`.
    """
    if not replace and os.path.lexists(out):
        raise StorageError(f"{out} exists already", "name a new file, or say --replace")
    signer, gate = owner.signer("publisher"), installation.open_gate_root()
    with installation.open_ledger(gate) as ledger, installation.open_registry() as registry:
        now = installation.clock.now()
        with registry.read() as records:
            bundle = _bundle(records, gate, now)
        header = new_header(kind="clients", purpose="clients", publisher=publisher_id(signer.public_key), created=now)
        keys = sum(len(client.keys) for client in bundle.clients)
        with files.scratch_directory(installation.paths.directory / _SCRATCH) as scratch:
            sealed = scratch / CLIENTS_FILE
            try:
                content = encode_bundle(bundle)
            except ValueError as error:
                raise ConflictError(str(error)) from None
            info = seal_files([(CLIENTS_FILE, content)], header, recipients, signer, sealed)
            details = {
                "file_id": header.file_id,
                "header": info.header_digest,
                "root": info.root,
                "clients": len(bundle.clients),
                "keys": keys,
                "sealed_to": [f"{recipient.kind} {recipient.key_id}" for recipient in recipients],
            }
            receipt = ledger.append([Record("clients.exported", now, actor, out.name, details)])[0]
            files.copy_file(sealed, out, replace=replace)
    return Exported(out, len(bundle.clients), keys, signer.public_key, receipt)


def import_clients(
    installation: Installation,
    path: Path,
    identities: Sequence[Identity],
    *,
    actor: str,
    publisher: bytes | None = None,
    dry_run: bool = False,
    another_gate: bool = False,
) -> Imported:
    """Let the clients in that the file at `path` tells of, as far as nothing here says otherwise; all of it or nothing.

    One of the publishers that the policy pins must have signed, and it must be `publisher` where that is given.
    A publisher speaks for one gate, unless this is `another_gate` of its. Besides `identities`, this host's and this
    gate's own keys open it. Raises KeysError, FormatError, TamperError; ConflictError on a file that is older than the
    last one of that gate, or of the future.
    """
    gate = installation.open_gate_root()
    told, signed_by = open_told(
        installation,
        gate,
        path,
        identities,
        publisher,
        names=(CLIENTS_FILE,),
        size_max=FILE_BYTES_MAX,
        made_by="palladion client export",
    )
    bundle = decode_bundle(told[CLIENTS_FILE], what=str(path))
    if bundle.issued_at > installation.clock.now() + CLOCKS_APART_MAX:
        raise ConflictError(f"{path} is of {bundle.issued}, and that is still to come", "set both machines' clocks")
    names = (item.client for item in installation.policy.contract)
    contracts = frozenset(name if "/" in name else f"{name}/{name}" for name in names)
    if dry_run:
        with installation.open_registry() as registry, registry.read() as records:
            _require_next(installation, records, gate, bundle, signed_by, another_gate=another_gate)
            changes = merge(bundle, read_here(records, gate.root_id, bundle, contracts))
        return Imported(bundle.gate, bundle.issued_at, signed_by, changes, None)
    with installation.recording(gate) as (ledger, records):
        _require_next(installation, records, gate, bundle, signed_by, another_gate=another_gate)
        changes = merge(bundle, read_here(records, gate.root_id, bundle, contracts))
        records.client_copies.put_source(
            bundle.gate,
            publisher=signed_by.hex(),
            issued=bundle.issued_at,
            pepper=_wrapped(gate, bundle),
        )
        for step in changes.steps:
            if step.write is not None:
                step.write(records, actor)
        records.client_copies.flush()
        now = installation.clock.now()
        receipt = _record(ledger, gate, bundle, changes, signed_by=signed_by, now=now, actor=actor)
    return Imported(bundle.gate, bundle.issued_at, signed_by, changes, receipt)


def peppers(records: Records, gate: Root) -> tuple[bytes, ...]:
    """What the key hashes of other gates' clients are keyed with. Raises KeysError, FormatError on a damaged one."""
    return tuple(_unwrapped(gate, source) for source in records.client_copies.sources() if source.pepper)


def _bundle(records: Records, gate: Root, now: datetime) -> Bundle:
    copies = records.client_copies
    origins, hashes, standings = copies.origins(), copies.hashes(), records.standings.current()
    own = [client for client in records.clients.registered() if client.id not in origins]
    keys: dict[str, list[tuple[ClientKey, bytes]]] = {client.id: [] for client in own}
    identities: dict[str, list[ClientIdentity]] = {client.id: [] for client in own}
    for key in copies.all_keys():
        if key.client in keys:
            keys[key.client].append((key, hashes[key.prefix]))
    for row in copies.identities():
        if row.client in identities:
            identities[row.client].append(row)
    return new_bundle(
        gate.root_id,
        gate.derive(PEPPER),
        now,
        (client_there(client, standings[client.id].reason, keys[client.id], identities[client.id]) for client in own),
    )


def open_told(
    installation: Installation,
    gate: Root,
    path: Path,
    identities: Sequence[Identity],
    publisher: bytes | None,
    *,
    names: Sequence[str],
    size_max: int,
    made_by: str,
) -> tuple[dict[str, bytes], bytes]:
    """The files of these names in what another gate has sealed, and the pinned key that signed it.

    `made_by` is the command that makes such a file. Raises as `import_clients`.
    """
    pinned = installation.publishers()
    if publisher is not None and publisher not in pinned:
        raise KeysError(
            f"the policy does not trust the publisher {publisher_text(publisher)}",
            f"add it to trust.publishers in {installation.paths.policy}",
        )
    with files.storage_errors(path):
        size = path.stat().st_size
    if size > size_max:
        raise FormatError(f"{path} has {size} bytes, and what one gate tells another takes {size_max} at most")
    trusted = pinned if publisher is None else [publisher]
    with open_sealed(path, [gate_identity(gate), *_host(installation), *identities], trusted, accept=_accept) as opened:
        if sorted(opened.files) != sorted(names):
            raise FormatError(f"{path} holds other files than {' and '.join(names)}", made_by)
        signed_by = next(key for key in trusted if publisher_id(key) == opened.info.header.publisher)
        return {name: bytes(opened.files[name]) for name in names}, signed_by


def _accept(info: SealedInfo) -> None:
    if (info.header.kind, info.header.purpose) != ("clients", "clients"):
        raise FormatError(
            f"this is a sealed {info.header.kind}, clients of a gate were expected", "palladion client export"
        )


def _host(installation: Installation) -> list[Identity]:
    """The host identity, where it can be had: the gate root may have been opened without it."""
    try:
        return [read_identity(installation.paths.host_identity)]
    except PalladionError:
        return []


def _require_next(
    installation: Installation,
    records: Records,
    gate: Root,
    bundle: Bundle,
    signed_by: bytes,
    *,
    another_gate: bool,
) -> None:
    """Raise unless `signed_by` is who speaks for that gate, and says something newer than the last time."""
    if bundle.gate == gate.root_id and signed_by != installation.public_keys("owner").keys["publisher"]:
        # who got our pepper in a file of ours could otherwise speak of our own clients
        raise TamperError("the file tells of this gate's own clients, and another publisher signed it")
    sources = records.client_copies.sources()
    known = next((source for source in sources if source.gate == bundle.gate), None)
    if known is None:
        of_publisher = next((source for source in sources if source.publisher == signed_by.hex()), None)
        if of_publisher is not None and not another_gate:
            # the file alone says of which gate it is: every import by a timer could name one more
            raise ConflictError(
                f"the file is of gate {bundle.gate}, and its publisher spoke for gate {of_publisher.gate} before",
                "if both are gates of that publisher, say --another-gate",
            )
        return
    if known.publisher != signed_by.hex():
        raise TamperError(
            f"the clients of gate {bundle.gate} were signed by {publisher_text(bytes.fromhex(known.publisher))} "
            f"before, and this file by {publisher_text(signed_by)}",
            "ask who made the file: one publisher cannot speak of another one's clients",
        )
    if bundle.issued_at < known.issued:
        raise ConflictError(
            f"the file is of {bundle.issued}, and one of {timestamp(known.issued)} was imported already",
            "import the newest: an older one may not know what was revoked since",
        )


def _wrapped(gate: Root, bundle: Bundle) -> str:
    """The pepper as it is kept: sealed to this gate, so that a copy of the registry does not hold it."""
    if bundle.gate == gate.root_id:
        return ""
    wrap = gate_identity(gate).recipient.wrap(bytes.fromhex(bundle.pepper), _context(bundle.gate))
    return canonical.encode(wrap_document(wrap)).decode()


def _unwrapped(gate: Root, source: ClientSource) -> bytes:
    what = f"the pepper of gate {source.gate}"
    document = canonical.decode(source.pepper.encode(), size_max=len(source.pepper.encode()), what=what)
    pepper = gate_identity(gate).unwrap(parse_wrap(document, what), _context(source.gate))
    if pepper is None:
        raise KeysError(f"{what} was kept for another gate root than this one", "import that gate's clients again")
    return pepper


def _context(gate: str) -> bytes:
    return _CONTEXT + gate.encode()


def _record(
    ledger: LedgerWriter, gate: Root, bundle: Bundle, changes: Merge, *, signed_by: bytes, now: datetime, actor: str
) -> Receipt:
    """Put the import on record, and each change under the client's pseudonym."""
    key = gate.derive("pseudonyms")
    kinds = sorted({step.kind for step in changes.steps if step.kind})
    details = {
        "publisher": publisher_id(signed_by),
        "issued": bundle.issued,
        "clients": len(bundle.clients),
        "changes": {kind: changes.count(kind) for kind in kinds},
        "kept": len(changes.kept),
        "passed_over": len(changes.passed_over),
    }
    receipt = ledger.append([Record("clients.imported", now, actor, f"gate:{bundle.gate}", details)])[0]
    told = [_step_record(step, key, now, actor) for step in changes.steps if step.kind]
    for number, begin in enumerate(range(0, len(told), BATCH_MAX), 1):
        ledger.append(told[begin : begin + BATCH_MAX])
        if number % BATCHES_BETWEEN_CHECKPOINTS == 0:
            ledger.checkpoint()
    return receipt


def _step_record(step: Step, key: bytes, now: datetime, actor: str) -> Record:
    details = step.details
    if step.identity is not None:
        details = {"kind": step.identity[0], "identity": identity_pseudonym(key, *step.identity)}
    return Record(step.kind, now, actor, pseudonym(key, step.client), details)
