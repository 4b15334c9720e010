"""Streamed answers: begun and ended on record, cut where a budget or a standing says so, and whoever breaks them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from palladion.errors import StorageError
from palladion.gate.chat.events import EVENT_BYTES_MAX
from palladion.gate.operations.meter import Sampler
from palladion.ledger.disclosed import verify_disclosed
from palladion.ledger.proof import encode_proof, parse_proof
from tests.gate.gates import House

from .engine import MODEL, WORDS, Exchange, Script, chunk, streams, usage, words
from .talking import CHAT, HELLO, NAME, Talk, run, talking
from .test_turn import Ledgered

TEXT = "".join(WORDS)
STOP = chunk({}, finish_reason="stop")


async def _waits(exchange: Exchange) -> None:
    await asyncio.Event().wait()


def test_a_stream_is_recorded_at_its_beginning_and_before_its_end(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            heard = await talk.stream()
            assert (heard.text, heard.finish) == (TEXT, ["stop"])
            assert MODEL not in heard.body.decode()
            assert "secret" not in heard.body.decode()
            assert talk.bench.kinds == ["answer.begun", "answer.given"]
            begun, given = talk.details
            assert dict(heard.response.headers)[b"palladion-receipt"].endswith(b"/0")
            assert heard.receipt.endswith("/1")
            assert heard.body.endswith(b"\n\ndata: [DONE]\n\n")
            assert (given["tokens_out"], given["finish"], given["streamed"]) == (len(WORDS), "stop", True)
            assert begun["request_digest"] == given["request_digest"]
            # what a client kept, up to the receipt, is what is recorded
            salt = talk.bench.gate.stages.seeds.salt(house.ids["acme"], given["request"])
            record, shown = talk.bench.journal.records[-1], parse_proof(encode_proof(1, [], b"", salt=salt.value))
            verify_disclosed(shown, record, "answer", heard.body, what="the answer")
            assert begun["seed"] == given["seed"] == salt.seed

    run(test)


def test_what_answers_cost_is_told_to_telemetry_of_a_stream_at_its_end(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            meter, sampler = talk.bench.gate.stages.meter, Sampler(1)
            meter.samplers = [sampler]
            whole = await talk.ask()
            meter.answered(CHAT, 200, "", 0.1, whole.request_id)
            begun = await talk.ask({**HELLO, "stream": True})
            meter.answered(CHAT, 200, "", 0.1, begun.request_id)
            first, second = [sample.usage for sample in sampler.take()]
            assert first is not None
            assert second is not None
            assert (first.model, first.known, second.model, second.known) == (NAME, True, NAME, False)
            assert begun.stream is not None
            async for _ in begun.stream.parts:
                pass
            given = [details for details in talk.details if "tokens_out" in details]
            for usage_told, details in zip((first, second), given, strict=True):
                assert usage_told.known
                assert (usage_told.input_tokens, usage_told.output_tokens) == (
                    details["tokens_in"],
                    details["tokens_out"],
                )

    run(test)


def test_a_connection_carries_one_stream_after_another(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            for _ in range(3):
                await talk.stream()
            assert talk.engine.connections == 1

    run(test)


def test_what_ends_an_answer_waits_for_its_record(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            response = await talk.ask({**HELLO, "stream": True})
            talk.bench.journal.error = StorageError("the disk is full")
            assert response.stream is not None
            body = b"".join([part async for part in response.stream.parts])
            await response.stream.close()
            assert b'"stop"' not in body
            assert b"[DONE]" not in body
            assert b'"code":"unrecorded"' in body

    run(test)


def test_nothing_is_streamed_that_could_not_be_recorded(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            talk.bench.journal.error = StorageError("the disk is full")
            response = await talk.ask({**HELLO, "stream": True})
            assert (response.status, response.stream) == (503, None)

    run(test)


def test_the_usage_is_counted_and_told_only_if_it_was_asked_for(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            assert all("usage" not in event for event in (await talk.stream()).events)
            heard = await talk.stream({**HELLO, "stream_options": {"include_usage": True}})
            assert heard.events[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}

    run(test)


async def _never_ends(exchange: Exchange) -> None:
    while True:
        await exchange.event(chunk({"content": " and so on"}))


def test_a_stream_that_passes_its_budget_is_cut_and_says_length(house: House) -> None:
    async def test() -> None:
        budget = Ledgered()
        async with talking(house, streams(then=_never_ends), budget=budget) as talk:
            response = await talk.ask({**HELLO, "stream": True})
            budget.left = 20
            assert response.stream is not None
            body = b"".join([part async for part in response.stream.parts]).decode()
            await response.stream.close()
            assert '"finish_reason":"length"' in body
            assert body.endswith("data: [DONE]\n\n")
            assert talk.details[-1]["finish"] == "length"
            await talk.engine.left.wait()

    run(test)


@pytest.mark.slow
def test_a_server_that_ignores_the_number_of_tokens_is_cut(house: House) -> None:
    async def test() -> None:
        async with talking(house, streams(then=_never_ends)) as talk:
            heard = await talk.stream({**HELLO, "max_tokens": 5})
            assert heard.finish == ["length"]
            await talk.engine.left.wait()

    run(test)


def _after(talk_of: list[Talk], change: Callable[[Talk], object]) -> Script:
    """Say a word, change something, and say another one."""

    async def then(exchange: Exchange) -> None:
        change(talk_of[0])
        await exchange.event(chunk({"content": "more"}))
        await asyncio.Event().wait()

    return streams(chunk({"content": "hello"}), then=then)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda talk: talk.bench.put("suspended"), "suspended"),
        (lambda talk: talk.bench.gate.stages.directory._callers.clear(), "unauthenticated"),
    ],
    ids=["suspended", "revoked"],
)
def test_who_is_suspended_or_revoked_meanwhile_gets_no_further_word(
    house: House, change: Callable[[Talk], object], code: str
) -> None:
    async def test() -> None:
        found: list[Talk] = []
        async with talking(house, _after(found, change)) as talk:
            found.append(talk)
            heard = await talk.stream()
            assert "more" not in heard.text
            assert heard.error["code"] == code
            assert b"[DONE]" not in heard.body
            assert talk.bench.kinds == ["answer.begun", "answer.broken"]
            assert talk.details[-1]["reason"] == code
            await talk.engine.left.wait()

    run(test)


async def _dies(exchange: Exchange) -> None:
    exchange.cut()


async def _ends(exchange: Exchange) -> None:
    exchange.writer.write(b"0\r\n\r\n")
    await exchange.writer.drain()


ENDS = streams(*words(), then=_ends)  # in good order, so that its connection stays


@pytest.mark.parametrize(
    "script",
    [
        streams(*words(), then=_dies),
        ENDS,
        streams(*words(), b"data: garbage\n\n", then=_waits),
        streams(*words(), b"data: [DONE]\n\n", then=_waits),
        streams(*words(), {"error": {"message": "prompt of somebody"}}, then=_waits),
        streams(*words(), chunk({"content": "x"}, index=7), then=_waits),
        streams(*words(), STOP, chunk({"content": "more"}), then=_waits),
        streams(*words(), b"data: " + b"x" * (EVENT_BYTES_MAX + 1), then=_waits),
    ],
    ids=["dies", "ends", "garbage", "done early", "an error", "another answer", "goes on", "huge"],
)
def test_a_server_that_breaks_its_stream_is_told_and_recorded(house: House, script: Script) -> None:
    async def test() -> None:
        budget = Ledgered()
        async with talking(house, script, budget=budget) as talk:
            heard = await talk.stream()
            assert heard.error["code"] == "upstream_failed"
            assert b"somebody" not in heard.body
            assert b"[DONE]" not in heard.body
            assert talk.bench.kinds == ["answer.begun", "answer.broken"]
            assert talk.details[-1]["reason"] == "upstream-failed"
            assert budget.ends == [talk.details[-1]["tokens_in"] + talk.details[-1]["tokens_out"]]
            if script is not ENDS:
                await talk.engine.left.wait()

    run(test)


def test_a_server_that_ends_in_good_order_need_not_say_that_it_is_done(house: House) -> None:
    async def test() -> None:
        async with talking(house, streams(*words(), STOP, then=_ends)) as talk:
            heard = await talk.stream({**HELLO, "stream_options": {"include_usage": True}})
            assert (heard.text, heard.finish) == ("".join(WORDS), ["stop"])
            assert heard.body.endswith(b"data: [DONE]\n\n")
            assert talk.bench.kinds == ["answer.begun", "answer.given"]
            await talk.stream()
            assert talk.engine.connections == 1, "it carried the end of an answer, and can carry the next one"

    run(test)


@pytest.mark.parametrize("then", [_dies, _ends], ids=["dies", "ends"])
def test_a_stream_is_whole_only_with_the_end_of_every_answer_and_in_good_order(house: House, then: Script) -> None:
    async def test() -> None:
        one = streams(*words(), STOP, chunk({"content": "x"}, index=1), then=then)
        async with talking(house, one, choices_max=2) as talk:
            heard = await talk.stream({**HELLO, "n": 2})
            assert heard.error["code"] == "upstream_failed"
            talk.engine.script = streams(*words(), STOP, then=_dies)
            assert (await talk.stream()).error["code"] == "upstream_failed"
            assert talk.bench.kinds == ["answer.begun", "answer.broken"] * 2

    run(test)


def test_a_client_that_leaves_ends_the_servers_stream(house: House) -> None:
    async def test() -> None:
        budget = Ledgered()
        async with talking(house, streams(*words(), then=_waits), budget=budget) as talk:
            response = await talk.ask({**HELLO, "stream": True})
            assert response.stream is not None
            await anext(response.stream.parts)
            await response.stream.close()
            await talk.engine.left.wait()
            assert talk.bench.kinds == ["answer.begun", "answer.broken"]
            assert talk.details[-1]["reason"] == "the client left"
            assert len(budget.ends) == 1
            assert talk.bench.gate.stages.limits.places.taken == 0

    run(test)


def test_a_client_that_never_begins_to_read_ends_the_servers_stream_too(house: House) -> None:
    async def test() -> None:
        async with talking(house, streams(*words(), then=_waits)) as talk:
            response = await talk.ask({**HELLO, "stream": True})
            assert response.stream is not None
            await response.stream.close()
            await talk.engine.left.wait()

    run(test)


def test_a_stream_that_takes_too_long_is_ended(house: House) -> None:
    async def test() -> None:
        async with talking(house, streams(*words(), then=_waits)) as talk:
            route = talk.models._routes[0]
            route.policy = msgspec.structs.replace(route.policy, answer_seconds=0)
            heard = await talk.stream()
            assert heard.error["code"] == "upstream_timeout"

    run(test)


@pytest.mark.slow
def test_a_reader_that_is_slow_holds_the_server_back(house: House) -> None:
    sent = [0]
    full = asyncio.Event()

    async def pours(exchange: Exchange) -> None:
        exchange.writer.transport.set_write_buffer_limits(high=64 * 1024)
        while True:
            sent[0] += 1
            pouring: Awaitable[Any] = exchange.event(chunk({"content": "x" * 10_000}))
            try:
                await asyncio.wait_for(pouring, 0.2)
            except TimeoutError:
                full.set()
                await asyncio.Event().wait()

    async def test() -> None:
        async with talking(house, streams(then=pours), tokens_max=1_000_000) as talk:
            response = await talk.ask({**HELLO, "stream": True})
            assert response.stream is not None
            await full.wait()
            # what the kernel holds of a connection, and our one buffer
            assert sent[0] < 3000
            await response.stream.close()

    run(test)


def test_several_answers_are_streamed_together(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            heard = await talk.stream({**HELLO, "n": 2, "stream_options": {"include_usage": True}})
            assert heard.finish == ["stop", "stop"]
            assert heard.events[-1]["usage"]["completion_tokens"] == 2 * len(WORDS)

    run(test)


def test_completions_are_streamed_as_well(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            heard = await talk.stream({"model": "llama", "prompt": "hello"}, path="/v1/completions")
            text = "".join(choice["text"] for event in heard.events for choice in event["choices"])
            assert text == TEXT

    run(test)


def test_responses_are_streamed_as_well(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            heard = await talk.stream({"model": "llama", "input": "hello"}, path="/v1/responses")
            assert [event["sequence_number"] for event in heard.events] == list(range(len(heard.events)))
            assert heard.events[-1]["type"] == "response.completed"
            assert "rs_1" not in heard.body.decode()
            assert heard.receipt.endswith("/1")

    run(test)


def test_usage_at_every_piece_is_understood(house: House) -> None:
    pieces = [{**chunk({"content": word}), "usage": usage(5, number)} for number, word in enumerate(WORDS, 1)]

    async def test() -> None:
        async with talking(house, streams(*pieces, STOP, then=Exchange.done)) as talk:
            heard = await talk.stream()
            assert heard.text == TEXT
            assert talk.details[-1]["tokens_out"] == len(WORDS)

    run(test)
