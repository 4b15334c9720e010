"""Azure Key Vault: the contract against a strict double, versions, states, and keys that are not to be sealed to."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

pytest.importorskip("azure.keyvault.keys", reason="needs the azure extra")
pytest.importorskip("azure.identity", reason="needs the azure extra")

from azure.core.exceptions import ClientAuthenticationError

from palladion.clock import ManualClock
from palladion.errors import FormatError, KeysError, StorageError
from palladion.seal.recipients.azure import AzureKey, parse
from palladion.seal.recipients.envelope import Limits
from tests.seal.recipients.doubles.azure import AzureDouble, seconds
from tests.seal.recipients.doubles.contract import CONTEXT, ONCE, SECRET, ServiceContract

pytestmark = pytest.mark.service  # each test has a server of its own on loopback

KEY = AzureDouble.KEY
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def started() -> Iterator[AzureDouble]:
    with AzureDouble() as double:
        yield double


@pytest.fixture
def double(started: AzureDouble) -> AzureDouble:
    started.reset()
    return started


def _key(double: AzureDouble, url: str = KEY, limits: Limits = ONCE, **options: Any) -> AzureKey:
    outside = {"credential": double.credential(), "transport": double.transport(), "clock": ManualClock(NOW)}
    return AzureKey(url, limits=limits, **{**outside, **options})


class TestAzure(ServiceContract[AzureDouble]):
    MODULE = "azure.keyvault.keys"
    EXTRA = "azure"
    BINDS: ClassVar = False
    TEXTS_REFUSED: ClassVar = [
        KEY,
        "azurekv:",
        "azurekv:https://models.example.com/keys/models",
        "azurekv:https://models.vault.azure.net.example.com/keys/models",
        "azurekv:https://example.com/models.vault.azure.net/keys/models",
        "azurekv:https://user@models.vault.azure.net/keys/models",
        "azurekv:http://acme-models.vault.azure.net/keys/models",
        "azurekv:https://acme-models.vault.azure.net/secrets/models",
        "azurekv:https://acme-models.vault.azure.net/keys/models/latest",
        f"azurekv:{KEY}\n",
        f"azurekv:{KEY}?api-version=7.4",
    ]
    parse = staticmethod(parse)

    def make(self, double: AzureDouble, limits: Limits = ONCE) -> AzureKey:
        return _key(double, limits=limits)


@pytest.mark.parametrize(
    "url",
    [
        KEY,
        f"{KEY}/{'0' * 31}1",
        "https://acme.managedhsm.azure.net/keys/models",
        "https://acme.vault.usgovcloudapi.net/keys/models",
        "https://acme.vault.azure.cn/keys/models",
    ],
)
def test_keys_of_every_cloud_have_a_text_form(url: str) -> None:
    assert str(parse(f"azurekv:{url}")) == f"azurekv:{url}"


def test_sealing_needs_the_public_key_alone_and_opening_one_call(double: AzureDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    assert double.actions == ["get"]
    assert double.plaintexts == []
    double.actions.clear()
    assert key.unwrap(wrap, CONTEXT) == SECRET
    assert double.actions == ["unwrapKey"]


def test_a_rotated_key_opens_old_wraps_by_the_version_that_they_name(double: AzureDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.rotate()
    newer = key.wrap(SECRET, CONTEXT)
    assert (wrap.parameters, newer.parameters) == ({"version": f"{1:032x}"}, {"version": f"{2:032x}"})
    assert wrap.key_id == newer.key_id == KEY
    assert key.unwrap(wrap, CONTEXT) == key.unwrap(newer, CONTEXT) == SECRET


def test_a_key_with_a_version_is_that_version_alone(double: AzureDouble) -> None:
    first = double.newest
    second = double.rotate()
    pinned = _key(double, f"{KEY}/{first}")
    wrap = pinned.wrap(SECRET, CONTEXT)
    assert wrap.parameters == {"version": first}
    assert (wrap.key_id, pinned.unwrap(wrap, CONTEXT)) == (KEY, SECRET)
    double.actions.clear()
    assert _key(double, f"{KEY}/{second}").unwrap(wrap, CONTEXT) is None
    assert double.actions == []


def test_a_version_that_a_wrap_only_claims_does_not_open_it(double: AzureDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    for version, word in ((double.rotate(), "BadParameter"), (f"{9:032x}", "KeyNotFound")):
        with pytest.raises(KeysError, match=word):
            key.unwrap(replace(wrap, parameters={"version": version}), CONTEXT)


def test_a_disabled_version_closes_its_own_wraps_only(double: AzureDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.disable()
    double.rotate()
    with pytest.raises(KeysError, match="KeyDisabled") as refusal:
        key.unwrap(wrap, CONTEXT)
    assert "disabled" in refusal.value.hints[0]
    assert key.unwrap(key.wrap(SECRET, CONTEXT), CONTEXT) == SECRET


def test_a_disabled_version_is_not_sealed_to_although_the_vault_shows_it(double: AzureDouble) -> None:
    double.disable()
    with pytest.raises(KeysError, match="KeyDisabled"):
        _key(double).wrap(SECRET, CONTEXT)
    assert double.actions == ["get"]


@pytest.mark.parametrize(
    ("attribute", "offset", "may"), [("nbf", 60, False), ("nbf", 0, True), ("exp", 60, True), ("exp", 0, False)]
)
def test_a_key_is_sealed_to_in_its_time_only(double: AzureDouble, attribute: str, offset: int, may: bool) -> None:
    double.attributes = {attribute: seconds(NOW + timedelta(seconds=offset))}
    key = _key(double)
    if may:
        assert key.unwrap(key.wrap(SECRET, CONTEXT), CONTEXT) == SECRET
        return
    with pytest.raises(KeysError, match="its time"):
        key.wrap(SECRET, CONTEXT)


@pytest.mark.parametrize("bits", [1024, 2056])
def test_keys_of_other_sizes_are_not_sealed_to(double: AzureDouble, bits: int) -> None:
    double.rotate(bits=bits)
    with pytest.raises(KeysError, match="no RSA key of"):
        _key(double).wrap(SECRET, CONTEXT)


def test_keys_of_other_types_are_not_sealed_to(double: AzureDouble) -> None:
    double.key_type = "EC"
    with pytest.raises(KeysError, match="no RSA key of"):
        _key(double).wrap(SECRET, CONTEXT)


@pytest.mark.parametrize("size", [255, 257, 513])
def test_ciphertexts_of_other_lengths_are_refused_before_anybody_is_asked(double: AzureDouble, size: int) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.actions.clear()
    with pytest.raises(FormatError, match=f"RSA ciphertext of {size} bytes"):
        key.unwrap(replace(wrap, blob=wrap.blob[:80] + bytes(size)), CONTEXT)
    assert double.actions == []


def test_an_answer_by_another_key_is_refused(double: AzureDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.claims_key = f"{KEY}x"
    with pytest.raises(KeysError, match="answered with another key"):
        key.wrap(SECRET, CONTEXT)
    with pytest.raises(KeysError, match="used another key"):
        key.unwrap(wrap, CONTEXT)


def test_a_token_is_not_asked_for_on_behalf_of_another_service(double: AzureDouble) -> None:
    # a vault that has not been seen before: azure-core remembers what the others said
    fresh = "https://never-seen.vault.azure.net/keys/models"
    double.resource = "https://storage.example.com"
    credential = double.credential()
    with pytest.raises(StorageError):
        _key(double, fresh, credential=credential).wrap(SECRET, CONTEXT)
    assert credential.scopes == []


def test_missing_credentials_are_named_as_such(double: AzureDouble) -> None:
    class Nobody:
        def get_token(self, *_: str, **__: Any) -> Any:
            raise ClientAuthenticationError("the secret of the app is told here")

    with pytest.raises(KeysError, match="no credentials") as refusal:
        _key(double, credential=Nobody()).wrap(SECRET, CONTEXT)
    assert "told here" not in str(refusal.value)
