"""The first half of a model's life: scan → read → version → seal → sign → ledger.

Marking, which stands between reading and version in ARCHITECTURE.md, comes with the room of the marks: until then the
served copy carries none, and `Version.marks` is empty.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from palladion import files
from palladion.keys import Recipient, Root, Signer
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger, Receipt
from palladion.lifecycle.installation import Installation
from palladion.model.digest import graph_digest, listing_digest, tensor_digest
from palladion.model.model import Model
from palladion.registry import NewVersion, Records, SealedFile, Version, VersionTensor, names
from palladion.scan import scan_file
from palladion.seal.header import Header, Purpose, new_header
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo
from palladion.seal.writer import seal_files

Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all


@dataclass(frozen=True)
class Protected:
    """What `protect` made: the version, its two sealed files, its ledger receipt, and whether it is served now.

    `plaintext` are the files that were read and are still there.
    """

    version: Version
    served: Path
    original: Path
    receipt: Receipt
    promoted: bool
    escrowed: bool
    plaintext: tuple[Path, ...]
    tensors: int
    parameters: int


@dataclass(frozen=True)
class _Read:
    """A scanned model with the digests by which it is known."""

    model: Model
    tensors: tuple[VersionTensor, ...]
    graph: str | None
    content: str


def protect(
    installation: Installation,
    owner: Root,
    path: Path,
    name: str,
    *,
    actor: str,
    note: str = "",
    progress: Progress = lambda _stage, _done, _total: None,
) -> Protected:
    """Protect the model file at `path` as the next version of `name`, which is made if it is new.

    Raises PalladionError on a name that cannot be one, ScanRefusedError, ConflictError if the content is a version
    already, BusyError while another process writes. The plaintext file is left where it is. Holds the model in memory.
    """
    names.slug(name, what="the name of a model")
    names.note(note, what="the note of a version")
    # 1. scan and read: one reading of the file, so that what is scanned is what is sealed
    read = _read(installation, path, progress)
    gate = installation.open_gate_root()
    with installation.open_ledger(gate) as ledger, installation.open_registry() as registry:
        # 2. version: the ledger's lock makes us the only one who gives numbers, so that no transaction is open while
        # gigabytes are sealed
        with registry.read() as records:
            number, parent, previous = _next(records, name)
            records.versions.refuse_known(name, read.content)
        # 3. seal and sign
        sealing = _Sealing(installation, owner.signer("publisher"), name, number, previous, read, progress)
        served = sealing.seal("served", [installation.gate_recipient()], installation.paths.served(name, number))
        escrow = installation.escrow_recipients()
        original = sealing.seal(
            "original", [installation.owner_recipient(), *escrow], installation.paths.original(name, number)
        )
        # 4. register and record: the record is durable before the registration is
        with registry.write() as records:
            if records.models.find(name) is None:
                records.models.add(name, owner=actor, model_format=read.model.format)
            version = records.versions.add(
                NewVersion(
                    model=name,
                    content_digest=read.content,
                    graph_digest=read.graph,
                    format=read.model.format,
                    publisher=publisher_id(owner.signer("publisher").public_key),
                    served=served,
                    original=original,
                    tensors=read.tensors,
                    parent=parent,
                    note=note,
                ),
                number=number,
            )
            promote = number == 1 and installation.policy.protect.promote_first
            if promote:
                records.promotions.promote(name, number, actor=actor)
            receipt = _record(ledger, installation, version, actor, promoted=promote)
    paths = installation.paths
    return Protected(
        version,
        served=paths.served(name, number),
        original=paths.original(name, number),
        receipt=receipt,
        promoted=promote,
        escrowed=bool(escrow),
        plaintext=tuple(path.parent / file.name for file in read.model.files),
        tensors=len(read.tensors),
        parameters=read.model.parameter_count,
    )


def _read(installation: Installation, path: Path, progress: Progress) -> _Read:
    limits = installation.policy.scan
    scanned = scan_file(path, operator_domains=limits.operator_domains, bytes_max=limits.file_bytes_max)
    model = scanned.accepted_model()
    digests: dict[str, bytes] = {}
    total = sum(tensor.byte_count for tensor in model.tensors.values())
    done = 0
    for name, tensor in model.tensors.items():
        digests[name] = tensor_digest(tensor)
        done += tensor.byte_count
        progress("digest", done, total)
    graph = graph_digest(model.graph) if model.graph is not None else None
    tensors = tuple(
        VersionTensor(name, tensor.dtype.name, tensor.shape, digests[name].hex(), tensor.byte_count)
        for name, tensor in sorted(model.tensors.items())
    )
    return _Read(model, tensors, graph.hex() if graph else None, listing_digest(digests, graph).hex())


def _next(records: Records, name: str) -> tuple[int, int | None, str]:
    """The number of the next version of `name`, its parent's, and the parent's header digest."""
    newest = records.versions.newest(name) if records.models.find(name) is not None else None
    if newest is None:
        return 1, None, ""
    return newest.number + 1, newest.number, newest.served.header_digest


@dataclass(frozen=True)
class _Sealing:
    """Writes the sealed files of one version."""

    installation: Installation
    signer: Signer
    model: str
    number: int
    previous: str
    read: _Read
    progress: Progress

    def seal(self, purpose: Purpose, recipients: list[Recipient], path: Path) -> SealedFile:
        files.make_private_directory(path.parent)
        info = seal_files(
            [(file.name, file.data) for file in self.read.model.files],
            self._header(purpose),
            recipients,
            self.signer,
            path,
            # a file of this number without a registered version was left by an attempt that failed
            replace=True,
            progress=lambda done, total: self.progress(f"seal {purpose}", done, total),
        )
        return _sealed_file(info, path.relative_to(self.installation.paths.sealed))

    def _header(self, purpose: Purpose) -> Header:
        return new_header(
            kind=self.read.model.format,
            purpose=purpose,
            publisher=publisher_id(self.signer.public_key),
            created=self.installation.clock.now(),
            model=self.model,
            version=self.number,
            previous=self.previous,
            content=self.read.content,
        )


def _sealed_file(info: SealedInfo, path: Path) -> SealedFile:
    return SealedFile(path.as_posix(), info.root, info.header_digest)


def _record(ledger: Ledger, installation: Installation, version: Version, actor: str, *, promoted: bool) -> Receipt:
    subject = f"{version.model}@{version.number}"
    now = installation.clock.now()
    sealed = {"served": version.served, "original": version.original}
    details = {
        "content": version.content_digest,
        "graph": version.graph_digest,
        "format": version.format,
        "parent": version.parent,
        "publisher": version.publisher,
        "sealed": {kind: {"root": file.digest, "header": file.header_digest} for kind, file in sealed.items() if file},
    }
    records = [Record("model.protected", now, actor, subject, details)]
    if promoted:
        records.append(Record("model.promoted", now, actor, subject, {"reason": "first version"}))
    return ledger.append(records)[0]
