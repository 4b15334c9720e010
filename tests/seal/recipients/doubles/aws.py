"""A double of AWS KMS: Encrypt, Decrypt and ReEncrypt with states, permissions, contexts and pinned keys."""

import base64
import json
from typing import Any

from tests.seal.recipients.doubles.loopback import Answer, Request
from tests.seal.recipients.doubles.service import Double, ServiceKey

ACCOUNT = "arn:aws:kms:eu-central-1:111122223333:key/"
_FIELDS = {
    "Encrypt": {"KeyId", "Plaintext", "EncryptionContext", "EncryptionAlgorithm"},
    "Decrypt": {"KeyId", "CiphertextBlob", "EncryptionContext", "EncryptionAlgorithm"},
    "ReEncrypt": {
        "CiphertextBlob",
        "SourceKeyId",
        "SourceEncryptionContext",
        "SourceEncryptionAlgorithm",
        "DestinationKeyId",
        "DestinationEncryptionContext",
        "DestinationEncryptionAlgorithm",
    },
}


class AwsDouble(Double):
    KEY = f"{ACCOUNT}1234abcd-12ab-34cd-56ef-1234567890ab"
    OTHER = f"{ACCOUNT}mrk-00000000000000000000000000000001"
    ENCRYPT = "Encrypt"
    DECRYPT = "Decrypt"

    def reset(self) -> None:
        super().reset()
        self.keys[self.OTHER] = ServiceKey()
        self.pending_deletion = False

    def respond(self, request: Request) -> Answer:
        action = request.headers.get("x-amz-target", "").removeprefix("TrentService.")
        if (request.method, request.path) != ("POST", "/") or action not in _FIELDS:
            return _error("UnknownOperationException")
        if "/eu-central-1/kms/aws4_request" not in request.headers.get("authorization", ""):
            return _error("MissingAuthenticationTokenException")
        if set(request.body) != _FIELDS[action]:
            return _error("ValidationException")
        self.actions.append(action)
        if action in self.forbidden:
            return _error("AccessDeniedException")
        return {"Encrypt": self._encrypt, "Decrypt": self._decrypt, "ReEncrypt": self._re_encrypt}[action](request.body)

    def _encrypt(self, body: dict[str, Any]) -> Answer:
        plaintext = base64.b64decode(body["Plaintext"])
        refusal = self._refusal(body["KeyId"], body["EncryptionAlgorithm"])
        if refusal:
            return refusal
        self.plaintexts.append(plaintext)
        blob = self._seal(body["KeyId"], plaintext, body["EncryptionContext"])
        return self._used(body["KeyId"], {"CiphertextBlob": _text(blob), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})

    def _decrypt(self, body: dict[str, Any]) -> Answer:
        refusal = self._refusal(body["KeyId"], body["EncryptionAlgorithm"])
        opened = self._open(body["KeyId"], base64.b64decode(body["CiphertextBlob"]), body["EncryptionContext"])
        if refusal is not None:
            return refusal
        if isinstance(opened, Answer):
            return opened
        plaintext = _text(self.seen(opened))
        return self._used(body["KeyId"], {"Plaintext": plaintext, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})

    def _re_encrypt(self, body: dict[str, Any]) -> Answer:
        source, target = body["SourceKeyId"], body["DestinationKeyId"]
        refusal = self._refusal(source, body["SourceEncryptionAlgorithm"]) or self._refusal(
            target, body["DestinationEncryptionAlgorithm"]
        )
        opened = self._open(source, base64.b64decode(body["CiphertextBlob"]), body["SourceEncryptionContext"])
        if refusal is not None:
            return refusal
        if isinstance(opened, Answer):
            return opened
        blob = self._seal(target, opened, body["DestinationEncryptionContext"])
        return self._used(target, {"CiphertextBlob": _text(blob), "SourceKeyId": self.claims_key or source})

    def _refusal(self, key_id: str, algorithm: str) -> Answer | None:
        if key_id not in self.keys:
            return _error("NotFoundException")
        if algorithm != "SYMMETRIC_DEFAULT":
            return _error("InvalidKeyUsageException")
        if self.pending_deletion:
            return _error("KMSInvalidStateException")
        return _error("DisabledException") if self.keys[key_id].disabled else None

    def _used(self, key_id: str, answer: dict[str, str]) -> Answer:
        return Answer(200, {"KeyId": self.claims_key or key_id, **answer})

    def _seal(self, key_id: str, plaintext: bytes, context: dict[str, str]) -> bytes:
        key = self.keys[key_id]
        # like the real one, the blob names its key
        head = len(key_id).to_bytes(1) + key_id.encode() + key.newest.to_bytes(1)
        return head + key.encrypt(key.newest, plaintext, self._data(context))

    def _open(self, key_id: str, blob: bytes, context: dict[str, str]) -> "bytes | Answer":
        end = 1 + blob[0]
        named = blob[1:end].decode("latin-1")
        key = self.keys.get(named)
        if key is None or not 1 <= blob[end] <= key.newest:
            return _error("InvalidCiphertextException")
        if named != key_id:
            return _error("IncorrectKeyException")
        plaintext = key.decrypt(blob[end], blob[end + 1 :], self._data(context))
        return _error("InvalidCiphertextException") if plaintext is None else plaintext

    def _data(self, context: dict[str, str]) -> bytes:
        return b"" if self.ignores_context else json.dumps(context, sort_keys=True).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _error(code: str) -> Answer:
    return Answer(400, {"__type": code, "message": "arn:aws:iam::111122223333:user/somebody is told why"})
