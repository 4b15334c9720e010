"""Time stamps: of an authority whose certificates expired long ago, of `openssl ts`, and everything that is not one."""

import shutil
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from palladion.incident.dossier.verifier.findings import DossierError
from palladion.incident.dossier.verifier.stamps import EMBEDDED_MAX, REPLY_BYTES_MAX, Der, check_stamp
from tests.incident.dossier.authorities import STAMPED, Authority, changed, request
from tests.seal.test_timestamp import Authority as Openssl

MANIFEST = b'{"v":1,"members":[]}'


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def test_a_stamp_holds_long_after_the_authoritys_certificates_expired(authority: Authority) -> None:
    assert authority.signer.not_valid_after_utc.year == 2020
    stamped = check_stamp(authority.reply(request(MANIFEST, nonce=99)), MANIFEST, [authority.root])
    assert (stamped.time, stamped.authority, stamped.nonce) == (STAMPED, "CN=signer", 99)


def test_a_request_without_a_nonce_is_answered_without(authority: Authority) -> None:
    assert check_stamp(authority.reply(request(MANIFEST, nonce=None)), MANIFEST, [authority.root]).nonce is None


@pytest.mark.service
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the authority here is `openssl ts`")
def test_stamps_of_openssl_hold_also_where_its_certificates_are_not_in_order(tmp_path: Path) -> None:
    openssl = Openssl(tmp_path / "authority")
    asked = request(MANIFEST)
    assert check_stamp(openssl.reply(asked), MANIFEST, [openssl.root]).authority == "CN=signer"
    openssl.embed(openssl.root)
    assert check_stamp(openssl.reply(asked), MANIFEST, [openssl.root]).authority == "CN=signer"
    # another of the signer's name and number, that nobody issued: the signature says by its digest which it is
    openssl.embed(openssl.twin())
    assert check_stamp(openssl.reply(asked), MANIFEST, [openssl.root]).authority == "CN=signer"


@pytest.mark.parametrize("turned", [False, True])
def test_certificates_in_any_order_are_read(authority: Authority, turned: bool) -> None:
    more = [authority.root, Authority().root]
    reply = authority.reply(request(MANIFEST), embed=more[::-1] if turned else more)
    assert check_stamp(reply, MANIFEST, [authority.root]).time == STAMPED


def test_a_stamp_over_something_else_is_refused(authority: Authority) -> None:
    with pytest.raises(DossierError, match="something else than this manifest"):
        check_stamp(authority.reply(request(MANIFEST)), MANIFEST + b" ", [authority.root])


@pytest.mark.slow
def test_a_root_that_came_in_the_token_is_not_trusted_for_that(authority: Authority) -> None:
    reply = authority.reply(request(MANIFEST), embed=[authority.root])
    for roots in ([], [Authority(keys="others").root]):
        with pytest.raises(DossierError, match="none of the roots"):
            check_stamp(reply, MANIFEST, roots)


def test_a_signer_that_is_trusted_itself_needs_nobody_above(authority: Authority) -> None:
    assert check_stamp(authority.reply(request(MANIFEST)), MANIFEST, [authority.signer]).time == STAMPED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("odd", "complaint"),
    [
        (Authority(signer_days=-1), "not valid at that time"),
        (Authority(days=-1, signer_days=10), "not valid at that time"),
        (Authority(root_is_authority=False), "none of the roots"),
        (Authority(usages=[ExtendedKeyUsageOID.SERVER_AUTH]), "not for time stamps alone"),
        (
            Authority(usages=[ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.SERVER_AUTH]),
            "not for time stamps alone",
        ),
        (Authority(critical=False), "not for time stamps alone"),
        (Authority(usages=[]), "cannot be read|can be read"),
    ],
    ids=["signer expired", "root expired", "root is none", "for servers", "for both", "not critical", "for nothing"],
)
def test_an_authority_that_may_not_stamp_is_refused(odd: Authority, complaint: str) -> None:
    with pytest.raises(DossierError, match=complaint):
        check_stamp(odd.reply(request(MANIFEST)), MANIFEST, [odd.root])


def test_another_time_in_a_token_is_found(authority: Authority) -> None:
    reply = changed(authority.reply(request(MANIFEST)), b"20200301123000Z", b"20190301123000Z")
    with pytest.raises(DossierError, match="over something else"):
        check_stamp(reply, MANIFEST, [authority.root])


def test_a_refusal_is_no_stamp(authority: Authority) -> None:
    with pytest.raises(DossierError, match="refusal"):
        check_stamp(b"\x30\x05\x30\x03\x02\x01\x02", MANIFEST, [authority.root])


@pytest.mark.parametrize(
    "broken",
    [b"", b"\x30", b"\x30\x80\x00\x00", b"\x30\x84\xff\xff\xff\xff", b"\x30\x00", b"\x00" * 64, b"\x30\x82\x01"],
)
def test_what_is_no_token_is_refused(authority: Authority, broken: bytes) -> None:
    with pytest.raises(DossierError):
        check_stamp(broken, MANIFEST, [authority.root])


@pytest.mark.slow
def test_every_changed_byte_of_a_token_is_refused_or_changes_nothing_it_says(authority: Authority) -> None:
    reply = authority.reply(request(MANIFEST))
    said = check_stamp(reply, MANIFEST, [authority.root])
    refused = 0
    for place in range(0, len(reply), 3):
        broken = bytearray(reply)
        broken[place] ^= 1 << place % 8
        try:
            assert check_stamp(bytes(broken), MANIFEST, [authority.root]) == said
        except DossierError:
            refused += 1
    assert refused > len(reply) // 3 * 0.9


@pytest.mark.slow
def test_a_reply_and_its_certificates_have_limits(authority: Authority) -> None:
    others = [Authority().root for _ in range(EMBEDDED_MAX)]
    assert check_stamp(authority.reply(request(MANIFEST), embed=others[1:]), MANIFEST, [authority.root]).nonce == 7
    with pytest.raises(DossierError, match="17 certificates, at most 16"):
        check_stamp(authority.reply(request(MANIFEST), embed=others), MANIFEST, [authority.root])
    with pytest.raises(DossierError, match="at most 65536"):
        check_stamp(bytes(REPLY_BYTES_MAX + 1), MANIFEST, [authority.root])


def test_lengths_of_der_are_read_in_both_forms() -> None:
    long = b"\x04\x82\x01\x00" + bytes(256)
    assert [(item.tag, len(item.content)) for item in Der(0, b"", b"\x02\x01\x05" + long).parts()] == [(2, 1), (4, 256)]
