"""One request to a web server and its answer: redirects, refusals in sentences, bodies that end where they say.

Retries are for the caller, who knows what may be asked twice; `InterruptedTransferError` says that one may help.
"""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from types import TracebackType
from typing import Self

from palladion.errors import FormatError, NotFoundError, PalladionError, StorageError
from palladion.transit.connection import Connection, Connections, Deadline, Limits
from palladion.transit.url import Url, follow

PIECE_BYTES = 256 * 1024  # taken from a body at once: what an interruption loses
BACKOFF_SECONDS = 0.5  # before the second attempt; doubled for each further one
BACKOFF_SECONDS_MAX = 30.0  # also where a server asks for more
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429, 500, 502, 503, 504})
_HEADERS = {"User-Agent": "palladion", "Accept-Encoding": "identity"}


class InterruptedTransferError(StorageError):
    """The other side fell silent, broke off, or asked for patience: another try may help."""

    def __init__(self, message: str, *hints: str, wait_seconds: float = 0.0) -> None:
        super().__init__(message, *hints)
        self.wait_seconds = wait_seconds


class Answer:
    """An answer whose body is still to be read; a context manager."""

    def __init__(self, url: Url, response: HTTPResponse, connection: Connection, connections: Connections) -> None:
        self.url = url
        self.status = response.status
        self.headers: Message = response.headers
        self._response = response
        self._connection = connection
        self._connections = connections
        self._whole = response.length == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # closed after an error, and where the rest of a body would have to be read to reach the next answer
        usable = error is None and self._whole and not self._response.will_close
        self._response.close()
        self._connections.give_back(self._connection, usable=usable)

    @property
    def tls(self) -> ssl.SSLSocket | None:
        """The connection that it comes over, where that is TLS."""
        return self._connection.tls

    def allow(self, deadline: Deadline) -> None:
        """Hold the rest of the body to another deadline, now that its size is known."""
        self._connection.allow(deadline)

    def read_into(self, buffer: memoryview) -> int:
        """The next bytes of the body, at most a piece; 0 at its end. Raises InterruptedTransferError."""
        with _network_errors(self.url):
            try:
                count = self._response.readinto(buffer[:PIECE_BYTES])
            except ValueError as error:
                raise HTTPException("a chunk whose length is no number") from error
        self._whole = self._whole or count == 0 or self._response.length == 0
        return count

    def end(self) -> None:
        """Raise FormatError if the body goes on."""
        if not self._whole and self.read_into(memoryview(bytearray(1))):
            raise FormatError(f"{self.url} sends more than it announced")

    def read(self, size_max: int) -> bytes:
        """The whole body. Raises FormatError if it is larger than `size_max`."""
        data, buffer = bytearray(), memoryview(bytearray(PIECE_BYTES))
        while count := self.read_into(buffer):
            data += buffer[:count]
            if len(data) > size_max:
                raise FormatError(f"{self.url} sends more than the {size_max} bytes allowed here")
        declared = self.length()
        if declared is not None and len(data) != declared and self.status != HTTPStatus.NO_CONTENT:
            raise InterruptedTransferError(f"{self.url} broke off after {len(data)} of {declared} bytes")
        return bytes(data)

    def length(self) -> int | None:
        """What the body's length is said to be. Raises FormatError if that is no number, or two."""
        said = {text.strip() for text in self.headers.get_all("Content-Length", [])}
        if not said or self.headers.get("Transfer-Encoding"):
            return None
        if len(said) > 1 or not (text := said.pop()).isascii() or not text.isdigit() or len(text) > 18:
            raise FormatError(f"{self.url} does not say how long its answer is")
        return int(text)


class Web:
    """A client for several threads; close it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._connections = Connections(limits)

    def ask(
        self,
        method: str,
        url: Url,
        headers: Mapping[str, str] | None = None,
        *,
        body: Iterable[bytes | memoryview] | None = None,
        body_bytes: int = 0,
        deadline: Deadline | None = None,
    ) -> Answer:
        """Ask once; for GET and HEAD redirects are followed. The answer may be a refusal: `expect` sorts them out.

        `headers` that hold credentials go to the origin of `url` alone. Raises InterruptedTransferError, StorageError,
        or FormatError on a redirect that is not followed.
        """
        deadline = deadline or self.limits.deadline(body_bytes)
        credentials = {"authorization", "cookie"}
        sent = {**_HEADERS, **(headers or {})}
        if body is not None:
            sent["Content-Length"] = str(body_bytes)
        for _ in range(self.limits.redirects + 1):
            answer = self._ask_one(_Request(method, url, sent, body), deadline)
            if answer.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return answer
            with answer:
                target = self._redirected(answer)
            if target.origin != url.origin:
                sent = {name: value for name, value in sent.items() if name.lower() not in credentials}
            url = target
        raise FormatError(f"{url} leads on and on: more than {self.limits.redirects} redirects")

    def close(self) -> None:
        """Close all connections; safe to call twice."""
        self._connections.close()

    def _redirected(self, answer: Answer) -> Url:
        location = answer.headers.get("Location")
        if location is None:
            raise FormatError(f"{answer.url} redirects without saying where to")
        try:
            return follow(answer.url, location, insecure_http=self.limits.insecure_http)
        except ValueError as error:
            raise FormatError(f"the redirect of {answer.url} is not followed: {error}") from None

    def _ask_one(self, request: "_Request", deadline: Deadline) -> Answer:
        with _network_errors(request.url):
            # a body cannot be sent twice, so it goes where nobody has hung up meanwhile
            connection = self._connections.take(request.url, fresh=request.body is not None)
            try:
                return self._exchange(connection, request, deadline)
            except (ConnectionError, HTTPException):
                if not connection.used:
                    raise
            # a connection that was kept may have been closed by the server since: that says nothing of this request
            connection = self._connections.take(request.url, fresh=True)
            return self._exchange(connection, request, deadline)

    def _exchange(self, connection: Connection, request: "_Request", deadline: Deadline) -> Answer:
        try:
            connection.begin(deadline)
            try:
                connection.http.request(
                    request.method, request.url.target, body=request.body, headers=dict(request.headers)
                )
            except (BrokenPipeError, ConnectionResetError) as error:
                # refused before the whole body was sent: the answer says why, if there is one
                response = _early_answer(connection, error)
            else:
                response = connection.http.getresponse()
            connection.end_of_head()
            return Answer(request.url, response, connection, self._connections)
        except BaseException:
            self._connections.give_back(connection, usable=False)
            raise


@dataclass(frozen=True)
class _Request:
    method: str
    url: Url
    headers: Mapping[str, str]
    body: Iterable[bytes | memoryview] | None


def attempt_pauses(limits: Limits) -> Iterator[float]:
    """Seconds to wait after each attempt but the last."""
    for number in range(limits.attempts - 1):
        yield min(BACKOFF_SECONDS * 2**number, BACKOFF_SECONDS_MAX)


def refusal(answer: Answer, what: str) -> PalladionError:
    """The error that an answer means which is not what was asked for."""
    status = answer.status
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    if status in (404, 410):
        return NotFoundError(f"{what} does not exist: the server answers {phrase}")
    if status in (401, 403, 407):
        return StorageError(
            f"{what} is refused: the server answers {phrase}",
            "check the credentials (docs/transit.md says where they come from), and whether the address has expired",
        )
    if status == 412:
        return FormatError(f"{what} was replaced by another file meanwhile", "run it again")
    if status in _WORTH_ANOTHER_TRY:
        return InterruptedTransferError(
            f"{what} is not to be had now: the server answers {phrase}",
            "try again later",
            wait_seconds=_asked_wait(answer),
        )
    if status in _REDIRECTS:
        return StorageError(f"{what}: the server wants to be asked elsewhere, and that is not done for an upload")
    return StorageError(f"{what}: the server answers {phrase}")


def _asked_wait(answer: Answer) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), BACKOFF_SECONDS_MAX) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0


def _early_answer(connection: Connection, error: OSError) -> HTTPResponse:
    try:
        # the standard library asks for a finished request before it reads an answer
        response = HTTPResponse(connection.http.sock, method="PUT")
        response.begin()
    except (OSError, HTTPException, AttributeError):
        raise error from None
    response.will_close = True
    return response


@contextmanager
def _network_errors(url: Url) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise StorageError(
            f"{url} does not prove who it is: {error.verify_message.lower()}",
            "a server of your own: SSL_CERT_FILE names the certificates to trust",
        ) from None
    except TimeoutError:
        raise InterruptedTransferError(f"{url} is too slow, or silent") from None
    except OSError as error:
        reason = (error.strerror or str(error) or type(error).__name__).lower()
        raise InterruptedTransferError(f"{url} broke off or cannot be reached: {reason}") from None
    except HTTPException as error:
        raise InterruptedTransferError(f"{url} answers what is no HTTP: {type(error).__name__}") from None
