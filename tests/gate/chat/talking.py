"""A gate with language models behind it, asked without a transport, or over HTTP by whoever speaks it."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvloop

from palladion.gate.app import App
from palladion.gate.chat.budget import Budget
from palladion.gate.chat.models import LanguageModels
from palladion.gate.requests import Response
from palladion.policy import RoutePolicy
from tests.gate.gates import OTHER_MODEL, Bench, House, open_gate
from tests.lifecycle.installations import NOW

from .engine import MODEL, Engine, Script, engine, good

CHAT = "/v1/chat/completions"
NAME = "llama"  # of the model, as clients know it
OTHER = OTHER_MODEL  # of another one, which initech may ask
SECONDS_MAX = 30  # what hangs is a fault
HELLO = {"model": NAME, "messages": [{"role": "user", "content": "Tell me of Troy."}]}


@dataclass(eq=False)
class Talk:
    """A gate, the engine behind it, and everything that a test wants to look at or turn."""

    bench: Bench
    engine: Engine
    models: LanguageModels

    async def ask(
        self,
        document: object = HELLO,
        *,
        path: str = CHAT,
        client: str = "acme",
        method: str = "POST",
        address: str | None = None,
    ) -> Response:
        """The response to one request; a stream is still to come."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        request = self.bench.request(body=body, path=path, client=client, method=method, address=address)
        return await self.bench.gate.handle(request)

    async def stream(self, document: Mapping[str, Any] = HELLO, **changes: Any) -> "Heard":
        """A streamed answer to its end."""
        response = await self.ask({**document, "stream": True}, **changes)
        assert response.stream is not None, response.body
        parts = [part async for part in response.stream.parts]
        await response.stream.close()
        return Heard(response, b"".join(parts))

    @property
    def details(self) -> list[dict[str, Any]]:
        """Of the records so far."""
        return [record.details for record in self.bench.journal.records]


@dataclass(eq=False)
class Heard:
    """A streamed answer."""

    response: Response
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its events, but the last."""
        lines = [line for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [json.loads(line[6:]) for line in lines if line != "data: [DONE]"]

    @property
    def text(self) -> str:
        """The text of its first choice."""
        choices = [choice for event in self.events for choice in event.get("choices", [])]
        return "".join(item["delta"].get("content") or "" for item in choices if item["index"] == 0)

    @property
    def finish(self) -> list[str]:
        """How its choices ended."""
        choices = [choice for event in self.events for choice in event.get("choices", [])]
        return [item["finish_reason"] for item in choices if item["finish_reason"]]

    @property
    def error(self) -> dict[str, Any]:
        """What it broke off with."""
        found: dict[str, Any] = self.events[-1]["error"]
        return found

    @property
    def receipt(self) -> str:
        """The entry that records its end."""
        found = re.search(r"^: palladion-receipt (\S+)$", self.body.decode(), re.MULTILINE)
        assert found is not None
        return found[1]


@asynccontextmanager
async def talking(
    house: House, script: Script = good, *, budget: Budget | None = None, **settings: Any
) -> AsyncIterator[Talk]:
    """A gate with two models behind it, of which `settings` change the first."""
    async with engine(script) as server:
        upstream: dict[str, Any] = {
            "protocol": "openai",
            "upstream": f"http://127.0.0.1:{server.port}",
            "upstream_model": MODEL,
        }
        routes = [
            RoutePolicy(**{"model": NAME, "mode": "enforce", **upstream, **settings}),
            RoutePolicy(**{"model": OTHER, "mode": "enforce", **upstream}),
        ]
        bench = open_gate(house)
        policy = house.with_policy(*routes).policy
        models = LanguageModels(policy, house.installation.paths.home, bench.gate.stages, house.root, budget)
        bench.gate.serve(bench.gate.served, models.endpoints)
        try:
            yield Talk(bench, server, models)
        finally:
            await models.close()


@asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """The gate on a port of the loopback: its address."""
    config = uvicorn.Config(App(talk.bench.gate, ready=lambda: True), log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server._serve([listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            await serving


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test on the loop that the gate runs on, to its end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test(), SECONDS_MAX))


SECONDS = int(NOW.timestamp())
