"""What evidence is made for: one nonce, one public key, the files that are asked for, and the devices beside it.

Pure. The broker draws the nonce; the guest makes a key pair of its own, and has its hardware sign a digest of all that.
So evidence is of no use to whoever cannot open what is sealed to that key, for another nonce, or for other files.
"""

import re
from collections.abc import Collection, Sequence
from hashlib import sha256, sha512

from palladion.attest.evidence import Evidence, Kind

NONCE_BYTES = 32
PUBLIC_KEY_BYTES_MAX = 2048  # X-Wing's has 1,216 bytes
FILE_IDS_MAX = 64
DEVICES: tuple[Kind, ...] = ("nvidia", "tpm")  # stand beside a machine; a TPM can stand alone, too
_DOMAIN = b"palladion/v1/attest/report-data\0"
_DEVICE_DOMAIN = b"palladion/v1/attest/device-nonce\0"
_FILE_ID = re.compile(r"[0-9a-f]{32}")


def report_data(
    nonce: bytes, public_key: bytes, file_ids: Collection[str] = (), *, devices: Sequence[Evidence] = ()
) -> bytes:
    """The 64 bytes that an SNP or TDX guest has signed, and that are `user_data` of a Nitro enclave's.

    `devices` is the evidence of GPUs and a TPM that the guest collected before: its digests go in, so that the guest
    vouches for it. Raises ValueError for a nonce, key or file ids of another form.
    """
    documents = sorted(sha256(one.kind.encode() + b"\0" + one.document).digest() for one in devices)
    parts = [device_nonce(nonce, public_key, file_ids), *documents]
    return sha512(_DOMAIN + _transcript(nonce, public_key, file_ids) + _sized(parts)).digest()


def device_nonce(nonce: bytes, public_key: bytes, file_ids: Collection[str] = ()) -> bytes:
    """The 32 bytes that a GPU or a TPM signs along, of the same nonce, key and files. Raises ValueError."""
    return sha256(_DEVICE_DOMAIN + _transcript(nonce, public_key, file_ids)).digest()


def _transcript(nonce: bytes, public_key: bytes, file_ids: Collection[str]) -> bytes:
    """All of it, in one spelling: each part with its length before it, file ids sorted."""
    ids = sorted(file_ids)
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a nonce of {len(nonce)} bytes, {NONCE_BYTES} were expected")
    if not 0 < len(public_key) <= PUBLIC_KEY_BYTES_MAX:
        raise ValueError(f"a public key of {len(public_key)} bytes, 1 to {PUBLIC_KEY_BYTES_MAX} were expected")
    if len(ids) > FILE_IDS_MAX or len(set(ids)) < len(ids):
        raise ValueError(f"{len(ids)} file ids, up to {FILE_IDS_MAX} different ones were expected")
    if not all(map(_FILE_ID.fullmatch, ids)):
        raise ValueError("a file id that is not 32 small hexadecimal digits")
    return _sized([nonce, public_key, b"".join(map(bytes.fromhex, ids))])


def _sized(parts: Sequence[bytes]) -> bytes:
    return len(parts).to_bytes(4, "big") + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
