"""A server of language models for tests, which speaks as vLLM documents it, strictly; and one that misbehaves.

Whatever a request may not hold fails the test: it answers only what it knows, and remembers all it was asked.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

MODEL = "meta/llama"  # the name of the model there, which no client may get to see
WORDS = ["Troy", " stood", " as", " long", " as", " it", " kept", " the", " Palladion", "."]
FINGERPRINT = "fp_secret"

COMMON = {"model", "stream", "stream_options", "max_tokens", "n", "temperature", "top_p", "presence_penalty"} | {
    "frequency_penalty", "seed", "stop", "logit_bias", "logprobs", "watermarking", "watermark", "top_k",
}  # fmt: skip
FIELDS: Mapping[str, set[str]] = {
    "/v1/chat/completions": COMMON
    | {"messages", "max_completion_tokens", "top_logprobs", "response_format", "tools", "tool_choice"}
    | {"parallel_tool_calls", "reasoning_effort"},
    "/v1/completions": COMMON | {"prompt", "suffix"},
    "/v1/embeddings": {"model", "input", "encoding_format", "dimensions"},
    "/v1/responses": {
        "model", "input", "instructions", "stream", "max_output_tokens", "temperature", "top_p", "tools", "tool_choice",
        "parallel_tool_calls", "text", "reasoning", "truncation", "store", "watermarking",
    },
}  # fmt: skip

Script = Callable[["Exchange"], Coroutine[Any, Any, None]]


class Exchange:
    """One request, and what is written in answer."""

    def __init__(self, engine: "Engine", path: str, document: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.engine, self.path, self.document, self.writer = engine, path, document, writer

    async def head(self, status: int = 200, kind: str = "text/event-stream", length: int | None = None) -> None:
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        self.writer.write(f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode())
        await self.writer.drain()

    async def part(self, data: bytes) -> None:
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def event(self, document: object) -> None:
        await self.part(b"data: " + json.dumps(document).encode() + b"\n\n")

    async def done(self) -> None:
        await self.part(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def whole(self, document: object, status: int = 200, kind: str = "application/json") -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        await self.head(status, kind, len(body))
        self.writer.write(body)
        await self.writer.drain()

    def cut(self) -> None:
        self.writer.transport.abort()


class Engine:
    """The server: `script` answers each request; `asked` is what came."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []
        self.heads: list[bytes] = []
        self.left = asyncio.Event()  # a connection is gone
        self.connections = 0
        self.port = 0
        self.failures: list[BaseException] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        gone = asyncio.Event()
        _tell(gone, reader)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *lines = head.decode().split("\r\n")
                headers = dict(item.split(": ", 1) for item in lines if item)
                body = await reader.readexactly(int(headers["content-length"]))
                path = line.split(" ")[1]
                document = json.loads(body)
                self.heads.append(head)
                self.asked.append(document)
                assert document.keys() <= FIELDS[path], document.keys() - FIELDS[path]
                assert document["model"] == MODEL
                await _until(gone, self.script(Exchange(self, path, document, writer)))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except AssertionError as failure:
            self.failures.append(failure)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.left.set()


def _tell(gone: asyncio.Event, reader: asyncio.StreamReader) -> None:
    """Have an event set when the client leaves, even while nobody reads."""
    feed_eof, set_exception = reader.feed_eof, reader.set_exception

    def end() -> None:
        gone.set()
        feed_eof()

    def fail(error: BaseException) -> None:
        gone.set()
        set_exception(error)  # type: ignore[arg-type]

    reader.feed_eof, reader.set_exception = end, fail  # type: ignore[method-assign, assignment]


async def _until(gone: asyncio.Event, script: Coroutine[Any, Any, None]) -> None:
    """Follow a script until it ends or the client leaves."""
    following, leaving = asyncio.ensure_future(script), asyncio.ensure_future(gone.wait())
    await asyncio.wait({following, leaving}, return_when=asyncio.FIRST_COMPLETED)
    for task in (leaving, following):
        task.cancel()
    try:
        await following
    except asyncio.CancelledError:
        raise ConnectionResetError from None


@asynccontextmanager
async def engine(script: Script) -> AsyncIterator[Engine]:
    """An engine on a free port of the loopback."""
    made = Engine(script)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
    assert made.failures == []


async def good(exchange: Exchange) -> None:
    """Answer as vLLM does."""
    await _ANSWERS[exchange.path](exchange)


async def _chat(exchange: Exchange) -> None:
    asked = exchange.document
    limit = asked.get("max_tokens") or asked.get("max_completion_tokens") or 1000
    words = WORDS[:limit]
    finish = "length" if limit < len(WORDS) else "stop"
    count = asked.get("n") or 1
    logprobs = (
        {"content": [_place(word, asked.get("top_logprobs") or 0) for word in words]} if asked.get("logprobs") else None
    )
    if not asked.get("stream"):
        message = {
            "role": "assistant",
            "content": "".join(words),
            "reasoning_content": "a secret thought",
            "tool_calls": [],
        }
        choices = [
            {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish, "stop_reason": None}
            for index in range(count)
        ]
        await exchange.whole({**_about("chat.completion"), "choices": choices, "usage": usage(5, len(words) * count)})
        return
    await exchange.head()
    for index in range(count):
        await exchange.event(chunk({"role": "assistant", "content": ""}, index=index))
        await exchange.event(chunk({"reasoning_content": "a secret thought"}, index=index))
        for word in words:
            shown = {"content": [_place(word, asked.get("top_logprobs") or 0)]} if asked.get("logprobs") else None
            await exchange.event(chunk({"content": word}, index=index, logprobs=shown))
        await exchange.event(chunk({}, index=index, finish_reason=finish))
    if (asked.get("stream_options") or {}).get("include_usage"):
        await exchange.event({**_about("chat.completion.chunk"), "choices": [], "usage": usage(5, len(words) * count)})
    await exchange.done()


async def _completions(exchange: Exchange) -> None:
    asked = exchange.document
    prompts = 1 if isinstance(asked["prompt"], str) or isinstance(asked["prompt"][0], int) else len(asked["prompt"])
    logprobs = None
    if asked.get("logprobs") is not None:
        logprobs = {
            "tokens": WORDS,
            "token_logprobs": [-0.123456] * len(WORDS),
            "top_logprobs": [{word: -0.123456, "x": -3.3, "y": -4.4} for word in WORDS],
            "text_offset": list(range(len(WORDS))),
        }
    if not asked.get("stream"):
        choices = [
            {
                "index": index,
                "text": "".join(WORDS),
                "logprobs": logprobs,
                "finish_reason": "stop",
                "prompt_logprobs": [1],
            }
            for index in range(prompts * (asked.get("n") or 1))
        ]
        await exchange.whole(
            {**_about("text_completion"), "choices": choices, "usage": usage(5, len(WORDS) * len(choices))}
        )
        return
    await exchange.head()
    for word in WORDS:
        await exchange.event(
            {**_about("text_completion"), "choices": [{"index": 0, "text": word, "finish_reason": None}]}
        )
    last = {"index": 0, "text": "", "finish_reason": "stop"}
    await exchange.event({**_about("text_completion"), "choices": [last], "usage": usage(5, len(WORDS))})
    await exchange.done()


async def _embeddings(exchange: Exchange) -> None:
    asked = exchange.document
    assert asked["encoding_format"] == "float"
    texts = asked["input"] if isinstance(asked["input"], list) and not isinstance(asked["input"][0], int) else [0]
    data = [
        {"object": "embedding", "index": index, "embedding": [0.123456789, -0.987654321, 0.5 + index]}
        for index in range(len(texts))
    ]
    await exchange.whole({"id": "embd-secret", "object": "list", "model": MODEL, "data": data, "usage": usage(5, 0)})


async def _responses(exchange: Exchange) -> None:
    asked = exchange.document
    assert asked["store"] is False
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    said = {"type": "output_text", "text": "".join(WORDS), "annotations": [], "logprobs": [1]}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [said]}
    response = {
        "id": "resp_secret", "object": "response", "created_at": 1, "model": MODEL, "status": "completed",
        "output": [thought, message], "system_fingerprint": FINGERPRINT,
        "usage": {"input_tokens": 5, "output_tokens": len(WORDS) + 1, "total_tokens": 16},
    }  # fmt: skip
    if not asked.get("stream"):
        await exchange.whole(response)
        return
    await exchange.head()
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**thought, "content": []}},
        {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "hm"},
        {"type": "response.output_item.added", "output_index": 1, "item": {**message, "content": []}},
        {
            "type": "response.content_part.added", "output_index": 1, "item_id": "msg_1", "content_index": 0,
            "part": {**said, "text": ""},
        },
    ]  # fmt: skip
    place = {"output_index": 1, "item_id": "msg_1", "content_index": 0}
    events += [{"type": "response.output_text.delta", **place, "delta": word, "logprobs": [2]} for word in WORDS]
    events += [
        {"type": "response.output_text.done", **place, "text": "".join(WORDS)},
        {"type": "response.content_part.done", **place, "part": said},
        {"type": "response.output_item.done", "output_index": 1, "item": message},
        {"type": "response.something.new", "output_index": 1},
        {"type": "response.completed", "response": response},
    ]
    for number, event in enumerate(events):
        line = json.dumps({**event, "sequence_number": number}).encode()
        await exchange.part(b"event: " + event["type"].encode() + b"\ndata: " + line + b"\n\n")
    exchange.writer.write(b"0\r\n\r\n")
    await exchange.writer.drain()


_ANSWERS: Mapping[str, Script] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completions,
    "/v1/embeddings": _embeddings,
    "/v1/responses": _responses,
}


def chunk(delta: Mapping[str, Any], *, index: int = 0, **changes: Any) -> dict[str, Any]:
    """A piece of an answer to a conversation."""
    choice = {"index": index, "delta": dict(delta), "logprobs": None, "finish_reason": None, **changes}
    return {**_about("chat.completion.chunk"), "choices": [choice]}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """What it says that it counted."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


def streams(*events: object, then: Script | None = None) -> Script:
    """Answer each request with these events: documents, or bytes as they are."""

    async def script(exchange: Exchange) -> None:
        await exchange.head()
        for item in events:
            await (exchange.part(item) if isinstance(item, bytes) else exchange.event(item))
        if then is not None:
            await then(exchange)

    return script


def wholes(document: object, **changes: Any) -> Script:
    """Answer each request with this document."""

    async def script(exchange: Exchange) -> None:
        await exchange.whole(document, **changes)

    return script


def words(texts: Sequence[str] = WORDS) -> list[dict[str, Any]]:
    """The pieces of an answer, without its end."""
    return [chunk({"content": text}) for text in texts]


def _place(word: str, alternatives: int) -> dict[str, Any]:
    top = [{"token": f"{word}{number}", "logprob": -number - 0.123456, "bytes": None} for number in range(alternatives)]
    return {"token": word, "logprob": -0.123456, "bytes": list(word.encode()), "top_logprobs": top}


def _about(kind: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-secret", "object": kind, "created": 1, "model": MODEL, "system_fingerprint": FINGERPRINT,
        "prompt_logprobs": None, "kv_transfer_params": None,
    }  # fmt: skip
