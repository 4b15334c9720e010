"""Wrapping to an RSA key in Azure Key Vault or Managed HSM: `azurekv:https://…/keys/NAME` (docs/format.md §7).

Credentials are those that azure-identity finds; none are kept here.
"""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from palladion.clock import Clock, SystemClock
from palladion.errors import FormatError, KeysError, MissingExtraError, PalladionError
from palladion.keys import Wrap
from palladion.seal.recipients.envelope import LIMITS, Envelope, Limits, ask, quiet, refused, unavailable

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.core.pipeline.transport import HttpTransport
    from azure.keyvault.keys import KeyClient, KeyVaultKey

KIND = "azure-kv"
PREFIX = "azurekv:"
_SERVICE = "Azure Key Vault"
_ALGORITHM = "RSA-OAEP-256"
_RSA_BYTES = (256, 384, 512)  # what Key Vault makes: 2048, 3072 and 4096 bits
_EXPONENT = 65537
# Microsoft's own domains only: whoever has a token asked for at a stranger's host would hand it to him
_KEY = re.compile(
    r"(?P<key_id>(?P<vault>https://[a-z0-9][a-z0-9-]{1,23}"
    r"\.(?:vault\.azure\.net|vault\.azure\.cn|vault\.usgovcloudapi\.net|managedhsm\.azure\.net))"
    r"/keys/(?P<name>[A-Za-z0-9-]{1,127}))(?:/(?P<version>[0-9a-f]{32}))?"
)
_VERSION = re.compile(r"[0-9a-f]{32}")
_HINTS = {
    "BadParameter": "the wrap is damaged",
    "Forbidden": "grant `get` for sealing or `unwrapKey` for opening, and see that the vault's firewall allows it",
    "KeyDisabled": "somebody disabled this version of the key: if that was not on purpose, enable it",
    "KeyNotFound": "the key does not exist; a deleted one may still be recovered (`az keyvault key recover`)",
}


@dataclass(frozen=True)
class AzureKey:
    """An RSA key in Azure Key Vault, by its URL with or without a version. `str()` gives its text form.

    It wraps here, with the public key that the vault states, and unwraps in the vault. With a version it is that
    version alone; without one it wraps to the newest and unwraps with whichever the wrap names. `credential` and
    `transport` replace those of azure-identity and azure-core. Raises ValueError on any other URL.
    """

    url: str
    limits: Limits = LIMITS
    clock: Clock = field(default_factory=SystemClock, repr=False, compare=False)
    credential: "TokenCredential | None" = field(default=None, repr=False, compare=False)
    transport: "HttpTransport[Any, Any] | None" = field(default=None, repr=False, compare=False)

    kind = KIND

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.url):
            raise ValueError(
                "not the URL of a key in Azure Key Vault, https://VAULT.vault.azure.net/keys/NAME[/VERSION]"
            )

    @property
    def key_id(self) -> str:
        """The key's URL without a version: it stays when the key is rotated."""
        return self._part("key_id")

    def __str__(self) -> str:
        return PREFIX + self.url

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`, to the key's newest version or the one that the URL names.

        Raises KeysError if the vault refuses or the key must not be used, StorageError if it does not answer.
        """
        key = ask(self._fetch, self.limits)
        public = self._public_numbers(key)
        padding = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)
        envelope = Envelope.enclose(secret, context, lambda fresh: public.public_key().encrypt(fresh, padding))
        return Wrap(KIND, self.key_id, {"version": str(key.properties.version)}, envelope.encode())

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is for another key or another version than the URL names.

        Raises KeysError if the vault refuses or the wrap does not open, StorageError if it does not answer.
        """
        if (wrap.kind, wrap.key_id) != (KIND, self.key_id):
            return None
        version = wrap.parameters.get("version")
        if len(wrap.parameters) != 1 or not isinstance(version, str) or not _VERSION.fullmatch(version):
            raise FormatError(f"an {KIND} wrap has other parameters than the version of its key, 32 hex digits")
        if self._part("version") not in ("", version):
            return None
        envelope = Envelope.decode(wrap.blob, kind=KIND)
        if len(envelope.wrapped_key) not in _RSA_BYTES:
            raise FormatError(f"an {KIND} wrap has an RSA ciphertext of {len(envelope.wrapped_key)} bytes")
        key = ask(lambda: self._unwrap_key(version, envelope.wrapped_key), self.limits)
        return envelope.open(key, context, key_id=self.key_id)

    def _fetch(self) -> "KeyVaultKey":
        client = self._client
        with self._errors("get"):
            return client.get_key(self._part("name"), self._part("version") or None, **self._options)

    def _public_numbers(self, key: "KeyVaultKey") -> RSAPublicNumbers:
        """The public key of an answer that may be sealed to. Raises KeysError on any other."""
        attributes, now = key.properties, self.clock.now()
        if str(key.id).lower() != f"{self.key_id}/{attributes.version}".lower() or not _VERSION.fullmatch(
            str(attributes.version)
        ):
            raise KeysError(f"{_SERVICE} answered with another key than {self.key_id}")
        if attributes.version != (self._part("version") or attributes.version):
            raise KeysError(f"{_SERVICE} answered with another version of {self.key_id}")
        if attributes.enabled is not True:
            raise refused(_SERVICE, "wrap", self.key_id, "KeyDisabled", _HINTS["KeyDisabled"])
        if (attributes.not_before and now < attributes.not_before) or (
            attributes.expires_on and now >= attributes.expires_on
        ):
            raise KeysError(
                f"{self.key_id} may not be sealed to: its time has not come or is over",
                "rotate the key, or change its activation and expiration dates",
            )
        jwk: Any = key.key
        modulus, exponent = jwk.n or b"", jwk.e or b""
        if (
            key.key_type not in ("RSA", "RSA-HSM")
            or len(modulus) not in _RSA_BYTES
            or int.from_bytes(exponent) != _EXPONENT
        ):
            raise KeysError(
                f"{self.key_id} is no RSA key of 2048, 3072 or 4096 bits",
                "make one: az keyvault key create --kty RSA-HSM --size 3072",
            )
        return RSAPublicNumbers(_EXPONENT, int.from_bytes(modulus))

    def _unwrap_key(self, version: str, wrapped_key: bytes) -> bytes:
        client = self._client
        from azure.core.rest import HttpRequest

        # not CryptographyClient: it asks for the public key first, which opening needs no permission for
        request = HttpRequest(
            "POST",
            f"{self.key_id}/{version}/unwrapkey",
            json={"alg": _ALGORITHM, "value": base64.urlsafe_b64encode(wrapped_key).rstrip(b"=").decode()},
        )
        with self._errors("unwrap"):
            response = client.send_request(request, **self._options)
            if response.status_code != 200:
                raise self._refusal("unwrap", response.status_code, response)
            answer = response.json()
            if not isinstance(answer, dict) or not isinstance(answer.get("value"), str):
                raise unavailable(_SERVICE, self.key_id, "no-value")
            if str(answer.get("kid")).lower() != f"{self.key_id}/{version}".lower():
                raise KeysError(f"{_SERVICE} used another key than {self.key_id}, version {version}")
            return base64.b64decode(answer["value"] + "=" * (-len(answer["value"]) % 4), altchars=b"-_", validate=True)

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        from azure.core import exceptions

        try:
            with quiet("azure"):
                yield
        except exceptions.ClientAuthenticationError as error:
            raise self._no_credentials(type(error).__name__) from None
        except exceptions.HttpResponseError as error:
            if error.status_code is None:
                raise unavailable(_SERVICE, self.key_id, type(error).__name__) from None
            raise self._refusal(action, error.status_code, error.response) from None
        except (exceptions.AzureError, AttributeError, LookupError, TypeError, ValueError) as error:
            # the last four: azure-keyvault-keys itself, on answers of another shape
            raise unavailable(_SERVICE, self.key_id, type(error).__name__) from None

    def _refusal(self, action: str, status: int, response: Any) -> PalladionError:
        try:
            error = response.json()["error"]
            code = str((error.get("innererror") or {}).get("code") or error["code"])
        except (ValueError, LookupError, TypeError, AttributeError):
            code = f"HTTP-{status}"
        if status == 429 or status >= 500 or status < 400:
            return unavailable(_SERVICE, self.key_id, code)
        hint = _HINTS.get(code) or (
            _HINTS["Forbidden"] if status == 403 else "check the credentials and the key's state"
        )
        return refused(_SERVICE, action, self.key_id, code, hint)

    @property
    def _options(self) -> dict[str, Any]:
        # the attempts are counted by `ask`; a redirect could lead the token elsewhere
        limits = {"connection_timeout": self.limits.connect_seconds, "read_timeout": self.limits.read_seconds}
        return {**limits, "retry_total": 0, "permit_redirects": False}

    @cached_property
    def _client(self) -> "KeyClient":
        try:
            from azure.identity import DefaultAzureCredential
            from azure.keyvault.keys import KeyClient
        except ImportError:
            raise MissingExtraError(
                f"{_SERVICE} needs azure-keyvault-keys and azure-identity", "pip install 'palladion[azure]'"
            ) from None
        try:
            credential = self.credential or DefaultAzureCredential()
        except ValueError as error:
            raise self._no_credentials(type(error).__name__) from None
        return KeyClient(
            self._part("vault"), credential, **({} if self.transport is None else {"transport": self.transport})
        )

    def _no_credentials(self, code: str) -> KeysError:
        return KeysError(
            f"no credentials for {_SERVICE} with {self.key_id}: {code}",
            "give this host a managed identity, or `az login`; Palladion keeps none",
        )

    def _part(self, name: str) -> str:
        found = _KEY.fullmatch(self.url)
        return (found[name] or "") if found else ""


def parse(text: str) -> AzureKey:
    """The key of a text `azurekv:https://VAULT.vault.azure.net/keys/NAME[/VERSION]`. Raises FormatError."""
    try:
        return AzureKey(text.removeprefix(PREFIX) if text.startswith(PREFIX) else "")
    except ValueError as error:
        raise FormatError(f"the recipient {PREFIX}… is {error}") from None
