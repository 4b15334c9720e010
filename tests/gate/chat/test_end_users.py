"""End users of a reseller who asks for texts: as its body names them in OpenAI's form, or its header."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.access.users import end_user_id
from palladion.gate.callers import read_roll
from palladion.gate.end_users import HEADER, EndUsers, name_from
from palladion.gate.requests import Request
from palladion.policy.resellers import ResellersPolicy
from palladion.registry import StandingChange
from tests.gate.gates import House, problem
from tests.gate.reselling import make_reseller

from .engine import Exchange, chunk, streams
from .talking import HELLO, Talk, run, talking


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    copied = house.copy(tmp_path)
    make_reseller(copied)
    return copied


def _resell(talk: Talk, house: House) -> None:
    """Let acme's end users be clients, as in a gate that serves."""
    directory = talk.bench.gate.stages.directory
    directory._end_users = EndUsers(house.root.derive("pseudonyms"), ResellersPolicy())
    with house.installation.open_registry() as registry, registry.read() as records:
        directory.load(read_roll(records))


async def _nothing() -> bytes:
    return b""


def _request(headers: Mapping[bytes, bytes]) -> Request:
    return Request("POST", "/", headers, _nothing)


@pytest.mark.parametrize(
    ("body", "user"),
    [
        (b'{"user": "ann"}', b"ann"),
        (b'{"safety_identifier": "bob", "user": "ann", "messages": [1, 2]}', b"bob"),
        (b'{"user": ""}', None),
        (b'{"user": null}', None),
        (b"{}", None),
        (b'{"user": 7}', None),
        (b"[]", None),
        (b"\xff", None),
        (b'{"user": "ann"', None),
    ],
)
def test_whom_a_body_names(body: bytes, user: bytes | None) -> None:
    request = _request({b"x": b"y"})
    assert name_from(request, body) == (user is not None)
    assert request.headers.get(HEADER) == user


def test_a_header_counts_before_the_body() -> None:
    request = _request({HEADER: b"ann"})
    assert not name_from(request, b'{"user": "bob"}')
    assert request.headers == {HEADER: b"ann"}


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
def test_the_end_user_of_a_body_is_held_alone(mine: House, field: str) -> None:
    async def test() -> None:
        async with talking(mine) as talk:
            _resell(talk, mine)
            stages = talk.bench.gate.stages
            ann = end_user_id(mine.root.derive("pseudonyms"), mine.ids["acme"], "ann")
            assert (await talk.ask({**HELLO, field: "ann"})).status == 200
            assert talk.details[-1]["end_user"] == pseudonym(mine.root.derive("pseudonyms"), ann)
            stages.directory.change(StandingChange(ann, "suspended", "odd", "user:test", stages.clock.now()))
            assert problem(await talk.ask({**HELLO, field: "ann"})) == "suspended"
            assert (await talk.ask({**HELLO, field: "bob"})).status == 200
            assert (await talk.ask(HELLO)).status == 200
            # whoever does not resell names whom it likes
            assert (await talk.ask({**HELLO, field: "ann"}, client="globex")).status == 200
            assert "ann" not in str(talk.engine.asked)

    run(test)


def test_what_is_no_name_is_told(mine: House) -> None:
    async def test() -> None:
        async with talking(mine) as talk:
            _resell(talk, mine)
            assert problem(await talk.ask({**HELLO, "user": "a\u200bnn"})) == "bad-request"

    run(test)


def test_an_end_user_that_is_suspended_meanwhile_gets_no_further_word(mine: House) -> None:
    ann = end_user_id(mine.root.derive("pseudonyms"), mine.ids["acme"], "ann")
    talks: list[Talk] = []

    async def then(exchange: Exchange) -> None:
        stages = talks[0].bench.gate.stages
        stages.directory.change(StandingChange(ann, "suspended", "odd", "user:test", stages.clock.now()))
        await exchange.event(chunk({"content": "more"}))
        await asyncio.Event().wait()

    async def test() -> None:
        async with talking(mine, streams(chunk({"content": "hello"}), then=then)) as talk:
            _resell(talk, mine)
            talks.append(talk)
            heard = await talk.stream({**HELLO, "user": "ann"})
            assert ("more" in heard.text, heard.error["code"]) == (False, "suspended")
            await talk.engine.left.wait()

    run(test)
