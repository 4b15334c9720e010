"""A time-stamping authority of tests that says whatever time it is told to: as one that stamped years ago did."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

pytest.importorskip("pyhanko", reason="a dossier needs the dossier extra: pip install 'palladion[dossier]'")

from asn1crypto import keys as asn1_keys
from asn1crypto import tsp
from asn1crypto import x509 as asn1_x509
from pyhanko.sign.timestamps import DummyTimeStamper

STAMPED = datetime(2020, 3, 1, 12, 30, tzinfo=UTC)  # long before this is read
STAMPING = [ExtendedKeyUsageOID.TIME_STAMPING]


class Authority:
    """A root and a signer under it, valid for `days` from `at`, when all of its stamps are made; `keys` name others."""

    def __init__(
        self,
        *,
        at: datetime = STAMPED,
        days: int = 100,
        signer_days: int | None = None,
        usages: Sequence[x509.ObjectIdentifier] = tuple(STAMPING),
        critical: bool = True,
        root_is_authority: bool = True,
        keys: str = "",
    ) -> None:
        self.at = at
        self.key, root_key = _rsa_key(f"signer {keys}"), _rsa_key(f"root {keys}")
        limits = x509.BasicConstraints(ca=root_is_authority, path_length=None)
        self.root = _certificate("root", root_key, "root", root_key, at, days, [(limits, True)])
        extensions = [(x509.ExtendedKeyUsage(list(usages)), critical)] if usages else []
        signer_days = days if signer_days is None else signer_days
        self.signer = _certificate("signer", self.key, "root", root_key, at, signer_days, extensions)

    def reply(self, request: bytes, *, embed: Sequence[x509.Certificate] = ()) -> bytes:
        """Its answer to a request, with more certificates embedded, in the order in which they come."""
        parsed = tsp.TimeStampReq.load(request)
        certificates = [asn1_x509.Certificate.load(_der(item)) for item in embed]
        plain = serialization.NoEncryption()
        key = self.key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, plain)
        stamper = DummyTimeStamper(
            asn1_x509.Certificate.load(_der(self.signer)),
            asn1_keys.PrivateKeyInfo.load(key),
            certs_to_embed=certificates,  # type: ignore[arg-type]  # any collection does
            fixed_dt=self.at,
        )
        return bytes(stamper.request_tsa_response(parsed).dump())


def request(message: bytes, *, nonce: int | None = 7) -> bytes:
    """A request for a stamp over `message`."""
    digest = hashes.Hash(hashes.SHA512())
    digest.update(message)
    imprint = {"hash_algorithm": {"algorithm": "sha512"}, "hashed_message": digest.finalize()}
    fields = {"version": 1, "message_imprint": imprint, "cert_req": True}
    return bytes(tsp.TimeStampReq(fields if nonce is None else {**fields, "nonce": nonce}).dump())


def changed(data: bytes, old: bytes, new: bytes) -> bytes:
    """`data` with one part replaced, which has to be there once."""
    if data.count(old) != 1:
        raise ValueError(f"{old!r} is there {data.count(old)} times")
    return data.replace(old, new)


def pem(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM."""
    return b"".join(item.public_bytes(serialization.Encoding.PEM) for item in certificates)


Answer = Callable[[bytes], bytes]


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


@cache
def _rsa_key(name: str) -> rsa.RSAPrivateKey:
    # one for each name and process: making one takes a tenth of a second
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _certificate(
    name: str,
    key: rsa.RSAPrivateKey,
    issuer: str,
    issuer_key: rsa.RSAPrivateKey,
    at: datetime,
    days: int,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(at, at + timedelta(days=days)) - timedelta(days=10))
        .not_valid_after(at + timedelta(days=days))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())
