"""Hardware of our own making: authorities, keys and evidence of the vendors' forms, for what no published vector shows.

Evidence from here verifies with `Lab.roots` alone. Everything is built once in a run.
"""

import hashlib
import json
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from palladion.attest.evidence import Evidence
from palladion.attest.roots import Roots

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SINCE, UNTIL = NOW - timedelta(days=30), NOW + timedelta(days=300)
MEASUREMENT = bytes(range(48))
CHIP = bytes(range(100, 164))
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def certify(
    common: str,
    key: Key,
    issuer: str,
    issuer_key: Key,
    *,
    authority: bool = False,
    path_length: int | None = None,
    may_sign: bool = True,
    serial: int | None = None,
    since: datetime = SINCE,
    until: datetime = UNTIL,
    extensions: dict[str, bytes] | None = None,
    critical: bool = False,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(authority, path_length), critical=True)
    )
    if authority:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "encipher_only", "decipher_only"), False,
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=may_sign, crl_sign=True, **usage), critical=True)
    for oid, value in (extensions or {}).items():
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=critical
        )
    data: bytes = _sign(builder, issuer_key).public_bytes(Encoding.DER)
    return data


def revoke(
    issuer: str, key: Key, serials: tuple[int, ...] = (), *, since: datetime = SINCE, until: datetime = UNTIL
) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(name(issuer)).last_update(since).next_update(until)
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    for serial in serials:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since).build()
        )
    data: bytes = _sign(builder, key).public_bytes(Encoding.DER)
    return data


def _sign(builder: Any, key: Key) -> Any:
    if isinstance(key, rsa.RSAPrivateKey):
        return builder.sign(key, SHA384(), rsa_padding=padding.PSS(padding.MGF1(SHA384()), 48))
    return builder.sign(key, SHA256())


def small(value: int) -> bytes:
    """A DER INTEGER of one byte's worth."""
    return bytes([2, 1, value]) if value < 0x80 else bytes([2, 2, 0, value])


# --- SEV-SNP ---------------------------------------------------------------------------------------------------------

AMD = "1.3.6.1.4.1.3704.1."
TCB_FIELDS = {
    "Milan": {"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "Genoa": {"boot_loader": 0, "tee": 1, "snp": 6, "microcode": 7},
    "Turin": {"fmc": 0, "boot_loader": 1, "tee": 2, "snp": 3, "microcode": 7},
}
SPL = {"boot_loader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
CPUID = {"Milan": (0x19, 1, 1), "Genoa": (0x19, 0x11, 1), "Turin": (0x1A, 2, 1)}


@dataclass(frozen=True)
class SnpReport:
    """The fields of a report that tests set; `build` writes them down as AMD 56860 does."""

    product: str = "Milan"
    version: int = 3
    policy: int = 0x30000
    vmpl: int = 0
    algorithm: int = 1
    flags: int = 0
    platform: int = 0x21
    report_data: bytes = bytes(64)
    measurement: bytes = MEASUREMENT
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    chip: bytes = CHIP
    tcb: dict[str, int] = field(default_factory=lambda: {"boot_loader": 4, "tee": 0, "snp": 23, "microcode": 213})
    launch: dict[str, int] | None = None
    cpuid: tuple[int, int, int] | None = None

    def build(self) -> bytes:
        data = bytearray(0x4A0)
        struct.pack_into("<IIQ", data, 0, self.version, 7, self.policy)
        struct.pack_into(
            "<IIQQI", data, 0x30, self.vmpl, self.algorithm, self._tcb(self.tcb), self.platform, self.flags
        )
        data[0x50:0x90], data[0x90:0xC0] = self.report_data, self.measurement
        data[0xC0:0xE0], data[0xE0:0x110], data[0x110:0x140] = (
            self.host_data,
            self.id_key_digest,
            self.author_key_digest,
        )
        struct.pack_into("<Q", data, 0x180, self._tcb(self.tcb))
        if self.version >= 3:
            data[0x188:0x18B] = bytes(self.cpuid or CPUID[self.product])
        data[0x1A0:0x1E0] = self.chip.ljust(64, b"\0")
        struct.pack_into("<Q", data, 0x1E0, self._tcb(self.tcb))
        struct.pack_into("<Q", data, 0x1F0, self._tcb(self.launch or self.tcb))
        return bytes(data)

    def _tcb(self, numbers: dict[str, int]) -> int:
        places = TCB_FIELDS[self.product]
        return int.from_bytes(
            bytes({places[key]: value for key, value in numbers.items()}.get(i, 0) for i in range(8)), "little"
        )


class SnpLab:
    """AMD in small: an ARK, an ASK for chips and one for leased keys, of one product."""

    def __init__(self, product: str = "Milan") -> None:
        self.product = product
        self.ark_key, self.ask_key, self.asvk_key = (rsa.generate_private_key(65537, 2048) for _ in range(3))
        self.vek_key = ec.generate_private_key(ec.SECP384R1())
        self.ark = certify(f"ARK-{product}", self.ark_key, f"ARK-{product}", self.ark_key, authority=True)
        self.ask = self.authority(f"SEV-{product}", self.ask_key, serial=4711)
        self.asvk = self.authority(f"SEV-VLEK-{product}", self.asvk_key, serial=4712)
        self.roots = Roots({"sev-snp": (self.ark,)})

    def authority(self, common: str, key: rsa.RSAPrivateKey, **options: Any) -> bytes:
        options = {"authority": True, "path_length": 0, **options}
        return certify(common, key, f"ARK-{self.product}", self.ark_key, **options)

    def vcek(self, report: SnpReport, **options: Any) -> bytes:
        extensions = self.extensions(report) | {f"{AMD}4": report.chip}
        return certify(
            "SEV-VCEK", self.vek_key, f"SEV-{self.product}", self.ask_key, **{"extensions": extensions, **options}
        )

    def vlek(self, report: SnpReport) -> bytes:
        extensions = self.extensions(report) | {f"{AMD}5": b"\x16\x05cloud"}
        return certify("SEV-VLEK", self.vek_key, f"SEV-VLEK-{self.product}", self.asvk_key, extensions=extensions)

    @staticmethod
    def extensions(report: SnpReport) -> dict[str, bytes]:
        product = f"{report.product}-B0".encode()
        numbers = {f"{AMD}{SPL[key]}": small(value) for key, value in report.tcb.items()}
        return {f"{AMD}1": small(0), f"{AMD}2": bytes([0x16, len(product)]) + product, **numbers}

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.vek_key.sign(data[:0x2A0], ec.ECDSA(SHA384())))
        return data[:0x2A0] + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)

    def evidence(self, report: SnpReport | None = None, *, crls: tuple[bytes, ...] = ()) -> Evidence:
        report = report or SnpReport(product=self.product)
        leased = report.flags >> 2 & 7 == 1
        chain = (self.vlek(report), self.asvk) if leased else (self.vcek(report), self.ask)
        collateral = json.dumps({"crls": [crl.hex() for crl in crls]}).encode() if crls else b""
        return Evidence("sev-snp", self.sign(report.build()), chain, collateral)


# --- TDX -------------------------------------------------------------------------------------------------------------

INTEL = "1.2.840.113741.1.13.1"
FMSPC, PPID = bytes.fromhex("00906ED50000"), bytes(range(16))
ROOT, PLATFORM, PCK, SIGNING = (
    "Intel SGX Root CA",
    "Intel SGX PCK Platform CA",
    "Intel SGX PCK Certificate",
    "Intel SGX TCB Signing",
)


@dataclass(frozen=True)
class TdReport:
    """The fields of a quote that tests set."""

    version: int = 4
    tee_tcb_svn: bytes = bytes([5, 1, 3]) + bytes(13)
    mrsignerseam: bytes = bytes(48)
    td_attributes: int = 1 << 28
    mrtd: bytes = MEASUREMENT
    rtmr1: bytes = bytes([1]) * 48
    report_data: bytes = bytes(64)
    td15: bool = False

    def build(self) -> bytes:
        body = b"".join(
            (
                self.tee_tcb_svn, bytes([9]) * 48, self.mrsignerseam, bytes(8),
                self.td_attributes.to_bytes(8, "little"), bytes.fromhex("e702060000000000"), self.mrtd,
                bytes(3 * 48), bytes(48), self.rtmr1, bytes(2 * 48), self.report_data,
            )
        )  # fmt: skip
        header = struct.pack("<HHIHH", self.version, 2, 0x81, 0, 0) + bytes.fromhex(
            "939a7233f79c4ca9940a0db3957f0607"
        ) + bytes(20)  # fmt: skip
        if self.version == 4:
            return header + body
        if self.td15:
            body += self.tee_tcb_svn + bytes(48)
        return header + struct.pack("<HI", 3 if self.td15 else 2, len(body)) + body


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + content


def oid(text: str) -> bytes:
    numbers = [int(part) for part in text.split(".")]
    out = b""
    for number in (40 * numbers[0] + numbers[1], *numbers[2:]):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(number & 0x7F | 0x80)
        out += bytes(reversed(groups))
    return tlv(6, out)


EXTENDED_KEY_USAGE = "2.5.29.37"
ENDORSEMENT, ATTESTATION, SERVER = "2.23.133.8.1", "2.23.133.8.3", "1.3.6.1.5.5.7.3.1"


def purposes(*names: str) -> dict[str, bytes]:
    """The extension that says what a key is for."""
    return {EXTENDED_KEY_USAGE: tlv(0x30, *map(oid, names))}


def pck_extension(components: tuple[int, ...], pce_svn: int, fmspc: bytes = FMSPC) -> bytes:
    def pair(number: str, value: bytes) -> bytes:
        return tlv(0x30, oid(f"{INTEL}.{number}"), value)

    tcb = [pair(f"2.{place}", small(value)) for place, value in enumerate(components, 1)]
    tcb += [pair("2.17", small(pce_svn)), pair("2.18", tlv(4, bytes(components)))]
    return tlv(
        0x30,
        pair("1", tlv(4, PPID)),
        pair("2", tlv(0x30, *tcb)),
        pair("3", tlv(4, bytes(2))),
        pair("4", tlv(4, fmspc)),
        pair("5", tlv(0x0A, b"\x01")),
        pair("7", tlv(0x30, pair("7.1", tlv(1, b"\xff")), pair("7.2", tlv(1, b"\x00")), pair("7.3", tlv(1, b"\xff")))),
    )


class TdxLab:
    """Intel in small: root, platform authority, a platform's key, the key for collateral, and a quoting enclave."""

    components = (3,) * 16
    pce_svn = 11
    qe_svn = 4

    def __init__(self) -> None:
        self.root_key, self.ca_key, self.pck_key, self.signing_key, self.attestation_key = (
            ec.generate_private_key(ec.SECP256R1()) for _ in range(5)
        )
        self.root = certify(ROOT, self.root_key, ROOT, self.root_key, authority=True, path_length=1)
        self.ca = certify(PLATFORM, self.ca_key, ROOT, self.root_key, authority=True, path_length=0, serial=21)
        self.pck = self.platform()
        self.signer = certify(SIGNING, self.signing_key, ROOT, self.root_key, serial=23)
        self.roots = Roots({"tdx": (self.root,)})

    def platform(self, **options: Any) -> bytes:
        extension = {INTEL: pck_extension(self.components, self.pce_svn)}
        return certify(PCK, self.pck_key, PLATFORM, self.ca_key, **{"serial": 22, "extensions": extension, **options})

    def qe_report(self, auth: bytes, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "attributes": bytes([0x11]) + bytes(15),
            "mrsigner": b"\xdc" * 32,
            "product": 2,
            "svn": self.qe_svn,
        }
        fields |= changes
        named = hashlib.sha256(self._attestation_point() + auth).digest() + bytes(32)
        report: bytes = (
            bytes(16 + 4 + 28) + fields["attributes"] + bytes(64) + fields["mrsigner"] + bytes(96)
            + struct.pack("<HH", fields["product"], fields["svn"]) + bytes(60) + fields.get("report_data", named)
        )  # fmt: skip
        return report

    def quote(self, report: TdReport, *, chain: tuple[bytes, ...] | None = None, **qe: Any) -> bytes:
        signed, auth = report.build(), bytes(range(32))
        enclave = self.qe_report(auth, **qe)
        pem = "".join(map(to_pem, chain or (self.pck, self.ca, self.root))).encode()
        certified = (
            enclave + raw_signature(self.pck_key, enclave) + struct.pack("<H", len(auth)) + auth
            + struct.pack("<HI", 5, len(pem)) + pem
        )  # fmt: skip
        authentication = (
            raw_signature(self.attestation_key, signed) + self._attestation_point()
            + struct.pack("<HI", 6, len(certified)) + certified
        )  # fmt: skip
        return signed + struct.pack("<I", len(authentication)) + authentication

    def evidence(self, report: TdReport | None = None, *, collateral: bytes | None = None, **options: Any) -> Evidence:
        quote = self.quote(report or TdReport(), **options)
        return Evidence("tdx", quote, (), self.collateral() if collateral is None else collateral)

    def collateral(
        self,
        *,
        info: dict[str, Any] | None = None,
        identity: dict[str, Any] | None = None,
        root_revokes: tuple[int, ...] = (),
        ca_revokes: tuple[int, ...] = (),
        **replaced: str,
    ) -> bytes:
        tcb_info, qe_identity = json.dumps(self.tcb_info() | (info or {})), json.dumps(
            self.qe_identity() | (identity or {})
        )  # fmt: skip
        chain = to_pem(self.signer) + to_pem(self.root)
        document = {
            "pck_crl_issuer_chain": to_pem(self.ca) + to_pem(self.root),
            "root_ca_crl": revoke(ROOT, self.root_key, root_revokes).hex(),
            "pck_crl": revoke(PLATFORM, self.ca_key, ca_revokes).hex(),
            "tcb_info_issuer_chain": chain,
            "tcb_info": tcb_info,
            "tcb_info_signature": raw_signature(self.signing_key, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": chain,
            "qe_identity": qe_identity,
            "qe_identity_signature": raw_signature(self.signing_key, qe_identity.encode()).hex(),
        }
        return json.dumps(document | replaced).encode()

    def tcb_info(self) -> dict[str, Any]:
        module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        return {
            "id": "TDX",
            "version": 3,
            **_times(),
            "fmspc": FMSPC.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 18,
            "tdxModule": module,
            "tdxModuleIdentities": [
                {"id": "TDX_01", **module, "tcbLevels": [_level(5, "UpToDate"), _level(2, "OutOfDate", "INTEL-SA-7")]}
            ],
            "tcbLevels": [
                platform_level(3, 11, 3, "UpToDate"),
                platform_level(2, 5, 2, "OutOfDate", "INTEL-SA-8"),
            ],
        }

    def qe_identity(self) -> dict[str, Any]:
        return {
            "id": "TD_QE",
            "version": 2,
            **_times(),
            "tcbEvaluationDataNumber": 17,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15,
            "attributesMask": "FB" + "FF" * 7 + "00" * 8,
            "mrsigner": "DC" * 32,
            "isvprodid": 2,
            "tcbLevels": [_level(4, "UpToDate"), _level(2, "OutOfDate", "INTEL-SA-9")],
        }

    def _attestation_point(self) -> bytes:
        return self.attestation_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def platform_level(svn: int, pce: int, tdx: int, status: str, *advisories: str) -> dict[str, Any]:
    components = {
        "sgxtcbcomponents": [{"svn": svn}] * 16,
        "pcesvn": pce,
        "tdxtcbcomponents": [{"svn": 0}] * 2 + [{"svn": tdx}] + [{"svn": 0}] * 13,
    }
    return {"tcb": components, "tcbDate": "2025-05-14T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories}


def _level(svn: int, status: str, *advisories: str) -> dict[str, Any]:
    return {
        "tcb": {"isvsvn": svn}, "tcbDate": "2025-05-14T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories,
    }  # fmt: skip


def _times() -> dict[str, str]:
    return {"issueDate": f"{SINCE:%Y-%m-%dT%H:%M:%SZ}", "nextUpdate": f"{UNTIL:%Y-%m-%dT%H:%M:%SZ}"}


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def to_pem(certificate: bytes) -> str:
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM).decode()


@cache
def snp_lab(product: str = "Milan") -> SnpLab:
    return SnpLab(product)


@cache
def tdx_lab() -> TdxLab:
    return TdxLab()


def lab_roots() -> Roots:
    """The roots of both labs."""
    return Roots({**snp_lab().roots.trusted, **tdx_lab().roots.trusted})


def with_bit_flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def changed(evidence: Evidence, **fields: Any) -> Evidence:
    """The same evidence with other bytes in it."""
    return replace(evidence, **fields)
