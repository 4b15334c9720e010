"""Asking a gate over HTTP: what a customer runs. Needs NumPy and SEAL, and nothing of the gate.

The API key goes in a header over TLS, as with every other route; over plain HTTP it goes to this host alone.
"""

import http.client
import ipaddress
import ssl
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, PalladionError, StorageError
from palladion.private.homomorphic.client import HEClient, Outside
from palladion.private.homomorphic.envelope import MEDIA_TYPE, Envelope, Form, keys_id, parse_envelope
from palladion.private.homomorphic.program import BUNDLE_BYTES_MAX, Bundle, parse_bundle

SECONDS_MAX = 600.0
PROBLEM_BYTES_MAX = 64 * 1024
ENVELOPE_BYTES = 512 * 1024  # of an answer beyond its ciphertexts
REQUEST_BYTES = 32 * 1024**2  # of ciphertexts in one query; more rows go in several


class GateError(PalladionError):
    """A gate refused; `kind` is the kind of its problem."""

    def __init__(self, message: str, *hints: str, kind: str = "") -> None:
        super().__init__(message, *hints)
        self.kind = kind


class GateClient:
    """One program at a gate. Not for several threads at once."""

    def __init__(self, url: str, key: str, *, context: ssl.SSLContext | None = None) -> None:
        """`url` is where the program answers, `key` the API key. Raises FormatError."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise FormatError(f"{url} is no address of a program, expected https://host/v1/encrypted/model")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise FormatError(f"{url} would send the API key in the clear", "use https")
        self._parts, self._key = parts, key
        self._context = context or ssl.create_default_context()
        self._path = parts.path.rstrip("/")

    def __repr__(self) -> str:
        return f"<GateClient {self._parts.hostname}{self._path}>"

    def bundle(self) -> Bundle:
        """The program's bundle. Raises GateError, StorageError, FormatError."""
        return parse_bundle(self._ask("GET", "", b"", BUNDLE_BYTES_MAX))

    def send_keys(self, client: HEClient) -> str:
        """Send evaluation keys; returns their id. Raises GateError, StorageError."""
        rotation, squares = client.evaluation_keys
        made = keys_id(rotation, squares)
        envelope = Envelope("keys", client.bundle.id, made, "interleaved", (rotation, squares))
        told = self._ask("PUT", "/keys", envelope.encode(), PROBLEM_BYTES_MAX)
        try:
            same = msgspec.json.decode(told)["keys"] == made
        except (msgspec.DecodeError, KeyError, TypeError):
            same = False
        if not same:
            raise FormatError("the gate took other keys than these")
        return made

    def ask(
        self,
        client: HEClient,
        rows: NDArray[np.float64],
        *,
        outside: Outside = "refuse",
        by_columns: bool | None = None,
    ) -> NDArray[np.float64]:
        """The answers (rows, outputs), decrypted. Keys are sent where the gate has none.

        `by_columns` costs the gate least for each row, and works with at most one hidden layer; left out, it is taken
        where there are rows for a whole ciphertext. Raises GateError, StorageError, FormatError.
        """
        bundle = client.bundle
        if by_columns is None:
            place = bundle.layout.rows
            by_columns = bundle.by_columns and -(-len(rows) // place) * place >= bundle.parameters.slots
        if by_columns and not bundle.by_columns:
            raise FormatError("a program of several hidden layers is not asked by columns")
        if by_columns:
            most = bundle.parameters.slots
        else:
            most = max(1, REQUEST_BYTES // bundle.parameters.ciphertext_bytes) * bundle.layout.rows
        found = [
            self._asked(client, rows[start : start + most], outside, "columns" if by_columns else "interleaved")
            for start in range(0, len(rows), most)
        ]
        return np.concatenate(found)

    def _asked(self, client: HEClient, rows: NDArray[np.float64], outside: Outside, form: Form) -> NDArray[np.float64]:
        bundle = client.bundle
        keys = "" if form == "columns" else keys_id(*client.evaluation_keys)
        encrypt = client.encrypt_columns if form == "columns" else client.encrypt
        query = Envelope("query", bundle.id, keys, form, tuple(encrypt(rows, outside=outside))).encode()
        most = len(query) + bundle.outputs * 2 * bundle.parameters.ciphertext_bytes + ENVELOPE_BYTES
        try:
            data = self._ask("POST", "/query", query, most)
        except GateError as error:
            if error.kind != "keys-needed":
                raise
            self.send_keys(client)
            data = self._ask("POST", "/query", query, most)
        answer = parse_envelope(data, kind="answer", program=bundle.id)
        decrypt = client.decrypt_columns if form == "columns" else client.decrypt
        return decrypt(answer.parts, len(rows))

    def _ask(self, method: str, path: str, body: bytes, bytes_max: int) -> bytes:
        host, port = self._parts.hostname or "", self._parts.port
        connection: http.client.HTTPConnection
        if self._parts.scheme == "https":
            connection = http.client.HTTPSConnection(host, port, timeout=SECONDS_MAX, context=self._context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=SECONDS_MAX)
        headers = {
            "authorization": f"Bearer {self._key}",
            "content-type": MEDIA_TYPE,
            "user-agent": "palladion",
        }
        try:
            connection.request(method, f"{self._path}{path}", body or None, headers)
            response = connection.getresponse()
            data = response.read(bytes_max + 1)
        except (OSError, http.client.HTTPException) as error:
            raise StorageError(f"{host} cannot be asked: {str(error).lower() or type(error).__name__}") from None
        finally:
            connection.close()
        if response.status != 200:
            raise _refusal(response.status, data[:PROBLEM_BYTES_MAX])
        if len(data) > bytes_max:
            raise FormatError(f"{host} answers with more than {bytes_max} bytes")
        return data


def _refusal(status: int, data: bytes) -> GateError:
    """What a problem document says, which may come from anybody."""
    document: Any = None
    with suppress(msgspec.DecodeError):
        document = msgspec.json.decode(data)
    document = document if isinstance(document, dict) else {}
    kind = str(document.get("type", "")).removeprefix("urn:palladion:problem:")[:64]
    said = ": ".join(str(document[name])[:500] for name in ("title", "detail") if name in document)
    return GateError(f"the gate answers with status {status}{f': {_lowered(said)}' if said else ''}", kind=kind)


def _lowered(text: str) -> str:
    plain = "".join(character if character.isprintable() else "?" for character in text)
    return plain[:1].lower() + plain[1:]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
