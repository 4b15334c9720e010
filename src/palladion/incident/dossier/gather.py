"""Puts a dossier together from what ledger and registry know of a case: the document, and the entries that prove it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from palladion import __version__, files
from palladion.access.pseudonyms import pseudonym
from palladion.clock import timestamp
from palladion.errors import ConflictError, PalladionError
from palladion.incident.cases import find_case
from palladion.incident.dossier.document import (
    Case,
    Cited,
    Dossier,
    Log,
    ModelRow,
    Particulars,
    VersionRow,
)
from palladion.incident.dossier.history import Entry, History, read_history
from palladion.incident.dossier.names import Names, commitment_to, names_of, opening_of
from palladion.incident.dossier.package import verifier_digest
from palladion.incident.dossier.telling import Registered, Telling
from palladion.incident.dossier.verifier.ledger import LEDGER_FOLDER
from palladion.keys import Root
from palladion.ledger.merkle import leaf_hash
from palladion.ledger.proof import encode_proof
from palladion.ledger.reader import LedgerReader
from palladion.lifecycle.installation import Installation
from palladion.registry import Records
from palladion.seal.sign import publisher_text

Progress = Callable[[str, int, int], None]

ATTACHED_MAX = 64
ATTACHED_BYTES_MAX = 256 * 1024 * 1024  # each
ATTACHED_FOLDER = "evidence/attached/"


@dataclass(frozen=True)
class Wishes:
    """What the person who makes a dossier asks for: models (those of the tests if empty), names, texts, attachments."""

    models: tuple[str, ...] = ()
    named: bool = False
    particulars: Particulars = field(default_factory=Particulars)
    attached: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Gathered:
    """A dossier and the evidence that it cites, by member name."""

    dossier: Dossier
    evidence: Mapping[str, bytes]


def gather(
    installation: Installation,
    incident: str,
    wishes: Wishes,
    *,
    gate: Root,
    publisher: bytes,
    actor: str,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Gathered:
    """The dossier of a case, by its id or the beginning of it. Reads the ledger once, and changes nothing.

    `publisher` is the raw public key that will sign it. Raises NotFoundError for a case or a model that does not exist,
    TamperError at an entry that cannot be proved.
    """
    attached = _attached(wishes.attached)
    reader = installation.read_ledger()
    key = gate.derive("pseudonyms")
    registered, history = _read(installation, reader, incident, wishes, key=key, progress=progress)
    told = Telling(registered, history, installation.clock.now())
    contents: dict[str, Any] = {
        "models": told.models(),
        "commitments": told.commitments(),
        "measures": told.measures(),
        "controls": told.controls(),
        "gate": told.gate(),
        "accounts": told.accounts(),
        "links": told.links(),
        "comparison": told.comparison(),
        "custody": told.custody(),
    }
    timeline, left_out = told.timeline()
    progress("prove what is cited", 0, 0)
    cited, evidence = _proved(reader, told.cited, registered.names, key)
    checkpoint = reader.checkpoint
    dossier = Dossier(
        made=timestamp(installation.clock.now()),
        by=actor,
        software=f"palladion {__version__}",
        publisher=publisher_text(publisher),
        verifier=verifier_digest(),
        named=wishes.named,
        case=_case(registered),
        log=Log(checkpoint.origin, str(installation.ledger_key()), checkpoint.size, checkpoint.root.hex()),
        particulars=wishes.particulars,
        timeline=timeline,
        timeline_left_out=left_out,
        evidence=cited,
        attached=[_listed(name, data) for name, data in attached.items()],
        **contents,
    )
    verifier_key = f"{installation.ledger_key()}\n".encode()
    logged = {f"{LEDGER_FOLDER}checkpoint": reader.note, f"{LEDGER_FOLDER}verifier-key.txt": verifier_key}
    return Gathered(dossier, {**logged, **evidence, **attached})


def _read(
    installation: Installation,
    reader: LedgerReader,
    incident: str,
    wishes: Wishes,
    *,
    key: bytes,
    progress: Progress,
) -> tuple[Registered, History]:
    with installation.open_registry() as registry, registry.read() as records:
        case = find_case(records, incident)
        clients = {pseudonym(key, client): records.clients.get(client) for client in case.clients}
        history = read_history(reader, case.id, frozenset(clients), progress)
        names = names_of(records, key, named=wishes.named)
        credentials = {
            name: (len(records.clients.keys(client.id)), len(records.identities.of(client.id)))
            for name, client in clients.items()
        }
        chosen = list(dict.fromkeys(wishes.models)) or _tested(history)
        chosen = chosen or [row.name for row in records.models.all()]
        models = [_model(records, history, name) for name in chosen]
        return Registered(case, names, clients, credentials, models), history


def _tested(history: History) -> list[str]:
    """The models that suspects were tested against."""
    found = []
    for entry in history.of("mark.tested"):
        versions = entry.record.details.get("versions")
        for item in versions if isinstance(versions, list) else ():
            name = item.get("version") if isinstance(item, dict) else None
            if isinstance(name, str):
                found.append(name.partition("@")[0])
    return sorted(set(found))


def _model(records: Records, history: History, name: str) -> ModelRow:
    row = records.models.get(name)
    recorded: dict[str, int] = {}
    for entry in history.of("model.protected", "model.sealed"):
        recorded.setdefault(entry.record.subject, entry.index)
    promotions = records.promotions.history(name)
    versions = []
    for version in records.versions.all(name):
        subject = f"{name}@{version.number}"
        sealed = {"served": version.served, "original": version.original}
        versions.append(
            VersionRow(
                subject,
                f"{name}@{version.parent}" if version.parent else None,
                version.content_digest,
                version.graph_digest,
                version.format,
                version.publisher,
                {kind: file.digest for kind, file in sealed.items() if file is not None},
                timestamp(version.created),
                recorded.get(subject),
                [f"{item.kind} {timestamp(item.at)}" for item in promotions if item.number == version.number],
            )
        )
    return ModelRow(name, row.owner, row.format, timestamp(row.created), versions)


def _case(registered: Registered) -> Case:
    case, covered = registered.case, registered.names.covered
    return Case(
        case.id,
        covered(case.title),
        case.state,
        timestamp(case.opened_at),
        timestamp(case.closed_at) if case.closed_at else None,
        covered(case.finding) if case.finding else None,
    )


def _proved(
    reader: LedgerReader, cited: Mapping[int, Entry], names: Names, key: bytes
) -> tuple[list[Cited], dict[str, bytes]]:
    """The cited entries with their proofs, by member name; of one that names somebody a commitment, unless named."""
    rows, members = [], {}
    for index, entry in sorted(cited.items()):
        stem, leaf = f"{LEDGER_FOLDER}entry-{index}", leaf_hash(entry.data)
        time, kind = timestamp(entry.record.time), entry.record.kind
        somebody = names.names_somebody(entry.record)
        opening = opening_of(key, index)
        if somebody and not names.named:
            commitment = commitment_to(opening, leaf)
            members[f"{stem}.withheld"] = commitment.encode()
            rows.append(Cited(index, time, kind, None, commitment, None))
            continue
        members[f"{stem}.json"] = entry.data
        members[f"{stem}.tlog-proof"] = encode_proof(index, reader.inclusion_proof(index), reader.note)
        rows.append(Cited(index, time, kind, leaf.hex(), None, opening.hex() if somebody else None))
    return rows, members


def _attached(paths: Sequence[Path]) -> dict[str, bytes]:
    """Files that go into the package as they are, by member name; their own names stand in the document."""
    if len(paths) > ATTACHED_MAX:
        raise PalladionError(f"{len(paths)} files are attached, at most {ATTACHED_MAX} are taken")
    return dict(_members(paths))


def _members(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    taken = set()
    for path in paths:
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in path.name).lstrip(".-")
        name = f"{ATTACHED_FOLDER}{safe or 'file'}"
        if name in taken:
            raise ConflictError(f"two attached files would be called {name}", "rename one of them")
        taken.add(name)
        yield name, files.read_limited(path, size_max=ATTACHED_BYTES_MAX, what="the attached file")


def _listed(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "bytes": len(data), "sha256": sha256(data).hexdigest()}
