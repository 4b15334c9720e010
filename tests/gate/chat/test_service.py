"""The gate as users start it, with a language model behind it and OpenAI's own client in front."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import openai
import pytest

from palladion.gate.chat.calibrated import path_of
from palladion.policy import RoutePolicy
from palladion.redteam.retained_talk import read_talk_to_replay
from palladion.watch.text.calibration_file import encode_text_calibration
from palladion.watch.text.query import Query
from tests.gate.gates import MODEL as TENSORS
from tests.gate.gates import House
from tests.gate.service import Service, configure, serving
from tests.watch.talkers import HORIZON, harvest, honest, untimed

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


def _calibrated(house: House) -> str:
    """Put the calibration of the tests where the gate looks for it; its digest."""
    data = encode_text_calibration(untimed().calibration)
    digest = sha256(data).hexdigest()
    path = path_of(house.installation.paths.calibrations, digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return digest


def _ask(service: Service, house: House, client: str, queries: Sequence[Query], *, stream: bool = False) -> int:
    """Ask them one after the other, until one is refused; how many were answered."""
    url = f"http://{service.host}:{service.port}/v1"
    with openai.OpenAI(base_url=url, api_key=house.keys[client], max_retries=0) as asker:
        for number, query in enumerate(queries):
            messages: Any = [{"role": "user", "content": query.text}]
            try:
                answer = asker.chat.completions.create(model=NAME, messages=messages, stream=stream)
                if stream:
                    assert list(answer)
            except openai.PermissionDeniedError:
                return number
    return len(queries)


def _shown(house: House, client: str) -> dict[str, Any]:
    """What the running gate says of a client."""
    status = house.installation.server_status()
    assert status is not None
    (found,) = [item for item in status["clients"] if item["client"].startswith(f"{client}/")]
    return dict(found)


def test_who_harvests_a_language_model_is_suspected_also_after_a_restart_and_who_is_honest_is_not(
    house: House, tmp_path: Path
) -> None:
    copy = house.copy(tmp_path)
    with _engine() as port:
        route = RoutePolicy(
            model=NAME, mode="enforce", protocol="openai", upstream=f"http://127.0.0.1:{port}", upstream_model=MODEL,
            calibration=_calibrated(copy),
        )  # fmt: skip
        watch = {"alpha_suspected": 0.02, "alpha_watched": 0.02, "simulated_may_enforce": True, "suspend_after": 10}
        watch |= {"onset_spread": 0.0}  # or nobody could say when
        configure(copy, route, watch=watch)
        with serving(copy) as service:
            assert any(line.endswith(", calibrated") for line in service.said if NAME in line)
            assert _ask(service, copy, "acme", honest(11)) == HORIZON
            assert _ask(service, copy, "acme", honest(12)[:5], stream=True) == 5
            _ask(service, copy, "globex", harvest(7))
            (before,) = _shown(copy, "globex")["models"]
            assert service.terminate() == 0
        with serving(copy) as service:
            (after,) = _shown(copy, "globex")["models"]
            # whom it shares an address with is found out anew
            group = {"group": [], "linked": 0, "group_buckets": 0}
            assert after | group == before | group
            assert after["reasons"]
            # so many alone would not be enough
            assert _ask(service, copy, "globex", harvest(12, start=99)) < 12
            assert _shown(copy, "globex")["standing"] == "suspended"
            assert _shown(copy, "acme")["standing"] in {"trusted", "watched"}
            assert service.terminate() == 0
    records = [entry.decode() for _, entry in copy.installation.read_ledger().entries()]
    assert any('"standing.changed"' in entry for entry in records)


def test_a_gate_that_is_to_keep_texts_leaves_what_a_calibration_reads(house: House, tmp_path: Path) -> None:
    copy = house.copy(tmp_path)
    with _engine() as port:
        route = RoutePolicy(
            model=NAME, mode="enforce", protocol="openai", upstream=f"http://127.0.0.1:{port}", upstream_model=MODEL
        )
        configure(copy, route, retention={"texts": True})
        queries = honest(11)[:9]
        with serving(copy) as service:
            assert _ask(service, copy, "acme", queries) == 9
            assert _ask(service, copy, "globex", queries[:2], stream=True) == 2
            assert service.terminate() == 0
    found = read_talk_to_replay(copy.installation, NAME, progress=lambda *_, **__: None)
    said = {talker.client: [query.text for query in talker.conversation.queries] for talker in found.talkers}
    assert said == {"acme/acme": [query.text for query in queries], "globex/globex": [q.text for q in queries[:2]]}
