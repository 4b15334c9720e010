"""A double of Vault's and OpenBao's Transit engine: encrypt, decrypt and rewrap of one derived AES-256-GCM key."""

import base64
import binascii
import re
from typing import Any

from tests.seal.recipients.doubles.loopback import Answer, Request
from tests.seal.recipients.doubles.service import Double, ServiceKey

_PATH = re.compile(r"/v1/(?P<mount>[a-z/]+)/(?P<action>[a-z]+)/(?P<name>[a-z.-]+)")
_FIELDS = {
    "encrypt": {"plaintext", "context"},
    "decrypt": {"ciphertext", "context"},
    "rewrap": {"ciphertext", "context"},
}


class VaultDouble(Double):
    KEY = "palladion"
    MOUNT = "transit"
    TOKEN = "hvs.CAESIJ-a-token-that-nobody-may-see"

    def reset(self) -> None:
        super().reset()
        self.namespace: str | None = None
        self.min_decryption_version = 1
        self.answers_version: int | None = None  # the version that it encrypts with, where that is not the newest
        self.form = "vault:v{}:{}"
        self.keys["other"] = ServiceKey()

    @property
    def text(self) -> str:
        return f"vault:{self.loopback.url}/{self.MOUNT}/keys/{self.KEY}"

    def disable(self) -> None:
        """Transit cannot disable a key; what comes nearest is to delete it."""
        del self.keys[self.KEY]

    def respond(self, request: Request) -> Answer:
        found = _PATH.fullmatch(request.path)
        if request.headers.get("x-vault-request") != "true":
            return _error(412, "required header missing")
        if request.headers.get("x-vault-token") != self.TOKEN:
            return _error(403, "permission denied")
        if request.headers.get("x-vault-namespace") != self.namespace or not found or found["mount"] != self.MOUNT:
            return _error(404, "no handler for route")
        action = found["action"]
        if request.method != "POST" or action not in _FIELDS:
            return _error(405, "unsupported operation")
        # the real one ignores fields that it does not know
        if set(request.body) != _FIELDS[action]:
            return _error(400, "fields of another call")
        self.actions.append(action)
        if action in self.forbidden:
            return _error(403, "1 error occurred:\n\t* permission denied\n\n")
        key = self.keys.get(found["name"])
        if key is None:
            return _error(400, "encryption key not found")
        return self._run(action, key, request.body)

    def _run(self, action: str, key: ServiceKey, body: dict[str, Any]) -> Answer:
        try:
            data = b"" if self.ignores_context else base64.b64decode(body["context"], validate=True)
            if action == "encrypt":
                plaintext = base64.b64decode(body["plaintext"], validate=True)
                self.plaintexts.append(plaintext)
                return self._ciphertext(key, plaintext, data)
            return self._open(action, key, body["ciphertext"], data)
        except (binascii.Error, ValueError):
            return _error(400, "illegal base64 data at input byte 0")

    def _open(self, action: str, key: ServiceKey, ciphertext: str, data: bytes) -> Answer:
        prefix, version, encoded = ciphertext.split(":", 2)
        number = int(version.removeprefix("v"))
        if prefix != "vault":
            return _error(400, "invalid ciphertext: no prefix")
        if number > key.newest:
            return _error(400, "invalid ciphertext: version is too new")
        if number < self.min_decryption_version:
            return _error(400, "ciphertext or signature version is disallowed by policy (too old)")
        plaintext = key.decrypt(number, base64.b64decode(encoded, validate=True), data)
        if plaintext is None:
            return _error(
                400 if action == "decrypt" else 500, "1 error:\n\t* cipher: message authentication failed\n\n"
            )
        if action == "rewrap":
            return self._ciphertext(key, plaintext, data)
        return Answer(200, {"data": {"plaintext": base64.b64encode(self.seen(plaintext)).decode()}})

    def _ciphertext(self, key: ServiceKey, plaintext: bytes, data: bytes) -> Answer:
        version = self.answers_version or key.newest
        encoded = base64.b64encode(key.encrypt(version, plaintext, data)).decode()
        return Answer(200, {"data": {"ciphertext": self.form.format(version, encoded), "key_version": version}})


def _error(status: int, message: str) -> Answer:
    return Answer(status, {"errors": [message]})
