"""Keys of approvers: their text, their files, and signatures of both kinds."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from palladion.approvals.signing import ApproverKey, HeldKey, key_of_file, new_key_file, open_key_file
from palladion.errors import FormatError, KeysError, TamperError
from palladion.seal.recipients import Cost, PassphraseIdentity, PassphraseRecipient

CHEAP = Cost(memory_kib=64, iterations=1, lanes=1)
SECRET = "correct horse battery staple"


def test_a_key_in_a_file_opens_with_its_passphrase_alone() -> None:
    key, data = new_key_file(PassphraseRecipient(SECRET, cost=CHEAP))
    held = open_key_file(data, PassphraseIdentity(SECRET), what="it")
    assert held.key == key == key_of_file(data, what="it")
    key.verify(b"a", held.sign(b"a"), what="it")
    with pytest.raises(KeysError, match="passphrase"):
        open_key_file(data, PassphraseIdentity("another one"), what="it")


def test_a_file_that_names_another_key_is_refused() -> None:
    key, data = new_key_file(PassphraseRecipient(SECRET, cost=CHEAP))
    other = data.replace(str(key).encode(), str(HeldKey(b"\x01" * 32).key).encode())
    with pytest.raises(KeysError):
        open_key_file(other, PassphraseIdentity(SECRET), what="it")
    for broken in (data[:-9], b"{}", b'{"v":1}', data.replace(b'"v":1', b'"v":2')):
        with pytest.raises(FormatError):
            open_key_file(broken, PassphraseIdentity(SECRET), what="it")


def test_p256_signatures_of_a_token_are_verified() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = ApproverKey("p256", private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint))
    r, s = decode_dss_signature(private.sign(b"a", ec.ECDSA(SHA256())))
    signature = r.to_bytes(32) + s.to_bytes(32)
    assert ApproverKey.parse(str(key)) == key
    key.verify(b"a", signature, what="it")
    for message, bad in ((b"b", signature), (b"a", signature[:-1]), (b"a", bytes(64)), (b"a", b"\xff" * 64)):
        with pytest.raises(TamperError):
            key.verify(message, bad, what="it")


@pytest.mark.parametrize(
    "text", ["", "ed25519:", "ed25519:" + "0" * 63, "p256:04" + "0" * 64, "p256:02" + "f" * 64, "x:1"]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="approver's key"):
        ApproverKey.parse(text)


def test_a_key_never_prints_its_secret() -> None:
    held = HeldKey(b"\x01" * 32)
    assert repr(held) == f"<HeldKey {held.key}>"
    assert (b"\x01" * 32).hex() not in repr(held)


@pytest.mark.parametrize(
    "point",
    [
        "00" * 32,
        "01" + "00" * 31,
        "01" + "00" * 30 + "80",
        "ec" + "ff" * 30 + "7f",
        "ee" + "ff" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    ],
)
def test_a_key_for_which_anybody_can_sign_is_none(point: str) -> None:
    # of the point itself as R and 0 as s, the check s·B = R + h·A holds for some messages, of order 1 for all
    with pytest.raises(FormatError, match="the approver's key was not expected"):
        ApproverKey.parse(f"ed25519:{point}")
