"""An enclave's module of our own making: a root, an authority, a leaf of three hours, and documents of any content."""

from datetime import datetime, timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from palladion.attest.evidence import Evidence
from palladion.attest.nitro.cbor import encode
from palladion.attest.roots import Roots
from tests.attest.synthetic import NOW, certify

HEADER = b"\xa1\x01\x38\x22"  # {1: -35}
IMAGE = bytes(range(48))


def numbered(pairs: dict[int, bytes]) -> bytes:
    """A map with numbers as keys, which the product never writes."""
    return bytes([0xA0 | len(pairs)]) + b"".join(encode(key) + encode(value) for key, value in pairs.items())


class NitroLab:
    """AWS in small."""

    def __init__(self) -> None:
        self.root_key, self.middle_key, self.leaf_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
        self.root = certify("aws.nitro-enclaves", self.root_key, "aws.nitro-enclaves", self.root_key, authority=True)
        self.middle = certify("zonal", self.middle_key, "aws.nitro-enclaves", self.root_key, authority=True)
        self.roots = Roots({"nitro": (self.root,)})

    def leaf(self, *, since: datetime = NOW - timedelta(hours=1), **options: Any) -> bytes:
        return certify(
            "i-0abc-enc0",
            self.leaf_key,
            "zonal",
            self.middle_key,
            since=since,
            until=since + timedelta(hours=3),
            **options,
        )

    def payload(self, *, pcrs: dict[int, bytes] | None = None, drop: str = "", **fields: Any) -> bytes:
        values: dict[str, Any] = {
            "module_id": "i-0abc-enc0",
            "digest": "SHA384",
            "timestamp": int(NOW.timestamp() * 1000),
            "pcrs": pcrs or {index: IMAGE if index < 3 else bytes(48) for index in range(16)},
            "certificate": self.leaf(),
            "cabundle": [self.root, self.middle],
            "public_key": b"key",
            "user_data": bytes(64),
            "nonce": bytes(range(32)),
        } | fields
        values.pop(drop, None)
        encoded = {key: numbered(value) if isinstance(value, dict) else encode(value) for key, value in values.items()}
        return bytes([0xA0 | len(encoded)]) + b"".join(encode(key) + value for key, value in encoded.items())

    def sign(self, payload: bytes, *, header: bytes = HEADER, unprotected: bytes = b"\xa0", tag: bytes = b"") -> bytes:
        r, s = decode_dss_signature(
            self.leaf_key.sign(encode(["Signature1", header, b"", payload]), ec.ECDSA(SHA384()))
        )
        signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
        return tag + b"\x84" + encode(header) + unprotected + encode(payload) + encode(signature)

    def evidence(self, **fields: Any) -> Evidence:
        return Evidence("nitro", self.sign(self.payload(**fields)))


@cache
def nitro_lab() -> NitroLab:
    return NitroLab()
