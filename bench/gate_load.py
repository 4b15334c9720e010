"""The other ends of a gate under load: a client that asks over many connections, and a server that answers at once.

Both are processes of their own, so that their CPU time is not the gate's. `python -m bench.gate_load serve|ask`, with
JSON on standard input that says what; see `bench.gate`.
"""

import asyncio
import base64
import json
import ssl
import sys
import time
from functools import partial
from typing import Any

import httptools
import uvloop

LATE_SECONDS = 20.0  # beyond its time, where a busy machine has not answered enough by then


class _Answering(asyncio.Protocol):
    """Answers every request with the same bytes; streams them chunk by chunk where there are several."""

    def __init__(self, answers: dict[str, list[bytes]]) -> None:
        self._answers = answers

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpRequestParser(self)
        self._path = ""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode()

    def on_message_complete(self) -> None:
        for part in self._answers.get(self._path, self._answers["*"]):
            self._transport.write(part)


async def _serve(options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    answers = {path: [base64.b64decode(part) for part in parts] for path, parts in options["answers"].items()}
    server = await loop.create_server(lambda: _Answering(answers), "127.0.0.1", options["port"])
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


class _Asking(asyncio.Protocol):
    """Asks again as soon as it is answered, until the time is over and there were enough."""

    def __init__(self, requests: list[bytes], first: int, until: float, tally: "_Tally") -> None:
        self._requests, self._next, self._until, self._tally = requests, first, until, tally
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_status(self, status: bytes) -> None:
        self._fine = self._parser.get_status_code() == 200

    def on_body(self, body: bytes) -> None:
        self._tally.parts += 1

    def on_message_complete(self) -> None:
        self._tally.add(time.perf_counter() - self._began, fine=self._parser.get_status_code() == 200)
        now, enough = time.perf_counter(), len(self._tally.seconds) >= self._tally.enough
        if now < self._until or (not enough and now < self._until + LATE_SECONDS):
            asyncio.get_running_loop().call_soon(self._ask)
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _ask(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._began = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1


class _Tally:
    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.seconds: list[float] = []
        self.wrong = 0
        self.parts = 0

    def add(self, seconds: float, *, fine: bool) -> None:
        self.seconds.append(seconds)
        self.wrong += not fine


async def _ask(options: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    requests = [base64.b64decode(item) for item in options["requests"]]
    tally = _Tally(options.get("enough", 0))
    until = time.perf_counter() + options["seconds"]
    count = options["connections"]
    asking = []
    for number in range(count):
        first = number * len(requests) // count
        _, protocol = await loop.create_connection(
            partial(_Asking, requests, first, until, tally), "127.0.0.1", options["port"], ssl=_tls(options)
        )
        asking.append(protocol.done)
    await asyncio.gather(*asking)
    ordered = sorted(tally.seconds)
    print(
        json.dumps(
            {
                "requests": len(ordered),
                "wrong": tally.wrong,
                "parts": tally.parts,
                "p50_ms": 1000 * ordered[len(ordered) // 2],
                "p99_ms": 1000 * ordered[int(len(ordered) * 0.99)],
            }
        )
    )


def _tls(options: dict[str, Any]) -> ssl.SSLContext | None:
    if not options.get("tls"):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # the servers are ours, and their certificates of this minute
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


if __name__ == "__main__":
    task = {"serve": _serve, "ask": _ask}[sys.argv[1]]
    uvloop.run(task(json.load(sys.stdin)))
