"""An OCI registry over HTTP (distribution spec 1.1), as far as artefacts need it: tokens, blobs, manifests."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlencode

import msgspec

from palladion.errors import FormatError, StorageError, TamperError
from palladion.seal.structure import Progress
from palladion.transit.connection import Limits
from palladion.transit.credentials import may_carry_login, registry_login
from palladion.transit.oci import INDEX_TYPE, MANIFEST_BYTES_MAX, MANIFEST_TYPE, Reference, digest_of
from palladion.transit.ranges import Headers, WebSource, persist
from palladion.transit.store import Whole, sent_pieces
from palladion.transit.url import Url, follow
from palladion.transit.web import Answer, InterruptedTransferError, Web, refusal

TOKEN_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 1024 * 1024
CHUNK_SEGMENTS = 16  # 16 MiB: what an interruption loses
_PARAMETER = re.compile(r'([a-z]+)="([^"]{0,4096})"')
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,15})")
_OCTETS = {"Content-Type": "application/octet-stream"}


class Registry:
    """One repository in one registry; close it."""

    def __init__(self, reference: Reference, limits: Limits) -> None:
        self.what = str(reference)
        self._reference = reference
        self._limits = limits
        self._web = Web(limits)
        self._authorization = ""

    def close(self) -> None:
        """Close the connections; safe to call twice."""
        self._web.close()

    def manifest(self) -> tuple[bytes, str]:
        """The manifest that the reference names, and its digest. Raises NotFoundError, TamperError, FormatError."""
        found: list[bytes] = []

        def attempt() -> None:
            accepted = {"Accept": f"{MANIFEST_TYPE}, {INDEX_TYPE}"}
            with self._asked("GET", f"manifests/{self._reference.manifest}", accepted) as answer:
                if answer.status != 200:
                    raise refusal(answer, self.what)
                found.append(answer.read(MANIFEST_BYTES_MAX))

        persist(self._web, attempt)
        digest = digest_of(found[0])
        if self._reference.digest and digest != self._reference.digest:
            raise TamperError(f"{self.what}: the registry sends a manifest of another digest, {digest}")
        return found[0], digest

    def blob_source(self, digest: str) -> WebSource:
        """A blob, by ranges. Its end is the end of this registry's connections."""
        url = self._url(f"blobs/{digest}")
        with self._asked("HEAD", f"blobs/{digest}") as answer:
            if answer.status != 200:
                raise refusal(answer, self.what)

        def locate(refused: bool) -> tuple[Url, Headers]:
            if refused:
                # a token lasts some minutes, a large file longer; asking anew brings a new one
                self._authorization = ""
                with self._asked("HEAD", f"blobs/{digest}"):
                    pass
            return url, self._credentials()

        return WebSource(self._web, locate, self.what)

    def blob(self, digest: str, size: int) -> bytes:
        """A small blob, which is what its digest names. Raises TamperError, FormatError."""
        found: list[bytes] = []

        def attempt() -> None:
            with self._asked("GET", f"blobs/{digest}") as answer:
                if answer.status != 200:
                    raise refusal(answer, self.what)
                found.append(answer.read(size))

        persist(self._web, attempt)
        if digest_of(found[0]) != digest:
            raise TamperError(f"{self.what}: the registry sends a blob of another digest than {digest}")
        return found[0]

    def put_blob(self, digest: str, data: bytes) -> None:
        """Store a small blob, unless it is there."""
        if not self._has(digest):
            self._finish(self._begin(), digest, [data], len(data))

    def put_whole(self, digest: str, whole: Whole, progress: Progress | None) -> None:
        """Store a sealed file in chunks, unless it is there; goes on after an interruption where it was."""
        if self._has(digest):
            return
        place, count, begin = self._begin(), whole.structure.layout.segments, 0
        offset = 0
        while begin < count:
            chunk = range(begin, min(begin + CHUNK_SEGMENTS, count))
            place = self._send_chunk(place, whole, chunk, offset, progress)
            offset += whole.part_bytes(chunk)
            begin = chunk.stop
        self._finish(place, digest, [], 0)

    def put_manifest(self, data: bytes, *, tag: str) -> None:
        """Store a manifest under a tag."""
        headers = {"Content-Type": MANIFEST_TYPE}
        with self._asked("PUT", f"manifests/{tag}", headers, body=[data], body_bytes=len(data)) as answer:
            if answer.status != 201:
                raise refusal(answer, self.what)
            answer.read(ANSWER_BYTES_MAX)

    def _send_chunk(self, place: Url, whole: Whole, chunk: range, offset: int, progress: Progress | None) -> Url:
        """Send one chunk; after an interruption, as much of it as the registry has not got."""
        size = whole.part_bytes(chunk)
        arrived = 0

        def attempt() -> None:
            nonlocal place, arrived
            if arrived < 0 and offset == 0:
                # a registry that has nothing and one that has a single byte say the same, 0-0: begin anew
                place, arrived = self._begin(), 0
            elif arrived < 0:
                arrived = self._arrived(place) - offset
                if not 0 <= arrived <= size:
                    raise FormatError(f"{self.what}: the registry says it has {arrived + offset} bytes of the upload")
            left, first = size - arrived, offset + arrived
            body = _after(sent_pieces(whole, progress, chunk, offset), arrived)
            headers = {**_OCTETS, "Content-Range": f"{first}-{first + left - 1}"}
            arrived = -1  # not known, until the answer is here
            if left:
                with self._asked("PATCH", place, headers, body=body, body_bytes=left) as answer:
                    if answer.status not in (202, 204):
                        raise refusal(answer, self.what)
                    place = self._next_place(answer)
                    answer.read(ANSWER_BYTES_MAX)

        persist(self._web, attempt)
        return place

    def _arrived(self, place: Url) -> int:
        with self._asked("GET", place) as answer:
            match = _RANGE.fullmatch(answer.headers.get("Range", ""))
            if answer.status != 204 or match is None:
                raise StorageError(f"{self.what}: the registry has forgotten the upload", "run it again")
            return int(match.group(1)) + 1

    def _begin(self) -> Url:
        with self._asked("POST", "blobs/uploads/", body=[], body_bytes=0) as answer:
            if answer.status != 202:
                raise refusal(answer, self.what)
            place = self._next_place(answer)
            answer.read(ANSWER_BYTES_MAX)
        return place

    def _finish(self, place: Url, digest: str, body: Iterable[bytes], size: int) -> None:
        query = f"{place.query}&" if place.query else ""
        named = Url(place.secure, place.host, place.port, place.path, f"{query}{urlencode({'digest': digest})}")
        with self._asked("PUT", named, _OCTETS, body=body, body_bytes=size) as answer:
            if answer.status == 400:
                raise TamperError(f"{self.what}: what arrived at the registry has another digest", "run it again")
            if answer.status != 201:
                raise refusal(answer, self.what)
            answer.read(ANSWER_BYTES_MAX)

    def _has(self, digest: str) -> bool:
        with self._asked("HEAD", f"blobs/{digest}") as answer:
            if answer.status == 404:
                return False
            if answer.status != 200:
                raise refusal(answer, self.what)
            return True

    def _next_place(self, answer: Answer) -> Url:
        try:
            return follow(answer.url, answer.headers.get("Location", ""), insecure_http=self._limits.insecure_http)
        except ValueError as error:
            raise FormatError(f"{self.what}: the registry's upload address is not used: {error}") from None

    @contextmanager
    def _asked(
        self,
        method: str,
        place: Url | str,
        headers: Mapping[str, str] | None = None,
        *,
        body: Iterable[bytes | memoryview] | None = None,
        body_bytes: int = 0,
    ) -> Iterator[Answer]:
        """Ask, and once more with a token where the registry wants one."""
        url = self._url(place) if isinstance(place, str) else place
        headers = headers or {}
        ours = self._credentials() if url.origin == self._reference.base.origin else {}
        with self._web.ask(method, url, {**headers, **ours}, body=body, body_bytes=body_bytes) as answer:
            challenge = answer.headers.get("WWW-Authenticate", "")
            if answer.status != 401 or not challenge or url.origin != self._reference.base.origin:
                yield answer
                return
        self._authenticate(challenge, pushing=method not in ("GET", "HEAD"))
        if body is not None and body_bytes:
            raise InterruptedTransferError(f"{self.what}: the registry wanted a new token")
        with self._web.ask(method, url, {**headers, **self._credentials()}, body=body, body_bytes=0) as answer:
            yield answer

    def _credentials(self) -> Headers:
        return {"Authorization": self._authorization} if self._authorization else {}

    def _authenticate(self, challenge: str, *, pushing: bool) -> None:
        """Get what a 401 asks for: the login itself, or a token from where the registry says."""
        login = registry_login(self._reference.registry) if may_carry_login(self._reference.base) else None
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and login is not None:
            self._authorization = login.basic
            return
        if scheme.lower() != "bearer":
            raise StorageError(f"{self.what} is refused: the registry wants a login", _LOGIN)
        parameters = dict(_PARAMETER.findall(rest))
        try:
            realm = follow(self._reference.base, parameters.get("realm", ""), insecure_http=self._limits.insecure_http)
        except ValueError as error:
            raise FormatError(f"{self.what}: its registry's token service is not asked: {error}") from None
        scope = f"repository:{self._reference.name}:{'pull,push' if pushing else 'pull'}"
        asked = {"service": parameters.get("service", ""), "scope": scope}
        query = f"{realm.query}&" if realm.query else ""
        url = Url(realm.secure, realm.host, realm.port, realm.path, query + urlencode(asked))
        headers = {"Authorization": login.basic} if login and may_carry_login(url) else {}
        with self._web.ask("GET", url, headers) as answer:
            if answer.status in (401, 403):
                raise StorageError(f"{self.what} is refused: {realm} gives no token", _LOGIN)
            if answer.status != 200:
                raise refusal(answer, str(realm))
            data = answer.read(TOKEN_BYTES_MAX)
        self._authorization = f"Bearer {_token(data, self.what)}"

    def _url(self, path: str) -> Url:
        base = self._reference.base
        return Url(base.secure, base.host, base.port, f"/v2/{self._reference.name}/{path}")


_LOGIN = "docker login or oras login stores one in ~/.docker/config.json; credential helpers are not asked"


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""


def _token(data: bytes, what: str) -> str:
    try:
        found = msgspec.json.decode(data, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise FormatError(f"{what}: the registry's token service sends no token") from None
    token = found.token or found.access_token
    # it becomes a header: a line break in it would begin another one
    if not token or not re.fullmatch(r"[!-~]+", token):
        raise FormatError(f"{what}: the registry's token service sends no token")
    return token


def _after(pieces: Iterator[bytes | memoryview], skipped: int) -> Iterator[bytes | memoryview]:
    """The pieces without their first `skipped` bytes."""
    for piece in pieces:
        rest = piece[skipped:]
        skipped = max(0, skipped - len(piece))
        if len(rest):
            yield rest
