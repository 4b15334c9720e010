"""Wrapping to a symmetric key in AWS KMS, named by its ARN: `awskms:arn:aws:kms:…` (docs/format.md §7).

Credentials are those that boto3 finds; none are kept here.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from palladion.errors import FormatError, KeysError, MissingExtraError, PalladionError
from palladion.keys import Wrap
from palladion.seal.recipients.envelope import (
    LIMITS,
    Envelope,
    Limits,
    ask,
    is_confidential,
    quiet,
    refused,
    unavailable,
)

KIND = "aws-kms"
PREFIX = "awskms:"
CONTEXT_NAME = "palladion-context"  # one name, so that a policy can demand it (kms:EncryptionContextKeys)
_SERVICE = "AWS KMS"
_ALGORITHM = "SYMMETRIC_DEFAULT"  # AES-256-GCM; named, so that an asymmetric key, which knows no context, is refused
# Key ARNs only. An alias can be pointed at another key later, and then names two keys.
_ARN = re.compile(
    r"arn:aws(?:-[a-z]{1,8}){0,3}:kms:[a-z]{2,5}(?:-[a-z]{1,12}){1,3}-[0-9]{1,2}:[0-9]{12}:"
    r"key/(?:mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
)
_TRANSIENT = {
    "DependencyTimeoutException",
    "KMSInternalException",
    "KeyUnavailableException",
    "LimitExceededException",
    "RequestLimitExceeded",
    "ThrottlingException",
}
_ANOTHER_FILE = "the wrap is damaged, or moved here from another file"
_HINTS = {
    "AccessDeniedException": "allow this role the call in the key policy or by IAM; docs/keys.md has both policies",
    "DisabledException": "somebody disabled the key: if that was not on purpose, `aws kms enable-key`",
    "ExpiredTokenException": "the credentials have expired: sign in again",
    "IncorrectKeyException": _ANOTHER_FILE,
    "InvalidCiphertextException": _ANOTHER_FILE,
    "InvalidKeyUsageException": "the key must be symmetric, for encryption and decryption",
    "KMSInvalidStateException": "the key is about to be deleted, or not ready: `aws kms describe-key` says which",
    "NotFoundException": "the key does not exist in this account and region; a deleted one does not come back",
}


@dataclass(frozen=True)
class AwsKmsKey:
    """A key in AWS KMS: wraps with `kms:Encrypt`, unwraps with `kms:Decrypt`. `str()` gives its text form.

    `endpoint` replaces the region's own. Raises ValueError on anything but the ARN of a key.
    """

    arn: str
    endpoint: str | None = None
    limits: Limits = LIMITS

    kind = KIND

    def __post_init__(self) -> None:
        if not _ARN.fullmatch(self.arn):
            raise ValueError(
                "not the ARN of a key in AWS KMS, arn:aws:kms:REGION:ACCOUNT:key/ID; aliases are not taken"
            )

    @property
    def key_id(self) -> str:
        """The key's ARN."""
        return self.arn

    def __str__(self) -> str:
        return PREFIX + self.arn

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`. Raises KeysError if refused, StorageError if there is no answer."""

        def encrypt(key: bytes) -> bytes:
            bound = {"EncryptionContext": _bound(context), "EncryptionAlgorithm": _ALGORITHM}
            answer = self._ask("encrypt", {"KeyId": self.arn, "Plaintext": key, **bound})
            return self._of_this_key(answer, "CiphertextBlob", "KeyId")

        return Wrap(KIND, self.arn, {}, Envelope.enclose(secret, context, encrypt).encode())

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is for another key.

        Raises KeysError if KMS refuses or the wrap does not open, StorageError if KMS does not answer.
        """
        if (wrap.kind, wrap.key_id) != (KIND, self.arn):
            return None
        envelope = _envelope(wrap)
        bound = {"EncryptionContext": _bound(context), "EncryptionAlgorithm": _ALGORITHM}
        # with KeyId, KMS uses this key or none; without it, whichever key the blob names
        answer = self._ask("decrypt", {"KeyId": self.arn, "CiphertextBlob": envelope.wrapped_key, **bound})
        return envelope.open(self._of_this_key(answer, "Plaintext", "KeyId"), context, key_id=self.arn)

    def rewrapped(self, wrap: Wrap, context: bytes) -> Wrap:
        """The wrap under the key's newest material, changed inside KMS (`kms:ReEncryptFrom`, `kms:ReEncryptTo`).

        Whether it opens is not known before somebody unwraps it. Raises ValueError if the wrap is for another key,
        else as `unwrap` does.
        """
        if (wrap.kind, wrap.key_id) != (KIND, self.arn):
            raise ValueError(f"a wrap for {wrap.kind} {wrap.key_id} cannot be rewrapped by {self.arn}")
        envelope = _envelope(wrap)
        source = {"SourceKeyId": self.arn, "SourceEncryptionContext": _bound(context)}
        target = {"DestinationKeyId": self.arn, "DestinationEncryptionContext": _bound(context)}
        algorithms = {"SourceEncryptionAlgorithm": _ALGORITHM, "DestinationEncryptionAlgorithm": _ALGORITHM}
        request = {"CiphertextBlob": envelope.wrapped_key, **source, **target, **algorithms}
        renewed = self._of_this_key(self._ask("re_encrypt", request), "CiphertextBlob", "SourceKeyId", "KeyId")
        return Wrap(KIND, self.arn, {}, envelope.renewed(renewed).encode())

    def _ask(self, operation: Literal["encrypt", "decrypt", "re_encrypt"], request: dict[str, Any]) -> dict[str, Any]:
        return ask(lambda: self._ask_once(operation, request), self.limits)

    def _ask_once(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        client = self._client
        from botocore import exceptions, parsers

        try:
            with quiet("botocore"):
                answer: dict[str, Any] = getattr(client, operation)(**request)
        except exceptions.ClientError as error:
            raise self._refusal(operation, error.response) from None
        except (
            exceptions.NoCredentialsError,
            exceptions.PartialCredentialsError,
            exceptions.CredentialRetrievalError,
            exceptions.SSOError,
            exceptions.TokenRetrievalError,
        ) as error:
            raise self._no_credentials(type(error).__name__) from None
        except (exceptions.BotoCoreError, parsers.ResponseParserError, AttributeError, TypeError, ValueError) as error:
            # the last three: botocore itself, on answers of another shape
            raise unavailable(_SERVICE, self.arn, type(error).__name__) from None
        return answer

    def _refusal(self, operation: str, response: dict[str, Any]) -> PalladionError:
        code = str(response.get("Error", {}).get("Code"))
        if code in _TRANSIENT or not 400 <= response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) < 500:
            return unavailable(_SERVICE, self.arn, code)
        hint = _HINTS.get(code, "check the credentials (`aws sts get-caller-identity`) and the key's state")
        return refused(_SERVICE, operation.replace("_", "-"), self.arn, code, hint)

    def _no_credentials(self, code: str) -> KeysError:
        return KeysError(
            f"no credentials for {_SERVICE} with {self.arn}: {code}",
            "give this process a role, or set AWS_PROFILE; boto3 looks for them, and Palladion keeps none",
        )

    def _of_this_key(self, answer: dict[str, Any], name: str, *key_names: str) -> bytes:
        """The field `name` of an answer that says it used this key."""
        value = answer.get(name)
        if not isinstance(value, bytes):
            raise unavailable(_SERVICE, self.arn, f"no-{name}")
        if any(answer.get(key_name) != self.arn for key_name in key_names):
            raise KeysError(f"{_SERVICE} used another key than {self.arn}")
        return value

    @cached_property
    def _client(self) -> Any:
        try:
            import boto3.session
            from botocore import exceptions
            from botocore.config import Config
        except ImportError:
            raise MissingExtraError(f"{_SERVICE} needs boto3", "pip install 'palladion[aws]'") from None
        config = Config(
            connect_timeout=self.limits.connect_seconds,
            read_timeout=self.limits.read_seconds,
            retries={"total_max_attempts": 1},  # the attempts are counted by `ask`
        )
        try:
            # a session of its own: the default one is not safe to share between threads
            session = boto3.session.Session(region_name=self.arn.split(":")[3])
            client = session.client("kms", config=config, endpoint_url=self.endpoint)
        except (exceptions.BotoCoreError, ValueError) as error:
            raise KeysError(
                f"boto3 cannot be set up for {self.arn}: {type(error).__name__}",
                "check AWS_PROFILE, AWS_ENDPOINT_URL and the files in ~/.aws",
            ) from None
        endpoint = client.meta.endpoint_url  # it may come from AWS_ENDPOINT_URL or a profile
        if not is_confidential(endpoint):
            raise KeysError(f"the endpoint set for {_SERVICE} is not https: keys would travel in the clear")
        if endpoint.startswith("http:"):
            # HTTP_PROXY would carry what is meant for this machine to another one, in the clear
            return session.client("kms", config=config.merge(Config(proxies={})), endpoint_url=endpoint)
        return client


def parse(text: str) -> AwsKmsKey:
    """The key of a text `awskms:arn:aws:kms:REGION:ACCOUNT:key/ID`. Raises FormatError."""
    try:
        return AwsKmsKey(text.removeprefix(PREFIX) if text.startswith(PREFIX) else "")
    except ValueError as error:
        raise FormatError(f"the recipient {PREFIX}… is {error}") from None


def _bound(context: bytes) -> dict[str, str]:
    # CloudTrail shows it in the clear: a hash says which file was opened to whoever has that file
    return {CONTEXT_NAME: sha256(context).hexdigest()}


def _envelope(wrap: Wrap) -> Envelope:
    if wrap.parameters:
        raise FormatError(f"an {KIND} wrap has parameters, and none are defined")
    return Envelope.decode(wrap.blob, kind=KIND)
