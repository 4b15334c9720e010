"""Chains and lists: every link has to be one that may vouch, did, and is of this time."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from palladion.attest import chains
from palladion.attest.certificate import Certificate
from palladion.attest.chains import check_known_lists, check_revoked, verify_chain
from palladion.errors import AttestationError
from tests.attest.refusals import refused
from tests.attest.synthetic import NOW, SINCE, UNTIL, certify, name, revoke

KEYS = {text: ec.generate_private_key(ec.SECP256R1()) for text in ("root", "upper", "lower", "leaf")}


def link(common: str, issuer: str, *, path_length: int | None = None, serial: int = 7) -> bytes:
    authority = common != "leaf"
    return certify(
        common, KEYS[common], issuer, KEYS[issuer], authority=authority, path_length=path_length, serial=serial
    )


ROOT = link("root", "root")
UPPER, LOWER, LEAF = link("upper", "root"), link("lower", "upper"), link("leaf", "lower")


def path(*certificates: bytes, roots: tuple[bytes, ...] = (ROOT,)) -> tuple[Certificate, ...]:
    return verify_chain(certificates, roots=roots, at=NOW)


def names(*certificates: bytes) -> list[str]:
    return [one.name for one in path(*certificates)]


def test_a_chain_leads_from_the_leaf_to_the_root() -> None:
    assert names(LEAF, LOWER, UPPER, ROOT) == ["leaf", "lower", "upper", "root"]
    assert names(LEAF, LOWER, UPPER) == ["leaf", "lower", "upper", "root"]


def test_a_trusted_authority_below_a_root_ends_the_chain() -> None:
    assert [one.name for one in path(LEAF, LOWER, roots=(UPPER,))] == ["leaf", "lower", "upper"]


def test_known_authorities_fill_a_gap_and_are_not_trusted() -> None:
    found = verify_chain([LEAF], roots=[ROOT], at=NOW, intermediates=[UPPER, LOWER])

    assert [one.name for one in found] == ["leaf", "lower", "upper", "root"]
    with refused("root"):
        verify_chain([LEAF], roots=[], at=NOW, intermediates=[UPPER, LOWER, ROOT])


def test_another_order_or_a_gap_is_refused() -> None:
    with refused("chain", "not issued by"):
        path(LEAF, UPPER, LOWER)
    with refused("chain", "not issued by"):
        path(LEAF, UPPER)
    with refused("root"):
        path(LEAF, LOWER)


def test_the_path_length_counts_authorities_below() -> None:
    strict = link("root", "root", path_length=1)
    stricter = link("root", "root", path_length=0)

    with refused("chain", "2 authorities, 1"):
        path(LEAF, LOWER, UPPER, roots=(strict,))
    assert len(path(LOWER, UPPER, roots=(strict,))) == 3
    with refused("chain"):
        path(LOWER, UPPER, roots=(stricter,))


def test_a_leaf_vouches_for_nothing() -> None:
    forged = certify("forged", KEYS["upper"], "leaf", KEYS["leaf"])

    with refused("chain", "may not issue"):
        path(forged, LEAF, LOWER, UPPER)


def test_more_than_a_few_certificates_are_refused() -> None:
    with refused("chain", "9 certificates"):
        path(*[LEAF] * 9)
    with refused("chain", "0 certificates"):
        path()


def test_a_chain_without_an_end_is_refused() -> None:
    first = certify("upper", KEYS["upper"], "lower", KEYS["lower"], authority=True)
    with refused("root"):
        verify_chain([LEAF], roots=[ROOT], at=NOW, intermediates=[first, LOWER])


def test_what_is_no_certificate_is_malformed() -> None:
    with refused("malformed"):
        path(b"\x30\x00")


def test_every_certificate_has_to_be_of_that_time() -> None:
    old = certify("lower", KEYS["lower"], "upper", KEYS["upper"], authority=True, until=NOW - timedelta(days=1))

    with refused("expired", "lower"):
        path(LEAF, old, UPPER)
    with refused("expired"):
        verify_chain([LEAF, LOWER, UPPER], roots=[ROOT], at=UNTIL + timedelta(seconds=1))
    with refused("early"):
        verify_chain([LEAF, LOWER, UPPER], roots=[ROOT], at=SINCE - timedelta(seconds=1))


def test_lists_say_until_when_they_are_current() -> None:
    soon, later = NOW + timedelta(hours=1), NOW + timedelta(days=2)
    found = path(LEAF, LOWER, UPPER)
    lists = [revoke("root", KEYS["root"], until=later), revoke("upper", KEYS["upper"], until=soon)]

    assert check_revoked(found, lists, at=NOW).until == check_revoked(found, lists[::-1], at=NOW).until == soon
    assert check_revoked(found, [], at=NOW).until > later


def test_a_list_revokes_what_its_authority_issued_alone() -> None:
    found = path(LEAF, LOWER, UPPER)

    # every certificate here has serial number 7
    assert check_revoked(found, [revoke("root", KEYS["root"], (8,))], at=NOW).authorities == ("root",)
    with refused("revoked", "'upper' was revoked by certificate 'root'"):
        check_revoked(found, [revoke("root", KEYS["root"], (7, 8))], at=NOW)
    with refused("revoked", "'leaf'"):
        check_revoked(found, [revoke("lower", KEYS["lower"], (7,))], at=NOW)


def test_lists_that_do_not_hold_are_refused() -> None:
    found = path(LEAF, LOWER, UPPER)

    with refused("chain", "nobody"):
        check_revoked(found, [revoke("stranger", KEYS["root"])], at=NOW)
    with refused("chain", "does not hold"):
        check_revoked(found, [revoke("root", KEYS["leaf"])], at=NOW)
    with refused("chain", "may not sign"):
        check_revoked(found, [revoke("leaf", KEYS["leaf"])], at=NOW)
    with refused("malformed"):
        check_revoked(found, [b"\x30\x00"], at=NOW)
    with refused("malformed", "at most"):
        check_revoked(found, [bytes(chains.LIST_BYTES_MAX + 1)], at=NOW)


@pytest.mark.slow
def test_every_flipped_bit_of_a_list_is_refused() -> None:
    found, good = path(LEAF, LOWER, UPPER), revoke("root", KEYS["root"], (8,))
    for bit in range(len(good) * 8):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(AttestationError):
            check_revoked(found, [bytes(data)], at=NOW)


def test_a_list_of_a_part_is_refused() -> None:
    """A critical extension says that the list is of some certificates, or a change of another list."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(name("root")).last_update(SINCE).next_update(UNTIL)
    partial = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True).sign(KEYS["root"], SHA256())

    with refused("malformed", "critical"):
        check_revoked(path(LEAF, LOWER, UPPER), [partial.public_bytes(Encoding.DER)], at=NOW)


def test_numbers_and_reasons_in_a_list_are_read_past() -> None:
    builder = x509.CertificateRevocationListBuilder().issuer_name(name("root")).last_update(SINCE).next_update(UNTIL)
    entry = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(SINCE)
    entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
    listed = builder.add_extension(x509.CRLNumber(5), critical=False).add_revoked_certificate(entry.build())

    with refused("revoked"):
        check_revoked(
            path(LEAF, LOWER, UPPER), [listed.sign(KEYS["root"], SHA256()).public_bytes(Encoding.DER)], at=NOW
        )


def test_lists_of_ones_own_revoke_whenever_they_are_of() -> None:
    found, past = path(LEAF, LOWER, UPPER), NOW - timedelta(days=1)

    with refused("revoked", "'upper'"):
        check_known_lists(found, [revoke("root", KEYS["root"], (7,), until=past)], at=NOW)
    with refused("revoked", "'leaf'"):
        check_known_lists(found, [revoke("stranger", KEYS["root"]), revoke("lower", KEYS["lower"], (7,))], at=NOW)


def test_lists_of_ones_own_are_complete_where_each_authority_has_a_current_one() -> None:
    found = path(LEAF, LOWER, UPPER)
    lists = [revoke(one, KEYS[one]) for one in ("root", "upper", "lower")]

    assert check_known_lists(found, [*lists, revoke("stranger", KEYS["root"])], at=NOW)
    for one in range(3):
        assert not check_known_lists(found, lists[:one] + lists[one + 1 :], at=NOW)
    assert not check_known_lists(found, [], at=NOW)
    late = revoke("root", KEYS["root"], until=NOW - timedelta(seconds=1))
    early = revoke("root", KEYS["root"], since=NOW + timedelta(seconds=1))
    for wrong in (late, early):
        assert not check_known_lists(found, [wrong, *lists[1:]], at=NOW)
        assert check_known_lists(found, [wrong, *lists], at=NOW)


def test_lists_of_ones_own_are_signed_by_their_authority() -> None:
    found = path(LEAF, LOWER, UPPER)

    with refused("chain", "does not hold"):
        check_known_lists(found, [revoke("root", KEYS["leaf"])], at=NOW)
    with refused("malformed"):
        check_known_lists(found, [b"\x30\x00"], at=NOW)
