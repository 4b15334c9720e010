"""Encryption alone: a model, a folder or any other file, sealed as it is to named recipients and kept as a version.

Nothing is marked, so a leak of what was only sealed cannot be traced: a customer's copy is `deliver`'s business.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion import files
from palladion.errors import ConflictError, PalladionError, StorageError
from palladion.keys import Recipient, Root
from palladion.ledger.record import Record
from palladion.ledger.remote import LedgerWriter
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approvers import require_escrow
from palladion.lifecycle.installation import Installation, gate_identity, owner_identity
from palladion.lifecycle.numbering import Next, next_version
from palladion.lifecycle.open import find_version
from palladion.lifecycle.privacy import sign_privacy
from palladion.lifecycle.reading import read_model
from palladion.lifecycle.recipients import refuse_revoked
from palladion.lifecycle.reconcile import statement
from palladion.model.payload import PayloadKind, file_kind, read_payload
from palladion.private.dp.statement import PrivacyStatement
from palladion.registry import NewVersion, Registry, SealedFile, SignedPrivacy, Version, VersionTensor, names
from palladion.seal.header import new_header
from palladion.seal.reader import verify_file
from palladion.seal.recipients import parse_recipient
from palladion.seal.sign import publisher_id
from palladion.seal.structure import Progress, SealedInfo
from palladion.seal.writer import Content, KnownFile, seal_files

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Sealed:
    """What `seal` made: the version, its sealed file, to whom it opens, and the copy that was asked for."""

    version: Version
    info: SealedInfo
    path: Path
    copy: Path | None
    receipt: Receipt


@dataclass(frozen=True)
class _Contents:
    """What is to be sealed: files, the rows that versions are compared by, and the digests they are known by."""

    kind: PayloadKind
    files: tuple[tuple[str, Content], ...]
    rows: tuple[VersionTensor, ...]
    graph: str | None
    content: str


def seal(
    installation: Installation,
    owner: Root,
    path: Path,
    name: str,
    recipients: Sequence[str],
    *,
    actor: str,
    note: str = "",
    base: str = "",
    opaque: bool = False,
    follow_links: bool = False,
    license_required: bool = False,
    out: Path | None = None,
    privacy: PrivacyStatement | None = None,
    progress: Progress | None = None,
) -> Sealed:
    """Seal the file or folder at `path`, as it is, as the next version of `name`, which is made if it is new.

    It opens for the owner, for escrow, for `recipients` (registered names, or keys as text) and, if it is an ONNX
    model, for this host's gate. An adapter needs `base`, the content digest of the model it was made for. With `out`, a
    copy of the sealed file is written there too. `privacy` is what is stated of the training, which is signed. Raises
    as `protect` does, ConflictError on a revoked recipient, UnsupportedFormatError on a file that may run code when it
    is loaded, unless `opaque`.
    """
    names.slug(name, what="the name of a model")
    names.note(note, what="the note of a version")
    if out is not None and out.exists():
        raise StorageError(f"{out} exists already", "name a new file: nothing is overwritten")
    # 1. who may open it: a name that nobody has must not cost the reading of 100 GB
    named = find_recipients(installation, recipients)
    # 2. read, and scan what is known to be a model
    contents = _read(installation, path, opaque=opaque, follow_links=follow_links)
    require_base(path, contents.kind, base)
    signer = owner.signer("publisher")
    stated = None
    if privacy is not None:
        stated = sign_privacy(privacy, content=contents.content, by=actor, signer=signer)
    gate = installation.open_gate_root()
    require_escrow(installation, gate)
    with installation.open_ledger(gate) as ledger, installation.open_registry() as registry:
        # 3. the next version
        following = next_version(installation, gate, registry, model=name, content=contents.content, path=path)
        # 4. seal and sign
        served = [gate_identity(gate).recipient] if contents.kind == "onnx" else []
        wraps = _once([*served, owner_identity(owner).recipient, *installation.escrow_recipients(), *named])
        header = new_header(
            kind=contents.kind,
            purpose="served",
            publisher=publisher_id(signer.public_key),
            created=installation.clock.now(),
            model=name,
            version=following.number,
            previous=following.previous,
            content=contents.content,
            base=base,
            license_required=license_required,
        )
        place = installation.paths.served(name, following.number)
        files.make_private_directory(place.parent)
        # a file of this number without a registered version was left by an attempt that failed
        info = seal_files(contents.files, header, wraps, signer, place, replace=True, progress=progress)
        # 5. register and record
        listed = place.relative_to(installation.paths.sealed).as_posix()
        new = _new_version(info, contents, following, path=listed, note=note, privacy=stated)
        version, receipt = _register(installation, ledger, registry, new, info, actor=actor)
    if out is not None:
        _copy(place, out, version)
    return Sealed(version, info, place, out, receipt)


def find_recipients(installation: Installation, texts: Sequence[str]) -> list[Recipient]:
    """The recipients that `texts` name: registered ones by name, others by key.

    Raises NotFoundError on a name that nobody has, ConflictError on a recipient who was revoked.
    """
    found: list[Recipient] = []
    with installation.open_registry() as registry, registry.read() as records:
        for text in texts:
            if ":" in text or text.lower().startswith("pallr1"):
                key = parse_recipient(text)
                row = records.recipients.with_key(str(key))
            else:
                row = records.recipients.get(text)
                key = parse_recipient(row.public_key)
            if row is not None:
                refuse_revoked(row)
            found.append(key)
    return found


def find_base(installation: Installation, text: str) -> str:
    """The content digest of the model that an adapter was made for: a version, a sealed file, or the digest itself."""
    if not text or _DIGEST.fullmatch(text):
        return text
    if Path(text).is_file():
        return verify_file(Path(text), installation.publishers()).header.content
    return find_version(installation, text).content_digest


def require_base(path: Path, kind: str, base: str) -> None:
    """Raise ConflictError unless an adapter, and nothing else, comes with its base."""
    if kind == "adapter" and not base:
        raise ConflictError(
            f"{path} is an adapter, and the model it was made for is not named",
            "--base names a version, such as llama@2",
        )
    if kind != "adapter" and base:
        raise ConflictError(f"{path} is no adapter, and so has no base", "leave --base out")


def _register(
    installation: Installation,
    ledger: LedgerWriter,
    registry: Registry,
    new: NewVersion,
    info: SealedInfo,
    *,
    actor: str,
) -> tuple[Version, Receipt]:
    with registry.write() as records:
        if records.models.find(new.model) is None:
            records.models.add(new.model, owner=actor, model_format=new.format)
        version = records.versions.add(new, number=info.header.version)
        details = {**statement(version), "recipients": [f"{wrap.kind} {wrap.key_id}" for wrap in info.wraps]}
        subject = f"{version.model}@{version.number}"
        return version, ledger.append([Record("model.sealed", installation.clock.now(), actor, subject, details)])[0]


def _once(recipients: Sequence[Recipient]) -> list[Recipient]:
    return list({(recipient.kind, recipient.key_id): recipient for recipient in recipients}.values())


def _read(installation: Installation, path: Path, *, opaque: bool, follow_links: bool) -> _Contents:
    kind = "opaque" if opaque or path.is_dir() else file_kind(path)
    if kind in {"onnx", "safetensors"}:
        read = read_model(installation, path, lambda _stage, _done, _total: None)
        return _Contents(read.model.format, tuple(read.contents()), read.tensors, read.graph, read.content)
    payload = read_payload(path, opaque=opaque, follow_links=follow_links)
    rows = tuple(VersionTensor(r.name, r.dtype, r.shape, r.digest.hex(), r.byte_count) for r in payload.rows)
    known = tuple((file.name, KnownFile(file.path, file.blake3)) for file in payload.files)
    return _Contents(payload.kind, known, rows, None, payload.content.hex())


def _new_version(
    info: SealedInfo, contents: _Contents, following: Next, *, path: str, note: str, privacy: SignedPrivacy | None
) -> NewVersion:
    return NewVersion(
        model=info.header.model,
        content_digest=contents.content,
        graph_digest=contents.graph,
        format=contents.kind,
        publisher=info.header.publisher,
        served=SealedFile(path, info.root, info.header_digest),
        tensors=contents.rows,
        parent=following.parent,
        note=note,
        privacy=privacy,
    )


def _copy(place: Path, out: Path, version: Version) -> None:
    try:
        files.make_private_directory(out.parent)
        files.copy_file(place, out)
    except PalladionError as error:
        subject = f"{version.model}@{version.number}"
        raise type(error)(
            f"{subject} is sealed, registered and recorded, but then: {error.message}",
            *error.hints,
            f"do not seal it again: copy {place} where it was to go",
        ) from error
