"""Where in a long ledger the records of approvals are, so that not all of it is read each time.

A file beside the ledger, made by whoever read and proved all of it, with a tag by a key of the gate root: that nothing
was left out is what no proof of single entries could say. What it names is read from the ledger and proved there. One
that is missing, forged, or of another history is not used; then all is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from hmac import digest as hmac_digest
from typing import Annotated, Any, Literal

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion import canonical, files
from palladion.errors import PalladionError, StorageError
from palladion.keys import Root
from palladion.ledger import merkle
from palladion.ledger.reader import LedgerReader
from palladion.ledger.tiles import TILE_WIDTH

APPROVAL_INDEX_FILE = "approvals.index"
ENTRIES_MAX = 100_000  # a thousand approvals a week for two years; beyond, all is read
TIMES_MAX = 1000  # of records that are later than all behind them: some few, unless clocks run wild
BYTES_MAX = 2 * 1024 * 1024
WORTH_ENTRIES = 4096  # read in some 12 ms: as many are read without it, before it is written anew
_INDEX_TAG = b"palladion/v1/approvals-index"


@dataclass(frozen=True)
class ApprovalIndex:
    """The records of approvals among the first `size` entries, whose tree has `root`; `times` as a board keeps them."""

    origin: str
    size: int
    root: bytes
    entries: tuple[int, ...]
    times: tuple[tuple[int, bytes], ...]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    v: Literal[1]
    origin: str
    size: Annotated[int, msgspec.Meta(ge=1, le=merkle.SIZE_MAX)]
    root: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    entries: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=ENTRIES_MAX)]
    times: Annotated[
        tuple[tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[str, msgspec.Meta(max_length=27)]], ...],
        msgspec.Meta(max_length=TIMES_MAX),
    ]


class _Tagged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: _Document
    tag: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


def read_index(reader: LedgerReader, gate: Root) -> ApprovalIndex | None:
    """The index beside this ledger; None where there is none of this gate root and this ledger's history."""
    path = reader.directory / APPROVAL_INDEX_FILE
    try:
        if not path.exists():
            return None
        data = files.read_limited(path, size_max=BYTES_MAX, what="the index of approvals")
        found = msgspec.convert(
            canonical.decode(data, size_max=BYTES_MAX, what="the index of approvals"), _Tagged, strict=True
        )
        document = found.index
        if not compare_digest(found.tag, _tag(gate, document)):
            return None
        root = bytes.fromhex(document.root)
        if document.origin != reader.checkpoint.origin or document.size > reader.size:
            return None
        # all of what it was made from is what the ledger begins with now
        proof = reader.consistency_proof(document.size)
        merkle.verify_consistency(document.size, reader.size, root, reader.checkpoint.root, proof)
        times = tuple((entry, text.encode("ascii")) for entry, text in document.times)
    except (PalladionError, msgspec.ValidationError, ValueError, OSError):
        return None
    return ApprovalIndex(document.origin, document.size, root, document.entries, times)


def write_index(
    reader: LedgerReader, gate: Root, entries: Sequence[int], times: Sequence[tuple[int, bytes]], *, known: int
) -> None:
    """Write the index of all that `reader` has, if that is worth it: one of the first `known` entries is there.

    `entries` are the records of approvals. Where it cannot be written, or would be too long, nothing happens.
    """
    if reader.size - known < WORTH_ENTRIES or len(entries) > ENTRIES_MAX or len(times) > TIMES_MAX:
        return
    document = _Document(
        v=1,
        origin=reader.checkpoint.origin,
        size=reader.size,
        root=reader.checkpoint.root.hex(),
        entries=tuple(entries),
        times=tuple((entry, text.decode("ascii", "replace")) for entry, text in times),
    )
    data = canonical.encode(_plain(_Tagged(document, _tag(gate, document))))
    if len(data) <= BYTES_MAX:
        with suppress(StorageError):  # who may only read the ledger reads all of it
            files.write_atomically(reader.directory / APPROVAL_INDEX_FILE, data)


def indexed_entries(reader: LedgerReader, index: ApprovalIndex) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of what the index names, each proved. Raises TamperError, NotFoundError."""
    bundle, entries = -1, dict[int, bytes]()
    for number in index.entries:
        if number // TILE_WIDTH != bundle:
            bundle = number // TILE_WIDTH
            entries = reader.bundle(bundle)
        place = number % TILE_WIDTH
        yield number, entries[place] if place in entries else reader.entry(number)  # which says what is wrong


def _tag(gate: Root, document: _Document) -> str:
    key = HKDF(SHA256(), 32, salt=None, info=b"palladion/v1/gate/approvals/index").derive(gate.derive("journal"))
    return hmac_digest(key, _INDEX_TAG + canonical.encode(_plain(document)), sha256).hex()


def _plain(value: msgspec.Struct) -> Any:
    return msgspec.to_builtins(value)
