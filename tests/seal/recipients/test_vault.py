"""Vault and OpenBao Transit: the contract against a strict double, versions, namespaces and tokens."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest

pytest.importorskip("hvac", reason="needs the vault extra")

from palladion.errors import FormatError, KeysError, StorageError
from palladion.keys import create_root, open_root
from palladion.seal.recipients.envelope import Limits
from palladion.seal.recipients.vault import VaultKey, parse
from palladion.seal.trailer import Trailer, wrap_context
from tests.seal.factories import Parts, Party
from tests.seal.recipients.doubles.contract import CONTEXT, ONCE, SECRET, LoopbackContract
from tests.seal.recipients.doubles.vault import VaultDouble

pytestmark = pytest.mark.service  # each test has a server of its own on loopback


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VAULT_ADDR", "VAULT_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VAULT_TOKEN", VaultDouble.TOKEN)


@pytest.fixture(scope="module")
def started() -> Iterator[VaultDouble]:
    with VaultDouble() as double:
        yield double


@pytest.fixture
def double(started: VaultDouble) -> VaultDouble:
    started.reset()
    return started


def _key(double: VaultDouble, limits: Limits = ONCE) -> VaultKey:
    return VaultKey(double.text.removeprefix("vault:"), limits=limits)


class TestVault(LoopbackContract[VaultDouble]):
    MODULE = "hvac"
    EXTRA = "vault"
    TEXTS_REFUSED: ClassVar = [
        "vault:",
        "vault:https://vault.example.com/keys/models",
        "vault:https://vault.example.com/transit/keys/",
        "vault:https://vault.example.com/transit/models",
        "vault:https://vault.example.com/transit/../sys/keys/models",
        "vault:https://vault.example.com//transit/keys/models",
        "vault:https://vault.example.com/transit/keys/models?namespace=x",
        "vault:https://vault.example.com/transit/keys/models\n",
        "vault:https://user:word@vault.example.com/transit/keys/models",
        "vault:https://vault.example.com:99999/transit/keys/models",
        "vault:https://Vault.example.com/transit/keys/models",
        "vault:ftp://vault.example.com/transit/keys/models",
        "vault:https://vault.example.com/transit/keys/" + "x/" * 200 + "keys/y",
    ]
    parse = staticmethod(parse)

    def make(self, double: VaultDouble, limits: Limits = ONCE) -> VaultKey:
        return _key(double, limits)


@pytest.mark.parametrize(
    "url",
    [
        "https://vault.example.com:8200/transit/keys/models",
        "https://vault.example.com/team-a/eu/transit/keys/models.v2",
        "https://[2001:db8::1]:8200/transit/keys/models",
        "http://127.0.0.1:8200/transit/keys/models",
        "http://[::1]:8200/transit/keys/models",
        "http://localhost:8200/transit/keys/models",
    ],
)
def test_urls_of_keys_have_a_text_form(url: str) -> None:
    assert str(parse(f"vault:{url}")) == f"vault:{url}"


@pytest.mark.parametrize("host", ["vault.example.com", "10.0.0.1", "localhost.example.com", "[2001:db8::1]", "0.0.0.0"])
def test_keys_do_not_travel_in_the_clear(host: str) -> None:
    with pytest.raises(FormatError, match="in the clear"):
        parse(f"vault:http://{host}:8200/transit/keys/models")


def test_a_rotated_key_opens_old_wraps_and_rewraps_them_without_decrypting(double: VaultDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.key.rotate()
    assert key.unwrap(wrap, CONTEXT) == SECRET
    double.forbidden = {"encrypt", "decrypt"}
    renewed = key.rewrapped(wrap, CONTEXT)
    double.forbidden = set()
    assert renewed.blob[:80] == wrap.blob[:80]
    assert (wrap.blob[80:89], renewed.blob[80:89]) == (b"vault:v1:", b"vault:v2:")
    assert key.unwrap(renewed, CONTEXT) == SECRET


def test_a_sealed_file_is_rewrapped_in_the_service_and_opens_when_the_old_version_is_gone(
    double: VaultDouble, tmp_path: Path
) -> None:
    party, key = Party(), _key(double)
    path = party.seal(tmp_path / "model.sealed", recipients=[key])
    double.key.rotate()
    parts = Parts.of(path)
    context = wrap_context(parts.parsed_header().file_id, parts.floe_header, kind=key.kind, key_id=key.key_id)
    parts.with_trailer(lambda old: Trailer(old.signature, tuple(key.rewrapped(wrap, context) for wrap in old.wraps)))
    renewed = parts.write(tmp_path / "renewed.sealed")
    double.min_decryption_version = 2
    assert party.open(renewed, key) == {"model.bin": b"weights"}
    with pytest.raises(KeysError, match="version-too-old"):
        party.open(path, key)


def test_a_root_of_the_installation_can_be_held_by_the_service(double: VaultDouble) -> None:
    key = _key(double)
    _, data = create_root("owner", [key], created=datetime(2026, 1, 2, tzinfo=UTC))
    assert open_root(data, [key], what="the root").name == "owner"
    double.disable()
    with pytest.raises(KeysError, match="no-such-key"):
        open_root(data, [key], what="the root")


def test_a_version_that_is_no_longer_allowed_is_named_as_the_reason(double: VaultDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.key.rotate()
    double.min_decryption_version = 2
    for call in (key.unwrap, key.rewrapped):
        with pytest.raises(KeysError, match="version-too-old") as refusal:
            call(wrap, CONTEXT)
        assert "min_decryption_version" in refusal.value.hints[0]


def test_a_wrap_is_rewrapped_in_its_own_context_only(double: VaultDouble) -> None:
    # rewrap answers 500 where decrypt answers 400: a refusal all the same, and asked once
    key = _key(double, replace(ONCE, attempts=3))
    wrap = key.wrap(SECRET, CONTEXT)
    double.actions.clear()
    with pytest.raises(KeysError, match="another-context"):
        key.rewrapped(wrap, b"another")
    assert double.actions == ["rewrap"]
    with pytest.raises(ValueError, match="cannot be rewrapped"):
        key.rewrapped(replace(wrap, kind="x25519"), CONTEXT)
    with pytest.raises(FormatError, match="parameters"):
        key.rewrapped(replace(wrap, parameters={"a": 1}), CONTEXT)


def test_a_rewrap_to_an_older_version_is_refused(double: VaultDouble) -> None:
    key = _key(double)
    double.key.rotate()
    wrap = key.wrap(SECRET, CONTEXT)
    double.answers_version = 1
    with pytest.raises(KeysError, match="older version"):
        key.rewrapped(wrap, CONTEXT)


@pytest.mark.parametrize(
    "tail", [b"", b"vault:v0:AAAA", b"vault:v1:", b"vault:v1:%%%%", b"vault:1:AAAA", b"\xff" * 40, b"vault:v1:AAAA\n"]
)
def test_blobs_without_a_transit_ciphertext_are_refused_before_anybody_is_asked(
    double: VaultDouble, tail: bytes
) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.actions.clear()
    with pytest.raises(FormatError):
        key.unwrap(replace(wrap, blob=wrap.blob[:80] + tail), CONTEXT)
    assert double.actions == []


@pytest.mark.parametrize("form", ["{}{}", "vault:v{}:{}\n", "vault:v-{}:{}", "vault:v{}:"])
def test_a_ciphertext_of_another_form_is_not_kept(double: VaultDouble, form: str) -> None:
    double.form = form
    with pytest.raises(StorageError, match="ciphertext-of-another-form"):
        _key(double).wrap(SECRET, CONTEXT)


def test_a_namespace_comes_from_the_environment_or_the_path(
    double: VaultDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = _key(double)
    double.namespace = "team-a/"
    with pytest.raises(KeysError, match="HTTP-404") as refusal:
        key.wrap(SECRET, CONTEXT)
    assert "namespace" in refusal.value.hints[0]
    monkeypatch.setenv("VAULT_NAMESPACE", "team-a/")
    assert key.unwrap(key.wrap(SECRET, CONTEXT), CONTEXT) == SECRET
    monkeypatch.delenv("VAULT_NAMESPACE")
    double.namespace = None
    monkeypatch.setattr(VaultDouble, "MOUNT", "team/transit")
    assert _key(double).unwrap(_key(double).wrap(SECRET, CONTEXT), CONTEXT) == SECRET


def test_the_token_is_looked_up_at_every_call(
    double: VaultDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    monkeypatch.setenv("VAULT_TOKEN", "expired")
    with pytest.raises(KeysError, match="HTTP-403") as refusal:
        key.unwrap(wrap, CONTEXT)
    assert "token" in refusal.value.hints[0]
    assert "expired" not in str(refusal.value)
    monkeypatch.delenv("VAULT_TOKEN")
    (tmp_path / ".vault-token").write_text(f"{VaultDouble.TOKEN}\n")
    assert key.unwrap(wrap, CONTEXT) == SECRET


def test_a_token_that_cannot_be_read_is_named_as_such(
    double: VaultDouble, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VAULT_TOKEN")
    (tmp_path / ".vault-token").mkdir()
    with pytest.raises(KeysError, match=r"token .* cannot be read"):
        _key(double).wrap(SECRET, CONTEXT)
