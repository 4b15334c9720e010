"""Proofs that an entry is in the log, as text that needs neither the log nor us (c2sp.org/tlog-proof). Pure."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from palladion.errors import FormatError
from palladion.ledger import merkle
from palladion.ledger.checkpoint import NOTE_BYTES_MAX, Checkpoint, VerifierKey, decode_base64, verify_checkpoint

FIRST_LINE = "c2sp.org/tlog-proof@v1"
PATH_MAX = merkle.SIZE_MAX.bit_length()
PROOF_BYTES_MAX = NOTE_BYTES_MAX + 64 * PATH_MAX


@dataclass(frozen=True)
class Proof:
    """A parsed proof: which entry, its path to the root, and the signed note, none of it verified yet."""

    index: int
    path: tuple[bytes, ...]
    note: bytes


def encode_proof(index: int, path: Sequence[bytes], note: bytes) -> bytes:
    """The proof's text."""
    lines = [FIRST_LINE, f"index {index}", *(base64.b64encode(item).decode() for item in path)]
    return ("\n".join(lines) + "\n\n").encode() + note


def parse_proof(data: bytes) -> Proof:
    """The proof of a text. Raises FormatError on anything that is not exactly one; extra data is not accepted."""
    if len(data) > PROOF_BYTES_MAX:
        raise FormatError(f"the proof has {len(data)} bytes, more than the {PROOF_BYTES_MAX} allowed")
    head, separator, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise FormatError("not a proof: text was expected") from None
    if not separator or len(lines) < 2 or lines[0] != FIRST_LINE:
        raise FormatError(f"not a proof: {FIRST_LINE} was expected on its first line")
    number = re.fullmatch(r"index (0|[1-9][0-9]{0,14})", lines[1])
    if number is None:
        raise FormatError("the proof's second line does not name the index of an entry")
    if len(lines) - 2 > PATH_MAX:
        raise FormatError(f"the proof has {len(lines) - 2} hashes, more than any tree is high")
    path = tuple(decode_base64(line, what="a hash of the proof") for line in lines[2:])
    if any(len(item) != merkle.HASH_BYTES for item in path):
        raise FormatError(f"a hash of the proof does not have {merkle.HASH_BYTES} bytes")
    return Proof(int(number.group(1)), path, note)


def verify_proof(data: bytes, entry: bytes, key: VerifierKey) -> tuple[Proof, Checkpoint]:
    """The proof and its checkpoint, if they show that `entry` is in the log of `key`.

    Needs no log and no network. Raises FormatError if the text is not a proof, TamperError if it does not hold.
    """
    # 1. the text; 2. the log's signature; 3. the path from the entry to the signed root
    proof = parse_proof(data)
    checkpoint = verify_checkpoint(proof.note, key)
    merkle.verify_inclusion(merkle.leaf_hash(entry), proof.index, checkpoint.size, proof.path, checkpoint.root)
    return proof, checkpoint
