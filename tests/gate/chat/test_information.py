"""The budget of information holds for texts: new buckets are charged, whatever comes of it, and known ones are not."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from palladion.errors import StorageError
from palladion.gate.budgets import ORGANISATION
from palladion.policy import ContractPolicy
from palladion.watch import coverage
from palladion.watch.text.query import Query
from palladion.watch.watch import Watch
from tests.gate.gates import House, answer, problem
from tests.watch.talkers import untimed

from .engine import Exchange, good, streams, words
from .talking import NAME, Talk, run, talking
from .test_watching import POLICY, asked

EMBEDDINGS = "/v1/embeddings"


def limited(talk: Talk, *, watched: bool = True, contract: tuple[ContractPolicy, ...] = (), **limits: int) -> Watch:
    """Charge the gate's own budgets, by a real watch unless the model is not `watched`."""
    stages, watch = talk.bench.gate.stages, Watch(POLICY)
    if watched:
        watch.watch_model(NAME, untimed(), {})
        talk.models._routes[0].calibration = untimed()
    stages.watch = watch
    policy = stages.policy
    changed = msgspec.structs.replace(policy.limits, **limits)
    stages.renew(msgspec.structs.replace(policy, limits=changed, contract=contract, watch=POLICY))
    talk.models._budget = stages
    talk.models.put(talk.models._routes)
    talk.bench.gate.serve(talk.bench.gate.served, talk.models.endpoints)
    return watch


def spent(talk: Talk, client: str = "acme") -> tuple[float, float]:
    """Queries and information that a client has spent, with what is reserved."""
    _, found = talk.bench.gate.stages.limits.budgets.spent(talk.bench.house.ids[client])
    return found.queries, found.information


def apart(count: int) -> list[str]:
    """Texts in buckets of their own."""
    return list(_apart(count))


def _apart(count: int) -> Iterator[str]:
    watched, bitmap, found = untimed(), coverage.empty_bitmap(), 0
    for number in range(10_000):
        text = f"Tell me of number {number * 7919} and of the {'abcdefghijkl'[number % 12] * 5}."
        (measured,) = watched.measure([(watched.new_state(), Texts([Query(text)]))])
        if coverage.mark(bitmap, measured.buckets):
            yield text
            found += 1
        if found == count:
            return
    raise AssertionError(f"only {found} buckets")


class Texts:
    """What `WatchedTexts.measure` is shown."""

    def __init__(self, queries: list[Query]) -> None:
        self.queries = queries


def question(text: str, **more: Any) -> dict[str, Any]:
    return {**asked(Query(text)), **more}


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_in_a_new_bucket_is_charged_and_one_in_a_known_bucket_is_not(house: House, stream: bool) -> None:
    first, second = apart(2)

    async def ask(talk: Talk, text: str) -> None:
        if stream:
            assert (await talk.stream(question(text))).finish == ["stop"]
        else:
            assert (await talk.ask(question(text))).status == 200

    async def test() -> None:
        async with talking(house) as talk:
            watch = limited(talk, information_per_day=100)
            for number, text in enumerate([first, second, first, second], 1):
                await ask(talk, text)
                assert spent(talk) == (number, min(number, 2))
            charged = [item["information"] for item in talk.details if "information" in item]
            assert charged == [1, 1, 0, 0]
            (found,) = watch.explain(house.ids["acme"])
            assert found.buckets == 2, "what is charged is what is explained"

    run(test)


def test_who_has_had_as_much_as_a_day_allows_is_refused_and_the_server_is_not_asked(house: House) -> None:
    first, second, third = apart(3)

    async def test() -> None:
        async with talking(house) as talk:
            limited(talk, information_per_day=2, organisation_information_per_day=50)
            assert (await talk.ask(question(first))).status == 200
            assert (await talk.ask(question(first))).status == 200, "what is known already is free, while some is left"
            assert (await talk.ask(question(second))).status == 200
            for stream in (False, True):
                refused = await talk.ask(question(third, stream=stream))
                assert (refused.status, problem(refused)) == (429, "budget-spent")
                assert answer(refused)["detail"].startswith("today's budget of information of this client")
                assert int(dict(refused.headers)[b"retry-after"]) > 0
            assert len(talk.engine.asked) == 3
            assert talk.bench.gate.stages.limits.refused["client-information"] == 2
            assert talk.bench.gate.stages.limits.budgets.spent(f"{ORGANISATION}acme")[1].information == 2
            assert (await talk.ask(question(third), client="globex")).status == 200

    run(test)


def test_so_many_texts_at_once_need_as_much(house: House) -> None:
    texts = apart(4)

    async def test() -> None:
        async with talking(house) as talk:
            limited(talk, information_per_day=3)
            document = {"model": NAME, "input": texts}
            assert problem(await talk.ask(document, path=EMBEDDINGS)) == "budget-spent"
            assert (await talk.ask({**document, "input": texts[:3]}, path=EMBEDDINGS)).status == 200
            assert spent(talk) == (3, 3)
            assert talk.details[-1]["information"] == 3

    run(test)


def test_requests_at_once_are_never_given_more_than_there_is(house: House) -> None:
    texts = apart(12)

    async def test() -> None:
        async with talking(house) as talk:
            limited(talk, information_per_day=5)
            responses = await asyncio.gather(*(talk.ask(question(text)) for text in texts))
            assert sorted(response.status for response in responses) == [200] * 5 + [429] * 7
            assert spent(talk) == (5, 5)

    run(test)


def test_what_one_client_was_promised_counts_in_place_of_what_all_may_have(house: House) -> None:
    first, second = apart(2)

    async def test() -> None:
        async with talking(house) as talk:
            own = ContractPolicy(client="acme", information_per_day=1)
            limited(talk, contract=(own,), information_per_day=50)
            assert (await talk.ask(question(first))).status == 200
            assert (await talk.ask(question(second))).status == 429
            for text in (first, second):
                assert (await talk.ask(question(text), client="globex")).status == 200

    run(test)


async def _refuses(exchange: Exchange) -> None:
    await exchange.whole({"error": {"message": "too long"}}, 400)


async def _fails(exchange: Exchange) -> None:
    await exchange.whole({"error": {"message": "down"}}, 500)


@pytest.mark.parametrize(
    ("script", "stream", "charged"),
    [(_refuses, False, 1), (_refuses, True, 1), (_fails, False, 0), (_fails, True, 1)],
    ids=["refused", "a stream refused", "down", "a stream from one that is down"],
)
def test_what_was_observed_is_charged_without_an_answer_and_then_costs_no_more(
    house: House, script: Any, stream: bool, charged: int
) -> None:
    (text,) = apart(1)

    async def test() -> None:
        async with talking(house, script) as talk:
            limited(talk, information_per_day=10)
            assert (await talk.ask(question(text, stream=stream))).status != 200
            assert spent(talk) == (0, charged)
            talk.engine.script = good
            assert (await talk.ask(question(text))).status == 200
            assert spent(talk) == (1, 1)

    run(test)


def test_an_answer_that_cannot_be_recorded_costs_what_was_observed(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            limited(talk, information_per_day=10)
            talk.bench.journal.error = StorageError("the disk is full")
            assert (await talk.ask(question("Troy?"))).status == 503
            assert spent(talk) == (0, 1)

    run(test)


def test_a_stream_that_breaks_is_charged_for_what_it_began_to_tell(house: House) -> None:
    async def dies(exchange: Exchange) -> None:
        exchange.cut()

    async def test() -> None:
        async with talking(house, streams(*words(), then=dies)) as talk:
            limited(talk, information_per_day=10)
            await talk.stream(question("Troy?"))
            assert spent(talk) == (1, 1)
            assert (talk.bench.kinds[-1], talk.details[-1]["information"]) == ("answer.broken", 1)

    run(test)


def test_without_a_calibration_each_text_that_is_answered_counts_as_a_new_one(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            limited(talk, watched=False, information_per_day=4)
            for _ in range(2):
                assert (await talk.ask(question("Troy?"))).status == 200
            assert (await talk.ask({"model": NAME, "input": ["a", "b"]}, path=EMBEDDINGS)).status == 200
            assert spent(talk) == (4, 4)
            assert (await talk.ask(question("Troy?"))).status == 429
            talk.engine.script = _refuses
            assert spent(talk) == (4, 4)

    run(test)
