"""Selective disclosure: the keys of a few tensors, shown to a court, and that they are the ones that were committed to.

A version commits to the hash of a list of hashes, one for each tensor's key. Whoever is shown the list and some of the
keys can check both, test these tensors, and learns nothing of the mark in the others.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated

import msgspec

from palladion.errors import FormatError, TamperError
from palladion.mark.codes import PAYLOAD_BYTES
from palladion.mark.weights import OwnershipKey, TensorKey, tensor_key

SCHEME = "disclosure-1"
TENSORS_MAX = 1_000_000  # a mixture of experts has a tenth of it
_HASH = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    scheme: str
    original: _HASH
    payload: Annotated[str, msgspec.Meta(pattern=f"^[0-9a-f]{{{2 * PAYLOAD_BYTES}}}$")]
    commitments: Annotated[list[_HASH], msgspec.Meta(min_length=1, max_length=TENSORS_MAX)]
    keys: Annotated[dict[str, _HASH], msgspec.Meta(min_length=1)]


@dataclass(frozen=True)
class Disclosure:
    """What is shown: the digest of the unmarked original, the hashes of all tensors' keys, and the keys of some."""

    original: str
    commitments: tuple[str, ...]
    keys: Mapping[str, TensorKey] = field(repr=False)

    def encode(self) -> bytes:
        """As JSON."""
        payload = next(iter(self.keys.values())).payload
        keys = {name: item.key.hex() for name, item in self.keys.items()}
        document = _Document(SCHEME, self.original, (payload or b"").hex(), list(self.commitments), keys)
        return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"

    def verify(self, root: str) -> None:
        """Raise TamperError unless `root`, of the version's record, commits to every key that is shown here."""
        if not hmac.compare_digest(commitment_root(self.commitments), root):
            raise TamperError("the list of commitments is not the one that the version's record commits to")
        listed = set(self.commitments)
        for name, key in self.keys.items():
            if _commitment(name, key) not in listed:
                raise TamperError(f"the key that is shown for {name!r} is not the one that was committed to")


def disclose(key: OwnershipKey, original: str, names: Sequence[str], shown: Sequence[str]) -> Disclosure:
    """The keys of the tensors `shown`, out of those of all places `names`. Raises ValueError for one that is none."""
    if not shown or set(shown) - set(names):
        raise ValueError(f"shown are some of the marked tensors, got {sorted(set(shown) - set(names))}")
    return Disclosure(original, tensor_commitments(key, names), {name: tensor_key(key, name) for name in shown})


def tensor_commitments(key: OwnershipKey, names: Sequence[str]) -> tuple[str, ...]:
    """The hash of each tensor's key, in the order of the hashes, which says nothing of the names."""
    return tuple(sorted(_commitment(name, tensor_key(key, name)) for name in names))


def commitment_root(commitments: Sequence[str]) -> str:
    """What a version's record states: the hash of all tensors' commitments."""
    return sha256(b"palladion/v1/tensor-keys" + b"".join(map(bytes.fromhex, commitments))).hexdigest()


def parse_disclosure(data: bytes, *, what: str) -> Disclosure:
    """A disclosure as it was written. Raises FormatError; whether it is true, `verify` tells."""
    try:
        document = msgspec.json.decode(data, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what} is no disclosure of tensor keys: {error}") from None
    if document.scheme != SCHEME:
        raise FormatError(f"{what} is a disclosure of another kind, expected {SCHEME}")
    payload = bytes.fromhex(document.payload)
    keys = {name: TensorKey(bytes.fromhex(key), payload) for name, key in document.keys.items()}
    return Disclosure(document.original, tuple(document.commitments), keys)


def _commitment(name: str, key: TensorKey) -> str:
    # A key has 256 random bits, so its hash can be shown. The payload is in it: whoever could choose that after he saw
    # the suspect would choose what its noise says.
    parts = (name.encode(), key.key, key.payload or b"")
    encoded = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return sha256(b"palladion/v1/tensor-key" + encoded).hexdigest()
