"""The first half of a model's life: scan → read → mark → version → seal → sign → ledger.

What is served is marked; the original is not, and goes to owner and escrow only. A version is known by the digest of
what is served. A model that has no place for a mark is served as it is, and `Version.marks` is empty.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from palladion import files
from palladion.errors import ConflictError, PalladionError
from palladion.keys import Recipient, Root, Signer
from palladion.ledger.record import Record
from palladion.ledger.remote import LedgerWriter
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approvers import require_escrow
from palladion.lifecycle.installation import Installation, gate_identity, owner_identity
from palladion.lifecycle.marking import Guard, OwnershipMark, mark_ownership
from palladion.lifecycle.numbering import next_version
from palladion.lifecycle.open import verify_version
from palladion.lifecycle.plaintext import Stayed, delete_plaintext
from palladion.lifecycle.privacy import sign_privacy
from palladion.lifecycle.reading import Progress, ReadModel, digested, read_model
from palladion.lifecycle.reconcile import statement
from palladion.lifecycle.rows import read_rows
from palladion.lifecycle.seal import require_base
from palladion.mark.triggers.planting import Planted, embed_triggers
from palladion.model.model import Model
from palladion.model.run import unservable
from palladion.private.dp.statement import PrivacyStatement
from palladion.registry import NewVersion, Registry, SealedFile, Version, names
from palladion.registry.rows import SealedKind
from palladion.seal.header import Header, new_header
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo
from palladion.seal.writer import seal_files


@dataclass(frozen=True)
class Protected:
    """What `protect` made: the version, its two sealed files, its ledger receipt, and whether it is served now.

    `unservable` says why the gate could not run an ONNX model, if it could not. `deleted` and `stayed` are the
    plaintext files, where their deletion was asked for.
    """

    version: Version
    served: Path
    original: Path
    receipt: Receipt
    promoted: bool
    escrowed: bool
    tensors: int
    parameters: int
    mark: OwnershipMark | None
    planted: Planted | None
    unservable: str | None
    deleted: tuple[Path, ...] = ()
    stayed: tuple[Stayed, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """A model that was scanned, read and marked, and is sealed next; `mark` is None where it has no place for one.

    `plain` is what lies on the disk, `read` the same with its triggers, if it got any: `planted`.
    """

    path: Path
    plain: ReadModel
    read: ReadModel
    mark: OwnershipMark | None
    planted: Planted | None = None

    @property
    def served(self) -> ReadModel:
        """What is to be served: the marked model."""
        return self.read if self.mark is None else self.mark.served


def protect(
    installation: Installation,
    owner: Root,
    path: Path,
    name: str,
    *,
    actor: str,
    note: str = "",
    base: str = "",
    delete: bool = False,
    guard: Callable[[Model], Guard] | None = None,
    rows: Path | None = None,
    privacy: PrivacyStatement | None = None,
    announce: Callable[[Prepared], None] = lambda _prepared: None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Protected:
    """Protect the model at `path`, a file or a folder, as the next version of `name`, which is made if it is new.

    An adapter needs `base`, the content digest of the model it was made for. `announce` is told before anything is
    sealed what will be found again in copies; `guard` makes that of `mark_ownership` of the
    unmarked model. With `rows`, a file of ordinary inputs, a
    classifier gets the triggers that the policy asks for. `privacy` is what is stated of the training, which is signed.
    With `delete`, the plaintext files are deleted once the sealed ones have verified.

    Raises PalladionError on a name that cannot be one, ScanRefusedError, ConflictError if the content is a version
    already or the registry is an old one, TamperError if the ledger was cut back, FormatError if a file changes
    meanwhile, BusyError while another process writes. Holds an ONNX model in memory, and of others one tensor at a
    time; reads the ledger's entries once (`reconcile.recorded`).
    """
    prepared = prepare(installation, owner, path, name, note=note, base=base, guard=guard, rows=rows, progress=progress)
    announce(prepared)
    return seal_prepared(
        installation,
        owner,
        prepared,
        name,
        actor=actor,
        note=note,
        base=base,
        delete=delete,
        privacy=privacy,
        progress=progress,
    )


def prepare(
    installation: Installation,
    owner: Root,
    path: Path,
    name: str,
    *,
    note: str,
    base: str,
    guard: Callable[[Model], Guard] | None,
    progress: Progress,
    rows: Path | None = None,
) -> Prepared:
    """The first steps of `protect`, which write nothing. Raises as it does."""
    names.slug(name, what="the name of a model")
    names.note(note, what="the note of a version")
    # 1. scan and read: whatever is read later is what was scanned, or an error
    read = read_model(installation, path, progress)
    require_base(path, read.model.format, base)
    # 2. mark: the triggers first, so that the sealed original has them, and copies differ from it by their marks alone
    plain, planted = read, None
    if rows is not None:
        planted = _planted(installation, owner, plain, rows)
        read = digested(planted.model, progress, stage="triggers")
    watching = guard(read.model) if guard is not None else None
    mark = mark_ownership(read.model, read.content, owner, guard=watching, progress=progress)
    return Prepared(path, plain, read, mark, planted)


def _planted(installation: Installation, owner: Root, read: ReadModel, rows: Path) -> Planted:
    count = installation.policy.protect.triggers
    if not count:
        raise ConflictError("the policy asks for no triggers, so there is nothing to do with rows", "protect.triggers")
    if read.model.graph is None:
        raise ConflictError(
            f"triggers are put into classifiers in ONNX; {read.model.format} has no graph to run",
            "leave --rows out, or palladion.mark.triggers.finetune teaches them to a torch model",
        )
    references = read_rows(rows, read.model)
    return embed_triggers(read.model, owner.derive("mark"), read.content, count=count, references=references)


def seal_prepared(
    installation: Installation,
    owner: Root,
    prepared: Prepared,
    name: str,
    *,
    actor: str,
    note: str,
    base: str,
    delete: bool,
    progress: Progress,
    privacy: PrivacyStatement | None = None,
) -> Protected:
    """The other steps of `protect`. Raises as it does."""
    path, read, mark, served = prepared.path, prepared.read, prepared.mark, prepared.served
    made: Protected | None = None
    try:
        gate = installation.open_gate_root()
        require_escrow(installation, gate)
        with installation.open_ledger(gate) as ledger, installation.open_registry() as registry:
            # 3. version: the ledger's lock makes us the only one who gives numbers, so that no transaction is open
            # while gigabytes are sealed
            following = next_version(installation, gate, registry, model=name, content=served.content, path=path)
            # 4. seal and sign, to the keys of the roots that were opened and not to what a file says they are
            signer = owner.signer("publisher")
            stated = None
            if privacy is not None:
                stated = sign_privacy(privacy, content=served.content, by=actor, signer=signer)
            sealing = _Sealing(installation, signer, name, following.number, following.previous, base, progress)
            owners = [owner_identity(owner).recipient, *installation.escrow_recipients()]
            served_file = sealing.seal("served", served, [gate_identity(gate).recipient])
            original_file = sealing.seal("original", read, owners)
            # 5. register and record: the record is durable before the registration is
            new = NewVersion(
                model=name,
                content_digest=served.content,
                graph_digest=served.graph,
                format=served.model.format,
                publisher=publisher_id(signer.public_key),
                served=served_file,
                original=original_file,
                tensors=served.tensors,
                parent=following.parent,
                marks=(
                    *([prepared.planted.description] if prepared.planted else []),
                    *([mark.description] if mark else []),
                ),
                note=note,
                privacy=stated,
            )
            made = _register(
                installation, ledger, registry, new, number=following.number, actor=actor, prepared=prepared
            )
    except PalladionError as error:
        if made is None:
            raise
        raise _too_late(error, made, path) from error
    # 6. the plaintext, while it can be told whether it is still what was sealed
    return _without_plaintext(installation, made, path, prepared.plain.model) if delete else made


@dataclass(frozen=True)
class _Sealing:
    """Writes the sealed files of one version."""

    installation: Installation
    signer: Signer
    model: str
    number: int
    previous: str
    base: str
    progress: Progress

    def seal(self, purpose: SealedKind, read: ReadModel, recipients: list[Recipient]) -> SealedFile:
        paths = self.installation.paths
        place = paths.served if purpose == "served" else paths.original
        path = place(self.model, self.number)
        files.make_private_directory(path.parent)
        info = seal_files(
            read.contents(),
            self._header(purpose, read),
            recipients,
            self.signer,
            path,
            # a file of this number without a registered version was left by an attempt that failed
            replace=True,
            progress=lambda done, total: self.progress(f"seal {purpose}", done, total),
        )
        return _sealed_file(info, path.relative_to(self.installation.paths.sealed))

    def _header(self, purpose: SealedKind, read: ReadModel) -> Header:
        return new_header(
            kind=read.model.format,
            purpose=purpose,
            publisher=publisher_id(self.signer.public_key),
            created=self.installation.clock.now(),
            model=self.model,
            version=self.number,
            previous=self.previous,
            content=read.content,
            base=self.base,
        )


def _sealed_file(info: SealedInfo, path: Path) -> SealedFile:
    return SealedFile(path.as_posix(), info.root, info.header_digest)


def _register(
    installation: Installation,
    ledger: LedgerWriter,
    registry: Registry,
    new: NewVersion,
    *,
    number: int,
    actor: str,
    prepared: Prepared,
) -> Protected:
    with registry.write() as records:
        if records.models.find(new.model) is None:
            records.models.add(new.model, owner=actor, model_format=new.format)
        version = records.versions.add(new, number=number)
        subject = f"{version.model}@{version.number}"
        now = installation.clock.now()
        lines = [Record("model.protected", now, actor, subject, statement(version))]
        promoted = number == 1 and installation.policy.protect.promote_first
        if promoted:
            records.promotions.promote(new.model, number, actor=actor)
            lines.append(Record("model.promoted", now, actor, subject, {"reason": "first version"}))
        receipt = ledger.append(lines)[0]
    return Protected(
        version,
        served=installation.paths.served(new.model, number),
        original=installation.paths.original(new.model, number),
        receipt=receipt,
        promoted=promoted,
        escrowed=bool(installation.policy.keys.escrow),
        tensors=len(prepared.read.tensors),
        parameters=prepared.read.model.parameter_count,
        mark=prepared.mark,
        planted=prepared.planted,
        unservable=unservable(prepared.read.model) if prepared.read.model.graph is not None else None,
    )


def _too_late(error: PalladionError, made: Protected, path: Path) -> PalladionError:
    """What to say of a failure after which the version is there all the same."""
    subject = f"{made.version.model}@{made.version.number}"
    return type(error)(
        f"{subject} is sealed, registered and recorded, but then: {error.message}",
        *error.hints,
        f"do not protect it again: {path} is still there, delete it yourself once palladion verify finds nothing",
    )


def _without_plaintext(installation: Installation, made: Protected, path: Path, model: Model) -> Protected:
    is_folder = model.format in {"folder", "adapter"}
    folder = path if is_folder else path.parent
    kinds: tuple[SealedKind, ...] = ("served", "original")
    try:
        for kind in kinds:
            verify_version(installation, made.version, kind)
    except PalladionError as error:
        reason = f"what was sealed does not verify: {error.message}"
        return replace(made, stayed=tuple(Stayed(folder / file.name, reason) for file in model.files))
    deleted, stayed = delete_plaintext(folder, model.files, shared=not is_folder)
    return replace(made, deleted=tuple(deleted), stayed=tuple(stayed))
