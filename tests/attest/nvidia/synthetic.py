"""A GPU and NVIDIA's two authorities of our own making: reports, chains and signed reference values of any content."""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from palladion.attest.evidence import Evidence
from palladion.attest.nvidia.canonical_xml import canonical, parse
from palladion.attest.roots import Roots
from tests.attest.synthetic import certify

FWID = bytes(range(48))
DICE = "2.23.133.5.4.1"
VALUES = {index: hashlib.sha384(bytes([index])).digest() for index in range(1, 65)}
_NAMESPACES = (
    'xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" '
    'xmlns:n="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:h="http://www.w3.org/2001/04/xmlenc#sha384"'
)
_C14N = "http://www.w3.org/2006/12/xml-c14n11"


@dataclass(frozen=True)
class GpuReport:
    """The fields of a report that tests set."""

    nonce: bytes = bytes(range(32))
    values: dict[int, bytes] = field(default_factory=lambda: dict(VALUES))
    fields: tuple[tuple[int, bytes], ...] = (
        (3, b"550.90.07\0"),
        (6, bytes.fromhex("009f009601000000")),
        (11, b"\xaa"),
        (20, FWID),
        (900, b"something new"),
    )
    head: bytes = b"\x11\xe0\x01\xff"
    answer: bytes = b"\x11\x60\x00\x00"

    def build(self) -> bytes:
        record = b"".join(struct.pack("<BBHBH", i, 1, 51, 1, 48) + value for i, value in self.values.items())
        opaque = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in self.fields)
        return b"".join((
            self.head, self.nonce, b"\0", self.answer, bytes([len(self.values)]), len(record).to_bytes(3, "little"),
            record, bytes(32), len(opaque).to_bytes(2, "little"), opaque,
        ))  # fmt: skip


class NvidiaLab:
    """NVIDIA in small: an authority for devices and one for reference values."""

    def __init__(self) -> None:
        self.root_key, self.leaf_key, self.rim_root_key, self.rim_key = (
            ec.generate_private_key(ec.SECP384R1()) for _ in range(4)
        )
        self.root = certify("devices", self.root_key, "devices", self.root_key, authority=True)
        self.rim_root = certify("values", self.rim_root_key, "values", self.rim_root_key, authority=True)
        self.rim_leaf = certify("signer", self.rim_key, "values", self.rim_root_key)
        self.roots = Roots({"nvidia": (self.root,)})

    def leaf(self, *, fwid: bytes = FWID, **options: Any) -> bytes:
        extensions = {DICE: b"\x30\x34\x30\x32\x04\x30" + fwid}
        return certify("GPU", self.leaf_key, "devices", self.root_key, **{"extensions": extensions, **options})

    def sign(self, data: bytes) -> bytes:
        return data + _sign(self.leaf_key, data)

    def rim(
        self,
        version: str,
        values: dict[int, list[bytes]],
        *,
        chain: tuple[bytes, ...] | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        resources: str = "",
    ) -> str:
        """Reference values by SPDM index, signed as NVIDIA does."""
        lines = "".join(
            f'\n  <n:Resource type="Measurement" index="{index - 1}" active="True" alternatives="{len(digests)}" '
            + " ".join(f'h:Hash{number}="{digest.hex()}"' for number, digest in enumerate(digests))
            + ' name="m" size="48"/>'
            for index, digests in values.items()
        )
        body = f'<n:Meta colloquialVersion="{version}"/><n:Payload>{lines or resources}</n:Payload>'
        digest = hashlib.sha384(
            canonical(parse(f"<SoftwareIdentity {_NAMESPACES}>{body}\n</SoftwareIdentity>".encode(), what="it"))
        )
        info = (
            f'<ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{_C14N}"/>'
            '<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"/>'
            '<ds:Reference URI=""><ds:Transforms>'
            '<ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/>'
            f'<ds:Transform Algorithm="{_C14N}"/></ds:Transforms>'
            '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"/>'
            f"<ds:DigestValue>{base64.b64encode(digest.digest()).decode()}</ds:DigestValue></ds:Reference></ds:SignedInfo>"
        )
        certificates = chain or (self.rim_leaf, self.rim_root)
        keys = "".join(
            f"<ds:X509Certificate>{base64.b64encode(one).decode()}</ds:X509Certificate>" for one in certificates
        )

        def whole(value: str) -> str:
            return (
                f'<SoftwareIdentity {_NAMESPACES}>{body}\n<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">{info}'
                f"<ds:SignatureValue>{value}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>{keys}</ds:X509Data></ds:KeyInfo>"
                "</ds:Signature></SoftwareIdentity>"
            )

        element = parse(whole("").encode(), what="it").elements()[-1].elements()[0]
        return whole(base64.b64encode(_sign(key or self.rim_key, canonical(element))).decode())

    def collateral(self, *, driver: str | None = None, vbios: str | None = None) -> bytes:
        even = {index: [bytes(48), value] for index, value in VALUES.items() if index % 2 == 0}
        odd = {index: [value] for index, value in VALUES.items() if index % 2}
        given = {
            "driver_rim": driver or self.rim("550.90.07", even),
            "vbios_rim": vbios or self.rim("96.00.9f.00.01", odd),
        }
        return json.dumps(given).encode()

    def evidence(self, report: GpuReport | None = None, *, collateral: bytes | None = None, **options: Any) -> Evidence:
        data = self.sign((report or GpuReport()).build())
        given = self.collateral() if collateral is None else collateral
        return Evidence("nvidia", data, (self.leaf(**options), self.root), given)


def _sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


@cache
def nvidia_lab() -> NvidiaLab:
    return NvidiaLab()
