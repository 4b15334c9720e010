"""Requests that two readers may understand differently, and what a gate makes of each. Bytes alone; nothing is sent.

After James Kettle's "HTTP Desync Attacks" (2019), the corpora of llhttp and h11, and RFC 9112. Where a request is one
for a careless reader, a whole and valid one is hidden in it: if that is ever answered, the model counts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .counting import JSON_PATH

BODY = b'{"rows":[[1,2]]}'
START = f"POST {JSON_PATH} HTTP/1.1".encode()
LAST = b"\r\n0\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNK = b"10\r\n" + BODY + LAST
REPEATED = 40_000


@dataclass(frozen=True)
class Requests:
    """The corpus for one API key."""

    key: bytes

    def post(
        self,
        more: bytes = b"",
        body: bytes = BODY,
        *,
        start: bytes = START,
        length: bool = True,
        key: bytes | None = None,
        host: bytes = b"host: gate\r\n",
    ) -> bytes:
        """A request that is right unless something is changed; an empty `key` sends none."""
        key = self.key if key is None else key
        credential = b"authorization: Bearer %s\r\n" % key if key else b""
        framing = b"content-length: %d\r\n" % len(body) if length else b""
        return b"".join(
            [start, b"\r\n", host, credential, b"content-type: application/json\r\n", framing, more, b"\r\n", body]
        )

    def chunked(self, body: bytes = CHUNK, more: bytes = b"", *, coding: bytes = b"chunked", **changes: bytes) -> bytes:
        """A request in chunks."""
        return self.post(b"transfer-encoding: " + coding + b"\r\n" + more, body, length=False, **changes)

    def start(self, line: bytes) -> bytes:
        """A request that begins otherwise."""
        return self.post(start=line)

    def refused(self) -> Mapping[str, bytes]:
        """Each gets one bare 400 and the end of its connection; nothing of it reaches the model."""
        return {
            **{f"length: {name}": data for name, data in self._lengths().items()},
            **{f"coding: {name}": data for name, data in self._codings().items()},
            **{f"chunk: {name}": data for name, data in self._chunks().items()},
            **{f"line: {name}": data for name, data in self._lines().items()},
            **{f"start: {name}": data for name, data in self._starts().items()},
            **{f"upgrade: {name}": data for name, data in self._upgrades().items()},
        }

    def _lengths(self) -> Mapping[str, bytes]:
        hidden = self.post()
        found = {
            f"{text!r}": self.post(b"content-length: " + text + b"\r\n", length=False) + hidden
            for text in (
                b"16, 16",
                b"16,0",
                b"+16",
                b"-16",
                b"0x10",
                b"1_6",
                b"16.0",
                b"",
                b"9" * 30,
                b"16 16",
                b"\x0b16",
            )
        }
        found["and chunks"] = self.post(CHUNKED, b"0\r\n\r\n" + hidden)
        found["after chunks"] = self.chunked(b"0\r\n\r\n" + hidden, b"content-length: 4\r\n")
        found["twice the same"] = self.post(b"content-length: 16\r\n") + hidden
        found["twice"] = self.post(b"content-length: 0\r\n") + hidden
        found["none, and a body"] = self.post(length=False)
        return found

    def _codings(self) -> Mapping[str, bytes]:
        found = {
            f"{text!r}": self.chunked(coding=text) + self.post()
            for text in (
                b"identity",
                b"chunked, chunked",
                b"chunked, identity",
                b"identity, chunked",
                b"gzip, chunked",
                b"xchunked",
                b"chunked;q=1",
                b"\x0bchunked",
                b'"chunked"',
                b",chunked",
                b"chunked,",
                b"",
                b"chunked\0",
                b"chun ked",
            )
        }
        found["identity and a length"] = self.post(b"transfer-encoding: identity\r\n")
        found["twice"] = self.chunked(more=CHUNKED)
        found["twice, another"] = self.chunked(more=b"transfer-encoding: identity\r\n")
        found["in HTTP/1.0"] = self.chunked(start=START.replace(b"1.1", b"1.0"))
        return found

    def _chunks(self) -> Mapping[str, bytes]:
        rest = BODY + LAST
        found = {
            f"size {text[:20]!r}": self.chunked(text + b"\r\n" + rest) + self.post()
            for text in (
                b"fffffffffffffffff",
                b"10000000000000010",
                b"-10",
                b"+10",
                b"0x10",
                b"10 ",
                b" 10",
                b"g",
                b"",
                b"1 0",
                b"10\t",
                b"10\0",
                b"16,",
            )
        }
        found["no end of a chunk"] = self.chunked(b"10\r\n" + BODY + b"0\r\n\r\n")
        found["another end of a chunk"] = self.chunked(b"10\r\n" + BODY + b"xx0\r\n\r\n")
        found["lines end bare"] = self.chunked(b"10\n" + BODY + b"\n0\n\n")
        found["a chunk ends bare"] = self.chunked(b"10\r\n" + BODY + b"\n0\r\n\r\n")
        found["the last ends bare"] = self.chunked(b"10\r\n" + BODY + b"\r\n0\n\r\n")
        found["an extension ends bare"] = self.chunked(b"10;a\n" + rest)
        found["an extension with a return"] = self.chunked(b"10;a\rb\r\n" + rest)
        found["a trailer frames"] = self.chunked(
            b"10\r\n" + BODY + b"\r\n0\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        return found

    def _lines(self) -> Mapping[str, bytes]:
        right = self.post()
        found = {
            f"{text[:40]!r}": self.post(text + b"\r\n") + right
            for text in (
                b"x: a\r\n b",
                b"x: a\r\n\tb",
                b"transfer-encoding:\r\n chunked",
                b"x: a\ny: b",
                b"x: a\ntransfer-encoding: chunked",
                b"x: a\rb",
                b"x: a\rtransfer-encoding: chunked",
                b"x: a\0b",
                b"x\0: a",
                b"transfer-encoding: \0chunked",
                b"x : a",
                b"transfer-encoding : chunked",
                b"content-length : 0",
                b"x y: a",
                b"xyz",
                b": a",
                b"x\xff: a",
                b" x: a",
                b"(x): a",
                b"x: " + b"a" * REPEATED,
                b"x: a\r\n" * (REPEATED // 6) + b"y: b",
            )
        }
        found["bare"] = right.replace(b"\r\n", b"\n")
        found["the head ends bare"] = right.replace(b"\r\n\r\n", b"\n\n")
        found["a blank before the first"] = self.post(host=b" host: gate\r\n")
        found["a length with a blank"] = self.post(b"content-length : 0\r\n", length=False) + right
        hosts = {b"": b"", b"a b": b"host: a b\r\n", b"a@b/c": b"host: a@b/c\r\n", b"a\\b": b"host: a\\b\r\n"}
        found |= {f"host {name!r}": self.post(host=line) for name, line in hosts.items()}
        return found

    def _starts(self) -> Mapping[str, bytes]:
        path = JSON_PATH.encode()
        lines = [
            b"POST http://evil%s HTTP/1.1",
            b"POST https://gate%s HTTP/1.1",
            b"POST http://a:b@gate%s HTTP/1.1",
            b"POST ftp://gate%s HTTP/1.1",
            b"POST http://%s HTTP/1.1",
            b"POST %s#x HTTP/1.1",
            b"POST *%s HTTP/1.1",
            b"POST \xff%s HTTP/1.1",
            b"POST \\%s HTTP/1.1",
            b"POST %s HTTP/0.9",
            b"POST %s HTTP/2",
            b"POST %s HTTP/2.0",
            b"POST %s HTTP/1.2",
            b"POST %s HTTP/1.10",
            b"POST %s HTTP/1.",
            b"POST %s http/1.1",
            b"POST %s HTTP/1.1 x",
            b"POST %s HTTP 1.1",
            b"POST\t%s\tHTTP/1.1",
            b"post %s HTTP/1.1",
            b"POSTX %s HTTP/1.1",
            b"XPOST %s HTTP/1.1",
            b"POST %s ICE/1.0",
            b"xx\r\nPOST %s HTTP/1.1",
            b"POST %s\0 HTTP/1.1",
        ]
        found = {f"{line!r}": self.start(line % path) for line in lines}
        found["star"] = self.start(b"OPTIONS * HTTP/1.1")
        found["relative"] = self.start(b"POST v1/models HTTP/1.1")
        found["long"] = self.start(b"POST %s?%s HTTP/1.1" % (path, b"a" * REPEATED))
        found["HTTP/0.9"] = b"GET %s\r\n\r\n" % path
        found["HTTP/2 by knowledge"] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
        found["TLS"] = b"\x16\x03\x01\0\xa5\1\0\0\xa1\3\3"
        return found

    def _upgrades(self) -> Mapping[str, bytes]:
        socket = b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
        socket += b"sec-websocket-key: YWFhYWFhYWFhYWFhYWFhYQ==\r\n"
        h2c = b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
        return {
            "websocket": self.post(socket, b"", start=START.replace(b"POST", b"GET"), length=False) + self.post(),
            "websocket with a body": self.post(socket) + self.post(),
            "HTTP/2": self.post(h2c) + self.post(),
            "CONNECT": self.start(b"CONNECT evil:443 HTTP/1.1") + self.post(),
        }

    def not_found(self) -> Mapping[str, bytes]:
        """Each is answered 404: no path but the one that the policy names, byte for byte, leads to a model."""
        path = JSON_PATH.encode()
        spelt = [
            path.replace(b"digits", b"%64igits"),
            path.replace(b"/models", b"%2fmodels"),
            path + b"/",
            b"/" + path,
            path + b";a",
            path + b"%zz",
            path + b"%00",
            path.upper(),
            path.replace(b"digits", b"x/../digits"),
            path.replace(b"digits", b"./digits"),
            path + b"%3fa=b",
            b"/%ff",
            path + b"%20",
        ]
        return {f"{target!r}": self.start(b"POST %s HTTP/1.1" % target) for target in spelt}

    def answered(self) -> Mapping[str, bytes]:
        """Each is one question, however it looks: one answer 200, and one run of the model."""
        return {
            "as it should be": self.post(),
            "in chunks": self.chunked(),
            "in many chunks": self.chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"),
            "in capitals": self.chunked(coding=b"CHUNKED"),
            "with an extension": self.chunked(b"10;a=b\r\n" + BODY + LAST),
            "with a trailer": self.chunked(b"10\r\n" + BODY + b"\r\n0\r\nx: y\r\n\r\n"),
            "after empty lines": b"\r\n\r\n" + self.post(),
            "with a query": self.start(START.replace(b" HTTP", b"?a=b HTTP")),
            "names with underscores": self.post(b"content_length: 0\r\ntransfer_encoding: chunked\r\n"),
            "framing told to be for a hop": self.post(b"connection: content-length\r\n"),
            "an expectation that nobody knows": self.post(b"expect: tea\r\n"),
            "HTTP/1.0": self.start(START.replace(b"1.1", b"1.0")),
            "and no more, it says": self.post(b"connection: close\r\n") + self.post(),
        }
