"""Certificates: read as the reference library reads them, and refused where that one would be lenient."""

import warnings
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from palladion.attest.certificate import common_name, parse_certificate, read_extensions
from palladion.attest.evidence import CERTIFICATE_BYTES_MAX
from palladion.attest.pem import certificates_of
from palladion.attest.roots import vendor_roots
from palladion.errors import FormatError
from tests.attest.refusals import VECTORS
from tests.attest.synthetic import (
    ENDORSEMENT,
    EXTENDED_KEY_USAGE,
    NOW,
    SERVER,
    SnpReport,
    certify,
    name,
    oid,
    purposes,
    snp_lab,
    tdx_lab,
    tlv,
    with_bit_flipped,
)

KEY = ec.generate_private_key(ec.SECP256R1())


def samples() -> list[bytes]:
    roots = vendor_roots()
    quote = (VECTORS / "tdx" / "quote_with_collateral.dat").read_bytes()
    chain = certificates_of(quote[quote.index(b"-----BEGIN") :].rstrip(b"\0"), what="it", most=3)
    return [
        *roots.of("sev-snp"),
        *roots.between("sev-snp"),
        *roots.of("tdx"),
        *chain,
        (VECTORS / "snp" / "vcek_milan.der").read_bytes(),
        snp_lab().vcek(SnpReport()),
        snp_lab().ask,
        tdx_lab().pck,
    ]


def test_fields_are_those_that_the_reference_reads() -> None:
    for data in samples():
        ours = parse_certificate(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # serial number 0, which is why this parser exists
            theirs = x509.load_der_x509_certificate(data)
            assert ours.serial == theirs.serial_number
        assert ours.tbs == theirs.tbs_certificate_bytes
        assert ours.signature == theirs.signature
        assert ours.subject == theirs.subject.public_bytes()
        assert ours.issuer == theirs.issuer.public_bytes()
        assert (ours.not_before, ours.not_after) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
        spki = theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        assert ours.public_key == spki
        assert set(ours.extensions) == {one.oid.dotted_string for one in theirs.extensions}
        constraints = [one.value for one in theirs.extensions if isinstance(one.value, x509.BasicConstraints)]
        assert ours.authority == any(one.ca for one in constraints)
        assert ours.path_length == next((one.path_length for one in constraints if one.ca), None)
        common = theirs.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
        assert ours.name == common


def test_serial_number_zero_is_read() -> None:
    assert parse_certificate((VECTORS / "snp" / "vcek_milan.der").read_bytes()).serial == 0


def test_signatures_are_told_apart() -> None:
    lab, intel = snp_lab(), tdx_lab()
    vcek, ask, ark = map(parse_certificate, (lab.vcek(SnpReport()), lab.ask, lab.ark))

    assert vcek.signed_by(ask)
    assert ask.signed_by(ark)
    assert not vcek.signed_by(ark)
    assert not vcek.signed_by(parse_certificate(intel.root))
    assert parse_certificate(intel.pck).signed_by(parse_certificate(intel.ca))


@pytest.mark.parametrize(
    "extensions",
    [{"1.2.3": b"\x05\x00"}, {}],
)
def test_critical_extensions_have_to_be_known(extensions: dict[str, bytes]) -> None:
    data = certify("leaf", KEY, "root", KEY, extensions=extensions, critical=True)
    if extensions:
        with pytest.raises(FormatError, match=r"critical extension that is not known, 1\.2\.3"):
            parse_certificate(data)
    else:
        assert parse_certificate(data).name == "leaf"


def test_what_a_key_is_for_is_read_and_a_broken_statement_refused() -> None:
    def purposes_of(extensions: dict[str, bytes]) -> frozenset[str]:
        return parse_certificate(certify("leaf", KEY, "root", KEY, extensions=extensions)).purposes

    assert purposes_of({}) == frozenset()
    assert purposes_of(purposes(ENDORSEMENT, SERVER)) == {ENDORSEMENT, SERVER}
    for broken in (b"", b"\x05\x00", tlv(0x30, b"\x02\x01\x05"), tlv(0x30) + b"\0"):
        with pytest.raises(FormatError):
            purposes_of({EXTENDED_KEY_USAGE: broken})


def _built(**options: Any) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name("leaf"))
        .issuer_name(name("root"))
        .public_key(options.get("public_key", KEY.public_key()))
        .serial_number(5)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if options.get("extension", True):
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(options.get("key", KEY), options.get("hash", SHA256())).public_bytes(Encoding.DER)


def test_signatures_of_another_kind_are_refused() -> None:
    with pytest.raises(FormatError, match=r"not accepted, 1\.3\.101\.112"):
        parse_certificate(_built(key=ed25519.Ed25519PrivateKey.generate(), hash=None))


def test_two_algorithms_of_one_signature_are_refused() -> None:
    """What nobody signed says SHA-384 where what was signed says SHA-256."""
    data = tdx_lab().pck
    place = data.rindex(oid("1.2.840.10045.4.3.2"))
    other = data[:place] + oid("1.2.840.10045.4.3.3") + data[place + 10 :]

    assert len(other) == len(data)
    with pytest.raises(FormatError, match="two algorithms"):
        parse_certificate(other)


def test_an_extension_that_occurs_twice_is_refused() -> None:
    one = tlv(0x30, oid("1.2.3"), tlv(4, b"x"))

    assert read_extensions(tlv(0x30, one), understood=frozenset(), what="it") == {"1.2.3": b"x"}
    with pytest.raises(FormatError, match="twice"):
        read_extensions(tlv(0x30, one, one), understood=frozenset(), what="it")


def test_version_one_is_refused() -> None:
    with pytest.raises(FormatError, match=r"version 3|parts"):
        parse_certificate(_built(extension=False))


@pytest.mark.parametrize("data", [b"", b"\x30\x00", b"\x30\x06\x30\x00\x30\x00\x30\x00", bytes(100)])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_certificate(data)


def test_one_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(FormatError, match="at most"):
        parse_certificate(bytes(CERTIFICATE_BYTES_MAX + 1))


def test_flipped_bits_are_read_or_refused_and_nothing_else() -> None:
    data = (VECTORS / "snp" / "vcek_milan.der").read_bytes()
    for bit in range(0, len(data) * 8, 41):
        try:
            parse_certificate(with_bit_flipped(data, bit))
        except FormatError:
            continue


def test_names_of_strangers_are_printable() -> None:
    common = parse_certificate(certify("a\x1b[31m", KEY, "root", KEY)).name

    assert common == "a?[31m"
    assert common_name(b"\x30\x00") == ""
    assert common_name(b"no name") == ""
