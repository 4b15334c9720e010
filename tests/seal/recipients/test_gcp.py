"""Google Cloud KMS: the contract against a strict double, checksums both ways, and version states."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

pytest.importorskip("google.cloud.kms_v1", reason="needs the gcp extra")

from palladion.errors import KeysError, StorageError
from palladion.seal.recipients.envelope import Limits
from palladion.seal.recipients.gcp import GcpKmsKey, crc32c, parse
from tests.seal.recipients.doubles.contract import CONTEXT, ONCE, SECRET, ServiceContract
from tests.seal.recipients.doubles.gcp import GcpDouble

pytestmark = pytest.mark.service  # each test has a server of its own on loopback

KEY = GcpDouble.KEY


@pytest.fixture(scope="module")
def started() -> Iterator[GcpDouble]:
    with GcpDouble() as double:
        yield double


@pytest.fixture
def double(started: GcpDouble) -> GcpDouble:
    started.reset()
    return started


def _key(double: GcpDouble, limits: Limits = ONCE) -> GcpKmsKey:
    return GcpKmsKey(KEY, limits=limits, client=double.client())


class TestGcp(ServiceContract[GcpDouble]):
    MODULE = "google.cloud.kms_v1"
    EXTRA = "gcp"
    REDIRECTED: ClassVar = True
    TEXTS_REFUSED: ClassVar = [
        KEY,
        "gcpkms:",
        "gcpkms:projects/acme/locations/global/keyRings/seal",
        f"gcpkms:{KEY}/cryptoKeyVersions/1",
        f"gcpkms:{KEY}\n",
        f"gcpkms:/{KEY}",
        "gcpkms:projects/../locations/global/keyRings/seal/cryptoKeys/models",
        f"gcpkms:projects/{'a' * 100}/locations/{'b' * 63}/keyRings/{'c' * 63}/cryptoKeys/{'d' * 63}",
    ]
    parse = staticmethod(parse)

    def make(self, double: GcpDouble, limits: Limits = ONCE) -> GcpKmsKey:
        return _key(double, limits)


@pytest.mark.parametrize("project", ["acme-models", "123456789012", "example.com:acme-models"])
def test_keys_of_every_kind_of_project_have_a_text_form(project: str) -> None:
    text = f"gcpkms:projects/{project}/locations/global/keyRings/seal/cryptoKeys/models_2"
    assert str(parse(text)) == text


def test_the_checksum_is_castagnolis() -> None:
    # RFC 3720 §B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


def test_answers_damaged_on_the_way_are_not_used(double: GcpDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.wrong_checksums = True
    with pytest.raises(StorageError, match="answer-damaged-on-the-way"):
        key.wrap(SECRET, CONTEXT)
    with pytest.raises(StorageError, match="answer-damaged-on-the-way"):
        key.unwrap(wrap, CONTEXT)


def test_an_answer_that_does_not_confirm_what_it_got_is_not_used(double: GcpDouble) -> None:
    # the service ignores a checksum that was lost on the way, and then says so by leaving this out
    double.ignores_checksums = True
    with pytest.raises(StorageError, match="request-damaged-on-the-way"):
        _key(double).wrap(SECRET, CONTEXT)


def test_a_rotated_key_opens_old_wraps(double: GcpDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.key.rotate()
    newer = key.wrap(SECRET, CONTEXT)
    assert (wrap.blob[80], newer.blob[80]) == (1, 2)  # the double's version of the key
    assert key.unwrap(wrap, CONTEXT) == key.unwrap(newer, CONTEXT) == SECRET


def test_a_disabled_version_closes_its_own_wraps_only(double: GcpDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.key.rotate()
    double.key.disabled = {1}
    with pytest.raises(KeysError, match="refuses to decrypt") as refusal:
        key.unwrap(wrap, CONTEXT)
    assert "disabled" in refusal.value.hints[0]
    assert key.unwrap(key.wrap(SECRET, CONTEXT), CONTEXT) == SECRET


def test_an_answer_by_another_key_is_refused(double: GcpDouble) -> None:
    double.claims_key = f"{KEY}two"
    with pytest.raises(KeysError, match="used another key"):
        _key(double).wrap(SECRET, CONTEXT)


def test_a_key_that_is_not_there_is_a_refusal(double: GcpDouble) -> None:
    key = replace(_key(double), name=f"{KEY}x")
    with pytest.raises(KeysError, match="NOT_FOUND") as refusal:
        key.wrap(SECRET, CONTEXT)
    assert "does not exist" in refusal.value.hints[0]


def test_missing_credentials_are_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/missing/credentials.json")
    with pytest.raises(KeysError, match=r"no credentials.*DefaultCredentialsError"):
        GcpKmsKey(KEY).wrap(SECRET, CONTEXT)
