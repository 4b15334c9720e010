"""Language models that are watched: a harvester falls, an honest client does not, and nothing leaves unrecorded."""

import json
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from palladion.errors import FormatError, StorageError
from palladion.gate.chat.encoding import Encoding
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.policy import WatchPolicy
from palladion.registry.rows import Standing
from palladion.watch.response import Verdict
from palladion.watch.taxonomy import ids_of
from palladion.watch.text.encoder import SentenceEncoder, Vectors
from palladion.watch.text.query import Query
from palladion.watch.text.watched import WORDS, WatchedTexts
from palladion.watch.watch import Observation, Watch
from tests.gate.gates import House
from tests.watch.talkers import harvest, honest, untimed
from tests.watch.text import encoders
from tests.watch.text import talk as texts

from .engine import Exchange
from .talking import CHAT, NAME, Talk, run, talking

POLICY = WatchPolicy(alpha_suspected=0.02, alpha_watched=0.02, simulated_may_enforce=True, suspend_after=10)


def watched(talk: Talk) -> Watch:
    """Have the first model watched by a real watch."""
    watch = Watch(POLICY)
    watch.watch_model(NAME, untimed(), {})
    talk.models._routes[0].calibration = untimed()
    stages = talk.bench.gate.stages
    stages.watch = watch
    stages.renew(msgspec.structs.replace(stages.policy, watch=POLICY))
    return watch


def scripted(talk: Talk, standing: Standing) -> None:
    """Have a watch whose verdict is known already."""
    talk.models._routes[0].calibration = untimed()
    talk.bench.watch.p_value = 0.001
    talk.bench.watch.verdict = Verdict(standing, "client", "a test says so")


def asked(query: Query) -> dict[str, Any]:
    parameters = query.parameters
    given = {"temperature": parameters.temperature, "top_p": parameters.top_p, "seed": parameters.seed}
    named = {name: value for name, value in given.items() if value is not None}
    return {"model": NAME, "messages": [{"role": "user", "content": query.text}], **named}


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True])
def test_a_harvester_is_suspected_and_an_honest_client_is_not(house: House, streamed: bool) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            watch = watched(talk)
            status = 200
            for thief, client in zip(harvest(), honest(11), strict=True):
                if status == 200:
                    response = await talk.ask({**asked(thief), "stream": streamed}, client="globex")
                    status = response.status
                    if response.stream is not None:
                        await response.stream.close()
                assert (await talk.ask(asked(client))).status == 200
            assert talk.bench.standing("acme") in {"trusted", "watched"}
            assert talk.bench.standing("globex") == "suspended"
            assert status == 403
            assert "standing.changed" in talk.bench.kinds
            (explanation,) = watch.explain(house.ids["globex"])
            assert explanation.reasons
            told = [record.details for record in talk.bench.journal.records if record.kind == "standing.changed"]
            why = told[-1]["why"]
            assert why["looks"] == "texts"
            assert {name for name, _ in why["features"]} <= set(WORDS)
            assert ids_of(told[-1]["cause"])

    run(test)


def encoded(talk: Talk, encoder: SentenceEncoder) -> list[Sequence[Query]]:
    """Have the first model watched by a calibration with an encoder; what its watch is shown."""
    calibration = WatchedTexts(texts.encoded())
    watch, shown = Watch(POLICY), list[Sequence[Query]]()
    watch.watch_model(NAME, calibration, {})
    observe_all = watch.observe_all

    def noted(model: str, asked: Sequence[Any], *, now: float) -> list[Observation]:
        shown.extend(item.queries for item in asked)
        return observe_all(model, asked, now=now)

    watch.observe_all = noted  # type: ignore[method-assign]
    route = talk.models._routes[0]
    route.calibration = calibration
    route.encoding = Encoding(calibration.calibration.instruments.features, encoder, threads=1)
    talk.bench.gate.stages.watch = watch
    return shown


@pytest.mark.parametrize("streamed", [False, True])
def test_what_the_watch_is_shown_is_encoded_already(house: House, streamed: bool) -> None:
    texts.encoded()  # made before the loop turns: it takes a second, or more where much else goes on

    async def test() -> None:
        async with talking(house) as talk:
            shown = encoded(talk, encoders.encoder())
            response = await talk.ask({**asked(Query("The river.")), "stream": streamed})
            assert response.status == 200
            if response.stream is not None:
                await response.stream.close()
            ((query,),) = shown
            assert query.vector is not None
            assert query.vector.tobytes() == encoders.encoder().vector("The river.").tobytes()

    run(test)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_cannot_be_encoded_is_not_answered(house: House, streamed: bool, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def vector(self, text: str) -> Vectors:
            raise FormatError("the encoder fails")

    texts.encoded()

    async def test() -> None:
        async with talking(house) as talk:
            shown = encoded(talk, cast("SentenceEncoder", Broken()))
            assert (await talk.ask({**asked(Query("The river.")), "stream": streamed})).status == 500
            assert not shown
            assert talk.bench.kinds == []

    run(test)
    assert "/v1/models/llama: the encoder fails" in caplog.text


def test_the_answer_that_lowers_a_client_discloses_what_is_left(house: House) -> None:
    async def test() -> None:
        async with talking(house, logprobs="top5") as talk:
            scripted(talk, "throttled")
            body = json.loads((await talk.ask({**asked(honest(3)[0]), "logprobs": True})).body)
            assert body["choices"][0]["logprobs"] is None
            assert talk.bench.kinds == ["standing.changed", "answer.given"]
            assert (talk.details[-1]["standing"], talk.details[-1]["p_value"]) == ("throttled", "0.001")

    run(test)


@pytest.mark.parametrize("streamed", [False, True])
def test_who_is_suspended_by_a_request_gets_no_answer_to_it(house: House, streamed: bool) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            scripted(talk, "suspended")
            response = await talk.ask({**asked(honest(3)[0]), "stream": streamed})
            assert response.status == 403
            assert talk.bench.kinds == ["standing.changed"]
            assert bool(talk.engine.asked) != streamed

    run(test)


def test_a_route_that_observes_proposes_and_changes_nothing(house: House) -> None:
    async def test() -> None:
        async with talking(house, mode="observe") as talk:
            scripted(talk, "suspended")
            assert (await talk.ask(asked(honest(3)[0]))).status == 200
            assert talk.bench.kinds == ["standing.proposed", "answer.given"]
            assert talk.bench.standing() == "trusted"

    run(test)


def test_a_change_that_cannot_be_recorded_withholds_the_answer(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            scripted(talk, "throttled")
            talk.bench.journal.error = StorageError("the disk is full")
            assert (await talk.ask(asked(honest(3)[0]))).status == 503
            assert talk.bench.standing() == "trusted"

    run(test)


def test_an_answer_waits_until_the_change_that_it_brought_is_recorded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            scripted(talk, "throttled")
            journal = talk.bench.journal
            append = journal.append

            async def only_answers(records: Sequence[Record]) -> list[Receipt]:
                if any(record.kind == "standing.changed" for record in records):
                    raise StorageError("the disk was full for a moment")
                return await append(records)

            monkeypatch.setattr(journal, "append", only_answers)
            assert (await talk.ask(asked(honest(3)[0]))).status == 503
            assert talk.bench.kinds == []

    run(test)


@pytest.mark.parametrize(("status", "observed"), [(400, 1), (503, 0), (500, 0)])
def test_what_the_model_does_not_take_is_observed_and_an_outage_is_not(
    house: House, status: int, observed: int
) -> None:
    async def fails(exchange: Exchange) -> None:
        await exchange.whole({"error": {"message": "no"}}, status)

    async def test() -> None:
        async with talking(house, fails) as talk:
            scripted(talk, "trusted")
            assert (await talk.ask(asked(honest(3)[0]))).status != 200
            assert len(talk.bench.watch.asked) == observed

    run(test)


def test_every_text_of_a_request_is_a_query_of_the_watch(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            scripted(talk, "trusted")
            prompts = [str(place) for place in range(20)]
            assert (await talk.ask({"model": NAME, "input": prompts}, path="/v1/embeddings")).status == 200
            assert [(model, count) for _, model, count in talk.bench.watch.asked] == [(NAME, 16), (NAME, 4)]

    run(test)


def test_token_numbers_are_refused_where_texts_are_watched(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            document = {"model": NAME, "prompt": [1, 2, 3]}
            assert (await talk.ask(document, path="/v1/completions")).status == 200
            scripted(talk, "trusted")
            assert (await talk.ask(document, path="/v1/completions")).status == 422

    run(test)


def test_a_model_without_a_calibration_is_not_watched(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            assert (await talk.ask()).status == 200
            assert talk.bench.watch.asked == []
            assert talk.details[-1]["p_value"] is None

    run(test)


def test_no_text_of_a_client_is_kept(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            watch = watched(talk)
            await talk.ask({"model": NAME, "messages": [{"role": "user", "content": "Xerxesmagnus"}]}, path=CHAT)
            (data,) = watch.changes(NAME).values()
            assert b"Xerxes" not in data
            assert "Xerxes" not in str(talk.details)

    run(test)
