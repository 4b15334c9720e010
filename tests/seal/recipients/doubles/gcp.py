"""A double of Google Cloud KMS over REST: encrypt and decrypt with version states, roles, and checksums both ways."""

import base64
import functools
import re
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud.kms_v1 import KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceRestTransport

from palladion.seal.recipients.gcp import crc32c
from tests.seal.recipients.doubles.loopback import Answer, Request
from tests.seal.recipients.doubles.service import Double, ServiceKey

_PATH = re.compile(
    r"/v1/(?P<name>projects/[a-z-]+/locations/[a-z0-9-]+/keyRings/[a-z]+/cryptoKeys/[a-z]+):(?P<action>[a-z]+)"
)
_CONTEXT_FIELDS = {"additionalAuthenticatedData", "additionalAuthenticatedDataCrc32c"}
_FIELDS = {
    "encrypt": {"plaintext", "plaintextCrc32c", *_CONTEXT_FIELDS},
    "decrypt": {"ciphertext", "ciphertextCrc32c", *_CONTEXT_FIELDS},
}


class GcpDouble(Double):
    KEY = "projects/acme-models/locations/europe-west3/keyRings/seal/cryptoKeys/models"

    def reset(self) -> None:
        super().reset()
        self.keys[f"{self.KEY}two"] = ServiceKey()
        self.wrong_checksums = False
        self.ignores_checksums = False

    @functools.cache  # noqa: B019 - a double lives as long as its tests
    def client(self) -> KeyManagementServiceClient:
        anonymous: Any = AnonymousCredentials
        transport = KeyManagementServiceRestTransport(
            host=f"127.0.0.1:{self.loopback.port}", url_scheme="http", credentials=anonymous()
        )
        return KeyManagementServiceClient(transport=transport)

    def respond(self, request: Request) -> Answer:
        found = _PATH.fullmatch(request.path)
        if request.method != "POST" or not found or found["action"] not in _FIELDS:
            return _error(404, "NOT_FOUND")
        if set(request.body) - {"name"} != _FIELDS[found["action"]] or set(request.query) != {"$alt"}:
            return _error(400, "INVALID_ARGUMENT")
        self.actions.append(found["action"])
        if found["action"] in self.forbidden:
            return _error(403, "PERMISSION_DENIED")
        key = self.keys.get(found["name"])
        if key is None:
            return _error(404, "NOT_FOUND")
        data = base64.b64decode(request.body["additionalAuthenticatedData"])
        if crc32c(data) != int(request.body["additionalAuthenticatedDataCrc32c"]):
            return _error(400, "INVALID_ARGUMENT")
        data = b"" if self.ignores_context else data
        if found["action"] == "encrypt":
            return self._encrypt(found["name"], key, request.body, data)
        return self._decrypt(key, request.body, data)

    def _encrypt(self, name: str, key: ServiceKey, body: dict[str, Any], data: bytes) -> Answer:
        plaintext = base64.b64decode(body["plaintext"])
        if crc32c(plaintext) != int(body["plaintextCrc32c"]):
            return _error(400, "INVALID_ARGUMENT")
        if key.newest in key.disabled:
            return _error(400, "FAILED_PRECONDITION")
        self.plaintexts.append(plaintext)
        ciphertext = key.newest.to_bytes(1) + key.encrypt(key.newest, plaintext, data)
        answer = {
            "name": f"{self.claims_key or name}/cryptoKeyVersions/{key.newest}",
            "ciphertext": base64.b64encode(ciphertext).decode(),
            "ciphertextCrc32c": self._checksum(ciphertext),
            "protectionLevel": "HSM",
        }
        verified = {"verifiedPlaintextCrc32c": True, "verifiedAdditionalAuthenticatedDataCrc32c": True}
        return Answer(200, answer if self.ignores_checksums else answer | verified)

    def _decrypt(self, key: ServiceKey, body: dict[str, Any], data: bytes) -> Answer:
        ciphertext = base64.b64decode(body["ciphertext"])
        if crc32c(ciphertext) != int(body["ciphertextCrc32c"]) or not 1 <= ciphertext[0] <= key.newest:
            return _error(400, "INVALID_ARGUMENT")
        if ciphertext[0] in key.disabled:
            return _error(400, "FAILED_PRECONDITION")
        plaintext = key.decrypt(ciphertext[0], ciphertext[1:], data)
        if plaintext is None:
            return _error(400, "INVALID_ARGUMENT")
        shown = self.seen(plaintext)
        answer = {"plaintext": base64.b64encode(shown).decode(), "plaintextCrc32c": self._checksum(shown)}
        return Answer(200, answer | {"usedPrimary": ciphertext[0] == key.newest, "protectionLevel": "HSM"})

    def _checksum(self, data: bytes) -> str:
        return str(crc32c(data) ^ self.wrong_checksums)


def _error(code: int, status: str) -> Answer:
    return Answer(code, {"error": {"code": code, "status": status, "message": "somebody@acme-models is told why"}})
