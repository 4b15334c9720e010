"""Whole answers: recorded before they leave, charged as they cost, and nothing for who was suspended meanwhile."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from palladion.access.pseudonyms import network_pseudonym
from palladion.errors import StorageError
from palladion.gate.callers import WATCH, Caller
from palladion.gate.chat.budget import Reservation
from palladion.gate.problems import Problem
from palladion.policy import ContractPolicy, RoutePolicy
from palladion.registry.rows import Standing
from tests.gate.gates import House

from .engine import FINGERPRINT, MODEL, WORDS, Exchange, good, wholes
from .talking import HELLO, NAME, Talk, run, talking


class Ledgered:
    """A budget that remembers what is reserved, and what becomes of it."""

    def __init__(self, left: int = 10**9) -> None:
        self.left = left
        self.reserved: list[float] = []
        self.ends: list[object] = []

    def reserve(
        self, caller: Caller, route: RoutePolicy, *, queries: float, tokens: float, information: float
    ) -> Reservation:
        if tokens > self.left:
            raise Problem("rate-limited", "today's budget of tokens is spent", retry_after_seconds=60)
        self.reserved.append(tokens)
        return self

    def exceeded(self, tokens: int) -> bool:
        return tokens > self.left

    def settle(self, tokens: int, *, queries: float | None = None, information: float = 0) -> None:
        self.ends.append("released" if queries == 0 else tokens)


def test_the_record_has_the_network_under_a_pseudonym_of_streams_as_well(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            await talk.ask(address="192.0.2.1")
            await talk.stream(address="192.0.2.9")
            await talk.ask()
            network = network_pseudonym(house.root.derive("pseudonyms"), "192.0.2.1")
            assert [details.get("network") for details in talk.details] == [network, network, network, None]

    run(test)


def test_an_answer_is_written_anew_and_proved_by_its_headers(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            response = await talk.ask()
            for secret in (MODEL, FINGERPRINT, "secret", "cached"):
                assert secret.encode() not in response.body
            assert msgspec.json.decode(response.body)["choices"][0]["message"]["content"] == "".join(WORDS)
            (details,) = talk.details
            headers = dict(response.headers)
            assert headers[b"palladion-request"].decode() == details["request"]
            assert headers[b"palladion-receipt"].endswith(b"/0")
            salt = talk.bench.gate.stages.seeds.salt(house.ids["acme"], details["request"])
            said = [details[name] for name in ("seed", "request_digest", "answer_digest")]
            assert said == [salt.seed, salt.digest(json.dumps(HELLO).encode()), salt.digest(response.body)]
            assert (details["tokens_in"], details["tokens_out"], details["finish"]) == (5, len(WORDS), "stop")
            assert (details["endpoint"], details["streamed"]) == ("/v1/chat/completions", False)

    run(test)


def test_nothing_leaves_that_could_not_be_recorded(house: House) -> None:
    async def test() -> None:
        budget = Ledgered()
        async with talking(house, budget=budget) as talk:
            talk.bench.journal.error = StorageError("the disk is full")
            response = await talk.ask()
            assert response.status == 503
            assert b"Troy" not in response.body
            assert budget.ends == ["released"]

    run(test)


def _meanwhile(talk_of: list[Talk], standing: Standing) -> Any:
    async def script(exchange: Exchange) -> None:
        talk_of[0].bench.put(standing)
        await good(exchange)

    return script


@pytest.mark.parametrize(("standing", "status"), [("suspended", 403), ("throttled", 200)])
def test_how_a_client_stands_when_the_answer_comes_decides(house: House, standing: Standing, status: int) -> None:
    async def test() -> None:
        found: list[Talk] = []
        async with talking(house, _meanwhile(found, standing), logprobs="top5") as talk:
            found.append(talk)
            response = await talk.ask({**HELLO, "logprobs": True})
            assert response.status == status
            if status == 200:
                assert msgspec.json.decode(response.body)["choices"][0]["logprobs"] is None
                assert talk.details[0]["disclosed"] == "reduced"

    run(test)


@pytest.mark.parametrize(
    ("actor", "disclosed", "decimals", "answers"),
    [(WATCH, "contract", 5, 2), ("user:ada", "reduced", 3, 1)],
    ids=["the watch", "a person"],
)
def test_a_promised_precision_holds_until_a_person_decides(
    house: House, actor: str, disclosed: str, decimals: int, answers: int
) -> None:
    own = ContractPolicy(client="acme", decimals=5, top_k=2)

    async def test() -> None:
        async with talking(house, logprobs="top5", decimals=4, choices_max=2) as talk:
            stages = talk.bench.gate.stages
            stages.renew(msgspec.structs.replace(stages.policy, contract=(own,)))
            talk.bench.put("throttled", actor=actor)
            asked = {**HELLO, "logprobs": True, "top_logprobs": 5, "n": 2}
            choices = msgspec.json.decode((await talk.ask(asked)).body)["choices"]
            assert talk.details[-1]["disclosed"] == disclosed
            assert len(choices) == answers
            if actor == WATCH:
                (first, *_) = choices[0]["logprobs"]["content"]
                assert len(first["top_logprobs"]) == 2
                assert first["logprob"] == round(-0.123456, decimals)
            else:
                assert choices[0]["logprobs"] is None
            other = msgspec.json.decode((await talk.ask(asked, client="globex")).body)["choices"]
            assert other[0]["logprobs"]["content"][0]["logprob"] == round(-0.123456, 4)

    run(test)


def test_what_an_answer_cost_is_charged_and_not_what_was_reserved(house: House) -> None:
    async def test() -> None:
        budget = Ledgered()
        async with talking(house, budget=budget) as talk:
            await talk.ask({**HELLO, "max_tokens": 50})
            assert 50 < budget.reserved[0] < 100
            assert budget.ends == [5 + len(WORDS)]

    run(test)


def test_without_a_budget_left_the_server_is_not_asked(house: House) -> None:
    async def test() -> None:
        async with talking(house, budget=Ledgered(left=10)) as talk:
            response = await talk.ask()
            assert response.status == 429
            assert b"budget of tokens" in response.body
            assert talk.engine.asked == []

    run(test)


def test_a_server_that_lies_about_usage_neither_spends_a_budget_nor_saves_it(house: House) -> None:
    def lying(tokens: int) -> Any:
        choice = {"index": 0, "message": {"content": "x" * 1600}, "finish_reason": "stop"}
        usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": tokens}
        return wholes({"choices": [choice], "usage": usage})

    async def test() -> None:
        budget = Ledgered()
        async with talking(house, budget=budget) as talk:
            for tokens in (0, 10**9):
                talk.engine.script = lying(tokens)
                await talk.ask({**HELLO, "max_tokens": 300})
            assert budget.ends[0] == 100
            request_bytes = len(json.dumps({**HELLO, "max_tokens": 300}))
            assert budget.ends[1] == 300 + request_bytes

    run(test)


def test_an_answer_that_is_too_late_is_given_up(house: House) -> None:
    async def stalls(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        budget = Ledgered()
        async with talking(house, stalls, budget=budget) as talk:
            route = talk.models._routes[0]
            route.policy = msgspec.structs.replace(route.policy, answer_seconds=0)
            response = await talk.ask()
            assert response.status == 504
            # what was asked is charged, and settled once
            assert budget.ends[0] == -(-len(json.dumps(HELLO)) // 4)
            await talk.engine.left.wait()

    run(test)


def test_the_model_is_named_in_the_ledger_as_clients_know_it(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            await talk.ask()
            assert talk.bench.journal.records[0].subject == NAME
            assert MODEL not in str(talk.details)

    run(test)
