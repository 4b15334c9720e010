"""End users of a reseller who asks for texts: as its body names them in OpenAI's form, or its header."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.gate.callers import WATCH
from palladion.gate.end_users import HEADER, EndUsers, name_from
from palladion.gate.requests import Request
from palladion.policy.resellers import ResellersPolicy
from palladion.registry import StandingChange
from palladion.watch.text.ruled import REQUESTS_MIN
from tests.gate.gates import House, problem
from tests.gate.reselling import id_of, make_reseller
from tests.gate.rolls import read_roll

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
            ann = id_of(mine, "ann")
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
    ann = id_of(mine, "ann")
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


def _harvest(number: int, user: str) -> dict[str, object]:
    text = f"Think step by step: who was king {'i' * number} of Troy?"
    return {**HELLO, "messages": [{"role": "user", "content": text}], "user": user}


def test_rules_without_a_calibration_count_for_reseller_and_end_user_each(mine: House) -> None:
    async def test() -> None:
        async with talking(mine) as talk:
            _resell(talk, mine)
            stages = talk.bench.gate.stages
            acme = mine.ids["acme"]

            def standing(client: str) -> str:
                return stages.directory.callers[client].standing

            ann, bob = (id_of(mine, user) for user in ("ann", "bob"))
            for number in range(REQUESTS_MIN):
                user = "bob" if number == 0 else "ann"
                assert (await talk.ask(_harvest(number, user))).status == 200
            assert [standing(client) for client in (acme, ann, bob)] == ["watched", "trusted", "trusted"]
            assert (await talk.ask(_harvest(REQUESTS_MIN, "ann"))).status == 200
            assert [standing(client) for client in (acme, ann, bob)] == ["watched", "watched", "trusted"]

    run(test)


def test_a_lowered_end_user_lowers_or_raises_its_reseller_by_no_rule(mine: House) -> None:
    async def test() -> None:
        async with talking(mine) as talk:
            _resell(talk, mine)
            stages = talk.bench.gate.stages
            acme, ann = mine.ids["acme"], id_of(mine, "ann")
            for number in range(REQUESTS_MIN):
                assert (await talk.ask(_harvest(number, "ann"))).status == 200
            assert stages.directory.callers[acme].standing == "watched"
            # a person raises the reseller alone: what lowered it must not do so again, whoever it asks for next
            talk.bench.clock.advance(timedelta(minutes=1))
            stages.directory.change(StandingChange(acme, "trusted", "well", "user:test", stages.clock.now()))
            assert (await talk.ask(_harvest(REQUESTS_MIN, "ann"))).status == 200
            assert stages.directory.callers[acme].standing == "trusted"
            assert stages.directory.callers[ann].standing == "watched"

    run(test)


def test_an_end_user_lowered_by_something_else_is_not_raised_by_rules(mine: House) -> None:
    async def test() -> None:
        async with talking(mine) as talk:
            _resell(talk, mine)
            stages = talk.bench.gate.stages
            acme, ann = mine.ids["acme"], id_of(mine, "ann")
            # the reseller is watched by rules, so that something is settled with each query
            for number in range(REQUESTS_MIN):
                assert (await talk.ask(_harvest(number, "bob"))).status == 200
            assert (await talk.ask({**HELLO, "user": "ann"})).status == 200
            stages.directory.change(StandingChange(ann, "throttled", "odd", WATCH, stages.clock.now()))
            talk.bench.clock.advance(timedelta(hours=500))
            assert (await talk.ask({**HELLO, "user": "ann"})).status == 200
            assert stages.directory.callers[acme].standing == "trusted"
            assert stages.directory.callers[ann].standing == "throttled"

    run(test)
