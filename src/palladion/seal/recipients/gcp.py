"""Wrapping to a symmetric key in Google Cloud KMS: `gcpkms:projects/…/cryptoKeys/…` (docs/format.md §7).

Credentials are Google's Application Default Credentials; none are kept here.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from palladion.errors import FormatError, KeysError, MissingExtraError
from palladion.keys import Wrap
from palladion.seal.recipients.envelope import LIMITS, Envelope, Limits, ask, quiet, refused, unavailable

if TYPE_CHECKING:
    from google.cloud.kms_v1 import KeyManagementServiceClient

KIND = "gcp-kms"
PREFIX = "gcpkms:"
_SERVICE = "Google Cloud KMS"
_KEY_ID_CHARACTERS_MAX = 256  # docs/format.md §7
# A key, not one of its versions: KMS encrypts with the primary version, and finds the right one to decrypt.
_NAME = re.compile(
    r"projects/[a-z0-9][a-z0-9.:-]{0,99}/locations/[a-z0-9-]{1,63}/"
    r"keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}"
)
_HINTS = {
    "FAILED_PRECONDITION": "the key version is disabled or destroyed: `gcloud kms keys versions list` says which",
    "INVALID_ARGUMENT": "the wrap is damaged, or moved here from another file",
    "NOT_FOUND": "the key does not exist in this project and location",
    "PERMISSION_DENIED": "grant this account the role for encrypting or for decrypting; docs/keys.md has both",
    "UNAUTHENTICATED": "the credentials are not accepted: sign in again, or check the service account",
}


@dataclass(frozen=True)
class GcpKmsKey:
    """A key in Google Cloud KMS: wraps with its primary version. `str()` gives its text form.

    `client` replaces the one that Google's own configuration gives. Raises ValueError on anything but the resource
    name of a key.
    """

    name: str
    limits: Limits = LIMITS
    client: "KeyManagementServiceClient | None" = field(default=None, repr=False, compare=False)

    kind = KIND

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > _KEY_ID_CHARACTERS_MAX:
            raise ValueError(
                "not the name of a key in Google Cloud KMS, projects/P/locations/L/keyRings/R/cryptoKeys/K; "
                "no version is taken"
            )

    @property
    def key_id(self) -> str:
        """The key's resource name."""
        return self.name

    def __str__(self) -> str:
        return PREFIX + self.name

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`. Raises KeysError if refused, StorageError if there is no answer."""
        envelope = Envelope.enclose(secret, context, lambda key: ask(lambda: self._encrypt(key, context), self.limits))
        return Wrap(KIND, self.name, {}, envelope.encode())

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is for another key.

        Raises KeysError if KMS refuses or the wrap does not open, StorageError if KMS does not answer.
        """
        if (wrap.kind, wrap.key_id) != (KIND, self.name):
            return None
        if wrap.parameters:
            raise FormatError(f"a {KIND} wrap has parameters, and none are defined")
        envelope = Envelope.decode(wrap.blob, kind=KIND)
        key = ask(lambda: self._decrypt(envelope.wrapped_key, context), self.limits)
        return envelope.open(key, context, key_id=self.name)

    def _encrypt(self, key: bytes, context: bytes) -> bytes:
        request = {"plaintext": key, "plaintext_crc32c": crc32c(key)}
        answer = self._ask("encrypt", request, context)
        if not (answer.verified_plaintext_crc32c and answer.verified_additional_authenticated_data_crc32c):
            raise unavailable(_SERVICE, self.name, "request-damaged-on-the-way")
        if answer.ciphertext_crc32c != crc32c(answer.ciphertext) or not answer.ciphertext:
            raise unavailable(_SERVICE, self.name, "answer-damaged-on-the-way")
        if not re.fullmatch(re.escape(self.name) + "/cryptoKeyVersions/[0-9]+", answer.name):
            raise KeysError(f"{_SERVICE} used another key than {self.name}")
        return bytes(answer.ciphertext)

    def _decrypt(self, wrapped_key: bytes, context: bytes) -> bytes:
        request = {"ciphertext": wrapped_key, "ciphertext_crc32c": crc32c(wrapped_key)}
        answer = self._ask("decrypt", request, context)
        if answer.plaintext_crc32c != crc32c(answer.plaintext):
            raise unavailable(_SERVICE, self.name, "answer-damaged-on-the-way")
        return bytes(answer.plaintext)

    def _ask(self, operation: str, request: dict[str, Any], context: bytes) -> Any:
        client = self._client
        import requests
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.protobuf.json_format import ParseError

        data = sha256(context).digest()
        bound = {"additional_authenticated_data": data, "additional_authenticated_data_crc32c": crc32c(data)}
        try:
            with quiet("google"):
                # no retries: the attempts are counted by `ask`
                return getattr(client, operation)(
                    request={"name": self.name, **request, **bound}, retry=None, timeout=self.limits.read_seconds
                )
        except (exceptions.TooManyRequests, exceptions.ServerError, exceptions.RetryError) as error:
            raise unavailable(_SERVICE, self.name, type(error).__name__) from None
        except exceptions.GoogleAPICallError as error:
            code = _status(error.response)
            hint = _HINTS.get(code, "check the credentials and the key's state")
            raise refused(_SERVICE, operation, self.name, code, hint) from None
        except (TransportError, requests.RequestException, ParseError, AttributeError, TypeError, ValueError) as error:
            # the last three: google-api-core itself, on answers of another shape
            raise unavailable(_SERVICE, self.name, type(error).__name__) from None
        except GoogleAuthError as error:
            raise _no_credentials(self.name, type(error).__name__) from None

    @cached_property
    def _client(self) -> "KeyManagementServiceClient":
        if self.client is not None:
            return self.client
        try:
            from google.auth.exceptions import GoogleAuthError
            from google.cloud.kms_v1 import KeyManagementServiceClient
        except ImportError:
            raise MissingExtraError(f"{_SERVICE} needs google-cloud-kms", "pip install 'palladion[gcp]'") from None
        try:
            # not gRPC: its threads do not survive the fork that starts an engine
            return KeyManagementServiceClient(transport="rest")
        except GoogleAuthError as error:
            raise _no_credentials(self.name, type(error).__name__) from None


def parse(text: str) -> GcpKmsKey:
    """The key of a text `gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K`. Raises FormatError."""
    try:
        return GcpKmsKey(text.removeprefix(PREFIX) if text.startswith(PREFIX) else "")
    except ValueError as error:
        raise FormatError(f"the recipient {PREFIX}… is {error}") from None


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli, RFC 3720 §B.4) of a few hundred bytes, bit by bit: no table, and no package for it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _status(response: Any) -> str:
    """Google's own name for an error: over REST, one HTTP status stands for several."""
    try:
        return str(response.json()["error"]["status"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return ""


def _no_credentials(name: str, code: str) -> KeysError:
    return KeysError(
        f"no credentials for {_SERVICE} with {name}: {code}",
        "attach a service account, or `gcloud auth application-default login`; Palladion keeps none",
    )
