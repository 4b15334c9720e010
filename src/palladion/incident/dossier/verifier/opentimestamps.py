"""OpenTimestamps proofs (`.ots`): read, replayed, and compared with a block of Bitcoin, without a network.

A proof leads from the SHA-256 of a file by appending, prepending and hashing to what somebody attests: a calendar
promises a block (pending), or the Merkle root in the header of a block of Bitcoin is exactly that value. Of the format
(opentimestamps.org, version 1) these operations and these two attestations are understood; a branch that ends in
another attestation is carried along and proves nothing here. Every length and number is limited.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from .findings import DossierError

MAGIC = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94"
VERSION = 1
SHA256, APPEND, PREPEND = 0x08, 0xF0, 0xF1
PENDING, BITCOIN = bytes.fromhex("83dfe30d2ef90c8e"), bytes.fromhex("0588960d73d71901")
PROOF_BYTES_MAX = 64 * 1024  # a proof by four calendars has some 3 KB
MESSAGE_BYTES_MAX = 4096  # these three are the format's own
PAYLOAD_BYTES_MAX = 8192
URI_BYTES_MAX = 1000
DEPTH_MAX = 256
BRANCHES_MAX = 64
HEADER_BYTES = 80
HEIGHT_MAX = 2**31
_DIGEST_BYTES = 32
_FORK, _ATTESTATION = 0xFF, 0x00
_URI = re.compile(rb"https?://[A-Za-z0-9._:/-]+")

Operation = tuple[int, bytes]  # its tag and, of append and prepend, what


@dataclass(frozen=True)
class Branch:
    """Operations from the file's digest on, and what is attested of their outcome: a tag of 8 bytes and its payload."""

    operations: tuple[Operation, ...]
    tag: bytes
    payload: bytes

    def outcome(self, digest: bytes) -> bytes:
        """What the operations make of `digest`. Raises DossierError where that gets too long."""
        message = digest
        for operation, argument in self.operations:
            if operation == SHA256:
                message = hashlib.sha256(message).digest()
            else:
                message = message + argument if operation == APPEND else argument + message
            if len(message) > MESSAGE_BYTES_MAX:
                raise DossierError("the OpenTimestamps proof makes a message that is too long")
        return message

    @property
    def calendar(self) -> str | None:
        """The address of the calendar that promises a block, of a pending branch."""
        if self.tag != PENDING:
            return None
        reader = _Reader(self.payload)
        uri = reader.counted(URI_BYTES_MAX)
        reader.end()
        if not _URI.fullmatch(uri):
            raise DossierError("the OpenTimestamps proof names a calendar by what is no address")
        return uri.decode("ascii")

    @property
    def height(self) -> int | None:
        """The number of the block of Bitcoin, of a branch that ends in one."""
        if self.tag != BITCOIN:
            return None
        reader = _Reader(self.payload)
        height = reader.number(HEIGHT_MAX)
        reader.end()
        return height


@dataclass(frozen=True)
class Proof:
    """A proof over a file of this SHA-256."""

    digest: bytes
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class Block:
    """A block that a proof leads to: its number, and the Merkle root that its header must have, as it stands there.

    `time` is what the header says, which miners set within some two hours; None where no header was given.
    """

    height: int
    root: bytes
    time: datetime | None = None
    hash: str = ""


def read_proof(data: bytes) -> Proof:
    """The proof of a `.ots` file. Raises DossierError on what is none, or goes on after it."""
    if len(data) > PROOF_BYTES_MAX:
        raise DossierError(f"the OpenTimestamps proof has more than {PROOF_BYTES_MAX} bytes")
    reader = _Reader(data[len(MAGIC) :])
    if not data.startswith(MAGIC) or reader.number(255) != VERSION:
        raise DossierError("that is no OpenTimestamps proof of version 1")
    if reader.take(1)[0] != SHA256:
        raise DossierError("the OpenTimestamps proof is over another digest than SHA-256")
    digest = reader.take(_DIGEST_BYTES)
    found = _branches(reader, digest)
    reader.end()
    return Proof(digest, found)


def read_branches(data: bytes, message: bytes) -> tuple[Branch, ...]:
    """What a calendar answers: branches from `message` on. Raises DossierError."""
    if len(data) > PROOF_BYTES_MAX:
        raise DossierError(f"the calendar's answer has more than {PROOF_BYTES_MAX} bytes")
    reader = _Reader(data)
    found = _branches(reader, message)
    reader.end()
    return found


def write_proof(proof: Proof) -> bytes:
    """The `.ots` file of a proof; the same branches give the same bytes, in whatever order."""
    return MAGIC + _number(VERSION) + bytes([SHA256]) + proof.digest + _tree(frozenset(proof.branches), 0)


def pending(uri: str) -> tuple[bytes, bytes]:
    """Tag and payload of a calendar's promise."""
    text = uri.encode("ascii")
    return PENDING, _number(len(text)) + text


def blocks_of(proof: Proof, file: bytes, header: bytes | None = None) -> list[Block]:
    """The blocks that a proof over the bytes `file` leads to; with `header`, 80 bytes, only the one that has it.

    Raises DossierError if the proof is over something else, or leads to no block with that header. That the header is
    part of Bitcoin's chain is for the caller: its work is checked, but only as much as it claims itself.
    """
    if hashlib.sha256(file).digest() != proof.digest:
        raise DossierError("the OpenTimestamps proof is over something else than this manifest")
    found: list[Block] = []
    for branch in proof.branches:
        outcome = branch.outcome(proof.digest)  # of each, so that none is taken that cannot be replayed
        if branch.height is not None:
            if len(outcome) != _DIGEST_BYTES:
                raise DossierError("the OpenTimestamps proof does not end in a Merkle root")
            found.append(Block(branch.height, outcome))
    if header is None:
        return sorted(set(found), key=lambda block: (block.height, block.root))
    time, root, name = _header(header)
    fitting = sorted({block.height for block in found if block.root == root})
    if not fitting:
        raise DossierError("the OpenTimestamps proof leads to no block with this header")
    return [Block(height, root, time, name) for height in fitting]


def _header(header: bytes) -> tuple[datetime, bytes, str]:
    """Time, Merkle root and hash of a block's header. Raises DossierError unless its work is what it claims."""
    if len(header) != HEADER_BYTES:
        raise DossierError(f"a block's header has {HEADER_BYTES} bytes, not {len(header)}")
    name = hashlib.sha256(hashlib.sha256(header).digest()).digest()[::-1]
    bits = int.from_bytes(header[72:76], "little")
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    # beyond this exponent a target is easier than Bitcoin has ever allowed (0x1d00ffff)
    if bits & 0x800000 or not 3 <= exponent <= 0x1D or (exponent == 0x1D and mantissa > 0xFFFF):
        raise DossierError("the header claims a difficulty that no block of Bitcoin has")
    if int.from_bytes(name, "big") > mantissa << 8 * (exponent - 3):
        raise DossierError("the header's hash is not below its target: it is that of no block")
    return datetime.fromtimestamp(int.from_bytes(header[68:72], "little"), UTC), header[36:68], name.hex()


def _branches(reader: "_Reader", message: bytes) -> tuple[Branch, ...]:
    found: list[Branch] = []
    _grow(reader, (), found)
    for branch in found:
        branch.outcome(message)
        # read both, so that nothing is kept that cannot be told later
        _ = branch.calendar, branch.height
    return tuple(dict.fromkeys(found))


def _grow(reader: "_Reader", before: tuple[Operation, ...], found: list[Branch]) -> None:
    if len(before) > DEPTH_MAX:
        raise DossierError(f"the OpenTimestamps proof has more than {DEPTH_MAX} operations in a row")
    tag = reader.take(1)[0]
    while tag == _FORK:
        _member(reader, reader.take(1)[0], before, found)
        tag = reader.take(1)[0]
    _member(reader, tag, before, found)


def _member(reader: "_Reader", tag: int, before: tuple[Operation, ...], found: list[Branch]) -> None:
    if tag == _ATTESTATION:
        if len(found) == BRANCHES_MAX:
            raise DossierError(f"the OpenTimestamps proof has more than {BRANCHES_MAX} branches")
        found.append(Branch(before, reader.take(8), reader.counted(PAYLOAD_BYTES_MAX)))
    elif tag == SHA256:
        _grow(reader, (*before, (tag, b"")), found)
    elif tag in {APPEND, PREPEND}:
        argument = reader.counted(MESSAGE_BYTES_MAX)
        if not argument:
            raise DossierError("the OpenTimestamps proof appends nothing")
        _grow(reader, (*before, (tag, argument)), found)
    else:
        raise DossierError(f"the OpenTimestamps proof has an operation that is not understood here: 0x{tag:02x}")


def _tree(branches: frozenset[Branch], depth: int) -> bytes:
    """Branches that have their first `depth` operations in common, from there on: attestations, then operations."""
    ends = sorted((branch.tag, branch.payload) for branch in branches if len(branch.operations) == depth)
    parts = [bytes([_ATTESTATION]) + tag + _number(len(payload)) + payload for tag, payload in ends]
    onward: dict[Operation, set[Branch]] = {}
    for branch in branches:
        if len(branch.operations) > depth:
            onward.setdefault(branch.operations[depth], set()).add(branch)
    for (tag, argument), rest in sorted(onward.items()):
        counted = b"" if tag == SHA256 else _number(len(argument)) + argument
        parts.append(bytes([tag]) + counted + _tree(frozenset(rest), depth + 1))
    # all but the last have the byte before them that says that more comes
    return b"".join([bytes([_FORK]) + part for part in parts[:-1]]) + parts[-1]


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


class _Reader:
    """Bytes from a hostile place, taken from the front."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._position : self._position + count]
        if len(taken) != count:
            raise DossierError("the OpenTimestamps proof ends too early")
        self._position += count
        return taken

    def number(self, value_max: int) -> int:
        """A number of seven bits a byte, the lowest first. One way to write each is taken: the shortest."""
        value = 0
        for place in range(5):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << 7 * place
            if not byte & 0x80:
                if value > value_max or (byte == 0 and place > 0):
                    break
                return value
        raise DossierError("the OpenTimestamps proof has a number that is too large, or not written as short as it is")

    def counted(self, count_max: int) -> bytes:
        return self.take(self.number(count_max))

    def end(self) -> None:
        if self._position != len(self._data):
            raise DossierError("the OpenTimestamps proof goes on after its end")
