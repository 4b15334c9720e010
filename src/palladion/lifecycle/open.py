"""Opens a sealed version: nothing of it touches the disk, and nothing is handed out that is not verified.

Into private memory, where all is verified first; or piece by piece, where each is, when it is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from palladion.errors import ConflictError, NotFoundError, TamperError
from palladion.keys import Identity
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation, gate_identity
from palladion.model.digest import model_digest
from palladion.model.model import Format, Model
from palladion.model.payload import PayloadKind, payload_content
from palladion.model.read import read_memory, read_stored
from palladion.registry import SealedFile, Version
from palladion.registry.rows import SealedKind
from palladion.scan import Verdict
from palladion.scan.scanner import scan_model
from palladion.seal.lazy import LazyFiles, open_lazily
from palladion.seal.opening import Accept
from palladion.seal.reader import OpenedFiles, open_sealed, verify_file
from palladion.seal.structure import Progress, SealedInfo

_STORED = {"folder", "adapter", "gguf"}


class OpenedModel:
    """A version, opened; a context manager. Closing wipes private memory: let go of its tensors first."""

    def __init__(self, version: Version, model: Model, opened: OpenedFiles | LazyFiles) -> None:
        self.version = version
        self.model = model
        self._opened = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def info(self) -> SealedInfo:
        """What the sealed file says about itself, verified."""
        return self._opened.info

    def close(self) -> None:
        """Wipe the memory."""
        self._opened.close()


def parse_version(text: str) -> tuple[str, int | None]:
    """The model and the number of `fraud@3`; None for `fraud`, the promoted version."""
    name, at, number = text.partition("@")
    if not at:
        return name, None
    if not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise NotFoundError(f"{text!r} names no version, a number was expected after the @")
    return name, int(number)


def find_version(installation: Installation, text: str) -> Version:
    """The version that `fraud@3` or `fraud` names. Raises NotFoundError, ConflictError if none is promoted."""
    name, number = parse_version(text)
    with installation.open_registry() as registry, registry.read() as records:
        if number is not None:
            return records.versions.get(name, number)
        current = records.promotions.current(records.models.get(name).name)
        if current is None:
            raise ConflictError(f"no version of {name} is promoted", f"palladion model promote {name} NUMBER")
        return current


def versions_named(installation: Installation, named: Sequence[str]) -> list[Version]:
    """The versions that `named` says, as `find_version` reads each; of every model all, if it is empty."""
    if named:
        return [find_version(installation, name) for name in named]
    with installation.open_registry() as registry, registry.read() as records:
        return [version for model in records.models.all() for version in records.versions.all(model.name)]


def open_version(
    installation: Installation,
    text: str,
    identity: Identity | None = None,
    *,
    kind: SealedKind = "served",
    lazily: bool = False,
) -> OpenedModel:
    """Open the version that `text` names; with the gate's identity, or what `file_keys` has, unless another is given.

    With `lazily`, and always where it is a folder, an adapter or GGUF, weights are decrypted and verified piece by
    piece, when they are asked for, into ordinary memory; ONNX never is. Raises TamperError if the file is not the one
    that was registered and signed, ScanRefusedError if a scan refuses it today. That it was opened is for the caller to
    record: `record_opened`.
    """
    version = find_version(installation, text)
    if identity is None:
        identity = _own_identity(installation, version, kind)
    if version.format in _STORED or (lazily and version.format == "safetensors"):
        return _opened_lazily(installation, version, identity, kind)
    path, opened = _opened(installation, version, identity, kind)
    try:
        # the content that was registered
        model = read_memory(opened.files)
        if model_digest(model).hex() != content_of(version, kind):
            raise TamperError(f"{path} holds another model than version {version.number} of {version.model}")
        # it was scanned before it was sealed, by the rules and the policy of that day
        limits = installation.policy.scan
        found = tuple(scan_model(model, limits.operator_domains))
        Verdict(str(path), model.format, found, (), limits.allow_suspicious).require_accepted()
        return OpenedModel(version, model, opened)
    except BaseException:
        opened.close()
        raise


def open_payload(
    installation: Installation, version: Version, identity: Identity, *, kind: SealedKind = "served"
) -> OpenedFiles:
    """The files of a version of whatever format, opened with `identity`. Raises as `open_version` does."""
    path, opened = _opened(installation, version, identity, kind)
    try:
        if payload_content(cast("PayloadKind", opened.info.header.kind), opened.files) != content_of(version, kind):
            raise TamperError(f"{path} holds something else than version {version.number} of {version.model}")
    except BaseException:
        opened.close()
        raise
    return opened


def verify_version(
    installation: Installation,
    version: Version,
    kind: SealedKind,
    *,
    publishers: Sequence[bytes] | None = None,
    progress: Progress | None = None,
) -> SealedInfo:
    """Check a version's sealed file, without a key: whole, the one that was registered, and signed by a publisher.

    `publishers` are raw public keys; without them, those that the policy trusts.
    """
    path = _sealed(installation, version, kind)
    info = verify_file(path, installation.publishers() if publishers is None else publishers, progress=progress)
    require_registered(info, version, kind, path)
    return info


def require_registered(info: SealedInfo, version: Version, kind: SealedKind, path: Path) -> None:
    """Raise TamperError unless the sealed file at `path` is the one, and says of itself all, that is registered.

    Whoever can write to the registry can make a version point at another file that is just as well signed: its header,
    which he cannot write, tells.
    """
    sealed = sealed_file(version, kind)
    if (info.header_digest, info.root) != (sealed.header_digest, sealed.digest):
        raise TamperError(
            f"{path} is not the file that was registered as version {version.number} of {version.model}",
            "it is signed, and of another version or attempt: restore the right one from a backup",
        )
    header = info.header
    for what, said, expected in (
        ("model", header.model, version.model),
        ("version", header.version, version.number),
        ("purpose", header.purpose, kind),
        ("content", header.content, content_of(version, kind)),
        ("publisher", header.publisher, version.publisher),
    ):
        if said != expected:
            raise TamperError(
                f"{path} was signed with {what} {said!r}, the registry lists it with {expected!r}",
                "the registry was changed: restore it from a backup",
            )


def content_of(version: Version, kind: SealedKind) -> str:
    """The digest of what a version's sealed file holds: the marked model is what is served, the original is not."""
    # triggers name an original too: the one before them, which is sealed nowhere
    marked = (str(mark["original"]) for mark in version.marks if mark.get("kind") == OWNERSHIP)
    return next(marked, version.content_digest) if kind == "original" else version.content_digest


def sealed_kinds(version: Version) -> list[SealedKind]:
    """Which sealed files a version has: what was only sealed has no other original."""
    return ["served"] if version.original is None else ["served", "original"]


def sealed_file(version: Version, kind: SealedKind) -> SealedFile:
    """A version's sealed file of one kind. Raises NotFoundError if it has none."""
    sealed = version.served if kind == "served" else version.original
    if sealed is None:
        raise NotFoundError(f"version {version.number} of {version.model} has no sealed {kind}")
    return sealed


def record_opened(info: SealedInfo, *, at: datetime, actor: str, reason: str) -> Record:
    """The ledger record of a sealed file that was opened, by whom and why; the caller appends it."""
    header = info.header
    details = {"purpose": header.purpose, "header": info.header_digest, "reason": reason}
    return Record("model.opened", at, actor, f"{header.model}@{header.version}", details)


OWNERSHIP = "ownership"  # the kind of mark whose "original" is the unmarked model that is sealed


@dataclass(frozen=True)
class _SealedRanges:
    """One file of a sealed file, by ranges."""

    name: str
    size: int
    files: LazyFiles

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the verified bytes from `offset` on."""
        self.files.read_into(self.name, buffer, offset)


def _opened_lazily(installation: Installation, version: Version, identity: Identity, kind: SealedKind) -> OpenedModel:
    # the header, which names the content, is signed together with the segments' digests: who holds the publisher's key
    # is believed that they belong together, as no digest of the whole is taken here
    path = _sealed(installation, version, kind)
    opened = open_lazily(path, [identity], installation.publishers(), accept=_accept(version, kind, path))
    try:
        sources = [_SealedRanges(entry.name, entry.size, opened) for entry in opened.entries.values()]
        return OpenedModel(version, read_stored(cast("Format", opened.info.header.kind), sources), opened)
    except BaseException:
        opened.close()
        raise


def _accept(version: Version, kind: SealedKind, path: Path) -> Accept:
    return lambda info: require_registered(info, version, kind, path)


def _opened(
    installation: Installation, version: Version, identity: Identity, kind: SealedKind
) -> tuple[Path, OpenedFiles]:
    """A version's sealed file and what is in it: the registered one, not another that is just as well signed."""
    path = _sealed(installation, version, kind)
    return path, open_sealed(path, [identity], installation.publishers(), accept=_accept(version, kind, path))


def _own_identity(installation: Installation, version: Version, kind: SealedKind) -> Identity:
    if installation.file_keys is None:
        return gate_identity(installation.open_gate_root())
    return installation.file_keys.identity(_sealed(installation, version, kind))


def _sealed(installation: Installation, version: Version, kind: SealedKind) -> Path:
    return installation.paths.sealed / sealed_file(version, kind).path
