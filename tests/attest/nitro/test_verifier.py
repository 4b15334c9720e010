"""Nitro: a published document verifies with AWS's own root, and whatever is changed is refused by its name."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from palladion.attest.evidence import Evidence, Reason
from palladion.attest.nitro.document import parse_document
from palladion.attest.nitro.verifier import CLOCK_TOLERANCE, verify
from palladion.attest.roots import Roots, vendor_roots
from palladion.errors import AttestationError
from tests.attest.nitro.synthetic import IMAGE, nitro_lab
from tests.attest.refusals import VECTORS, refused
from tests.attest.synthetic import NOW, certify, with_bit_flipped

DOCUMENT = bytes.fromhex((VECTORS / "nitro" / "document.hex").read_text())
VECTOR_TIME = datetime(2024, 11, 14, 23, 50, tzinfo=UTC)
ROOT = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"


def check(evidence: Evidence, *, at: datetime = NOW, roots: Roots | None = None) -> Any:
    return verify(evidence, at=at, roots=roots or nitro_lab().roots)


def test_a_published_document_verifies_with_awss_own_root() -> None:
    claims = verify(Evidence("nitro", DOCUMENT), at=VECTOR_TIME, roots=vendor_roots())

    assert claims.root == ROOT
    assert claims.debug
    assert claims.measurements["pcr4"].startswith("9ab5a1aba055ee41")
    assert claims.chip == "i-0f73a4b4cb74cc9f2-enc0192e4188fef781d"
    assert claims.signed_at == datetime(2024, 11, 14, 23, 46, 29, 450000, tzinfo=UTC)
    assert claims.expires == datetime(2024, 11, 15, 0, 24, 29, tzinfo=UTC)
    assert claims.user_data.hex().startswith("5a264748")
    assert (claims.bound, claims.public_key) == (b"", b"")


def test_a_document_says_what_was_bound_and_measured() -> None:
    claims = check(nitro_lab().evidence())

    assert (claims.bound, claims.public_key, claims.user_data) == (bytes(range(32)), b"key", bytes(64))
    assert not claims.debug
    assert claims.measurements == {
        **{f"pcr{index}": IMAGE.hex() for index in range(3)},
        **{f"pcr{index}": bytes(48).hex() for index in range(3, 9)},
    }


def test_registers_beyond_the_measured_ones_count_once_something_is_in_them() -> None:
    pcrs = {index: IMAGE if index in (0, 1, 2, 20) else bytes(48) for index in (*range(9), 20, 21)}
    claims = check(nitro_lab().evidence(pcrs=pcrs))
    assert claims.measurements["pcr20"] == IMAGE.hex()
    assert "pcr21" not in claims.measurements


def test_one_zero_register_does_not_make_an_enclave_one_for_debugging() -> None:
    pcrs = {index: IMAGE if index == 2 else bytes(48) for index in range(9)}
    assert not check(nitro_lab().evidence(pcrs=pcrs)).debug
    assert check(nitro_lab().evidence(pcrs={**pcrs, 2: bytes(48)})).debug


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (datetime(2024, 11, 15, 0, 24, 30, tzinfo=UTC), "expired"),
        (datetime(2024, 11, 14, 21, 24, tzinfo=UTC), "early"),
        (datetime(2026, 1, 1, tzinfo=UTC), "expired"),
    ],
)
def test_a_document_of_another_time_is_refused(at: datetime, reason: Reason) -> None:
    with refused(reason):
        verify(Evidence("nitro", DOCUMENT), at=at, roots=vendor_roots())


def test_a_document_of_the_future_is_refused() -> None:
    late = NOW + CLOCK_TOLERANCE + timedelta(seconds=1)
    with refused("early", match="after now"):
        check(nitro_lab().evidence(timestamp=int(late.timestamp() * 1000)))
    with refused("early"):
        check(nitro_lab().evidence(timestamp=int((NOW - timedelta(hours=2)).timestamp() * 1000)))
    assert check(nitro_lab().evidence(timestamp=int((late - timedelta(seconds=2)).timestamp() * 1000)))


def test_a_certificate_that_lives_longer_than_three_hours_is_refused() -> None:
    """Under it a document of two days ago would pass."""
    lab = nitro_lab()

    def until(end: datetime) -> bytes:
        options: Any = {"since": NOW - timedelta(days=3), "until": end}
        return certify("i-0abc-enc0", lab.leaf_key, "zonal", lab.middle_key, **options)

    old = int((NOW - timedelta(days=2)).timestamp() * 1000)
    with refused("chain", match="three hours"):
        check(lab.evidence(certificate=until(NOW + timedelta(days=3650)), timestamp=old))
    with refused("expired"):
        check(lab.evidence(certificate=until(NOW - timedelta(days=2, hours=21)), timestamp=old))


def test_another_root_is_not_trusted() -> None:
    with refused("root"):
        check(nitro_lab().evidence(), roots=vendor_roots())
    with refused("root"):
        verify(Evidence("nitro", DOCUMENT), at=VECTOR_TIME, roots=Roots({"tdx": vendor_roots().of("nitro")}))


def test_an_authority_does_not_sign_documents() -> None:
    lab = nitro_lab()
    with refused("chain", match="authority"):
        check(lab.evidence(certificate=lab.leaf(authority=True)))


def test_a_chain_without_its_middle_is_refused() -> None:
    lab = nitro_lab()
    with refused("chain"):
        check(lab.evidence(cabundle=[lab.root]))


def test_a_signature_of_other_content_is_refused() -> None:
    lab = nitro_lab()
    signed = lab.sign(lab.payload())
    other = lab.sign(lab.payload(nonce=bytes(32)))
    with refused("signature"):
        check(Evidence("nitro", signed[:-96] + other[-96:]))


def _refuse_flipped(count: int) -> None:
    bits = 8 * len(DOCUMENT)
    for bit in [*random.Random(7).sample(range(bits), count), 0, 8, bits - 1]:
        with pytest.raises(AttestationError):
            verify(Evidence("nitro", with_bit_flipped(DOCUMENT, bit)), at=VECTOR_TIME, roots=vendor_roots())


def test_a_flipped_bit_is_refused_at_60_places() -> None:
    _refuse_flipped(60)


@pytest.mark.slow
def test_a_flipped_bit_is_refused_at_one_place_of_fifty() -> None:
    _refuse_flipped(8 * len(DOCUMENT) // 50)


def test_only_es384_without_unsigned_headers_is_accepted() -> None:
    lab = nitro_lab()
    payload = lab.payload()
    assert check(Evidence("nitro", lab.sign(payload, tag=b"\xd2"))).bound == bytes(range(32))
    for changed in (
        lab.sign(payload, header=b"\xa1\x01\x26"),  # ES256
        lab.sign(payload, header=b"\xa2\x01\x38\x22\x04\x41\x00"),
        lab.sign(payload, header=b""),
        lab.sign(payload, unprotected=b"\xa1\x01\x00"),
        lab.sign(payload)[:-97] + b"\x5f" + bytes(95),
        b"\x83" + lab.sign(payload)[1:],
    ):
        with refused("malformed"):
            parse_document(changed)


def test_nothing_stands_beside_a_document() -> None:
    evidence = nitro_lab().evidence()
    for more in (
        Evidence("nitro", evidence.document, (nitro_lab().root,)),
        Evidence("nitro", evidence.document, (), b"{}"),
    ):
        with refused("malformed"):
            check(more)
