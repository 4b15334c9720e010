"""Decoys: which are planted where, what they are recognised by, and how often each was touched.

Keys come as keyed hashes, rows sealed and texts as keyed digests (`palladion.access.decoys`), ids of sealed files as
keyed digests and their places sealed (`palladion.access.decoy_files`): none of them gets here.
"""

import secrets
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import func, insert, select, update

from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import names, tables
from palladion.registry.clients import HASH_BYTES, PREFIX_CHARACTERS_MAX
from palladion.registry.rows import Decoy, DecoyKind
from palladion.registry.transaction import Transaction

ID_BYTES = 8  # random, as those of incidents
LIVE_MAX = 10_000  # a gate holds all of them in memory
DATA_BYTES_MAX = 16 * 1024**2  # of one decoy: 5000 pictures of 784 numbers
LIVE_BYTES_MAX = 64 * 1024**2  # of all of them together; opened, they take some twice as much memory
FILES: tuple[DecoyKind, ...] = ("file", "backup")  # sealed ones that nobody can open
QUERIES_MAX = 20_000  # rows and texts of all of them together, 2 KiB each beside their numbers

_DECOY = tables.decoy.c
_COLUMNS = (
    *(_DECOY.id, _DECOY.kind, _DECOY.label, _DECOY.organisation, _DECOY.model, _DECOY.prefix, _DECOY.count),
    *(_DECOY.actor, _DECOY.created, _DECOY.retired_at, _DECOY.touches, _DECOY.touched_at, _DECOY.incident),
)


class Decoys:
    """The decoys of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add_key(
        self, decoy: str, label: str, *, prefix: str, key_hash: bytes, organisation: str | None, actor: str
    ) -> Decoy:
        """Keep a planted API key, by its keyed hash, under a `new_id`. Raises ConflictError, PalladionError."""
        if len(key_hash) != HASH_BYTES:
            raise ValueError(f"a key's hash has {HASH_BYTES} bytes, got {len(key_hash)}")
        names.token(prefix, what="the prefix of a key", characters_max=PREFIX_CHARACTERS_MAX)
        if organisation is not None:
            names.slug(organisation, what="the organisation of a decoy")
        return self._add(
            decoy, "key", label, actor=actor, prefix=prefix, hash=key_hash, organisation=organisation, count=1
        )

    def add_queries(
        self, decoy: str, kind: DecoyKind, label: str, *, model: str, data: bytes, count: int, actor: str
    ) -> Decoy:
        """Keep planted queries of a model, `count` rows or texts, as what `data` recognises them by.

        Raises ConflictError where there are too many decoys already, PalladionError on what cannot be one.
        """
        names.slug(model, what="the model of a decoy")
        if count < 1 or len(data) > DATA_BYTES_MAX:
            raise PalladionError(
                f"{count} queries in {len(data)} bytes, 1 and more in at most {DATA_BYTES_MAX} were expected",
                "plant fewer: one that is asked is enough",
            )
        return self._add(decoy, kind, label, actor=actor, model=model, data=data, count=count)

    def add_file(self, decoy: str, kind: DecoyKind, label: str, *, file_hash: bytes, data: bytes, actor: str) -> Decoy:
        """Keep a sealed file that nobody can open, by the keyed hash of its id; `data` is where it lies, sealed.

        Raises ConflictError where there are too many decoys already.
        """
        if kind not in FILES:
            raise ValueError(f"{kind!r} is no kind of a sealed file, one of {FILES} was expected")
        if len(file_hash) != HASH_BYTES:
            raise ValueError(f"the hash of a file's id has {HASH_BYTES} bytes, got {len(file_hash)}")
        return self._add(decoy, kind, label, actor=actor, hash=file_hash, data=data, count=1)

    def of_file(self, file_hash: bytes) -> Decoy | None:
        """The decoy that counts whose sealed file has an id of this keyed hash."""
        found = self._select(_DECOY.hash == file_hash, _DECOY.kind.in_(FILES), _DECOY.retired_at.is_(None))
        return found[0] if found else None

    def all(self, *, retired: bool = True) -> list[Decoy]:
        """Every decoy, or those that count, oldest first."""
        return self._select() if retired else self._select(_DECOY.retired_at.is_(None))

    def get(self, decoy: str) -> Decoy:
        """The decoy whose id is `decoy`, or the only one whose id begins with it. Raises NotFoundError."""
        matching = self._select(_DECOY.id.startswith(decoy, autoescape=True)) if decoy else []
        if len(matching) > 1:
            raise NotFoundError(f"{len(matching)} decoys have an id that begins with {decoy!r}", "give more of it")
        if not matching:
            raise NotFoundError(f"no decoy with the id {decoy!r}")
        return matching[0]

    def live(self) -> tuple[str, ...]:
        """The ids of those that count, in order: two equal answers, and what they are recognised by is the same."""
        query = select(_DECOY.id).where(_DECOY.retired_at.is_(None)).order_by(_DECOY.id)
        return tuple(row.id for row in self._transaction.all(query))

    def hashes(self) -> dict[bytes, str]:
        """The decoys that count, by the keyed hashes of keys."""
        query = select(_DECOY.hash, _DECOY.id).where(_DECOY.retired_at.is_(None), _DECOY.kind == "key")
        return {bytes(row.hash): row.id for row in self._transaction.all(query)}

    def data(self, decoy: str) -> bytes:
        """What the queries of a decoy are recognised by, or where a file lies. Raises NotFoundError."""
        row = self._transaction.first(select(_DECOY.data).where(_DECOY.id == decoy))
        if row is None or row.data is None:
            raise NotFoundError(f"no decoy {decoy!r} with queries")
        return bytes(row.data)

    def retire(self, decoy: str) -> Decoy:
        """Let a decoy count no more. Raises NotFoundError, ConflictError if that is so already."""
        known = self.get(decoy)
        if known.retired_at is not None:
            raise ConflictError(f"decoy {known.id} was retired on {known.retired_at:%Y-%m-%d}")
        now = self._transaction.now()
        self._transaction.change(update(tables.decoy).where(_DECOY.id == known.id).values(retired_at=now))
        return self.get(known.id)

    def touch(self, decoy: str, touches: int, *, at: datetime, incident: str | None = None) -> Decoy:
        """Count so many touches, the last of them `at`; `incident` is the case to which they were added, if one was.

        Raises NotFoundError.
        """
        known = self.get(decoy)
        last = at if known.touched_at is None else max(at, known.touched_at)
        values = {"touches": known.touches + touches, "touched_at": last}
        if incident is not None:
            values["incident"] = incident
        self._transaction.change(update(tables.decoy).where(_DECOY.id == known.id).values(**values))
        return self.get(known.id)

    def _add(self, decoy: str, kind: DecoyKind, label: str, *, actor: str, **values: Any) -> Decoy:
        names.one_of(kind, get_args(DecoyKind), what="the kind of a decoy")
        names.label(label, what="the label of a decoy")
        names.label(actor, what="the actor")
        self._require_room(len(values.get("data", b"")), values["count"])
        self._transaction.change(
            insert(tables.decoy).values(
                id=decoy, kind=kind, label=label, actor=actor, created=self._transaction.now(), touches=0, **values
            )
        )
        return self.get(decoy)

    def _require_room(self, size: int, count: int) -> None:
        held = func.coalesce(func.sum(func.length(_DECOY.data)), 0), func.coalesce(func.sum(_DECOY.count), 0)
        (row,) = self._transaction.all(select(func.count(), *held).where(_DECOY.retired_at.is_(None)))
        for got, most, what in (
            (row[0] + 1, LIVE_MAX, "decoys"),
            (row[1] + size, LIVE_BYTES_MAX, "bytes of decoys"),
            (row[2] + count, QUERIES_MAX, "planted keys, rows and texts"),
        ):
            if got > most:
                raise ConflictError(f"there would be {got} {what}, at most {most} can be", "palladion decoy retire ID")

    def _select(self, *conditions: Any) -> list[Decoy]:
        query = select(*_COLUMNS).where(*conditions).order_by(_DECOY.created, _DECOY.id)
        return [Decoy(*row) for row in self._transaction.all(query)]


def new_id() -> str:
    """An id for a decoy that is still to be made: what recognises its queries is bound to it."""
    return secrets.token_hex(ID_BYTES)
