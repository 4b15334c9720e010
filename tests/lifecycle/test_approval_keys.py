"""Keys of approvers: in files that only their owner reads, and in tokens."""

import stat
from pathlib import Path
from typing import NoReturn

import pytest

from palladion.errors import ConflictError, FormatError, KeysError, NotFoundError, StorageError
from palladion.lifecycle.approval_keys import new_approver_key, open_approver_key
from palladion.seal.recipients import Cost, PassphraseIdentity, PassphraseRecipient
from tests.seal.recipients.tokens import PIN, Token, needs_softhsm

SECRET = "correct horse battery staple"


def _recipient() -> PassphraseRecipient:
    return PassphraseRecipient(SECRET, cost=Cost(memory_kib=64, iterations=1, lanes=1))


def _never() -> NoReturn:
    raise AssertionError("a passphrase was asked for")


def test_a_key_in_a_file_is_private_and_signs(tmp_path: Path) -> None:
    path = tmp_path / "bob.key"
    key = new_approver_key(str(path), _recipient)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    signer = open_approver_key(str(path), lambda: PassphraseIdentity(SECRET))
    key.verify(b"a", signer.sign(b"a"), what="it")
    with pytest.raises(StorageError):
        new_approver_key(str(path), _recipient)


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bob.key"
    new_approver_key(str(path), _recipient)
    path.chmod(0o640)
    with pytest.raises(KeysError, match="others may read it"):
        open_approver_key(str(path), _never)


@needs_softhsm
def test_a_key_in_a_token_signs_and_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = Token.create(tmp_path, monkeypatch)
    key = new_approver_key(token.uri("bob"), _never)
    signer = open_approver_key(token.uri("bob"), _never)
    assert signer.key == key
    key.verify(b"a", signer.sign(b"a"), what="it")
    assert PIN not in repr(signer)
    with pytest.raises(ConflictError, match="a key bob already"):
        new_approver_key(token.uri("bob"), _never)
    with pytest.raises(NotFoundError, match="no private key eve"):
        open_approver_key(token.uri("eve"), _never).sign(b"a")


@needs_softhsm
def test_a_token_without_ed25519_gets_a_key_on_p256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pkcs11

    from palladion.lifecycle import approval_keys

    token = Token.create(tmp_path, monkeypatch)
    generate = approval_keys._generate
    monkeypatch.setattr(
        approval_keys, "_generate", lambda session, label, *, edwards: generate(session, label, edwards=False)
    )
    key = new_approver_key(token.uri("bob"), _never)
    assert key.kind == "p256"
    signer = open_approver_key(token.uri("bob"), _never)
    key.verify(b"a", signer.sign(b"a"), what="it")
    assert pkcs11.Mechanism.ECDSA


@needs_softhsm
def test_a_uri_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = Token.create(tmp_path, monkeypatch)
    with pytest.raises(FormatError, match="no type"):
        open_approver_key(token.uri("bob", rest=";type=secret-key"), _never)
    with pytest.raises(FormatError, match="no id"):
        new_approver_key(token.uri("bob", rest=";id=%01%02%03%04%05%06%07%08"), _never)
