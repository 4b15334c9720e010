"""Whose signatures a role needs, and our signers in TUF's clothes."""

import pytest

from palladion.errors import FormatError
from palladion.release.keys import ChannelKeys, Role, RoleSigner, role_signer, signers_of, tuf_key
from tests.release.factories import signer
from tests.small_order import WEAK


def test_a_role_signer_signs_what_tufs_key_verifies() -> None:
    ours = signer()
    wrapped = RoleSigner(ours)
    signature = wrapped.sign(b"metadata")
    assert signature.keyid == tuf_key(ours.public_key).keyid == wrapped.public_key.keyid
    wrapped.public_key.verify_signature(signature, b"metadata")
    assert wrapped.public_key.keyval["public"] == ours.public_key.hex()


def test_a_role_signer_never_comes_from_an_address() -> None:
    with pytest.raises(NotImplementedError):
        RoleSigner.from_priv_key_uri("file2:key.pem", tuf_key(signer().public_key))


def test_the_same_secret_gives_the_same_role_key() -> None:
    assert role_signer(bytes(range(32))).public_key == role_signer(bytes(range(32))).public_key
    assert role_signer(bytes(range(32))).public_key != role_signer(bytes(32)).public_key


def test_only_signers_whose_key_is_named_are_taken() -> None:
    first, second = signer(), signer()
    chosen = signers_of([tuf_key(first.public_key).keyid], [second, first])
    assert [item.public_key.keyid for item in chosen] == [tuf_key(first.public_key).keyid]


@pytest.mark.parametrize(
    ("keys", "threshold"),
    [
        ((), 1),
        ((b"a" * 32,), 0),
        ((b"a" * 32,), 2),
        ((b"a" * 32, b"a" * 32), 1),
        (tuple(bytes([n]) * 32 for n in range(17)), 1),
    ],
    ids=["no key", "none has to sign", "more than there are", "one key twice", "too many"],
)
def test_thresholds_that_mean_nothing_are_refused(keys: tuple[bytes, ...], threshold: int) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Role(keys, threshold)


def test_an_online_key_cannot_have_an_offline_role() -> None:
    owner, online = Role((b"a" * 32,)), Role((b"b" * 32,))
    ChannelKeys(root=owner, targets=owner, snapshot=online, timestamp=online)
    for keys in ({"root": online, "targets": owner}, {"root": owner, "targets": online}):
        with pytest.raises(ValueError, match="could publish"):
            ChannelKeys(**keys, snapshot=online, timestamp=online)


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_role_is_given_no_key_for_which_anybody_can_sign(weak: bytes) -> None:
    with pytest.raises(FormatError, match="the key of a role is no"):
        tuf_key(weak)
