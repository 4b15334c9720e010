"""Whether a request or an answer is the one that an entry is of: held against its salted digests. Pure.

Needs the entry, which a proof shows to be in the log, and its salt, which whoever has the client's seed tells. That a
salt is the right one needs no proof: with another, no body has these digests.
"""

from palladion.errors import FormatError, TamperError
from palladion.ledger.proof import Proof
from palladion.ledger.record import Record
from palladion.ledger.salts import verify_body

DIGESTED = frozenset({"answer.given", "answer.begun", "answer.broken"})
# In a streamed answer, the line before which its digest ends: what it says is known only once that is recorded.
_RECEIPT_LINE = b": palladion-receipt "
# Where it broke off, the line before which its digest ends: that it did is told when what had left is recorded.
_ERROR_LINE = b"event: error\n"


def digest_in(record: Record, side: str) -> str:
    """The digest of one side, "request" or "answer", as a record has it. Raises FormatError if it has none."""
    found = record.details.get(f"{side}_digest") if record.kind in DIGESTED else None
    if not isinstance(found, str):
        raise FormatError(
            f"a record of the kind {record.kind} has no digest of {'an' if side == 'answer' else 'a'} {side}",
            "the entry that Palladion-Receipt names has both, or, of a streamed answer, the one named at its end",
        )
    return found


def verify_disclosed(proof: Proof, record: Record, side: str, body: bytes, *, what: str) -> None:
    """Raise TamperError, naming `what`, unless `body` is that side of what `record` is of. FormatError without a salt.

    Of a streamed answer, all of it is taken as it came, with the receipt or the error at its end.
    """
    digest = digest_in(record, side)
    if proof.salt is None:
        raise FormatError(
            "the proof holds no salt, without which nothing can be held against its digests",
            f"ask the log's owner for palladion ledger prove {proof.index} --disclose",
        )
    if side == "answer" and record.details.get("streamed") is True:
        body = _before(body, _RECEIPT_LINE)
    elif side == "answer" and record.kind == "answer.broken":
        body = _before(body, _ERROR_LINE)
    try:
        verify_body(proof.salt, body, digest, what=what)
    except TamperError as error:
        hint = "bytes count: a file that was formatted anew, or got a line break at its end, is another one"
        raise TamperError(error.message, hint) from None


def _before(body: bytes, line: bytes) -> bytes:
    """A body up to the last line that begins so; all of it where none does."""
    before, found, _ = (b"\n" + body).rpartition(b"\n" + line)
    return (before + b"\n")[1:] if found else body
