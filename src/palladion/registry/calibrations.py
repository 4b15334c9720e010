"""Calibrations of the watch: which file belongs to which version, and what it must be. The newest one counts.

And the learning curves that were measured in their buckets, as documents; of each calibration the newest counts.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import insert, select

from palladion.registry import names, tables
from palladion.registry.rows import CalibrationRow
from palladion.registry.transaction import Transaction
from palladion.registry.versions import Versions

_CALIBRATION = tables.calibration.c
_CURVE = tables.learning_curve.c
_COLUMNS = (
    _CALIBRATION.model,
    _CALIBRATION.number,
    _CALIBRATION.path,
    _CALIBRATION.digest,
    _CALIBRATION.simulated,
    _CALIBRATION.clients,
    _CALIBRATION.at,
)


class Calibrations:
    """The calibrations of one transaction."""

    def __init__(self, transaction: Transaction, versions: Versions) -> None:
        self._transaction = transaction
        self._versions = versions

    def add(self, model: str, number: int, *, path: str, digest: str, simulated: bool, clients: int) -> CalibrationRow:
        """List a calibration of a version. Raises NotFoundError if there is no such version."""
        self._versions.get(model, number)
        names.token(path, what="the path of a calibration", characters_max=names.PATH_CHARACTERS_MAX)
        names.digest(digest, what="the digest of a calibration")
        row = CalibrationRow(model, number, path, digest, simulated, clients, self._transaction.now())
        self._transaction.change(
            insert(tables.calibration).values(
                model=model, number=number, path=path, digest=digest, simulated=simulated, clients=clients, at=row.at
            )
        )
        return row

    def newest(self, model: str, number: int) -> CalibrationRow | None:
        """The calibration that counts for a version, or None."""
        query = select(*_COLUMNS).where(_CALIBRATION.model == model, _CALIBRATION.number == number)
        row = self._transaction.first(query.order_by(_CALIBRATION.id.desc()))
        return None if row is None else self._with_curve(CalibrationRow(*row))

    def add_curve(self, calibration: CalibrationRow, document: Mapping[str, Any]) -> CalibrationRow:
        """List the learning curve that was measured in the buckets of a calibration, in place of an older one."""
        self._transaction.change(
            insert(tables.learning_curve).values(
                calibration=calibration.path, document=document, at=self._transaction.now()
            )
        )
        return replace(calibration, curve=document)

    def all(self) -> list[CalibrationRow]:
        """Every calibration, oldest first, without curves."""
        return [CalibrationRow(*row) for row in self._transaction.all(select(*_COLUMNS).order_by(_CALIBRATION.id))]

    def _with_curve(self, row: CalibrationRow) -> CalibrationRow:
        query = select(_CURVE.document).where(_CURVE.calibration == row.path).order_by(_CURVE.id.desc())
        found = self._transaction.first(query)
        return row if found is None else replace(row, curve=found.document)
