"""Texts asked through a gate that really runs, with a language model behind it: what two accounts get, until when."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palladion.clock import ManualClock
from palladion.lifecycle.capture import new_capture
from palladion.lifecycle.probe import Api
from palladion.policy import RoutePolicy
from palladion.redteam.audit.accounts import ReactedError
from palladion.redteam.audit.chat_remote import ChatRemote
from palladion.redteam.audit.journal import Journal
from palladion.redteam.distilling import TextAnswer
from palladion.transit.url import parse_url
from palladion.transit.web import Web
from tests.gate.chat.engine import MODEL, Exchange, engine
from tests.gate.gates import House, make_house
from tests.gate.service import configure, serving
from tests.lifecycle.apis import LIMITS
from tests.lifecycle.installations import NOW
from tests.redteam.speakers import PROMPTS, parrot

pytestmark = [pytest.mark.service, pytest.mark.slow]

NAME, A_DAY = "llama", 20


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """An installation with clients."""
    return make_house(tmp_path_factory.mktemp("house"))


async def _said(exchange: Exchange) -> None:
    text = parrot(exchange.document["messages"][0]["content"])
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
    about = {"id": "chat-1", "object": "chat.completion", "created": 1, "model": MODEL}
    await exchange.whole({**about, "choices": [choice], "usage": usage})


@contextmanager
def _engine() -> Iterator[int]:
    """A language model's server in a thread of its own: its port."""
    started, stop = threading.Event(), asyncio.Event()
    found: dict[str, Any] = {}

    async def run() -> None:
        async with engine(_said) as made:
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


def test_each_account_gets_its_budget_and_the_report_knows_how_much(house: House, tmp_path: Path) -> None:
    copy = house.copy(tmp_path)
    prompts = [text for name in PROMPTS.names for text in PROMPTS.tasks[name]]
    with _engine() as port:
        route = RoutePolicy(
            model=NAME, mode="enforce", protocol="openai", upstream=f"http://127.0.0.1:{port}",
            upstream_model=MODEL,
        )  # fmt: skip
        configure(copy, route, limits={"queries_per_day": A_DAY})
        with (
            serving(copy) as service,
            new_capture(tmp_path / "capture.jsonl", ManualClock(NOW)) as capture,
            Journal(tmp_path / "texts.jsonl") as journal,
        ):
            web = Web(LIMITS)
            url = parse_url(f"http://{service.host}:{service.port}/v1/chat/completions")
            remote = ChatRemote(
                Api(url, copy.keys["acme"]), NAME, journal, capture, web,
                alternatives=5, budget=1000, per_second=1000, wait=time.sleep, more_keys=[copy.keys["globex"]],
            )  # fmt: skip
            got: list[TextAnswer] = []
            try:
                remote.meet(prompts)
                # the gate as it is shipped shows no log probabilities
                assert remote.alternatives == 0
                with pytest.raises(ReactedError, match=r"refuses us \(429\)"):
                    got.extend(remote.answers(prompts, temperature=0.0, again=0))
            finally:
                web.close()
            assert service.terminate() == 0
    assert [answer.text for answer in got] == [parrot(prompt) for prompt in prompts[: len(got)]]
    # what the gate refuses, the request for log probabilities and the last of each, is no query of its budget
    owned = [item.own for item in remote.accounts.reactions.values()]
    assert sum(owned) == 2 * A_DAY + 3
    # five were spent on finding out how it answers, and whether it answers the same again
    assert len(got) == 2 * A_DAY - 5
