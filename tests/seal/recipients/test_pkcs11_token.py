"""Visits to a token: which key is taken, how a PIN is used up, and what a visit leaves behind."""

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import ConflictError, KeysError, MissingExtraError, NotFoundError
from palladion.seal.recipients import pkcs11_token
from palladion.seal.recipients.pkcs11_token import find_key, make_key, offers, visit
from palladion.seal.recipients.pkcs11_uri import Pkcs11Uri
from tests.seal.recipients.tokens import MODULE, PIN, Token, needs_softhsm


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    return Token.create(tmp_path, monkeypatch)


def _uri(token: Token) -> Pkcs11Uri:
    return Pkcs11Uri.parse(token.uri())


def _found(token: Token, label: str = "kek", key_id: bytes = b"") -> bytes:
    with visit(_uri(token), lambda _token: PIN) as session:
        return bytes(find_key(session, label, key_id).id)


@needs_softhsm
def test_a_new_key_cannot_leave_the_token(token: Token) -> None:
    import pkcs11

    expected = {
        "EXTRACTABLE": False, "SENSITIVE": True, "PRIVATE": True, "TOKEN": True, "MODIFIABLE": False,
        "ENCRYPT": True, "DECRYPT": True, "WRAP": False, "UNWRAP": False, "VALUE_LEN": 32,
    }  # fmt: skip
    with visit(_uri(token), lambda _token: PIN, write=True) as session:
        key = make_key(session, "kek")
        found = {name: key[getattr(pkcs11.Attribute, name)] for name in expected}
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]
        assert (offers(key, "aes-gcm"), offers(key, "aes-kw")) == (True, False)
        key_id = bytes(key.id)
    assert found == expected
    assert len(key_id) == 16
    assert _found(token) == _found(token, key_id=key_id) == _found(token, label="", key_id=key_id) == key_id


@needs_softhsm
def test_a_token_without_aes_gcm_gets_a_key_that_only_wraps(token: Token, monkeypatch: pytest.MonkeyPatch) -> None:
    has = pkcs11_token._has
    monkeypatch.setattr(pkcs11_token, "_has", lambda session, name: name != "aes-gcm" and has(session, name))
    with visit(_uri(token), lambda _token: PIN, write=True) as session:
        key = make_key(session, "kek")
        assert (offers(key, "aes-gcm"), offers(key, "aes-kw")) == (False, True)


@needs_softhsm
def test_a_label_is_given_once(token: Token) -> None:
    with visit(_uri(token), lambda _token: PIN, write=True) as session:
        make_key(session, "kek")
        with pytest.raises(ConflictError, match="a key kek already"):
            make_key(session, "kek")


@needs_softhsm
@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"EXTRACTABLE": True}, "can leave it"),
        ({"SENSITIVE": False}, "can leave it"),
        ({"value": bytes(16)}, "not an AES key of 256 bits"),
        ({"ID": b"\x01"}, "CKA_ID of 1 bytes"),
        ({"ID": b""}, "CKA_ID of 0 bytes"),
    ],
)
def test_a_key_that_is_not_fit_is_refused(token: Token, attributes: dict[str, Any], reason: str) -> None:
    token.put(**attributes)
    with pytest.raises(KeysError, match=reason):
        _found(token)


@needs_softhsm
@pytest.mark.parametrize("name", ["EXTRACTABLE", "SENSITIVE", "VALUE_LEN"])
def test_an_attribute_that_the_token_does_not_tell_counts_as_unfit(
    token: Token, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    token.put()
    tell = pkcs11_token._attribute
    monkeypatch.setattr(pkcs11_token, "_attribute", lambda key, asked: None if asked.name == name else tell(key, asked))
    with pytest.raises(KeysError, match="kek on the token troy"):
        _found(token)


@needs_softhsm
def test_a_key_planted_without_the_pin_is_not_taken(token: Token) -> None:
    # a public object can be put on many tokens without a login; the planter knows its value
    token.put(PRIVATE=False, ID=b"\x02" * 16)
    with pytest.raises(NotFoundError, match="no private AES key kek"):
        _found(token)
    token.put(ID=b"\x03" * 16)
    assert _found(token) == b"\x03" * 16


@needs_softhsm
def test_two_keys_of_one_label_are_told_apart_by_id_only(token: Token) -> None:
    token.put(ID=b"\x01" * 16)
    token.put(ID=b"\x02" * 16)
    with pytest.raises(ConflictError, match="2 keys kek"):
        _found(token)
    assert _found(token, key_id=b"\x02" * 16) == b"\x02" * 16
    with pytest.raises(NotFoundError):
        _found(token, key_id=b"\x04" * 16)


@needs_softhsm
def test_a_wrong_pin_is_offered_once_and_never_shown(token: Token) -> None:
    asked = []

    def ask(name: str) -> str:
        asked.append(name)
        return "hunter2"

    with pytest.raises(KeysError, match="refuses the PIN") as refusal, visit(_uri(token), ask):
        pass
    assert "hunter2" not in f"{refusal.value} {refusal.value.hints} {refusal.value.__context__!r}"
    # another URI of the same token, and the right PIN: still not tried, since this program may be in a loop
    other = replace(_uri(token), label="other", serial="")
    for uri in (_uri(token), other):
        with pytest.raises(KeysError, match="has refused the PIN once"), visit(uri, ask):
            pass
    assert asked == ["troy"]


@dataclass
class _Flagged:
    label: str
    flags: Any


@needs_softhsm
@pytest.mark.parametrize("flag", ["USER_PIN_FINAL_TRY", "USER_PIN_LOCKED"])
def test_the_last_try_before_the_lock_is_never_used_up(flag: str) -> None:
    from pkcs11 import TokenFlag

    with pytest.raises(KeysError, match="no PIN is tried"):
        pkcs11_token._check_tries(_Flagged("troy", TokenFlag.RNG | TokenFlag[flag]))  # type: ignore[arg-type]
    pkcs11_token._check_tries(_Flagged("troy", TokenFlag.RNG | TokenFlag.USER_PIN_COUNT_LOW))  # type: ignore[arg-type]


@needs_softhsm
def test_a_missing_token_is_not_found(token: Token) -> None:
    uri = Pkcs11Uri.parse(token.uri(token="sparta"))
    with pytest.raises(NotFoundError, match="no token sparta") as refusal, visit(uri, lambda _token: PIN):
        pass
    assert refusal.value.hints
    with pytest.raises(NotFoundError, match="no token"), visit(replace(_uri(token), serial="0"), lambda _token: PIN):
        pass


@needs_softhsm
def test_two_tokens_of_one_label_are_told_apart_by_serial_number_only(token: Token) -> None:
    Token.add("troy")
    with pytest.raises(ConflictError, match="2 tokens are called troy"), visit(_uri(token), lambda _token: PIN):
        pass
    import pkcs11

    module = pkcs11.lib(str(MODULE))
    serials = [found.serial.decode() for found in module.get_tokens() if found.label == "troy"]
    module.finalize()
    with visit(replace(_uri(token), serial=serials[1]), lambda _token: PIN) as session:
        assert session.token.serial.decode() == serials[1]


@needs_softhsm
def test_a_visit_leaves_nothing_open_for_a_program_run_later(token: Token) -> None:
    import pkcs11

    token.put()
    before = set(Path("/proc/self/fd").iterdir())
    _found(token)
    with pytest.raises(NotFoundError):
        _found(token, "missing")
    with pytest.raises(ZeroDivisionError), visit(_uri(token), lambda _token: PIN):
        raise ZeroDivisionError
    assert set(Path("/proc/self/fd").iterdir()) == before
    assert not pkcs11._loaded[str(MODULE)].initialized


@needs_softhsm
def test_a_failure_of_the_token_is_told_in_our_words(token: Token) -> None:
    import pkcs11

    with pytest.raises(KeysError, match="the token troy failed: DeviceError"), visit(_uri(token), lambda _token: PIN):
        raise pkcs11.DeviceError
    with pytest.raises(NotFoundError, match="no token troy is present"), visit(_uri(token), lambda _token: PIN):
        raise pkcs11.DeviceRemoved


@needs_softhsm
def test_a_module_that_others_could_replace_is_not_loaded(token: Token, tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    shutil.copy(MODULE, module)
    module.chmod(0o775)
    uri = replace(_uri(token), module_path=module)
    with pytest.raises(KeysError, match="only root or this user can change"), visit(uri, lambda _token: PIN):
        pass
    with (
        pytest.raises(KeysError, match="only root or this user can change"),
        visit(replace(uri, module_path=tmp_path), lambda _token: PIN),
    ):
        pass


@needs_softhsm
def test_a_module_that_is_none_is_not_found(token: Token, tmp_path: Path) -> None:
    module = tmp_path / "module.so"
    uri = replace(_uri(token), module_path=module)
    with pytest.raises(NotFoundError, match="no PKCS#11 module"), visit(uri, lambda _token: PIN):
        pass
    module.write_bytes(b"not a library")
    module.chmod(0o600)
    with pytest.raises(NotFoundError, match="cannot be loaded"), visit(uri, lambda _token: PIN):
        pass


def test_without_the_extra_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    uri = Pkcs11Uri.parse("pkcs11:token=troy;object=kek?module-path=/missing.so")
    with pytest.raises(MissingExtraError) as refusal, visit(uri, lambda _token: PIN):
        pass
    assert refusal.value.hints == ("pip install 'palladion[hsm]'",)
