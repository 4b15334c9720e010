"""A double of Azure Key Vault: get and unwrapKey of an RSA key with versions, states, roles and bearer challenges."""

import base64
import re
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import RequestsTransport
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256

from tests.seal.recipients.doubles.loopback import Answer, Loopback, Request
from tests.seal.recipients.doubles.service import Double

_PATH = re.compile(r"/keys/(?P<name>[a-z]+)/(?P<version>[0-9a-f]{32})?(?P<action>/unwrapkey)?")
_PADDING = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)
_CHALLENGE = (
    'Bearer authorization="https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000", resource="{}"'
)

_FIRST = rsa.generate_private_key(public_exponent=65537, key_size=2048)  # made once: it takes a tenth of a second


class AzureDouble(Double):
    VAULT = "https://acme-models.vault.azure.net"
    KEY = f"{VAULT}/keys/models"
    TOKEN = "eyJ0.a-token-that-nobody-may-see"
    ENCRYPT = "get"
    DECRYPT = "unwrapKey"

    def reset(self) -> None:
        super().reset()
        self.rsa: dict[str, rsa.RSAPrivateKey] = {}
        self.rsa_disabled: set[str] = set()
        self.attributes: dict[str, Any] = {}
        self.key_type = "RSA-HSM"
        self.resource = "https://vault.azure.net"
        self.rsa[f"{1:032x}"] = _FIRST
        self.loopback.other_url = "https://elsewhere.vault.azure.net"  # azure-core follows none to http://

    @property
    def newest(self) -> str:
        return list(self.rsa)[-1]

    def rotate(self, *, bits: int = 2048) -> str:
        version = f"{len(self.rsa) + 1:032x}"
        self.rsa[version] = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        return version

    def disable(self) -> None:
        self.rsa_disabled.update(self.rsa)

    def transport(self) -> "LoopbackTransport":
        return LoopbackTransport(self.loopback)

    def credential(self) -> "Credential":
        return Credential(self.TOKEN)

    def respond(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {self.TOKEN}":
            return Answer(401, {}, {"WWW-Authenticate": _CHALLENGE.format(self.resource)})
        found = _PATH.fullmatch(request.path)
        action = {("GET", None): "get", ("POST", "/unwrapkey"): "unwrapKey"}.get(
            (request.method, found and found["action"])
        )
        if not found or action is None or set(request.query) != {"api-version"}:
            return _error(404, "NotFound")
        self.actions.append(action)
        if action in self.forbidden:
            return _error(403, "Forbidden", "ForbiddenByRbac")
        version = found["version"] or self.newest
        if found["name"] != "models" or version not in self.rsa:
            return _error(404, "KeyNotFound")
        if action == "get":
            return self._get(version)
        return self._unwrap(version, request.body)

    def _get(self, version: str) -> Answer:
        numbers = self.rsa[version].public_key().public_numbers()
        size = self.rsa[version].key_size // 8
        kid = f"{self.claims_key or self.KEY}/{version}"
        jwk = {"kid": kid, "kty": self.key_type, "key_ops": ["wrapKey", "unwrapKey"]}
        jwk |= {"n": _text(numbers.n.to_bytes(size)), "e": _text(numbers.e.to_bytes(3))}
        # the vault answers `get` for a disabled version too: whoever asks has to look
        attributes = {"enabled": version not in self.rsa_disabled, **self.attributes}
        return Answer(200, {"key": jwk, "attributes": attributes})

    def _unwrap(self, version: str, body: dict[str, Any]) -> Answer:
        if set(body) != {"alg", "value"} or body["alg"] != "RSA-OAEP-256":
            return _error(400, "BadParameter")
        if version in self.rsa_disabled:
            return _error(403, "Forbidden", "KeyDisabled")
        try:
            plaintext = self.rsa[version].decrypt(base64.urlsafe_b64decode(body["value"] + "=="), _PADDING)
        except ValueError:
            return _error(400, "BadParameter")
        return Answer(200, {"kid": f"{self.claims_key or self.KEY}/{version}", "value": _text(self.seen(plaintext))})


class LoopbackTransport(RequestsTransport):  # type: ignore[misc]
    """Sends what is for the vault to the double: azure-core insists on https, and on the vault's own domain."""

    def __init__(self, loopback: Loopback) -> None:
        super().__init__()
        self._loopback = loopback

    def send(self, request: Any, **options: Any) -> Any:
        url = request.url
        parts = urlsplit(url)
        if parts.scheme == "https" and parts.netloc.endswith(".vault.azure.net"):
            request.url = urlunsplit(("http", f"127.0.0.1:{self._loopback.port}", *parts[2:]))
        try:
            return super().send(request, **options)
        finally:
            request.url = url


class Credential:
    """A credential that asks nobody."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken(self._token, int(time.time()) + 3600)


def seconds(moment: datetime) -> int:
    """A moment as Key Vault writes it."""
    return int(moment.astimezone(UTC).timestamp())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _error(status: int, code: str, inner: str = "") -> Answer:
    error: dict[str, Any] = {"code": code, "message": "Caller: appid=somebody is told why"}
    if inner:
        error["innererror"] = {"code": inner}
    return Answer(status, {"error": error})
