"""Sends a sealed file anywhere: verified before it goes and while it goes, and looked at from the other side after."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion.errors import ConflictError, TamperError
from palladion.seal.structure import Progress, SealedInfo
from palladion.transit.connection import Limits
from palladion.transit.places import parse_place
from palladion.transit.ranges import NoRangesError
from palladion.transit.store import Store, Whole, find, is_same


@dataclass(frozen=True)
class Pushed:
    """What is there now: the file, verified before it went. `sent` is False if it was there already."""

    info: SealedInfo
    what: str
    sent: bool
    sidecars: tuple[str, ...]


def push(
    path: Path,
    url: str,
    publishers: Sequence[bytes],
    *,
    replace: bool = False,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Send the sealed file at `path`, and what lies beside it, to `url`, if one of `publishers` (raw keys) signed it.

    Raises TamperError or FormatError if the file is not whole, ConflictError if another file is there (unless
    `replace`), StorageError. The same file there already is no error, and is not sent again.
    """
    store = parse_place(url, limits or Limits())
    whole = Whole(path, publishers)
    try:
        # 1. the whole file, before anybody elsewhere hears of it
        whole.verify()
        # 2. what is there
        sidecars = whole.sidecars()
        occupied = _is_occupied(store, whole, replace=replace)
        if occupied and all(store.sidecar(suffix) == data for suffix, data in sidecars.items()):
            return Pushed(whole.structure.info, store.what, False, tuple(sidecars))
        # 3. off it goes
        store.put(whole, sidecars, replace=replace or occupied, progress=progress)
        # 4. what a reader finds there
        _check_arrived(store, whole)
        return Pushed(whole.structure.info, store.what, True, tuple(sidecars))
    finally:
        whole.close()


def _is_occupied(store: Store, whole: Whole, *, replace: bool) -> bool:
    """Whether this very file is there already. Raises ConflictError if another is, unless `replace`."""
    try:
        there = find(store)
    except (NoRangesError, ConflictError) as error:
        if replace:
            return False
        hint = "name another address, or use --replace"
        raise ConflictError(f"{store.what} exists already, and cannot be compared: {error.message}", hint) from None
    if there is None:
        return False
    if is_same(there, whole.structure):
        return True
    if not replace:
        name = f"{there.header.model} version {there.header.version}" if there.header.model else "a sealed file"
        raise ConflictError(
            f"at {store.what} lies {name}, which is not the file to be sent",
            "name another address, or use --replace",
        )
    return False


def _check_arrived(store: Store, whole: Whole) -> None:
    try:
        arrived = find(store)
    except NoRangesError:
        # this server cannot show a part of it; it has said that it stored the whole
        return
    if arrived is None or not is_same(arrived, whole.structure):
        raise TamperError(f"{store.what} took the file, and shows something else now", "palladion pull would refuse it")
