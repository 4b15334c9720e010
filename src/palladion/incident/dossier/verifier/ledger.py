"""The ledger's entries in the dossier: each is in the log under one signed checkpoint (RFC 6962, C2SP)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature

from .findings import DossierError
from .manifest import MANIFEST, public_key

LEDGER_FOLDER = "evidence/ledger/"
CHECKPOINT, VERIFIER_KEY = f"{LEDGER_FOLDER}checkpoint", f"{LEDGER_FOLDER}verifier-key.txt"
# one name for each entry: with zeros in front, a second commitment to the same one could stand beside the first
_NAME = re.compile(r"entry-(0|[1-9][0-9]{0,15})\.(json|tlog-proof|withheld)", re.ASCII)
_COMMITMENT = re.compile(rb"[0-9a-f]{64}")
_SIZE = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)


@dataclass(frozen=True)
class Evidence:
    """What the signed checkpoint says, the entries that are proved under it, and commitments to withheld ones."""

    origin: str
    size: int
    root: bytes
    proved: dict[int, bytes]
    withheld: dict[int, bytes]

    @property
    def entries(self) -> set[int]:
        """The numbers of all of them."""
        return self.proved.keys() | self.withheld.keys()


def log_key(text: str) -> tuple[str, bytes, bytes]:
    """Name, key id and raw Ed25519 key of a verifier key (c2sp.org/signed-note)."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        key = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise DossierError("the ledger's verifier key is not one") from None
    expected = hashlib.sha256(name.encode() + b"\n" + key).digest()[:4]
    if len(key) != 33 or key[0] != 1 or key_id != expected.hex():
        raise DossierError("the ledger's verifier key is not one")
    return name, expected, key[1:]


def check_checkpoint(note: bytes, key_text: str) -> tuple[int, bytes]:
    """Number of entries and root of a signed checkpoint (c2sp.org/tlog-checkpoint). Raises DossierError."""
    name, key_id, key = log_key(key_text)
    text, _, block = note.rpartition(b"\n\n")
    for line in block.decode("utf-8", "replace").splitlines():
        parts = line.split(" ")
        if len(parts) == 3 and parts[0] == "—" and parts[1] == name:
            try:
                blob = base64.b64decode(parts[2], validate=True)
                if blob[:4] == key_id:
                    public_key(key).verify(blob[4:], text + b"\n")
                    origin, size, root = text.decode().split("\n")[:3]
                    hashed = base64.b64decode(root, validate=True)
                    if origin == name and _SIZE.fullmatch(size) and len(hashed) == 32:
                        return int(size), hashed
            except (ValueError, binascii.Error, InvalidSignature):
                break
    raise DossierError(f"the checkpoint does not carry a signature of {name} that holds")


def check_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raise DossierError unless `path` leads from `leaf`, entry `index` of `size`, to `root` (RFC 9162 §2.1.3.2)."""
    f, s, computed = index, size - 1, leaf
    for sibling in path:
        if f & 1 or f == s:
            computed = hashlib.sha256(b"\x01" + sibling + computed).digest()
            while f & 1 == 0 and f != 0:
                f, s = f >> 1, s >> 1
        else:
            computed = hashlib.sha256(b"\x01" + computed + sibling).digest()
        f, s = f >> 1, s >> 1
    if not 0 <= index < size or s != 0 or computed != root:
        raise DossierError(f"entry {index} is not in the ledger: its proof does not lead to the signed root")


def check_ledger(members: dict[str, bytes], key_text: str) -> Evidence:
    """What the folder of the ledger holds, and nothing else is in it. Raises DossierError.

    A withheld entry is not proved: its commitment fixes what it has to be when it is shown.
    """
    if members[VERIFIER_KEY] != f"{key_text}\n".encode():
        raise DossierError(f"{VERIFIER_KEY} is another key than the one that {MANIFEST} names")
    note = members[CHECKPOINT]
    size, root = check_checkpoint(note, key_text)
    found = Evidence(log_key(key_text)[0], size, root, {}, {})
    for name in sorted(members.keys() - {CHECKPOINT, VERIFIER_KEY}):
        if not name.startswith(LEDGER_FOLDER):
            continue
        match = _NAME.fullmatch(name.removeprefix(LEDGER_FOLDER))
        if match is None or int(match[1]) >= size:
            raise DossierError(f"{name} belongs to no entry of a log of {size}")
        index, data, stem = int(match[1]), members[name], name.rpartition(".")[0]
        if match[2] == "withheld":
            if not _COMMITMENT.fullmatch(data):
                raise DossierError(f"{name} is no commitment")
            found.withheld[index] = data
        elif match[2] == "json":
            _check_entry(index, data, members[f"{stem}.tlog-proof"], note, size=size, root=root)
            found.proved[index] = data
        elif f"{stem}.json" not in members:
            raise DossierError(f"{name} belongs to no entry that is shown")
    if both := found.proved.keys() & found.withheld.keys():
        raise DossierError(f"entry {min(both)} is shown and withheld")
    return found


def _check_entry(index: int, data: bytes, proof: bytes, note: bytes, *, size: int, root: bytes) -> None:
    head, _, proved_note = proof.partition(b"\n\n")
    first, second, *path = head.decode("ascii").split("\n")
    if (first, second) != ("c2sp.org/tlog-proof@v1", f"index {index}") or proved_note != note:
        raise DossierError(f"the proof of entry {index} is of another entry or another checkpoint")
    hashed = [base64.b64decode(item, validate=True) for item in path]
    check_inclusion(leaf_hash(data), index, size, hashed, root)


def leaf_hash(data: bytes) -> bytes:
    """The hash of an entry (RFC 6962 §2.1)."""
    return hashlib.sha256(b"\x00" + data).digest()
