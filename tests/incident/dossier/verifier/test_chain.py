"""The way from a signer up to a root: what each certificate on it may do, and that no token takes long to refuse."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from palladion.incident.dossier.verifier import chain as module
from palladion.incident.dossier.verifier.chain import read_roots, root_of
from palladion.incident.dossier.verifier.findings import DossierError
from tests.incident.dossier.authorities import STAMPED, pem

Extensions = Sequence[tuple[x509.ExtensionType, bool]]

KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "upper", "lower", "signer", "other")}
AUTHORITY = (x509.BasicConstraints(ca=True, path_length=None), True)
STAMPING = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True)
UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00"), True)
CONSTRAINTS = (x509.NameConstraints([x509.DNSName("example.com")], None), True)


def _certificate(
    name: str, issuer: str, extensions: Extensions, *, key: str | None = None, by: str | None = None, days: int = 100
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(KEYS[key or name].public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(STAMPED - timedelta(days=200))
        .not_valid_after(STAMPED + timedelta(days=days))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(KEYS[by or issuer], hashes.SHA256())


def _usage(**allowed: bool) -> tuple[x509.ExtensionType, bool]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    more = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    fields: dict[str, Any] = {**dict.fromkeys((*names, *more), False), **allowed}
    return x509.KeyUsage(**fields), True


def _found(
    *, root: Extensions = (AUTHORITY,), upper: Extensions = (AUTHORITY,), lower: Extensions = (AUTHORITY,), **more: Any
) -> x509.Certificate:
    """The root that is found above signer, lower, upper and root."""
    top = _certificate("root", "root", root)
    between = [_certificate("upper", "root", upper), _certificate("lower", "upper", lower, days=more.get("days", 100))]
    signer = _certificate("signer", "lower", more.get("signer", (STAMPING,)))
    found = root_of(signer, between, [top], STAMPED)
    assert found == top
    return found


def _limited(length: int) -> tuple[x509.ExtensionType, bool]:
    return x509.BasicConstraints(ca=True, path_length=length), True


@pytest.mark.parametrize(
    "chain",
    [
        {},
        {"root": (_limited(2), _usage(key_cert_sign=True))},
        {"upper": (_limited(1),), "lower": (_limited(0), _usage(key_cert_sign=True, crl_sign=True))},
        {"lower": (AUTHORITY, STAMPING)},
        {"upper": (AUTHORITY, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False))},
        {"upper": (AUTHORITY, (UNKNOWN[0], False))},
        {"signer": (STAMPING, _usage(digital_signature=True))},
        {"signer": (STAMPING, _usage(content_commitment=True))},
    ],
    ids=str,
)
def test_a_chain_of_authorities_that_may_issue_leads_to_its_root(chain: dict[str, Extensions]) -> None:
    _found(**chain)


@pytest.mark.parametrize(
    "chain",
    [
        {"root": (_limited(1),)},
        {"upper": (_limited(0),)},
        {"upper": ()},
        {"lower": ((x509.BasicConstraints(ca=False, path_length=None), True),)},
        {"upper": (AUTHORITY, _usage(digital_signature=True))},
        {"lower": (AUTHORITY, _usage(crl_sign=True))},
        {"upper": (AUTHORITY, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False))},
        {"lower": (AUTHORITY, UNKNOWN)},
        {"upper": (AUTHORITY, CONSTRAINTS)},
        {"signer": (STAMPING, UNKNOWN)},
        {"signer": (STAMPING, _usage(key_agreement=True))},
        {"days": -1},
    ],
    ids=str,
)
def test_one_that_may_not_issue_leads_nowhere(chain: dict[str, Any]) -> None:
    with pytest.raises(DossierError, match="none of the roots"):
        _found(**chain)


def test_an_authority_that_got_a_new_key_under_its_own_name_does_not_count_as_one_more() -> None:
    root = _certificate("root", "root", (_limited(0),))
    renewed = _certificate("root", "root", (_limited(0),), key="other")
    signer = _certificate("signer", "root", (STAMPING,), by="other")
    assert root_of(signer, [renewed], [root], STAMPED) == root


def test_an_issuer_of_the_right_name_and_another_key_is_passed_over() -> None:
    root, twin = (_certificate("root", "root", (AUTHORITY,), key=key, by=key) for key in ("root", "other"))
    signer = _certificate("signer", "root", (STAMPING,))
    assert root_of(signer, [twin], [twin, root], STAMPED) == root
    with pytest.raises(DossierError, match="none of the roots"):
        root_of(signer, [root], [twin], STAMPED)


def test_certificates_that_all_issue_each_other_are_each_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way through them was followed: eight to the power of their number."""
    tried: list[x509.Certificate] = []
    issued = module._issued

    def counted(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        tried.append(issuer)
        return issued(certificate, issuer)

    monkeypatch.setattr(module, "_issued", counted)
    root = _certificate("root", "root", (AUTHORITY,))
    signer = _certificate("signer", "other", (STAMPING,))
    circle = [_certificate("other", "other", (AUTHORITY,)) for _ in range(10)]
    with pytest.raises(DossierError, match="none of the roots"):
        root_of(signer, circle, [root], STAMPED)
    assert len(tried) == len(circle)


def test_roots_that_all_have_one_name_are_not_all_tried() -> None:
    signer = _certificate("signer", "other", (STAMPING,), by="root")
    many = [_certificate("other", "other", (AUTHORITY,)) for _ in range(module.SIGNATURES_MAX + 1)]
    with pytest.raises(DossierError, match="too many ways"):
        root_of(signer, [], many, STAMPED)


def test_roots_are_read_from_pem() -> None:
    root = _certificate("root", "root", (AUTHORITY,))
    assert read_roots(pem(root, root)) == [root, root]
    for broken in (b"", b"junk", pem(root)[:-40]):
        with pytest.raises(DossierError, match="roots cannot be read"):
            read_roots(broken)
