"""The gate as users start it, with a language model behind it and OpenAI's own client in front."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL as TENSORS
from tests.gate.gates import House
from tests.gate.service import configure, serving

from .engine import MODEL, WORDS, engine, good
from .talking import HELLO, NAME

pytestmark = [pytest.mark.service, pytest.mark.slow]


@contextmanager
def _engine() -> Iterator[int]:
    """An engine in a thread of its own: its port."""
    started, stop = threading.Event(), asyncio.Event()
    found: dict[str, Any] = {}

    async def run() -> None:
        async with engine(good) as made:
            found.update(port=made.port, loop=asyncio.get_running_loop())
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert started.wait(30)
    try:
        yield found["port"]
    finally:
        found["loop"].call_soon_threadsafe(stop.set)
        thread.join(30)


def test_a_served_language_model_answers_beside_one_that_runs_here(house: House, tmp_path: Path) -> None:
    copy = house.copy(tmp_path)
    with _engine() as port:
        route = RoutePolicy(
            model=NAME, mode="enforce", protocol="openai", upstream=f"http://127.0.0.1:{port}", upstream_model=MODEL
        )
        configure(copy, RoutePolicy(model=TENSORS, mode="enforce"), route)
        with serving(copy) as service:
            assert any(f"/v1 (model {NAME})" in line for line in service.said)
            assert service.ask().status == 200
            url = f"http://{service.host}:{service.port}/v1"
            with openai.OpenAI(base_url=url, api_key=copy.keys["acme"], max_retries=0) as client:
                messages: Any = HELLO["messages"]
                whole = client.chat.completions.create(model=NAME, messages=messages)
                assert whole.choices[0].message.content == "".join(WORDS)
                stream = client.chat.completions.create(model=NAME, messages=messages, stream=True)
                assert "".join(item.choices[0].delta.content or "" for item in stream) == "".join(WORDS)
            assert service.terminate() == 0
    records = [entry.decode() for _, entry in copy.installation.read_ledger().entries()]
    assert [sum(f'"{kind}"' in entry for entry in records) for kind in ("answer.begun", "answer.given")] == [1, 3]
