"""AWS KMS: the contract against a strict double, and against moto, which knows the service from its documentation."""

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

pytest.importorskip("boto3", reason="needs the aws extra")

from palladion.errors import FormatError, KeysError, StorageError
from palladion.seal.recipients.aws import AwsKmsKey, parse
from palladion.seal.recipients.envelope import Limits
from tests.seal.recipients.doubles.aws import AwsDouble
from tests.seal.recipients.doubles.contract import CONTEXT, ONCE, SECRET, LoopbackContract

pytestmark = pytest.mark.service  # each test has a server of its own on loopback

KEY = AwsDouble.KEY


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture(scope="module")
def started() -> Iterator[AwsDouble]:
    with AwsDouble() as double:
        yield double


@pytest.fixture
def double(started: AwsDouble) -> AwsDouble:
    started.reset()
    return started


@functools.cache  # boto3 takes a fifth of a second to make a client
def _cached_key(endpoint: str, arn: str, limits: Limits) -> AwsKmsKey:
    return AwsKmsKey(arn, endpoint=endpoint, limits=limits)


def _key(double: AwsDouble, arn: str = KEY, limits: Limits = ONCE) -> AwsKmsKey:
    return _cached_key(double.loopback.url, arn, limits)


class TestAws(LoopbackContract[AwsDouble]):
    MODULE = "boto3"
    EXTRA = "aws"
    TEXTS_REFUSED: ClassVar = [
        KEY,
        "awskms:",
        "awskms:alias/models",
        "awskms:arn:aws:kms:eu-central-1:111122223333:alias/models",
        f"awskms:{KEY}/more",
        f"awskms:{KEY}\n",
        f"awskms:{KEY.replace('111122223333', '1111')}",
        f"awskms:{KEY.replace('eu-central-1', 'evil.example/')}",
        f"AWSKMS:{KEY}",
    ]
    parse = staticmethod(parse)

    def make(self, double: AwsDouble, limits: Limits = ONCE) -> AwsKmsKey:
        return _key(double, limits=limits)


@pytest.mark.parametrize(
    "arn",
    [
        KEY,
        AwsDouble.OTHER,
        "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "arn:aws-cn:kms:cn-north-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    ],
)
def test_keys_of_every_partition_have_a_text_form(arn: str) -> None:
    assert str(parse(f"awskms:{arn}")) == f"awskms:{arn}"


def test_a_blob_of_another_key_is_not_decrypted_by_that_key(double: AwsDouble) -> None:
    # without a pinned KeyId, KMS decrypts with whichever key the blob names
    other = _key(double, AwsDouble.OTHER).wrap(SECRET, CONTEXT)
    with pytest.raises(KeysError, match="IncorrectKeyException"):
        _key(double).unwrap(replace(other, key_id=KEY), CONTEXT)


def test_an_answer_by_another_key_is_refused(double: AwsDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.claims_key = AwsDouble.OTHER
    for call in (
        lambda: key.wrap(SECRET, CONTEXT),
        lambda: key.unwrap(wrap, CONTEXT),
        lambda: key.rewrapped(wrap, CONTEXT),
    ):
        with pytest.raises(KeysError, match="used another key"):
            call()


def test_a_key_about_to_be_deleted_is_told_from_a_disabled_one(double: AwsDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.pending_deletion = True
    with pytest.raises(KeysError, match="KMSInvalidStateException") as refusal:
        key.unwrap(wrap, CONTEXT)
    assert "deleted" in refusal.value.hints[0]
    double.pending_deletion = False
    double.disable()
    with pytest.raises(KeysError, match="DisabledException") as refusal:
        key.unwrap(wrap, CONTEXT)
    assert "enable-key" in refusal.value.hints[0]


def test_the_context_is_shown_as_a_hash_under_one_name(double: AwsDouble) -> None:
    _key(double).wrap(SECRET, b"")
    body = double.loopback.requests[-1].body
    assert body["EncryptionContext"] == {
        "palladion-context": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of nothing
    }


def test_a_rotated_key_opens_old_wraps_and_rewraps_them_without_decrypting(double: AwsDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    double.key.rotate()
    assert key.unwrap(wrap, CONTEXT) == SECRET
    double.forbidden = {"Decrypt", "Encrypt"}
    renewed = key.rewrapped(wrap, CONTEXT)
    double.forbidden = set()
    assert renewed.blob[:80] == wrap.blob[:80]
    assert renewed.blob[80:] != wrap.blob[80:]
    double.key.versions[0] = bytes(32)  # the old material is gone
    assert key.unwrap(renewed, CONTEXT) == SECRET


def test_a_wrap_is_rewrapped_in_its_own_context_only(double: AwsDouble) -> None:
    key = _key(double)
    wrap = key.wrap(SECRET, CONTEXT)
    with pytest.raises(KeysError, match="InvalidCiphertextException"):
        key.rewrapped(wrap, b"another")
    with pytest.raises(ValueError, match="cannot be rewrapped"):
        key.rewrapped(replace(wrap, key_id=AwsDouble.OTHER), CONTEXT)
    with pytest.raises(FormatError, match="parameters"):
        key.rewrapped(replace(wrap, parameters={"a": 1}), CONTEXT)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"])
def test_an_endpoint_without_tls_is_refused_wherever_it_was_set(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "http://kms.example.com")
    with pytest.raises(KeysError, match="in the clear"):
        AwsKmsKey(KEY).wrap(SECRET, CONTEXT)


def test_missing_credentials_are_named_as_such(double: AwsDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(KeysError, match=r"no credentials.*NoCredentialsError"):
        AwsKmsKey(KEY, endpoint=double.loopback.url).wrap(SECRET, CONTEXT)


@pytest.mark.parametrize(("variable", "value"), [("AWS_PROFILE", "missing"), ("AWS_ENDPOINT_URL_KMS", "no url")])
def test_a_broken_configuration_is_named_as_such(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(KeysError, match="boto3 cannot be set up"):
        AwsKmsKey(KEY).wrap(SECRET, CONTEXT)


def test_a_service_that_is_not_there_is_no_refusal() -> None:
    with AwsDouble() as double:
        key = _key(double)
    with pytest.raises(StorageError, match="EndpointConnectionError"):
        key.wrap(SECRET, CONTEXT)


@pytest.mark.slow  # moto takes two seconds to load
def test_moto_agrees_on_contexts_and_rewrapping() -> None:
    boto3 = pytest.importorskip("boto3", reason="needs the aws extra")
    moto = pytest.importorskip("moto", reason="needs moto")
    with moto.mock_aws():
        made = boto3.session.Session(region_name="eu-west-1").client("kms").create_key()
        key = AwsKmsKey(made["KeyMetadata"]["Arn"])
        wrap = key.wrap(SECRET, CONTEXT)
        assert key.unwrap(wrap, CONTEXT) == SECRET
        assert key.unwrap(key.rewrapped(wrap, CONTEXT), CONTEXT) == SECRET
        with pytest.raises(KeysError, match="InvalidCiphertextException"):
            key.unwrap(wrap, b"another")
