"""An operator's side of the port and the socket: asks a gate, and keeps the token of the session.

The token lies in a file that its owner alone can read, and is written nowhere else.
"""

import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from palladion import files
from palladion.errors import BusyError, ConflictError, FormatError, KeysError, NotFoundError, PalladionError
from palladion.errors import StorageError as Unreachable
from palladion.transit.url import is_loopback, parse_url

UNIX = "unix:"
ANSWER_BYTES_MAX = 16 * 1024 * 1024  # a page of the ledger has at most 6 MiB
SECONDS_MAX = 60.0  # a change waits for the disk, and for whoever holds the registry
SESSION_BYTES_MAX = 16 * 1024
_ERRORS: Mapping[int, type[PalladionError]] = {401: KeysError, 404: NotFoundError, 409: ConflictError, 503: BusyError}


class SecondPersonError(PalladionError):
    """What one person may not do alone."""


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A session as it is kept."""

    url: str
    token: str
    expires: int
    identity: str
    role: str

    def __repr__(self) -> str:
        return f"<Session of {self.identity} at {self.url}>"


class Sessions:
    """The sessions of this user, one for each gate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of_user(cls) -> "Sessions":
        """Those in `~/.config/palladion/operators`."""
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        return cls(base / "palladion" / "operators")

    def save(self, session: Session) -> None:
        """Keep a session, in place of the one before."""
        files.make_private_directory(self._folder)
        files.write_atomically(self._path(session.url), msgspec.json.encode(session))

    def find(self, url: str, now: datetime) -> Session:
        """The session at a gate. Raises KeysError where there is none that lasts, or others can read it."""
        hint = f"palladion operator sign-in {url}"
        path = self._path(url)
        if not path.is_file():
            raise KeysError(f"nobody is signed in at {url}", hint)
        if path.stat().st_mode & 0o077:
            raise KeysError(f"others can read the session in {path}", hint)
        data = files.read_limited(path, size_max=SESSION_BYTES_MAX, what="the session")
        try:
            session = msgspec.json.decode(data, type=Session)
        except (msgspec.DecodeError, ValueError):
            raise KeysError(f"{path} holds no session", hint) from None
        if session.url != url or now >= datetime.fromtimestamp(session.expires, UTC):
            raise KeysError(f"the session at {url} is over", hint)
        return session

    def forget(self, url: str) -> None:
        """Keep it no more."""
        self._path(url).unlink(missing_ok=True)

    def _path(self, url: str) -> Path:
        return self._folder / f"{sha256(url.encode()).hexdigest()[:32]}.json"


class Remote:
    """A gate, as operators reach it: `https://HOST:PORT`, `http://` on the loopback, or `unix:/PATH`."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """Raises PalladionError on any other address. Without a `token`, the socket says who asks."""
        self._token = token
        self.local = url.startswith(UNIX)
        if self.local:
            self.url = f"{UNIX}{Path(url.removeprefix(UNIX)).absolute()}"
            return
        try:
            parsed = parse_url(url.rstrip("/") + "/", insecure_http=True)
        except ValueError as error:
            raise PalladionError(str(error)) from None
        if not parsed.secure and not is_loopback(parsed.host):
            # the token would be everybody's on the way
            raise PalladionError(f"{parsed} is not encrypted: https was expected, except on this machine")
        if parsed.path != "/" or parsed.query:
            raise PalladionError(f"{parsed} names more than a gate", "for example https://gate.example.com:8711")
        self.url = parsed.base

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """What a page says."""
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path, None)

    def post(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """What comes of asking for something. Raises SecondPersonError, and PalladionError as the gate says."""
        return self._ask("POST", path, msgspec.json.encode(document))

    def delete(self, path: str) -> dict[str, Any]:
        """What comes of ending something."""
        return self._ask("DELETE", path, None)

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Accept": "application/json", "User-Agent": "palladion"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            with closing(self._connection()) as connection:
                connection.request(method, f"/v1/{path}", body, headers)
                response = connection.getresponse()
                data = response.read(ANSWER_BYTES_MAX + 1)
                status = response.status
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(f"{self.url} cannot be asked: {reason.lower()}", "is the gate running?") from None
        if len(data) > ANSWER_BYTES_MAX:
            raise FormatError(f"{self.url} answers with more than {ANSWER_BYTES_MAX} bytes")
        try:
            document = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, ValueError):
            raise FormatError(f"{self.url} answers with HTTP status {status}, and no gate does so") from None
        if status >= 400:
            raise self._error(status, document)
        return document

    def _connection(self) -> HTTPConnection:
        if self.local:
            return _UnixConnection(self.url.removeprefix(UNIX))
        secure, _, place = self.url.partition("://")
        if secure == "https":
            return HTTPSConnection(place, timeout=SECONDS_MAX, context=ssl.create_default_context())
        return HTTPConnection(place, timeout=SECONDS_MAX)

    def _error(self, status: int, document: Mapping[str, Any]) -> PalladionError:
        said = document.get("detail") or document.get("title") or f"HTTP status {status}"
        hints = [str(hint) for hint in document.get("hints", [])] if isinstance(document.get("hints"), list) else []
        if status == 401 and not self.local:
            hints.append(f"palladion operator sign-in {self.url}")
        if document.get("type") == "urn:palladion:problem:second-person":
            return SecondPersonError(str(said), *hints)
        return _ERRORS.get(status, PalladionError)(str(said), *hints)


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS_MAX)
        self._path = path

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS_MAX)
        self.sock.connect(self._path)
