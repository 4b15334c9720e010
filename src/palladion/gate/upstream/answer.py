"""Answers of a model server: bytes in, a checked answer out. No sockets, no clock; the grammar is llhttp's.

RFC 9112. Where the length of an answer can be read in two ways it is refused: one that is read differently by two
parties can smuggle a second one, which some other client would get. llhttp refuses most of that (in its strict mode,
which is never left); what it lets pass is refused here.
"""

from typing import NamedTuple, NoReturn

from httptools import HttpParserCallbackError, HttpParserError, HttpResponseParser

from palladion.gate.upstream.errors import Kind, UpstreamError
from palladion.gate.upstream.limits import UpstreamLimits

INTERIM_MAX = 8  # 1xx answers before the real one; servers send none or one
# What may surround a body: chunk sizes, their extensions, trailers. A chunk of one byte has six bytes around it.
FRAMING_BYTES_MAX = 64 * 1024
FRAMING_BYTES_PER_BODY_BYTE = 16
LENGTH_DIGITS_MAX = 20  # what 64 bits need; a number of more costs time that grows with the square
_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_VERSION_BYTES = len(_VERSIONS[0])
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"content-encoding"})
_BLANKS = b" \t"
_WITHOUT_BODY = frozenset({204, 304})


class Answer(NamedTuple):
    """A whole answer; names of headers are in lower case. Its `repr` leaves out what it says."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def __repr__(self) -> str:
        return f"<Answer {self.status} of {len(self.body)} bytes>"


class AnswerParser:
    """Reads the answers that come over one connection, one after another.

    `begin` before each; `feed` with what comes, `end` where nothing comes any more. Both raise UpstreamError, after
    which the parser and its connection are of no more use. What came of the body is in `body`, until it is taken.
    """

    def __init__(self, server: str, limits: UpstreamLimits, *, secure: bool) -> None:
        """`server` is for messages; `secure` says that the bytes come through TLS."""
        self._server = server
        self._secure = secure
        self._limits = limits
        self._parser = HttpResponseParser(self)
        self._fault: UpstreamError | None = None
        self.body = bytearray()
        self.reusable = True
        self.begin(head_only=False, body_bytes_max=0)

    def begin(self, *, head_only: bool, body_bytes_max: int) -> None:
        """Expect an answer: only a head if `head_only`, whatever that announces."""
        self._head_only = head_only
        self._body_bytes_max = body_bytes_max
        self._begun = b""  # what came of the first bytes, until they are enough to know the version
        self._in_version = True
        self._old = False  # HTTP/1.0
        self._received = 0
        self._body_bytes = 0
        self._interims = 0
        self._until_close = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head_complete = False
        self.complete = False

    @property
    def untouched(self) -> bool:
        """Whether no byte of the answer has come."""
        return not self._received

    def take(self) -> bytes:
        """What came of the body since it was last taken."""
        part = bytes(self.body)
        self.body.clear()
        return part

    def feed(self, data: bytes) -> None:
        """Read on."""
        self._received += len(data)
        if self._in_version:
            data = self._begun + data
            if len(data) < _VERSION_BYTES:
                self._begun = data
                return
            self._in_version = False
            # llhttp takes RTSP, ICE, empty lines before, and other versions
            if not data.startswith(_VERSIONS):
                raise self._error("broken", "does not answer in HTTP/1.1")
            self._old = data.startswith(_VERSIONS[1])
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if isinstance(error, HttpParserCallbackError) and self._fault is None:
                raise  # a bug of ours, not the server's fault
            # what llhttp says is one of its own sentences, without a word of the answer
            raise self._fault or self._error("broken", f"breaks the rules of HTTP/1.1: {error}") from None
        if not self.complete:
            self._check_size()

    def end(self) -> None:
        """The server closed its side in good order: that ends some answers, and breaks others off."""
        if self._until_close and not self.complete:
            self.complete = True
        elif not self.complete:
            raise self._error("broken", "broke off in its answer" if self._received else "closed without an answer")

    def _check_size(self) -> None:
        if not self.head_complete:
            if self._received > self._limits.head_bytes_max:
                raise self._head_too_large()
        elif self._received > (
            self._limits.head_bytes_max + FRAMING_BYTES_MAX + FRAMING_BYTES_PER_BODY_BYTE * self._body_bytes
        ):
            # extensions of chunks and trailers, which the parser drops, can go on for ever
            raise self._error("too-large", "sends more framing than body")

    # The rest is called by the parser. What is raised there becomes HttpParserCallbackError, so it is kept too.

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self.complete:
            self._refuse("broken", "sent more than it announced")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head; or a trailer, which is dropped, since nobody asked for any."""
        if not self.head_complete:
            self.headers.append((name.lower(), value.rstrip(_BLANKS)))

    def on_headers_complete(self) -> None:
        """A head is complete: that of the answer, or of an interim one."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._skip_interim(status)
            return
        if not 200 <= status <= 599:
            self._refuse("broken", f"answers with the status {status}, which is none")
        if self._interims:
            version = self._parser.get_http_version()  # of the head before this one, the first bytes were seen
            if version not in {"1.0", "1.1"}:
                self._refuse("broken", "does not answer in HTTP/1.1")
            self._old = version == "1.0"
        if self._received > self._limits.head_bytes_max:
            # all came in one read, much of which may be body; what is larger than a read was refused before
            head_bytes = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if head_bytes > self._limits.head_bytes_max:
                self._fault = self._head_too_large()
                raise self._fault
        self.status = status
        self._frame()
        self.head_complete = True
        if self._head_only:
            # llhttp cannot be told and waits for a body, so the connection is of no more use
            self.complete, self.reusable = True, False

    def _skip_interim(self, status: int) -> None:
        self._interims += 1
        if status == 101:
            self._refuse("broken", "changes to a protocol that nobody asked for")
        if self._interims > INTERIM_MAX:
            self._refuse("broken", f"sends more than {INTERIM_MAX} interim answers")
        self.headers.clear()

    def _frame(self) -> None:
        """How the body's end is known (RFC 9112 §6.3)."""
        length = coding = None
        for name, value in self.headers:
            if name not in _FRAMING:
                continue
            if name == b"content-length":
                if len(value) > LENGTH_DIGITS_MAX:
                    self._refuse("broken", "announces a length that is none")
                length = int(value)  # only digits, and only one such header, or llhttp had refused it
            elif name == b"transfer-encoding":
                if coding is not None or value.lower() != b"chunked" or self._old:
                    self._refuse("broken", "frames its answer in a way that nobody asked for")
                coding = value
            elif value.lower() != b"identity":
                self._refuse("broken", "encodes its answer, which nobody asked for")
        if self._head_only or self.status in _WITHOUT_BODY:
            return
        if length is not None and length > self._body_bytes_max:
            self._refuse("too-large", f"announces {length} bytes, at most {self._body_bytes_max} are taken")
        self._until_close = length is None and coding is None
        if self._until_close and self._secure:
            # anybody on the way can end a connection, and not every event loop tells TLS's end from TCP's
            self._refuse("broken", "does not say how long its answer is, as it has to over TLS")

    def on_body(self, data: bytes) -> None:
        """Some of the body."""
        if self.complete:
            self._refuse("broken", "sent more than it announced")
        self._body_bytes += len(data)
        if self._body_bytes > self._body_bytes_max:
            self._refuse("too-large", f"answers with more than {self._body_bytes_max} bytes")
        self.body += data

    def on_message_complete(self) -> None:
        """An answer ends, or an interim one."""
        if self.head_complete and not self._head_only:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

    def _refuse(self, kind: Kind, deed: str) -> NoReturn:
        self._fault = self._error(kind, deed)
        raise self._fault

    def _head_too_large(self) -> UpstreamError:
        return self._error("too-large", f"sends a head of more than {self._limits.head_bytes_max} bytes")

    def _error(self, kind: Kind, deed: str) -> UpstreamError:
        return UpstreamError(f"{self._server} {deed}", kind=kind, sent=True)
