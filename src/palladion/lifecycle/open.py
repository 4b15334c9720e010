"""Opens a sealed version into memory: nothing of it touches the disk, nothing is handed out before all is verified."""

from pathlib import Path
from types import TracebackType
from typing import Self

from palladion.errors import ConflictError, NotFoundError, TamperError
from palladion.keys import Identity
from palladion.lifecycle.installation import Installation, gate_identity
from palladion.model.digest import model_digest
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.registry import SealedFile, Version
from palladion.registry.rows import SealedKind
from palladion.seal.reader import OpenedFiles, open_sealed, verify_file
from palladion.seal.structure import Progress, SealedInfo


class OpenedModel:
    """A version in private memory; a context manager. Closing wipes it: let go of its tensors first."""

    def __init__(self, version: Version, model: Model, opened: OpenedFiles) -> None:
        self.version = version
        self.model = model
        self._opened = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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


def open_version(
    installation: Installation, text: str, identity: Identity | None = None, *, kind: SealedKind = "served"
) -> OpenedModel:
    """Open the version that `text` names; with the gate's identity, unless another is given.

    Raises TamperError if the file is not the one that was registered and signed.
    """
    version = find_version(installation, text)
    path, sealed = _sealed(installation, version, kind)
    if identity is None:
        identity = gate_identity(installation.open_gate_root())
    opened = open_sealed(path, [identity], installation.publishers())
    try:
        # 1. the file of this version, not an older or another one that is just as well signed
        _require_registered(opened.info, version, sealed, path)
        # 2. the content that was registered
        model = read_memory(opened.files)
        if model_digest(model).hex() != version.content_digest:
            raise TamperError(f"{path} holds another model than version {version.number} of {version.model}")
        return OpenedModel(version, model, opened)
    except BaseException:
        opened.close()
        raise


def verify_version(
    installation: Installation, version: Version, kind: SealedKind, *, progress: Progress | None = None
) -> SealedInfo:
    """Check a version's sealed file, without a key: signed, whole, and the one that was registered."""
    path, sealed = _sealed(installation, version, kind)
    info = verify_file(path, installation.publishers(), progress=progress)
    _require_registered(info, version, sealed, path)
    return info


def _sealed(installation: Installation, version: Version, kind: SealedKind) -> tuple[Path, SealedFile]:
    sealed = version.served if kind == "served" else version.original
    if sealed is None:
        raise NotFoundError(f"version {version.number} of {version.model} has no sealed {kind}")
    return installation.paths.sealed / sealed.path, sealed


def _require_registered(info: SealedInfo, version: Version, sealed: SealedFile, path: Path) -> None:
    if (info.header_digest, info.root) != (sealed.header_digest, sealed.digest):
        raise TamperError(
            f"{path} is not the file that was registered as version {version.number} of {version.model}",
            "it is signed, and of another version or attempt: restore the right one from a backup",
        )
