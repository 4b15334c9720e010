"""TPM: quotes of a real implementation verify, and whatever is changed is refused by its name."""

import json
import random
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from palladion.attest.evidence import Evidence
from palladion.attest.roots import Roots
from palladion.attest.tpm.verifier import COLLATERAL_BYTES_MAX, verify
from palladion.errors import AttestationError
from tests.attest.refusals import refused
from tests.attest.synthetic import ATTESTATION, ENDORSEMENT, NOW, SERVER, certify, oid, purposes, tlv, with_bit_flipped
from tests.attest.tpm.vectors import KINDS, PCR7, QUOTES, quote, roots, spki

DOCUMENT = bytes.fromhex(QUOTES["ecdsa"]["document"])
VALUES: dict[str, str] = json.loads(QUOTES["ecdsa"]["collateral"])["pcrs"]
BODY = 2 + int.from_bytes(DOCUMENT[:2], "big")  # the quote; behind it stands the signature


def check(evidence: Evidence, given: Roots | None = None) -> Any:
    return verify(evidence, at=NOW, roots=given or roots())


@pytest.mark.parametrize("kind", KINDS)
def test_a_quote_verifies_by_a_key_that_is_trusted_itself(kind: str) -> None:
    claims = check(quote(kind), roots(kind))

    assert claims.bound == bytes(range(32))
    assert claims.measurements == {
        "pcr0": bytes(32).hex(),
        "pcr2": bytes(32).hex(),
        "pcr7": sha256(bytes(32) + bytes(range(32))).hexdigest(),
    }
    assert claims.root == claims.chip == sha256(spki(kind)).hexdigest()
    assert (claims.tcb["reset_count"], claims.tcb["restart_count"]) == (1, 0)
    assert claims.features["clock_safe"] is True
    assert not claims.debug


def certified(**options: Any) -> tuple[Evidence, Roots]:
    """The same quote with a certificate for its key, as a cloud gives it."""
    authority = ec.generate_private_key(ec.SECP256R1())
    root = certify("makers", authority, "makers", authority, authority=True)

    class Key:
        @staticmethod
        def public_key() -> Any:
            return load_der_public_key(spki("ecdsa"))

    key: Any = Key()
    leaf = certify("a TPM", key, "makers", authority, **{"extensions": purposes(ATTESTATION), **options})
    evidence = replace(quote(key=""), certificates=(leaf,))
    return evidence, Roots({"tpm": (spki("rsapss"), root)})


def test_a_quote_verifies_by_the_keys_certificate() -> None:
    evidence, given = certified()
    claims = check(evidence, given)
    assert claims.root == sha256(given.of("tpm")[1]).hexdigest()
    assert claims.expires is not None


def test_a_certificate_is_judged() -> None:
    evidence, given = certified(authority=True)
    with refused("chain", match="authority"):
        check(evidence, given)
    evidence, _ = certified()
    with refused("root"):
        check(evidence, Roots({}))
    evidence, given = certified(until=NOW.replace(year=NOW.year - 1), since=NOW.replace(year=NOW.year - 2))
    with refused("expired"):
        check(evidence, given)


@pytest.mark.parametrize("extensions", [{}, purposes(ENDORSEMENT), purposes(SERVER)], ids=["none", "EK", "server"])
def test_a_certificate_of_another_key_of_the_maker_is_refused(extensions: dict[str, bytes]) -> None:
    """A secure element, a server or an endorsement key signs a quote that somebody made up."""
    evidence, given = certified(extensions=extensions)
    with refused("chain", match="attestation key"):
        check(evidence, given)
    # named itself, it is trusted for what it is
    assert check(evidence, Roots({"tpm": evidence.certificates})).kind == "tpm"


def test_a_key_beside_a_certificate_is_refused() -> None:
    evidence, given = certified()
    with refused("malformed"):
        check(replace(quote(), certificates=evidence.certificates), given)


@pytest.mark.parametrize("key", ["", "00", spki("rsassa").hex()])
def test_a_key_that_nobody_trusts_is_refused(key: str) -> None:
    with refused("root", match="vouches"):
        check(quote(key=key))


def test_a_certificate_among_the_roots_is_no_key() -> None:
    _, given = certified()
    with refused("root"):
        check(quote(), given)
    root = given.of("tpm")[1]
    for kind in KINDS:
        with refused("root"):
            check(quote(kind, key=root.hex()), given)


def test_a_trusted_key_of_an_unknown_kind_signs_nothing_and_stops_nothing() -> None:
    sm2 = tlv(
        0x30, tlv(0x30, oid("1.2.840.10045.2.1"), oid("1.2.156.10197.1.301")), tlv(3, b"\0\4" + bytes(64))
    )  # fmt: skip
    for kind in KINDS:
        with refused("signature"):
            check(quote(kind, key=sm2.hex()), Roots({"tpm": (sm2,)}))
    evidence, given = certified()
    assert check(evidence, Roots({"tpm": (sm2, *given.of("tpm"))}))


def test_another_trusted_key_did_not_sign() -> None:
    both = Roots({"tpm": (spki("ecdsa"), spki("rsapss"), spki("rsassa"))})
    for other in ("rsapss", "rsassa"):
        with refused("signature"):
            check(quote("ecdsa", key=spki(other).hex()), both)
    for padding in ("rsapss", "rsassa"):
        with refused("signature"):
            check(quote(padding, key=spki("ecdsa").hex()), both)


@pytest.mark.parametrize(
    "values",
    [
        {**VALUES, PCR7: bytes(32).hex()},
        {**VALUES, "8": bytes(32).hex()},
        {"0": VALUES["0"]},
        {**VALUES, PCR7: VALUES[PCR7][:-2]},
        {},
    ],
)
def test_values_that_were_not_quoted_are_refused(values: dict[str, str]) -> None:
    with refused("mismatch"):
        check(quote(pcrs=values))


@pytest.mark.parametrize("kind", KINDS)
def test_each_flipped_bit_of_the_document_is_refused(kind: str) -> None:
    document = bytes.fromhex(QUOTES[kind]["document"])
    bits = 8 * len(document)
    for bit in [*random.Random(7).sample(range(bits), 150), 0, bits - 1]:
        with pytest.raises(AttestationError):
            check(quote(kind, document=with_bit_flipped(document, bit)), roots(kind))


@pytest.mark.slow
def test_every_flipped_bit_of_a_document_is_refused() -> None:
    for bit in range(8 * len(DOCUMENT)):
        with pytest.raises(AttestationError):
            check(quote(document=with_bit_flipped(DOCUMENT, bit)))


@pytest.mark.parametrize(
    "collateral",
    [
        b"", b"x", b"{}", b'{"pcrs": {"24": "00"}}', b'{"pcrs": {"00": ""}}', b'{"pcrs": {"0": "x"}}',
        b'{"pcrs": {}, "more": 1}', b'{"pcrs": {}, "key": "x"}', b"[" * 9999, b" " * COLLATERAL_BYTES_MAX + b"{}",
    ],
)  # fmt: skip
def test_other_collateral_is_refused(collateral: bytes) -> None:
    with refused("malformed"):
        check(replace(quote(), collateral=collateral))
