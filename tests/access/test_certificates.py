"""SPIFFE ids and certificates by the rules of their standards, and fingerprints in one spelling."""

from datetime import timedelta
from pathlib import Path

import pytest

from palladion.access.certificates import (
    CERTIFICATE_BYTES_MAX,
    SPIFFE_BYTES_MAX,
    parse_fingerprint,
    parse_spiffe_id,
    read_certificate,
)
from palladion.errors import FormatError
from tests.gate.certificates import Authority, address, uri

ID = "spiffe://example.org/scoring"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize(
    "text",
    [
        ID,
        "spiffe://example.org/ns/prod/sa/web-1_2.x",
        "spiffe://my_domain.example-1.org/A",
        "spiffe://example.org/...",
        "spiffe://" + "d" * 255 + "/x",
        "spiffe://example.org/" + "x" * (SPIFFE_BYTES_MAX - len("spiffe://example.org/")),
    ],
)
def test_a_spiffe_id_is_taken_as_it_is(text: str) -> None:
    assert parse_spiffe_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("https://example.org/x", id="another scheme"),
        pytest.param("SPIFFE://example.org/x", id="an upper-case scheme"),
        pytest.param("spiffe:/example.org/x", id="one slash"),
        pytest.param("spiffe:///x", id="no trust domain"),
        pytest.param("spiffe://Example.org/x", id="an upper-case trust domain"),
        pytest.param("spiffe://example.org:443/x", id="a port"),
        pytest.param("spiffe://me@example.org/x", id="a user"),
        pytest.param("spiffe://example.org", id="no path"),
        pytest.param("spiffe://example.org/", id="an empty path"),
        pytest.param("spiffe://example.org/x/", id="a slash at the end"),
        pytest.param("spiffe://example.org//x", id="an empty segment"),
        pytest.param("spiffe://example.org/./x", id="a dot"),
        pytest.param("spiffe://example.org/a/../b", id="two dots"),
        pytest.param("spiffe://example.org/a%2fb", id="percent-encoding"),
        pytest.param("spiffe://example.org/x?y", id="a query"),
        pytest.param("spiffe://example.org/x#y", id="a fragment"),
        pytest.param("spiffe://example.org/ä", id="not ASCII"),
        pytest.param("spiffe://example.org/x\n", id="a line break"),
        pytest.param("spiffe://example.org/x y", id="a blank"),
        pytest.param("spiffe://" + "d" * 256 + "/x", id="a long trust domain"),
        pytest.param("spiffe://example.org/" + "x" * SPIFFE_BYTES_MAX, id="too long"),
    ],
)
def test_what_the_standard_refuses_is_no_spiffe_id(text: str) -> None:
    with pytest.raises(ValueError, match="SPIFFE id"):
        parse_spiffe_id(text)


def test_a_fingerprint_may_be_typed_as_tools_print_it() -> None:
    plain = "ab" * 32
    spelt = ":".join(["AB"] * 32)
    assert parse_fingerprint(plain) == parse_fingerprint(spelt) == parse_fingerprint(f"sha256:{plain}") == plain


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "ag" * 32, "٣" * 64])
def test_what_is_no_sha256_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        parse_fingerprint(text)


def test_a_workload_is_known_by_its_id_and_its_fingerprint(authority: Authority) -> None:
    issued = authority.issue("workload", [uri(ID)])
    found = read_certificate(issued.der)
    assert (found.spiffe, found.fingerprint) == (ID, issued.fingerprint)
    assert found.expires == issued.certificate.not_valid_after_utc
    assert found.names == (ID, issued.fingerprint)


def test_a_name_of_another_kind_beside_the_id_does_no_harm(authority: Authority) -> None:
    assert read_certificate(authority.issue("both", [address("127.0.0.1"), uri(ID)]).der).spiffe == ID


def test_two_addresses_are_no_identity_not_even_if_one_is(authority: Authority) -> None:
    for other in ("spiffe://example.org/admin", "https://example.org"):
        assert read_certificate(authority.issue("two", [uri(ID), uri(other)]).der).spiffe is None


def test_an_authority_is_no_workload(authority: Authority) -> None:
    assert read_certificate(authority.issue("ca", [uri(ID)], authority=True).der).spiffe is None


@pytest.mark.parametrize("usage", ["key_cert_sign", "crl_sign", None])
def test_a_key_that_may_sign_certificates_or_says_not_what_it_is_for_is_no_workloads(
    authority: Authority, usage: str | None
) -> None:
    assert read_certificate(authority.issue("usage", [uri(ID)], usage=usage).der).spiffe is None


def test_a_certificate_without_names_is_known_by_its_fingerprint_alone(authority: Authority) -> None:
    issued = authority.issue("nameless", lives=timedelta(minutes=5))
    assert read_certificate(issued.der).names == (issued.fingerprint,)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_what_is_no_certificate_is_a_sentence(authority: Authority, cut: int, tmp_path: Path) -> None:
    der = authority.issue("cut").der[:cut]
    with pytest.raises(FormatError, match="cannot be read"):
        read_certificate(der)


def test_a_certificate_of_a_version_that_there_is_not_is_a_sentence(authority: Authority) -> None:
    der = authority.issue("version").der
    place = der.index(bytes.fromhex("a003020102")) + 4  # [0] EXPLICIT INTEGER 2: version 3 (RFC 5280 §4.1)
    with pytest.raises(FormatError, match="cannot be read"):
        read_certificate(der[:place] + b"\x12" + der[place + 1 :])


def test_a_certificate_without_end_is_not_read() -> None:
    with pytest.raises(FormatError, match="at most"):
        read_certificate(bytes(CERTIFICATE_BYTES_MAX + 1))
