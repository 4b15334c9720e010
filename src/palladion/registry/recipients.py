"""Recipients: names for public keys to which versions are sealed and delivered."""

from sqlalchemy import insert, select, update

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.rows import Recipient
from palladion.registry.transaction import Transaction

_RECIPIENT = tables.recipient.c
_COLUMNS = (
    _RECIPIENT.name,
    _RECIPIENT.kind,
    _RECIPIENT.public_key,
    _RECIPIENT.note,
    _RECIPIENT.created,
    _RECIPIENT.revoked_at,
)


class Recipients:
    """The recipients of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, name: str, *, kind: str, public_key: str, note: str = "") -> Recipient:
        """Register a recipient. Raises ConflictError if name or public key is taken, also by a revoked one.

        One name per key: a leaked copy has to lead to one recipient, and a name must not change hands.
        """
        names.slug(name, what="the name of a recipient")
        names.slug(kind, what="the kind of a recipient")
        names.token(public_key, what="the public key of a recipient", characters_max=names.KEY_CHARACTERS_MAX)
        names.note(note, what="the note of a recipient")
        if self.find(name) is not None:
            raise ConflictError(f"there is a recipient {name!r} already", "take another name")
        holder = self.with_key(public_key)
        if holder is not None:
            raise ConflictError(f"this public key is that of recipient {holder.name!r} already")
        recipient = Recipient(name, kind, public_key, note, self._transaction.now(), None)
        self._transaction.change(
            insert(tables.recipient).values(
                name=name, kind=kind, public_key=public_key, note=note, created=recipient.created
            )
        )
        return recipient

    def find(self, name: str) -> Recipient | None:
        """The recipient of that name, or None."""
        row = self._transaction.first(select(*_COLUMNS).where(_RECIPIENT.name == name))
        return None if row is None else Recipient(*row)

    def get(self, name: str) -> Recipient:
        """The recipient of that name, revoked or not. Raises NotFoundError with the names that look like it."""
        recipient = self.find(name)
        if recipient is None:
            raise names.not_found("recipient", name, (known.name for known in self.all()))
        return recipient

    def with_key(self, public_key: str) -> Recipient | None:
        """The recipient who holds that public key, or None."""
        row = self._transaction.first(select(*_COLUMNS).where(_RECIPIENT.public_key == public_key))
        return None if row is None else Recipient(*row)

    def all(self) -> list[Recipient]:
        """Every recipient, by name, revoked ones included."""
        return [Recipient(*row) for row in self._transaction.all(select(*_COLUMNS).order_by(_RECIPIENT.name))]

    def revoke(self, name: str) -> Recipient:
        """Deliver nothing to this recipient any more; it can still open what it has. Raises ConflictError."""
        recipient = self.get(name)
        if recipient.revoked_at is not None:
            raise ConflictError(f"recipient {name!r} was revoked on {recipient.revoked_at:%Y-%m-%d}")
        now = self._transaction.now()
        self._transaction.change(update(tables.recipient).where(_RECIPIENT.name == name).values(revoked_at=now))
        return self.get(name)
