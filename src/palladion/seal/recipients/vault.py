"""Wrapping to a Transit key of HashiCorp Vault or OpenBao: `vault:https://…/MOUNT/keys/NAME` (docs/format.md §7).

The token is the one that hvac finds (VAULT_TOKEN, ~/.vault-token) at the moment of each call; none is kept here.
"""

import base64
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

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

KIND = "vault-transit"
PREFIX = "vault:"
_SERVICE = "Vault"
_KEY_ID_CHARACTERS_MAX = 256  # docs/format.md §7
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9_])?"
_KEY = re.compile(
    r"(?P<address>https?://(?:\[[0-9a-f:]{2,39}\]|[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?::[1-9][0-9]{0,4})?)"
    rf"/(?P<mount>{_NAME}(?:/{_NAME}){{0,7}})/keys/(?P<name>{_NAME})"
)
_CIPHERTEXT = re.compile(rb"vault:v([1-9][0-9]{0,8}):[A-Za-z0-9+/]+={0,2}")
_POLICY = (
    "the token is missing or has expired, or its policy lacks `update` on this path; docs/keys.md has both policies"
)
_STATUS_HINTS = {
    400: "check that the key exists and that encryption and decryption are allowed with it",
    401: _POLICY,
    403: _POLICY,
    404: "no such key or mount here: check the path, and the namespace (VAULT_NAMESPACE)",
}
# What Transit says in `errors` decides, not the status: a failed authentication is 400 or 500, depending on the call
# and the release (hashicorp/vault issue 10842).
_REASONS = {
    "message authentication failed": ("another-context", "the wrap is damaged, or moved here from another file"),
    "invalid ciphertext": ("invalid-ciphertext", "the wrap is damaged"),
    "disallowed by policy (too old)": (
        "version-too-old",
        "lower min_decryption_version, and rewrap the files before it is raised again",
    ),
    "encryption key not found": ("no-such-key", "the key was deleted, or it is in another namespace or mount"),
}


@dataclass(frozen=True)
class VaultKey:
    """A Transit key, by the URL `https://HOST[:PORT]/MOUNT/keys/NAME`. `str()` gives its text form.

    A namespace is written as the first part of MOUNT, or taken from VAULT_NAMESPACE. Raises ValueError on any other
    URL, and on http:// to another machine.
    """

    url: str
    limits: Limits = LIMITS

    kind = KIND

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.url) or len(self.url) > _KEY_ID_CHARACTERS_MAX or not _has_port(self.url):
            raise ValueError("not the URL of a Transit key, https://HOST[:PORT]/MOUNT/keys/NAME")
        if not is_confidential(self.url):
            raise ValueError("an http:// URL to another machine: keys would travel in the clear")

    @property
    def key_id(self) -> str:
        """The key's URL."""
        return self.url

    def __str__(self) -> str:
        return PREFIX + self.url

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`. Raises KeysError if refused, StorageError if there is no answer."""

        def encrypt(key: bytes) -> bytes:
            request = {"plaintext": base64.b64encode(key).decode(), "context": _bound(context)}
            return self._ciphertext(self._ask("encrypt_data", request, "ciphertext"))

        return Wrap(KIND, self.url, {}, Envelope.enclose(secret, context, encrypt).encode())

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is for another key.

        Raises KeysError if Vault refuses or the wrap does not open, StorageError if it does not answer.
        """
        if (wrap.kind, wrap.key_id) != (KIND, self.url):
            return None
        envelope = _envelope(wrap)
        request = {"ciphertext": envelope.wrapped_key.decode("ascii"), "context": _bound(context)}
        plaintext = self._ask("decrypt_data", request, "plaintext")
        try:
            key = base64.b64decode(plaintext, validate=True)
        except ValueError:
            raise unavailable(_SERVICE, self.url, "plaintext-not-base64") from None
        return envelope.open(key, context, key_id=self.url)

    def rewrapped(self, wrap: Wrap, context: bytes) -> Wrap:
        """The wrap under the key's newest version, changed inside Vault (`update` on MOUNT/rewrap/NAME).

        Whether it opens is not known before somebody unwraps it. Raises ValueError if the wrap is for another key,
        else as `unwrap` does.
        """
        if (wrap.kind, wrap.key_id) != (KIND, self.url):
            raise ValueError(f"a wrap for {wrap.kind} {wrap.key_id} cannot be rewrapped by {self.url}")
        envelope = _envelope(wrap)
        request = {"ciphertext": envelope.wrapped_key.decode("ascii"), "context": _bound(context)}
        renewed = self._ciphertext(self._ask("rewrap_data", request, "ciphertext"))
        if _version(renewed) < _version(envelope.wrapped_key):
            raise KeysError(f"{_SERVICE} rewrapped to an older version of {self.url} than the wrap had")
        return Wrap(KIND, self.url, {}, envelope.renewed(renewed).encode())

    def _ask(self, operation: str, request: dict[str, str], name: str) -> str:
        return ask(lambda: self._ask_once(operation, request, name), self.limits)

    def _ask_once(self, operation: str, request: dict[str, str], name: str) -> str:
        try:
            import hvac
        except ImportError:
            raise MissingExtraError(f"{_SERVICE} needs hvac", "pip install 'palladion[vault]'") from None
        from requests import RequestException

        client = self._client(hvac)
        try:
            with quiet("hvac"):
                call = getattr(client.secrets.transit, operation)
                response = call(name=self._part("name"), mount_point=self._part("mount"), **request)
            answer: Any = response.json()
        except (RequestException, ValueError) as error:
            raise unavailable(_SERVICE, self.url, type(error).__name__) from None
        finally:
            client.adapter.close()
        if response.status_code != 200:
            raise self._refusal(operation.removesuffix("_data"), response.status_code, answer)
        data = answer.get("data") if isinstance(answer, dict) else None
        value = data.get(name) if isinstance(data, dict) else None
        if not isinstance(value, str):
            raise unavailable(_SERVICE, self.url, f"no-{name}")
        return value

    def _client(self, hvac: Any) -> Any:
        """A client for one call: a token that an agent has renewed since the last one is then the one used."""
        address = self._part("address")
        try:
            return hvac.Client(
                url=address,
                timeout=(self.limits.connect_seconds, self.limits.read_seconds),
                # HTTP_PROXY would carry what is meant for this machine to another one, in the clear
                proxies={"no_proxy": urlsplit(address).hostname} if address.startswith("http:") else None,
                allow_redirects=False,  # the token is in a header that requests would hand on to any other host
                namespace=os.environ.get("VAULT_NAMESPACE"),
                adapter=hvac.adapters.RawAdapter,
                ignore_exceptions=True,  # they quote what the server says, whatever that is
            )
        except (OSError, ValueError) as error:
            raise KeysError(
                f"the token for {self.url} cannot be read: {type(error).__name__}",
                "hvac looks in VAULT_TOKEN, then in ~/.vault-token",
            ) from None

    def _part(self, name: str) -> str:
        found = _KEY.fullmatch(self.url)
        return found[name] if found else ""

    def _refusal(self, action: str, status: int, answer: Any) -> PalladionError:
        said = str(answer.get("errors")) if isinstance(answer, dict) else ""
        for phrase, (word, hint) in _REASONS.items():
            if phrase in said:
                return refused(_SERVICE, action, self.url, word, hint)
        if status in _STATUS_HINTS:
            return refused(_SERVICE, action, self.url, f"HTTP-{status}", _STATUS_HINTS[status])
        return unavailable(_SERVICE, self.url, f"HTTP-{status}")

    def _ciphertext(self, text: str) -> bytes:
        ciphertext = text.encode()
        if not _CIPHERTEXT.fullmatch(ciphertext):
            raise unavailable(_SERVICE, self.url, "ciphertext-of-another-form")
        return ciphertext


def parse(text: str) -> VaultKey:
    """The key of a text `vault:https://HOST[:PORT]/MOUNT/keys/NAME`. Raises FormatError."""
    try:
        return VaultKey(text.removeprefix(PREFIX) if text.startswith(PREFIX) else "")
    except ValueError as error:
        raise FormatError(f"the recipient {PREFIX}… is {error}") from None


def _bound(context: bytes) -> str:
    # Vault derives a key of its own from it where the key is `derived`, and ignores it elsewhere. Not as
    # `associated_data`: Transit's rewrap cannot be given that (hashicorp/vault issue 29532)
    return base64.b64encode(sha256(context).digest()).decode()


def _envelope(wrap: Wrap) -> Envelope:
    if wrap.parameters:
        raise FormatError(f"a {KIND} wrap has parameters, and none are defined")
    envelope = Envelope.decode(wrap.blob, kind=KIND)
    if not _CIPHERTEXT.fullmatch(envelope.wrapped_key):
        raise FormatError(f"a {KIND} wrap holds no Transit ciphertext, vault:vN:…")
    return envelope


def _version(ciphertext: bytes) -> int:
    found = _CIPHERTEXT.fullmatch(ciphertext)
    return int(found[1]) if found else 0


def _has_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
