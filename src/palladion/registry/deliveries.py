"""Deliveries: which recipient got which copy of which version, under which key. Only ever added to."""

from sqlalchemy import insert, select

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.recipients import Recipients
from palladion.registry.rows import Delivery, SealedFile
from palladion.registry.transaction import Transaction
from palladion.registry.versions import Versions

_DELIVERY = tables.delivery.c
_COLUMNS = (
    _DELIVERY.model,
    _DELIVERY.number,
    _DELIVERY.recipient,
    _DELIVERY.public_key,
    _DELIVERY.fingerprinted,
    _DELIVERY.digest,
    _DELIVERY.header_digest,
    _DELIVERY.actor,
    _DELIVERY.at,
)


class Deliveries:
    """The deliveries of one transaction."""

    def __init__(self, transaction: Transaction, versions: Versions, recipients: Recipients) -> None:
        self._transaction = transaction
        self._versions = versions
        self._recipients = recipients

    def add(
        self, model: str, number: int, recipient: str, *, sealed: SealedFile, fingerprinted: bool, actor: str
    ) -> Delivery:
        """List a delivery; `sealed.path` is not kept, because the file leaves the house.

        Raises NotFoundError, ConflictError for a recipient that is revoked.
        """
        self._versions.get(model, number)
        row = self._recipients.get(recipient)
        if row.revoked_at is not None:
            raise ConflictError(f"recipient {recipient} was revoked on {row.revoked_at:%Y-%m-%d} and gets nothing")
        names.label(actor, what="the actor")
        names.digest(sealed.digest, what="the digest of a delivery")
        names.digest(sealed.header_digest, what="the header digest of a delivery")
        found = Delivery(
            model,
            number,
            recipient,
            row.public_key,
            fingerprinted,
            sealed.digest,
            sealed.header_digest,
            actor,
            self._transaction.now(),
        )
        self._transaction.change(
            insert(tables.delivery).values(
                model=model,
                number=number,
                recipient=recipient,
                public_key=row.public_key,
                fingerprinted=fingerprinted,
                digest=sealed.digest,
                header_digest=sealed.header_digest,
                actor=actor,
                at=found.at,
            )
        )
        return found

    def all(self, *, model: str | None = None, number: int | None = None) -> list[Delivery]:
        """Every delivery, oldest first; of one model or version, if named."""
        query = select(*_COLUMNS).order_by(_DELIVERY.id)
        if model is not None:
            query = query.where(_DELIVERY.model == model)
        if number is not None:
            query = query.where(_DELIVERY.number == number)
        return [Delivery(*row) for row in self._transaction.all(query)]
