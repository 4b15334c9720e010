"""A marked copy in plaintext, for whoever deploys with other tools: protected like every version, and written out.

A mark can be proved only against the original and with what the registry knows of the version, so there is no marking
without a version. Marking the same file again writes the same copy again, and registers nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from palladion.errors import ConflictError, PalladionError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.export import free_paths, write_files
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marking import Guard, OwnershipMark, ownership_of
from palladion.lifecycle.protect import Prepared, prepare, seal_prepared
from palladion.lifecycle.reading import Progress
from palladion.model.model import Model, ModelFile
from palladion.registry import Version


@dataclass(frozen=True)
class Marked:
    """What `mark` wrote: the version that proves the mark, the plaintext files that carry it, and the ledger record.

    `registered` is whether the version is a new one.
    """

    version: Version
    registered: bool
    files: tuple[Path, ...]
    byte_count: int
    mark: OwnershipMark
    receipt: Receipt


def mark(
    installation: Installation,
    owner: Root,
    path: Path,
    name: str,
    out: Path,
    *,
    actor: str,
    note: str = "",
    base: str = "",
    guard: Callable[[Model], Guard] | None = None,
    rows: Path | None = None,
    announce: Callable[[Prepared], None] = lambda _prepared: None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Marked:
    """Write the model at `path` with the owner's mark to the new file or folder `out`, as a version of `name`.

    The version is made as `protect` does it, unless there is one of this content. That the marked copy was written in
    plaintext is on record before it is. Raises as `protect` does, ConflictError for a model too small for a mark,
    StorageError if `out` exists; then nothing is left at `out`.
    """
    prepared = prepare(installation, owner, path, name, note=note, base=base, guard=guard, rows=rows, progress=progress)
    if prepared.mark is None:
        raise ConflictError(f"{path} has no tensor that could carry a mark", "palladion protect seals it all the same")
    model = prepared.served.model
    paths = free_paths(model.format, [file.name for file in model.files], out)
    announce(prepared)
    version = _known(installation, name, prepared)
    registered = version is None
    if version is None:
        version = seal_prepared(
            installation, owner, prepared, name, actor=actor, note=note, base=base, delete=False, progress=progress
        ).version
    try:
        receipt = _record(installation, version, actor=actor)
        write_files(zip(paths, (_told(file, progress) for file in model.files), strict=True))
    except PalladionError as error:
        subject = f"{version.model}@{version.number}"
        raise type(error)(
            f"{subject} is sealed, registered and recorded, but its marked copy is not written: {error.message}",
            *error.hints,
            "run it again: the same file becomes the same copy, and no new version",
        ) from error
    return Marked(version, registered, tuple(paths), model.byte_count, prepared.mark, receipt)


def _known(installation: Installation, name: str, prepared: Prepared) -> Version | None:
    """The version of the model whose served content this is, if there is one and it says the same of its mark."""
    with installation.open_registry() as registry, registry.read() as records:
        numbers = [number for model, number in records.versions.with_content(prepared.served.content) if model == name]
        version = records.versions.get(name, numbers[0]) if numbers else None
    if version is None or prepared.mark is None or ownership_of(version) != prepared.mark.description:
        return None
    return version


def _record(installation: Installation, version: Version, *, actor: str) -> Receipt:
    details = {
        "purpose": "served",
        "header": version.served.header_digest,
        "reason": "a marked copy was written in plaintext",
    }
    record = Record("model.opened", installation.clock.now(), actor, f"{version.model}@{version.number}", details)
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        return ledger.append([record])[0]


def _told(file: ModelFile, progress: Progress) -> Iterator[memoryview]:
    done = 0
    for piece in file.pieces():
        yield piece
        done += len(piece)
        progress(f"write {file.name}", done, file.byte_count)
