"""A sealed file on a plain web server: read by ranges or in one stream, sent by PUT (RFC 9110)."""

from collections.abc import Callable, Iterable, Mapping

from palladion.errors import ConflictError, FormatError, StorageError
from palladion.seal.structure import Progress
from palladion.transit.connection import Limits
from palladion.transit.credentials import web_login
from palladion.transit.ranges import Headers, WebSource, persist
from palladion.transit.store import SIDECAR_BYTES_MAX, Whole, sent_pieces
from palladion.transit.url import Url
from palladion.transit.web import PIECE_BYTES, InterruptedTransferError, Web, refusal

ANSWER_BYTES_MAX = 1024 * 1024  # of what a server says to an upload; nobody reads it
_STORED = frozenset({200, 201, 202, 204})


class WebStore:
    """One http or https address."""

    sha256 = None

    def __init__(self, url: Url, limits: Limits) -> None:
        self.what = str(url)
        self._url = url
        self._limits = limits

    def open(self) -> WebSource:
        """The file there, by ranges. Raises NoRangesError where the server sends whole files only."""
        web = Web(self._limits)
        try:
            return WebSource(web, lambda _fresh: (self._url, self._headers()), self.what)
        except BaseException:
            web.close()
            raise

    def stream(
        self, write: Callable[[memoryview, int], None], *, size_max: int, progress: Progress | None = None
    ) -> None:
        """Hand the whole file to `write`, piece by piece, each with its offset.

        Raises FormatError if it is larger than `size_max` or its size is not told, StorageError if it breaks off.
        """
        web = Web(self._limits)
        try:
            with web.ask("GET", self._url, self._headers()) as answer:
                if answer.status != 200:
                    raise refusal(answer, self.what)
                size = answer.length()
                if size is None or size > size_max:
                    raise FormatError(
                        f"{self.what} has {'an unknown number of' if size is None else size} bytes and comes without "
                        f"ranges, of which at most {size_max} are taken",
                        "a server that knows ranges has no such limit, and can resume",
                    )
                answer.allow(self._limits.deadline(size))
                buffer, done = memoryview(bytearray(PIECE_BYTES)), 0
                while done < size and (count := answer.read_into(buffer[: size - done])):
                    write(buffer[:count], done)
                    done += count
                    if progress:
                        progress(done, size)
                if done < size:
                    raise InterruptedTransferError(
                        f"{self.what} broke off after {done} of {size} bytes", "run it again"
                    )
                answer.end()
        finally:
            web.close()

    def sidecar(self, suffix: str) -> bytes | None:
        """The small file beside it; none for an address with a query, which stands for one file alone."""
        if self._url.query:
            return None
        web = Web(self._limits)
        try:
            return fetch_small(web, self._beside(suffix), self._headers())
        finally:
            web.close()

    def put(
        self,
        whole: Whole,
        sidecars: Mapping[str, bytes],
        *,
        replace: bool,
        progress: Progress | None = None,
    ) -> None:
        """Send it by PUT, which cannot be resumed; with `If-None-Match: *` unless `replace`."""
        if sidecars and self._url.query:
            raise ConflictError(
                f"{self.what} has a query and stands for one file, leaving {', '.join(sidecars)} without address",
                "move those files elsewhere, or push to another address",
            )
        web = Web(self._limits)
        try:
            for suffix, data in sidecars.items():
                self._put(web, self._beside(suffix), [data], len(data), replace=True)
            self._put(web, self._url, sent_pieces(whole, progress), whole.size, replace=replace)
        finally:
            web.close()

    def _put(self, web: Web, url: Url, body: Iterable[bytes | memoryview], size: int, *, replace: bool) -> None:
        condition = {} if replace else {"If-None-Match": "*"}
        headers = {**self._headers(), **condition, "Content-Type": "application/octet-stream"}
        with web.ask("PUT", url, headers, body=body, body_bytes=size) as answer:
            if answer.status == 412:
                raise ConflictError(f"{url} exists already", "name another address, or use --replace")
            if answer.status == 405:
                raise StorageError(f"{url} takes no uploads: the server does not know PUT there")
            if answer.status not in _STORED:
                raise refusal(answer, str(url))
            answer.read(ANSWER_BYTES_MAX)

    def _beside(self, suffix: str) -> Url:
        return Url(self._url.secure, self._url.host, self._url.port, self._url.path + suffix)

    def _headers(self) -> Headers:
        login = web_login(self._url)
        return {"Authorization": login.basic} if login else {}


def fetch_small(web: Web, url: Url, headers: Headers) -> bytes | None:
    """A small file, or None if there is none, or none for us: who may not list a bucket is told 403 in place of 404."""
    found: list[bytes] = []

    def attempt() -> None:
        with web.ask("GET", url, headers, deadline=web.limits.deadline(SIDECAR_BYTES_MAX)) as answer:
            if answer.status in (403, 404, 410):
                return
            if answer.status != 200:
                raise refusal(answer, str(url))
            found.append(answer.read(SIDECAR_BYTES_MAX))

    persist(web, attempt)
    return found[0] if found else None
