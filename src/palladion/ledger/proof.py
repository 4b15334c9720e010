"""Proofs that an entry is in the log, as text that needs neither the log nor us (c2sp.org/tlog-proof). Pure."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from palladion.errors import FormatError
from palladion.ledger import merkle
from palladion.ledger.checkpoint import NOTE_BYTES_MAX, Checkpoint, VerifierKey, decode_base64, verify_checkpoint
from palladion.ledger.salts import SALT_BYTES

FIRST_LINE = "c2sp.org/tlog-proof@v1"
_EXTRA = "extra "
PATH_MAX = merkle.SIZE_MAX.bit_length()
EXTRA_BYTES_MAX = 1024  # of extra data; a salt has 32
PROOF_BYTES_MAX = NOTE_BYTES_MAX + 64 * PATH_MAX + 2 * EXTRA_BYTES_MAX
_SALT = b"palladion-salt-1\n"  # before the salt in a proof's extra data


@dataclass(frozen=True)
class Proof:
    """A parsed proof: which entry, its path to the root, and the signed note, none of it verified yet.

    `extra` is what else whoever made it put in: no signature covers that.
    """

    index: int
    path: tuple[bytes, ...]
    note: bytes
    extra: bytes = b""

    @property
    def salt(self) -> bytes | None:
        """The salt of the entry's digests, if it is in here. It is the right one if a body with it has the digest."""
        found = self.extra.removeprefix(_SALT)
        return found if self.extra.startswith(_SALT) and len(found) == SALT_BYTES else None


def encode_proof(index: int, path: Sequence[bytes], note: bytes, *, salt: bytes | None = None) -> bytes:
    """The proof's text; with the `salt` of the entry's digests for whoever may hold bodies against them."""
    extra = [] if salt is None else [_EXTRA + base64.b64encode(_SALT + salt).decode()]
    lines = [FIRST_LINE, *extra, f"index {index}", *(base64.b64encode(item).decode() for item in path)]
    return ("\n".join(lines) + "\n\n").encode() + note


def parse_proof(data: bytes) -> Proof:
    """The proof of a text. Raises FormatError on anything that is not exactly one."""
    if len(data) > PROOF_BYTES_MAX:
        raise FormatError(f"the proof has {len(data)} bytes, more than the {PROOF_BYTES_MAX} allowed")
    head, separator, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise FormatError("not a proof: text was expected") from None
    if not separator or len(lines) < 2 or lines[0] != FIRST_LINE:
        raise FormatError(f"not a proof: {FIRST_LINE} was expected on its first line")
    extra = b""
    if lines[1].startswith(_EXTRA):
        extra = decode_base64(lines.pop(1).removeprefix(_EXTRA), what="the proof's extra data")
        if not 0 < len(extra) <= EXTRA_BYTES_MAX:
            raise FormatError(f"the proof has {len(extra)} bytes of extra data, 1 to {EXTRA_BYTES_MAX} are allowed")
    number = re.fullmatch(r"index (0|[1-9][0-9]{0,14})", lines[1]) if len(lines) > 1 else None
    if number is None:
        raise FormatError("the proof does not name the index of an entry")
    if len(lines) - 2 > PATH_MAX:
        raise FormatError(f"the proof has {len(lines) - 2} hashes, more than any tree is high")
    path = tuple(decode_base64(line, what="a hash of the proof") for line in lines[2:])
    if any(len(item) != merkle.HASH_BYTES for item in path):
        raise FormatError(f"a hash of the proof does not have {merkle.HASH_BYTES} bytes")
    return Proof(int(number.group(1)), path, note, extra)


def verify_proof(data: bytes, entry: bytes, key: VerifierKey) -> tuple[Proof, Checkpoint]:
    """The proof and its checkpoint, if they show that `entry` is in the log of `key`.

    Needs no log and no network. Raises FormatError if the text is not a proof, TamperError if it does not hold.
    """
    # 1. the text; 2. the log's signature; 3. the path from the entry to the signed root
    proof = parse_proof(data)
    checkpoint = verify_checkpoint(proof.note, key)
    merkle.verify_inclusion(merkle.leaf_hash(entry), proof.index, checkpoint.size, proof.path, checkpoint.root)
    return proof, checkpoint
