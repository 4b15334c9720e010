"""What a test of an API is about to ask, and what it found, as the ledger keeps it.

Owns when the ledger is written; what stands in a record is decided by each test.
"""

from collections.abc import Callable, Mapping
from typing import Any

from palladion.errors import BusyError
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation

RECORD_ATTEMPTS = 10  # for what was found, a second apart: by then another command that holds the ledger has ended
SUBJECT_CHARACTERS_MAX = 200


def record_test(installation: Installation, subject: object, actor: str, details: Mapping[str, Any]) -> int:
    """Record a test of `subject`, and publish it; the entry's number. Raises BusyError where another command writes."""
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        text = str(subject)[:SUBJECT_CHARACTERS_MAX]
        (receipt,) = ledger.append([Record("mark.tested", installation.clock.now(), actor, text, dict(details))])
    return receipt.index


def record_patiently(
    installation: Installation,
    subject: object,
    actor: str,
    details: Mapping[str, Any],
    *,
    wait: Callable[[float], None],
) -> None:
    """Record what was found also where another command holds the ledger at that moment."""
    for _ in range(RECORD_ATTEMPTS - 1):
        try:
            record_test(installation, subject, actor, details)
        except BusyError:
            wait(1.0)
        else:
            return
    record_test(installation, subject, actor, details)
