"""Texts that are kept come back as the watch saw them; the gate keeps them only where the policy says so."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.gate.chat.kept import SETTINGS, TEXT, arrays_of, name_of, query_of
from palladion.gate.retention import Retention
from palladion.ledger.bodies import FOLDER, body_path, read_retained
from palladion.ledger.body import Body, cell_of, decode_body, encode_body
from palladion.policy.watching import RetentionPolicy
from palladion.watch.text.query import NOT_SAID, Parameters, Query
from tests.gate.gates import House, problem

from .engine import Exchange, Script, good
from .talking import HELLO, NAME, Talk, run, talking
from .test_watching import scripted

KEY = bytes(range(32))
TEXTS = st.text(max_size=200)
NUMBERS = st.none() | st.floats(0, 2)
COUNTS = st.none() | st.integers(0, 128)
PARAMETERS = st.builds(
    Parameters, NUMBERS, NUMBERS, st.none() | st.integers(-(2**63), 2**63 - 1), COUNTS, COUNTS, biased=st.booleans()
)
QUERIES = st.builds(
    Query, TEXTS, PARAMETERS, st.floats(1, 1e10), st.just(NOT_SAID) | st.floats(0, 1e6), failed=st.booleans()
)


def body_of(query: Query) -> Body:
    feeds, came = arrays_of(query)
    inputs = {name: array[0] for name, array in feeds.items()}
    at = 0.0 if math.isnan(query.at) else query.at
    return decode_body(encode_body(Body("1f", 0, inputs, came[0], b"", 0.0, "contract", at)), what="a test")


@given(QUERIES)
def test_a_text_comes_back_as_it_was_asked(query: Query) -> None:
    found = query_of(body_of(query))
    assert (found.text, found.parameters, found.at, found.failed) == (
        query.text,
        query.parameters,
        query.at,
        query.failed,
    )
    assert found.answer_chars == query.answer_chars or math.isnan(found.answer_chars) is math.isnan(query.answer_chars)


def test_halves_of_characters_are_kept_as_well_and_no_moment_is_none() -> None:
    found = query_of(body_of(Query("a\ud800b")))
    assert found.text == "a\ud800b"
    assert math.isnan(found.at)


def test_what_is_asked_again_is_the_same_query_whatever_came_of_it() -> None:
    cells = {
        cell_of(body_of(Query("Troy?", at=at, answer_chars=chars))) for at, chars in ((1, 5), (2, 7), (3, NOT_SAID))
    }
    assert len(cells) == 1
    others = [Query("Troy!"), Query("Troy?", Parameters(0.5)), Query("Troy?", Parameters(seed=1))]
    assert len({cell_of(body_of(query)) for query in others} | cells) == 4


@pytest.mark.parametrize(
    "changed",
    [{TEXT: np.array([0xFF], np.uint8)}, {SETTINGS: np.zeros(4)}, {"x": np.zeros(3)}],
    ids=["no UTF-8", "fewer settings", "rows"],
)
def test_what_is_no_text_is_refused(changed: dict[str, Any]) -> None:
    body = body_of(Query("Troy?"))
    with pytest.raises(FormatError):
        query_of(Body("1f", 0, {**body.inputs, **changed}, body.scores, b"", 0.0, "contract"))


def test_every_model_has_a_name_of_its_own_that_is_one_of_a_file(tmp_path: Path) -> None:
    models = ["llama", "llama-3.1_8b", "meta/llama", "Llama", "../x", "ø", "x" * 64, "x" * 63 + "/"]
    names = {name_of(model) for model in models}
    assert len(names) == len(models)
    assert name_of("llama") == "llama@texts"
    for name in names:
        assert body_path(tmp_path, f"client:{0:020x}", name).parent.parent == tmp_path


# --- by the gate


async def kept(talk: Talk, client: str = "acme") -> list[tuple[int, Query]]:
    """What is kept of a client's texts, and their places in their requests."""
    stages = talk.bench.gate.stages
    assert stages.retention is not None
    await stages.retention.write()
    folder, name = stages.retention._folder, stages.name(talk.bench.house.ids[client])
    return [(body.row, query_of(body)) for body in read_retained(folder, KEY, name, name_of(NAME)).bodies]


def keeping(talk: Talk, folder: Path, *, texts: bool = True, **settings: Any) -> Retention:
    policy = RetentionPolicy(texts=texts, **settings)
    stages = talk.bench.gate.stages
    stages.retention = Retention(folder / FOLDER, KEY, policy, stages.clock)
    return stages.retention


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_new_in_a_conversation_is_kept_with_how_it_was_asked(
    house: House, tmp_path: Path, watched: bool, stream: bool
) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            if watched:
                scripted(talk, "trusted")
            retention = keeping(talk, tmp_path)
            said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Troy?"}]
            for _ in range(2):
                document = {**HELLO, "messages": list(said), "temperature": 0.5, "seed": 7}
                if stream:
                    await talk.stream(document)
                else:
                    assert (await talk.ask(document)).status == 200
                said += [{"role": "assistant", "content": "It fell."}, {"role": "user", "content": "When?"}]
            found = [query for _, query in await kept(talk)]
            assert [query.text for query in found] == ["Be brief.\nTroy?", "When?"]
            assert {query.parameters for query in found} == {Parameters(0.5, None, 7)}
            assert {query.at for query in found} == {talk.bench.clock.now().timestamp()}
            # of a stream the watch does not know it either
            assert [math.isnan(query.answer_chars) for query in found] == [stream] * 2
            assert await kept(talk, "globex") == []
            await retention.close()

    run(test)


@pytest.mark.parametrize("settings", [{"texts": False}, {"queries": 0}, {}], ids=["no texts", "nothing", "the default"])
def test_nothing_is_kept_unless_the_policy_says_so(house: House, tmp_path: Path, settings: dict[str, Any]) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            retention = keeping(talk, tmp_path, **(settings or {"texts": RetentionPolicy().texts}))
            assert (await talk.ask()).status == 200
            assert await kept(talk) == []
            assert (retention.handed, retention.dropped) == (0, 0)
            await retention.close()
            assert not (tmp_path / FOLDER).exists()

    run(test)


def test_each_text_of_a_request_is_kept_and_known_by_its_place(house: House, tmp_path: Path) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            retention = keeping(talk, tmp_path)
            texts = [f"text {number}" for number in range(20)]
            assert (await talk.ask({"model": NAME, "input": texts}, path="/v1/embeddings")).status == 200
            assert [(place, query.text) for place, query in await kept(talk)] == list(enumerate(texts))
            numbers = {"model": NAME, "prompt": [1, 2, 3]}
            assert (await talk.ask(numbers, path="/v1/completions")).status == 200
            assert len(await kept(talk)) == 20, "numbers of tokens are no text"
            await retention.close()

    run(test)


async def _refuses(exchange: Exchange) -> None:
    await exchange.whole({"error": {"message": "too long"}}, 400)


async def _fails(exchange: Exchange) -> None:
    await exchange.whole({"error": {"message": "down"}}, 500)


@pytest.mark.parametrize(("script", "failed"), [(_refuses, [True]), (_fails, [])], ids=["refused", "down"])
def test_what_the_model_does_not_take_is_kept_as_failed_and_an_outage_is_not(
    house: House, tmp_path: Path, script: Any, failed: list[bool]
) -> None:
    async def test() -> None:
        async with talking(house, script) as talk:
            retention = keeping(talk, tmp_path)
            assert (await talk.ask()).status != 200
            assert [query.failed for _, query in await kept(talk)] == failed
            await retention.close()

    run(test)


def test_a_text_that_is_too_large_is_answered_and_not_kept(house: House, tmp_path: Path) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            retention = keeping(talk, tmp_path)
            huge = {"role": "user", "content": "x" * 600_000}
            assert (await talk.ask({**HELLO, "messages": [huge]})).status == 200
            assert await kept(talk) == []
            await retention.close()

    run(test)


@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("script", [good, _refuses], ids=["answered", "refused"])
def test_nothing_is_kept_of_who_was_revoked_while_the_model_ran(
    house: House, tmp_path: Path, script: Script, watched: bool
) -> None:
    talks: list[Talk] = []

    async def revoking(exchange: Exchange) -> None:
        # and forgotten: what is kept from now on stays for ever
        talks[0].bench.gate.stages.directory._callers.clear()
        await script(exchange)

    async def test() -> None:
        async with talking(house, revoking) as talk:
            talks.append(talk)
            if watched:
                scripted(talk, "trusted")
            retention = keeping(talk, tmp_path)
            assert problem(await talk.ask()) == "unauthenticated"
            assert await kept(talk) == []
            await retention.close()

    run(test)
