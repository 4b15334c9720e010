"""Rules where nothing is calibrated: who harvests in words that everybody knows is watched, on record, and no worse."""

from datetime import timedelta
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.gate.chat import ruled as module
from palladion.gate.chat.ruled import RuledClients
from palladion.gate.keeper import Keeper
from palladion.policy import RoutePolicy
from palladion.watch.text.query import Query
from palladion.watch.text.ruled import REQUESTS_MIN, Ruled
from tests.gate.gates import House, open_gate
from tests.watch.talkers import untimed

from .talking import NAME, Talk, run, talking

PROMPTS, EMBED = "/v1/completions", "/v1/embeddings"
ROUTE = RoutePolicy(model=NAME, mode="enforce", protocol="openai")


def asking(number: int, **changes: Any) -> dict[str, Any]:
    text = f"Think step by step: who was king {'i' * number} of Troy?"
    return {"model": NAME, "messages": [{"role": "user", "content": text}], **changes}


async def harvest(talk: Talk, requests: int, *, first: int = 0, **changes: Any) -> None:
    for number in range(first, first + requests):
        response = await talk.ask(asking(number, **changes))
        assert response.status == 200
        if response.stream is not None:
            await response.stream.close()


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True])
def test_a_harvester_is_watched_with_its_cause_on_record_and_goes_no_further(house: House, streamed: bool) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            await harvest(talk, REQUESTS_MIN - 1, stream=streamed)
            assert (talk.bench.standing(), "standing.changed" in talk.bench.kinds) == ("trusted", False)
            await harvest(talk, 3 * REQUESTS_MIN, first=REQUESTS_MIN - 1, stream=streamed)
            assert talk.bench.standing() == "watched"
            assert talk.bench.standing("globex") == "trusted"
            (told,) = [record.details for record in talk.bench.journal.records if record.kind == "standing.changed"]
            assert (told["from"], told["to"], told["cause"]) == ("trusted", "watched", "harvest")
            assert told["why"] == {"test": "rules"}
            assert "train of thought (reasoning)" in told["reason"]

    run(test)


def test_a_route_that_observes_proposes_once(house: House) -> None:
    async def test() -> None:
        async with talking(house, mode="observe") as talk:
            await harvest(talk, REQUESTS_MIN + 5)
            assert talk.bench.standing() == "trusted"
            assert talk.bench.kinds.count("standing.proposed") == 1

    run(test)


def test_ordinary_requests_change_nothing(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            for number in range(2 * REQUESTS_MIN):
                said = {"role": "user", "content": f"What is the way to {'town ' * number}?"}
                assert (await talk.ask({"model": NAME, "messages": [said]})).status == 200
            assert talk.bench.standing() == "trusted"
            assert set(talk.bench.kinds) == {"answer.given"}

    run(test)


def test_a_conversation_counts_by_what_is_new_in_it(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            system = {"role": "system", "content": "Think step by step."}
            for number in range(2 * REQUESTS_MIN):
                said = {"role": "user", "content": f"What is the way to {'town ' * number}?"}
                assert (await talk.ask({"model": NAME, "messages": [system, said]})).status == 200
            assert talk.bench.standing() == "trusted"

    run(test)


def test_each_prompt_of_a_request_counts_and_documents_and_token_numbers_do_not(house: House) -> None:
    texts = [f"Think step by step: who was king {'i' * number} of Troy?" for number in range(REQUESTS_MIN)]

    async def test() -> None:
        async with talking(house) as talk:
            await talk.ask({"model": NAME, "input": texts}, path=EMBED)
            for number in range(REQUESTS_MIN):
                assert (await talk.ask({"model": NAME, "prompt": [1, 2, number]}, path=PROMPTS)).status != 422
            assert talk.bench.standing() == "trusted"
            await talk.ask({"model": NAME, "prompt": texts[:-1]}, path=PROMPTS)
            assert talk.bench.standing() == "trusted"
            await talk.ask({"model": NAME, "prompt": texts[-1]}, path=PROMPTS)
            assert talk.bench.standing() == "watched"

    run(test)


def test_a_route_with_a_calibration_goes_by_that_alone(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            talk.models._routes[0].calibration = untimed()
            await harvest(talk, 2 * REQUESTS_MIN)
            assert talk.bench.standing() == "trusted"  # as the scripted watch says

    run(test)


def test_quiet_hours_raise_who_was_watched_and_it_begins_anew(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            await harvest(talk, REQUESTS_MIN)
            assert talk.bench.standing() == "watched"
            talk.bench.clock.advance(timedelta(hours=200))
            # one that a rule applies to is nothing quiet
            await harvest(talk, 1, first=REQUESTS_MIN)
            assert talk.bench.standing() == "watched"
            talk.bench.clock.advance(timedelta(hours=200))
            plain = {"model": NAME, "messages": [{"role": "user", "content": "Who was Hector?"}]}
            assert (await talk.ask(plain)).status == 200
            assert talk.bench.standing() == "trusted"
            await harvest(talk, REQUESTS_MIN - 1, first=100)
            assert talk.bench.standing() == "trusted"

    run(test)


def test_a_person_who_raises_a_client_begins_its_rules_anew(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            await harvest(talk, REQUESTS_MIN)
            talk.bench.clock.advance(timedelta(minutes=1))
            talk.bench.put("trusted")
            await harvest(talk, REQUESTS_MIN - 1, first=100)
            assert talk.bench.standing() == "trusted"
            await harvest(talk, 1, first=300)
            assert talk.bench.standing() == "watched"

    run(test)


@pytest.mark.parametrize("standing", ["throttled", "degraded"])
def test_what_somebody_else_decided_is_not_taken_back(house: House, standing: Any) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            await harvest(talk, REQUESTS_MIN)
            talk.bench.put(standing, actor="watch")
            talk.bench.clock.advance(timedelta(hours=500))
            plain = {"model": NAME, "messages": [{"role": "user", "content": "Who was Hector?"}]}
            assert (await talk.ask(plain)).status == 200
            assert talk.bench.standing() == standing

    run(test)


def test_what_was_counted_survives_a_restart(house: House, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = house.copy(tmp_path)

    async def test() -> None:
        with there.installation.open_registry() as registry:
            bench = open_gate(there)
            stages, caller = bench.gate.stages, bench.gate.stages.directory.callers[there.ids["acme"]]
            queries = [Query(f"Never refuse: tell me of {'ship ' * number}") for number in range(REQUESTS_MIN)]
            for part in (queries[:-1], queries[-1:]):
                keeper, clients = Keeper(registry), RuledClients()
                clients.keep(keeper)
                for query in part:
                    caller = await clients.hear(stages, caller, ROUTE, [query])
                    # out of memory it is read from where it is kept, be that written or not
                    clients._known.clear()
                await keeper.states({})
                keeper.close()
            assert caller.standing == "watched"
            with registry.write() as records:
                records.gate_states.save(f"rules:{NAME}", {caller.id: b"x"})
            keeper, clients = Keeper(registry), RuledClients()
            clients.keep(keeper)
            with pytest.raises(FormatError, match="of a client's rules"):
                await clients.hear(stages, caller, ROUTE, queries[:1])
            keeper.close()

    run(test)


def test_as_many_clients_are_held_as_there_is_room_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS_MAX", 2)

    async def test() -> None:
        bench, clients = open_gate(house), RuledClients()
        for name in ("acme", "globex", "initech", "acme"):
            caller = bench.gate.stages.directory.callers[house.ids[name]]
            await clients.hear(bench.gate.stages, caller, ROUTE, [Query("Who was Hector?")])
        assert list(clients._known) == [(NAME, house.ids["initech"]), (NAME, house.ids["acme"])]
        assert all(isinstance(item, Ruled) and item.asked == 1 for item in clients._known.values())

    run(test)
