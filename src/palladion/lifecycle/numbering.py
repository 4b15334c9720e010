"""Which number the next version of a model gets, and that its content is new; asked while the ledger is held."""

from dataclasses import dataclass
from pathlib import Path

from palladion.errors import ConflictError
from palladion.keys import Root
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.reconcile import registered, require_next
from palladion.registry import Records, Registry


@dataclass(frozen=True)
class Next:
    """The number of the next version, its parent's, and the header digest of the parent's sealed file."""

    number: int
    parent: int | None
    previous: str


def next_version(
    installation: Installation, gate: Root, registry: Registry, *, model: str, content: str, path: Path
) -> Next:
    """What the version of `model` with `content`, read from `path`, is numbered. The caller holds the ledger.

    Raises ConflictError if the content is a version already or the registry is an old one, TamperError if the ledger
    was cut back. Reads the ledger's entries once.
    """
    with registry.read() as records:
        found = _next(records, model)
        _refuse_known(records, model, content, path)
        listed = registered(records, [model] if found.parent else [])
    require_next(installation, gate, listed, model=model, number=found.number, content=content)
    return found


def _next(records: Records, name: str) -> Next:
    newest = records.versions.newest(name) if records.models.find(name) is not None else None
    if newest is None:
        return Next(1, None, "")
    return Next(newest.number + 1, newest.number, newest.served.header_digest)


def _refuse_known(records: Records, name: str, content: str, path: Path) -> None:
    try:
        records.versions.refuse_known(name, content)
    except ConflictError as error:
        hint = f"if {path} is to go, delete it yourself once palladion verify finds nothing"
        raise ConflictError(error.message, *error.hints, hint) from None
