"""Gives a model back as plaintext files: the one way in which what was sealed comes to lie on a disk again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from palladion.errors import FormatError
from palladion.host.host import Host
from palladion.host.load import load_files
from palladion.keys import Identity
from palladion.ledger.writer import Receipt
from palladion.lifecycle.export import free_paths, write_files
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import find_version, open_payload, record_opened
from palladion.model.payload import PAYLOAD_KINDS
from palladion.registry import names
from palladion.registry.rows import SealedKind
from palladion.seal.reader import OpenedFiles, open_sealed
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo


@dataclass(frozen=True)
class Unsealed:
    """What was written: the verified statement of the sealed file, the files, and the record where one is kept."""

    info: SealedInfo
    files: tuple[Path, ...]
    receipt: Receipt | None


def unseal(
    installation: Installation, target: str | Path, identity: Identity, out: Path, *, reason: str, actor: str
) -> Unsealed:
    """Write what a sealed file (a path), or the original of a version (`fraud@3`), holds to the new file `out`.

    A model's external data goes beside it; a folder becomes the new folder `out`. The files are private and nothing is
    overwritten. That it was opened, by whom and why, is on record before anything is written. Raises KeysError if
    `identity` does not open it, TamperError unless it was signed by a trusted publisher, StorageError if a file of such
    a name exists; then nothing is left behind.
    """
    names.label(reason, what="the reason")
    with _opened(installation, target, identity) as opened:
        paths = free_paths(opened.info.header.kind, list(opened.files), out)
        with installation.open_ledger(installation.open_gate_root()) as ledger:
            record = record_opened(opened.info, at=installation.clock.now(), actor=actor, reason=reason)
            receipt = ledger.append([record])[0]
        write_files((path, iter([data])) for path, data in zip(paths, opened.files.values(), strict=True))
        return Unsealed(opened.info, tuple(paths), receipt)


def unseal_on_host(host: Host, path: Path, out: Path, *, allow_older: bool = False) -> Unsealed:
    """`unseal` where there is no installation, with the host's keys: nothing is recorded, and `receipt` is None."""
    with load_files(path, host=host, allow_older=allow_older) as opened:
        _require_model(path, opened.info)
        paths = free_paths(opened.info.header.kind, list(opened.files), out)
        write_files((path, iter([data])) for path, data in zip(paths, opened.files.values(), strict=True))
        return Unsealed(opened.info, tuple(paths), None)


@contextmanager
def _opened(installation: Installation, target: str | Path, identity: Identity) -> Iterator[OpenedFiles]:
    """The payload of a sealed file, or of a version."""
    if isinstance(target, str):
        version = find_version(installation, target)
        # what was only sealed has no other original
        kind: SealedKind = "original" if version.original is not None else "served"
        opened = open_payload(installation, version, identity, kind=kind)
    else:
        opened = open_sealed(
            target,
            [identity],
            installation.publishers(),
            accept=lambda info: _accept(installation, target, identity, info),
        )
    with opened:
        yield opened


def _accept(installation: Installation, path: Path, identity: Identity, info: SealedInfo) -> None:
    _require_model(path, info)
    own = publisher_id(installation.public_keys("owner").keys["publisher"]) if installation.paths.owner.exists() else ""
    if info.header.publisher != own:
        # somebody else's file: his licence, his revocations and the version floor hold here as on any host
        host = Host.find(clock=installation.clock, identities=[identity], publishers=installation.publishers())
        host.accept(info, place=path)


def _require_model(path: Path, info: SealedInfo) -> None:
    if info.header.kind not in PAYLOAD_KINDS:
        raise FormatError(f"{path} is a sealed {info.header.kind}, a model was expected")
