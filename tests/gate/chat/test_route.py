"""A route: what it lets through, and what is made of a server that does not answer as it should."""

import asyncio
import contextlib
import json
import logging
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import PolicyError
from palladion.gate.chat.asked import ChatAsked
from palladion.gate.chat.kinds import KINDS
from palladion.gate.chat.route import NEVER, ModelRoute
from palladion.gate.problems import Problem
from palladion.gate.upstream.answer import Answer
from palladion.policy import RoutePolicy
from tests.gate.gates import House

from .engine import Exchange, Script, wholes, words
from .talking import CHAT, HELLO, run, talking

NOBODY: Any = None


def _route(*extra: str) -> ModelRoute:
    return ModelRoute(RoutePolicy(model="m", protocol="openai", extra_fields=extra), NOBODY)


def _decode(route: ModelRoute, **changes: Any) -> Any:
    return route.decode(CHAT, msgspec.json.encode({**HELLO, **changes}))


def test_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(Problem) as caught:
        _decode(_route(), guided_json={})
    assert caught.value.field == "guided_json"


def test_fields_that_the_policy_lists_are_sent_on() -> None:
    asked = _decode(_route("guided_json"), guided_json={"type": "object"})
    assert isinstance(asked, ChatAsked)
    assert msgspec.json.decode(msgspec.json.encode(asked))["guided_json"] == {"type": "object"}


def test_fields_that_the_policy_lists_are_bounded() -> None:
    deep: Any = {}
    for _ in range(50):
        deep = {"a": deep}
    with pytest.raises(Problem) as caught:
        _decode(_route("guided_json"), guided_json=deep)
    assert caught.value.field == "guided_json"


@pytest.mark.parametrize("name", sorted(NEVER))
def test_no_policy_lets_through_what_is_code_or_tells_of_the_inside(name: str) -> None:
    with pytest.raises(PolicyError, match=name):
        _route(name)


def test_a_known_field_is_no_extra_one() -> None:
    with pytest.raises(PolicyError, match="temperature"):
        _route("temperature")


def test_every_kind_has_a_decoder() -> None:
    route = _route()
    for kind in KINDS:
        with pytest.raises(Problem):
            route.decode(kind, b"{}")


KNOWN = sorted({field.name for kind in KINDS.values() for field in msgspec.structs.fields(kind.asked)})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.slow
@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from(KNOWN), JSON, max_size=6))
def test_whatever_is_asked_is_understood_or_a_problem(kind: str, document: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user"}], "prompt": "x", "input": "x", **document}).encode()
    with contextlib.suppress(Problem):
        assert _route().decode(kind, body).rows >= 1


@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=64))
def test_no_bytes_break_a_decoder(kind: str, body: bytes) -> None:
    with pytest.raises(Problem):
        _route().decode(kind, body)


def _kind(body: bytes) -> str:
    return str(msgspec.json.decode(body)["type"]).removeprefix("urn:palladion:problem:")


async def _dies(exchange: Exchange) -> None:
    exchange.cut()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (wholes({"error": "prompt of somebody"}, status=400), "bad-input"),
        (wholes({"detail": "no such model"}, status=404), "bad-input"),
        (wholes({}, status=429), "busy"),
        (wholes({}, status=503), "busy"),
        (wholes({}, status=500), "upstream-failed"),
        (wholes({}, status=302), "upstream-failed"),
        (wholes(b"<html>", kind="text/html"), "upstream-failed"),
        (wholes(b"garbage"), "upstream-failed"),
        (wholes({"choices": []}), "upstream-failed"),
        (_dies, "upstream-failed"),
    ],
    ids=["400", "404", "429", "503", "500", "302", "html", "garbage", "empty", "dies"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_server_that_does_not_answer_is_a_problem_that_tells_nothing_of_it(
    house: House, script: Script, kind: str, stream: bool
) -> None:
    async def test() -> None:
        async with talking(house, script) as talk:
            response = await talk.ask({**HELLO, "stream": stream})
            assert _kind(response.body) == kind
            assert b"somebody" not in response.body
            assert talk.bench.kinds == []
            assert talk.bench.gate.stages.answered == 0

    run(test)


def test_the_operator_is_told_once_until_it_works_again(house: House, caplog: pytest.LogCaptureFixture) -> None:
    failing = wholes({}, status=500)
    good = wholes(
        {"choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}]},
    )

    async def test() -> None:
        async with talking(house, failing) as talk:
            for script in (failing, failing, good, failing):
                talk.engine.script = script
                await talk.ask()
                assert talk.models.servers["/v1/models/llama"].well is (script is good)

    with caplog.at_level(logging.ERROR, "palladion.gate"):
        run(test)
    assert len([record for record in caplog.records if "/v1/models/llama" in record.message]) == 2


def test_the_headers_that_all_requests_share_cannot_be_added_to() -> None:
    given: list[Any] = []

    class Server:
        async def ask(self, method: bytes, target: bytes, headers: Any, body: bytes) -> Answer:
            given.append(headers)
            return Answer(200, [(b"content-type", b"application/json")], b"{}")

    route = ModelRoute(RoutePolicy(model="m", protocol="openai"), Server())  # type: ignore[arg-type]
    assert asyncio.run(route.ask(CHAT, b"{}")) == b"{}"
    assert isinstance(given[0], tuple)


def test_a_stream_that_is_answered_whole_is_refused(house: House) -> None:
    async def test() -> None:
        async with talking(house, wholes({"choices": words()})) as talk:
            assert _kind((await talk.ask({**HELLO, "stream": True})).body) == "upstream-failed"

    run(test)
