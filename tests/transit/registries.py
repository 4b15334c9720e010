"""A strict OCI registry on loopback: tokens by scope, uploads with exact ranges, digests and manifests checked."""

import base64
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.transit.servers import Handler, Hook, Shelf, serving

LOGIN = "hector:troy"


@dataclass
class Registry(Shelf):
    """What a registry holds. `auth` is what it wants: nothing, `basic` or `bearer`."""

    auth: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)  # by tag and by digest
    uploads: dict[str, bytearray] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)  # token to scope
    anonymous_pull: bool = False

    @property
    def host(self) -> str:
        return self.base.removeprefix("http://")

    def expire(self) -> None:
        """Forget all tokens."""
        self.tokens.clear()


class RegistryHandler(Handler):
    """Distribution spec 1.1, end-1 to end-7 and what uploads need."""

    shelf: Registry

    def do_GET(self) -> None:
        self._begin()
        if any(hook(self) for hook in self.shelf.hooks):
            return
        if self.place == "/token":
            self._token()
        elif self._allowed("pull"):
            self._read()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        if self._started():
            self.body()
            key = secrets.token_hex(8)
            self.shelf.uploads[key] = bytearray()
            self._where(202, key)

    def do_PATCH(self) -> None:
        if not self._started():
            return
        key, upload = self._upload()
        data = self.body()
        wanted = f"{len(upload)}-{len(upload) + len(data) - 1}"
        if self.headers["Content-Type"] != "application/octet-stream" or self.headers["Content-Range"] != wanted:
            self.answer(416, {}, b"")
            return
        upload += data
        self._where(202, key)

    def do_PUT(self) -> None:
        if not self._started():
            return
        if "/blobs/uploads/" in self.place:
            key, upload = self._upload()
            upload += self.body()
            digest = parse_qs(urlsplit(self.path).query)["digest"][0]
            if f"sha256:{sha256(upload).hexdigest()}" != digest:
                self.answer(400, {}, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
                return
            self.shelf.blobs[digest] = bytes(self.shelf.uploads.pop(key))
            self.answer(201, {"Location": f"/v2/models/fraud/blobs/{digest}"}, b"")
        else:
            self._put_manifest()

    def _put_manifest(self) -> None:
        data = self.body()
        manifest = json.loads(data)
        assert self.headers["Content-Type"] == manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
        assert manifest["schemaVersion"] == 2
        for blob in [manifest["config"], *manifest["layers"]]:
            if len(self.shelf.blobs.get(blob["digest"], b"")) != blob["size"]:
                self.answer(400, {}, b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
                return
        digest = f"sha256:{sha256(data).hexdigest()}"
        self.shelf.manifests[self.place.rpartition("/")[2]] = data
        self.shelf.manifests[digest] = data
        self.answer(201, {"Docker-Content-Digest": digest}, b"")

    def _read(self) -> None:
        kind, _, name = self.place.removeprefix("/v2/models/fraud/").partition("/")
        if kind == "manifests" and name in self.shelf.manifests:
            assert "application/vnd.oci.image.manifest.v1+json" in self.headers["Accept"]
            self.answer(200, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}, self.shelf.manifests[name])
        elif kind == "blobs" and name.startswith("uploads/"):
            key, _upload = self._upload()
            self._where(204, key)
        elif kind == "blobs" and name in self.shelf.blobs:
            self._range(self.shelf.blobs[name], {"ETag": f'"{name}"'})
        else:
            self.answer(404, {}, b'{"errors":[{"code":"NAME_UNKNOWN"}]}')

    def _range(self, data: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None:
            self.answer(200, headers, data)
            return
        first, last = int(wanted.group(1)), min(int(wanted.group(2)), len(data) - 1)
        self.answer(206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1])

    def _started(self) -> bool:
        self._begin()
        return not any(hook(self) for hook in self.shelf.hooks) and self._allowed("push")

    def _upload(self) -> tuple[str, bytearray]:
        key = self.place.rpartition("/")[2]
        state = parse_qs(urlsplit(self.path).query).get("_state", [""])[0]
        # a client has to use the address that it was given last, and no other
        assert self.shelf.states[key] == state, "a stale upload address"
        return key, self.shelf.uploads[key]

    def _where(self, status: int, key: str) -> None:
        self.shelf.states[key] = secrets.token_hex(4)
        location = f"/v2/models/fraud/blobs/uploads/{key}?_state={self.shelf.states[key]}"
        size = len(self.shelf.uploads[key])
        headers = {"Location": location, "Range": f"0-{max(0, size - 1)}"}
        if status == 204:
            # the address that was asked stays good as well
            self.shelf.states[key] = parse_qs(urlsplit(self.path).query)["_state"][0]
            headers["Location"] = self.path
        self.answer(status, headers, b"")

    def _allowed(self, action: str) -> bool:
        given = self.headers.get("Authorization", "")
        if not self.shelf.auth:
            assert not given, "credentials that nobody asked for"
            return True
        if self.shelf.auth == "basic":
            if given == f"Basic {base64.b64encode(LOGIN.encode()).decode()}":
                return True
            challenge = 'Basic realm="registry"'
        else:
            if action in self.shelf.tokens.get(given.removeprefix("Bearer "), "").split(","):
                return True
            challenge = f'Bearer realm="{self.shelf.base}/token",service="registry.test"'
        self.body()
        self.answer(401, {"WWW-Authenticate": challenge}, b"")
        return False

    def _token(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        assert asked["service"] == ["registry.test"]
        prefix, repository, actions = asked["scope"][0].split(":")
        assert (prefix, repository) == ("repository", "models/fraud")
        login = self.headers.get("Authorization") == f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
        if not login and not (self.shelf.anonymous_pull and actions == "pull"):
            self.answer(401, {}, b"")
            return
        token = secrets.token_hex(8)
        self.shelf.tokens[token] = actions
        self.answer(200, {}, json.dumps({"token": token, "expires_in": 60}).encode())


@contextmanager
def registry(*hooks: Hook, **options: Any) -> Iterator[Registry]:
    """A registry for the length of the block."""
    shelf = Registry(**options)
    with serving({}, *hooks, handler=RegistryHandler, shelf=shelf):
        yield shelf
