"""Has the ledger's checkpoints cosigned by witnesses, and says what these have seen (c2sp.org/tlog-witness).

The last checkpoint that enough of them cosigned lies beside the ledger's own, `checkpoint.witnessed`: proofs are made
under it where they can be, so that a stranger need not believe that this log tells everybody the same.

What a witness cosigned is proved by its signature. That it has seen more, or another history, is its word alone, as it
comes over TLS: that is why other addresses than https:// are taken of this machine alone.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from palladion import files
from palladion.errors import FormatError, PalladionError, PolicyError, StorageError, TamperError
from palladion.ledger.checkpoint import NOTE_BYTES_MAX, Checkpoint, VerifierKey
from palladion.ledger.cosignature import (
    WitnessKey,
    cosignatures,
    parse_witness_key,
    verify_witnessed,
    with_cosignatures,
)
from palladion.ledger.reader import LedgerReader
from palladion.ledger.witness import SIZE_TYPE, encode_request
from palladion.policy.sections import LedgerPolicy
from palladion.seal.http import exchange
from palladion.transit.url import is_loopback

WITNESSED_FILE = "checkpoint.witnessed"
ANSWER_BYTES_MAX = 4096  # a line or two
ASK_SECONDS = 10.0
ATTEMPTS = 2  # the first may learn how far the witness is

Send = Callable[[str, bytes], tuple[int, str, bytes]]  # POST a body to an address; status, type and body of the answer


@dataclass(frozen=True)
class WitnessAt:
    """A witness, and where it is asked."""

    key: WitnessKey
    url: str


@dataclass(frozen=True)
class Round:
    """What came of asking: which checkpoint, who cosigned it and when, and what went wrong with the others by name."""

    checkpoint: Checkpoint
    cosigned: dict[WitnessKey, datetime] = field(default_factory=dict)
    failed: dict[str, PalladionError] = field(default_factory=dict)
    enough: bool = False

    @property
    def contradicted(self) -> TamperError | None:
        """What a witness saw that this ledger cannot have come from, if one did."""
        return next((error for error in self.failed.values() if isinstance(error, TamperError)), None)


def witnesses_of(policy: LedgerPolicy) -> list[WitnessAt]:
    """The witnesses that a policy names.

    Raises PolicyError on a key that is none, on an address that others could answer for, and where fewer are named than
    are asked for.
    """
    found = []
    for text in policy.witnesses:
        key, _, url = text.partition(" ")
        if not url.startswith("https://") and not is_loopback(urlsplit(url).hostname or ""):
            raise PolicyError(f"ledger.witnesses: {url} is not https, and what it says could be anybody's word")
        try:
            found.append(WitnessAt(parse_witness_key(key), url.rstrip("/")))
        except FormatError as error:
            raise PolicyError(f"ledger.witnesses: {error.message}") from None
    if found and len({witness.key.public_key for witness in found}) < policy.witness_quorum:
        raise PolicyError(f"ledger.witness_quorum asks for {policy.witness_quorum} witnesses, fewer are named")
    return found


class Witnesses:
    """The witnesses of one ledger; remembers how far each of them is. For one thread at a time."""

    def __init__(self, witnesses: Sequence[WitnessAt], quorum: int, *, send: Send | None = None) -> None:
        self._witnesses = witnesses
        self._quorum = quorum
        self._send = send or _post
        self._sizes: dict[WitnessKey, int] = {}

    def ask(self, directory: Path, log: VerifierKey) -> Round:
        """Ask all of them to cosign the last checkpoint of a ledger, and keep it beside that if enough do.

        Raises TamperError, FormatError where the ledger itself does not hold, StorageError where the checkpoint cannot
        be kept. Nothing that a witness does or fails to do raises.
        """
        reader = LedgerReader(directory, log)
        lines, failed = [], dict[str, PalladionError]()
        for witness in self._witnesses:
            try:
                lines.append(self._cosigned(witness, reader, log))
            except PalladionError as error:
                failed[witness.key.name] = error
        note = with_cosignatures(reader.note, lines)
        found = cosignatures(note, [witness.key for witness in self._witnesses])
        enough = len({key.public_key for key in found}) >= self._quorum
        if enough:
            files.write_atomically(reader.directory / WITNESSED_FILE, note)
        return Round(reader.checkpoint, found, failed, enough)

    def _cosigned(self, witness: WitnessAt, reader: LedgerReader, log: VerifierKey) -> bytes:
        """The signature line of one witness."""
        for _ in range(ATTEMPTS):
            known = self._sizes.get(witness.key, 0)
            if known > reader.size:
                now = LedgerReader(reader.directory, log).size
                if now >= known:
                    raise StorageError(f"{witness.key.name} was asked about a later checkpoint meanwhile", "ask again")
                raise TamperError(
                    f"{witness.key.name} cosigned this log at {known} entries, and it has {now}: its tail was cut",
                    "keep a copy of the ledger's folder, and ask the witness for its checkpoint",
                )
            request = encode_request(known, reader.consistency_proof(known), reader.note)
            status, content_type, body = self._send(f"{witness.url}/add-checkpoint", request)
            if status == 200:
                line = _line_of(witness.key, reader.note, body)
                self._sizes[witness.key] = reader.size
                return line
            if status != 409:
                break
            told = _size(witness.key, content_type, body)
            if told == known and known > 0:
                # it has another root for this very size
                raise _rewritten(witness)
            if told < self._sizes.get(witness.key, 0):
                raise StorageError(f"{witness.key.name} has forgotten what it cosigned", "it needs a new key")
            self._sizes[witness.key] = told
        if status == 422 and content_type.startswith("text/plain") and known > 0:
            raise _rewritten(witness)
        if status == 409:
            raise StorageError(f"{witness.key.name} answers with another size each time", "try again later")
        said = body[:200].decode("utf-8", "replace").strip()
        raise StorageError(f"{witness.key.name} refuses with {status}: {said}")


def read_witnessed(
    directory: Path, log: VerifierKey, witnesses: Sequence[WitnessKey], quorum: int
) -> tuple[bytes, Checkpoint, dict[WitnessKey, datetime]] | None:
    """The last note that enough of `witnesses` cosigned, verified, or None if there is none yet of these.

    Raises TamperError where a signature does not hold.
    """
    path = directory / WITNESSED_FILE
    if not path.exists():
        return None
    note = files.read_limited(path, size_max=NOTE_BYTES_MAX, what="the witnessed checkpoint")
    checkpoint, found = verify_witnessed(note, log, witnesses, 0)
    # fewer than are asked for today may have been enough when it was made, and its deletion would look the same
    return (note, checkpoint, found) if len({key.public_key for key in found}) >= quorum else None


def _line_of(key: WitnessKey, note: bytes, body: bytes) -> bytes:
    """The line of an answer that this witness signed; other lines are not looked at."""
    for line in body.splitlines(keepends=True):
        try:
            if key in cosignatures(with_cosignatures(note, [line]), [key]):
                return line
        except (FormatError, TamperError):
            continue
    raise FormatError(f"{key.name} answers without a cosignature of its key")


def _size(key: WitnessKey, content_type: str, body: bytes) -> int:
    text = body.removesuffix(b"\n")
    if content_type.partition(";")[0].strip() != SIZE_TYPE or not re.fullmatch(rb"0|[1-9][0-9]{0,14}", text):
        raise FormatError(f"{key.name} answers with a size that is none ({SIZE_TYPE} was expected)")
    return int(text)


def _rewritten(witness: WitnessAt) -> TamperError:
    return TamperError(
        f"{witness.key.name} cosigned a history of this log that its entries do not lead to: it was rewritten",
        "keep a copy of the ledger's folder, and ask the witness for its checkpoint",
    )


def _post(url: str, body: bytes) -> tuple[int, str, bytes]:
    with exchange(url, body=body, content_type="text/plain; charset=utf-8", seconds=ASK_SECONDS) as answer:
        found = bytearray()
        for piece in answer.pieces:
            found += piece
            if len(found) > ANSWER_BYTES_MAX:
                raise StorageError("a witness answers with more than a few lines")
        return answer.status, answer.content_type, bytes(found)
