"""Tells the salt of one answer's digests, on record: whoever has it can hold bodies against that entry, and no other.

Salts are made from seeds of clients (`ledger.salts`); where a client was forgotten, there is none to tell.
"""

from palladion.errors import ConflictError, NotFoundError
from palladion.ledger.disclosed import DIGESTED
from palladion.ledger.record import Record, decode_record
from palladion.ledger.salts import FOLDER, read_seed, request_salt
from palladion.lifecycle.installation import Installation


def disclose_salt(installation: Installation, index: int, entry: bytes, *, actor: str) -> bytes:
    """The salt of the digests in entry `index`, of these bytes; on record when this returns.

    Raises ConflictError for an entry without digests, NotFoundError where the seed was erased or is another one now,
    and BusyError while another command or process writes.
    """
    record = decode_record(entry, what=f"entry {index}")
    request = record.details.get("request")
    if record.kind not in DIGESTED or not isinstance(request, str):
        raise ConflictError(
            f"entry {index} is a record of the kind {record.kind}, which has no salted digests",
            "those of answers have them: palladion ledger query --kind answer.given",
        )
    gate = installation.open_gate_root()
    secret = _secret(installation, gate.derive("ledger-salts"), index, record)
    details = {"entry": index, "request": request}
    with installation.open_ledger(gate) as ledger:
        ledger.append([Record("salt.disclosed", installation.clock.now(), actor, record.actor, details)])
    return request_salt(secret, request)


def _secret(installation: Installation, key: bytes, index: int, record: Record) -> bytes:
    name = record.details.get("seed")
    if name is None:
        return key  # from before clients had seeds
    seed = read_seed(installation.paths.directory / FOLDER, key, record.actor)
    if seed is None or seed.name != name:
        raise NotFoundError(
            f"the seed {name} of entry {index} is gone, so nothing can be held against its digests any more",
            "its client was forgotten, or .palladion/salts was lost: no backup holds it",
        )
    return seed.secret
