"""Certificates for tests: one that signs itself, for one address, and an authority that vouches for clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_made(folder: Path, name: str) -> Path:
    """Write `certificate.pem` and `key.pem` for an address or a host name; returns the certificate's path."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as files in PEM."""

    certificate: x509.Certificate
    path: Path
    key: Path

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


class Authority:
    """Signs certificates; its own is `path`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = folder / f"{name}.pem"
        own = self._builder(self._name, self._key, [], lives=timedelta(hours=1))
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self._own = own.sign(self._key, hashes.SHA256())
        self.path.write_bytes(self._own.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        file: str,
        names: Sequence[x509.GeneralName] = (),
        *,
        usage: str | None = "digital_signature",
        authority: bool = False,
        lives: timedelta = timedelta(hours=1),
    ) -> Issued:
        """A certificate for these names; `usage` is the one thing its key is for, None leaves the extension out."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)])
        builder = self._builder(subject, key, names, lives=lives)
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if usage is not None:
            builder = builder.add_extension(_usage(usage), critical=True)
        certificate = builder.sign(self._key, hashes.SHA256())
        path, key_path = self._folder / f"{file}.pem", self._folder / f"{file}.key.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Issued(certificate, path, key_path)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: Sequence[x509.GeneralName],
        *,
        lives: timedelta,
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=2))
            .not_valid_after(now + lives)
        )
        return builder.add_extension(x509.SubjectAlternativeName(names), critical=False) if names else builder


def uri(text: str) -> x509.GeneralName:
    """A name that is an address, such as a SPIFFE id."""
    return x509.UniformResourceIdentifier(text)


def address(text: str) -> x509.GeneralName:
    """A name that is a network address."""
    return x509.IPAddress(ip_address(text))


def _usage(name: str) -> x509.KeyUsage:
    every = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**{item: item in {name, "digital_signature"} for item in every})
