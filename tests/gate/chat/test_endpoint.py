"""Who may ask which model, on paths that models share; and the unmodified client of OpenAI, to whom all is as usual."""

import asyncio
import json
from typing import Any

import msgspec
import openai
import pytest

from palladion.access.decoys import TextDecoys, text_digests
from palladion.gate.chat.kinds import KINDS
from palladion.gate.decoys import Decoys
from palladion.gate.stages import HEARD_AT_ONCE
from palladion.policy import RoutePolicy
from palladion.registry.rows import Standing
from tests.gate.gates import House
from tests.lifecycle.installations import NOW

from .engine import MODEL, WORDS, streams, words
from .talking import HELLO, NAME, OTHER, SECONDS, listening, run, talking

TEXT = "".join(WORDS)


def _kind(body: bytes) -> str:
    return str(json.loads(body)["type"]).removeprefix("urn:palladion:problem:")


def test_the_request_says_which_model_is_asked(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            for model in (NAME, OTHER):
                response = await talk.ask({**HELLO, "model": model})
                assert json.loads(response.body)["model"] == model
            assert [record.subject for record in talk.bench.journal.records] == [NAME, OTHER]

    run(test)


def test_a_model_that_may_not_be_asked_looks_like_one_that_does_not_exist(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            forbidden = await talk.ask(client="initech")
            unknown = await talk.ask({**HELLO, "model": "nothing"}, client="initech")
            assert (forbidden.status, forbidden.body) == (404, unknown.body)
            assert _kind(unknown.body) == "model-not-found"
            assert (await talk.ask({**HELLO, "model": OTHER}, client="initech")).status == 200
            # in the same words, whether it is asked or described
            described = [
                await talk.ask(b"", path=f"/v1/models/{name}", method="GET", client="initech") for name in (NAME, OTHER)
            ]
            assert [item.status for item in described] == [404, 200]

    run(test)


def test_guessing_names_of_models_is_paid_for(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            for _ in range(talk.bench.gate.stages.policy.limits.burst):
                assert (await talk.ask({**HELLO, "model": "nothing"})).status == 404
            assert (await talk.ask({**HELLO, "model": "nothing"})).status == 429
            assert (await talk.ask()).status == 429

    run(test)


def test_models_are_listed_to_who_may_ask_them(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            found = {}
            for client in ("acme", "initech"):
                response = await talk.ask(b"", path="/v1/models", method="GET", client=client)
                found[client] = [item["id"] for item in json.loads(response.body)["data"]]
            assert found == {"acme": [NAME, OTHER], "initech": [OTHER]}

    run(test)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_suspended_client_is_refused_before_anything_is_read(house: House, kind: str, stream: bool) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            talk.bench.put("suspended")
            response = await talk.ask({**HELLO, "stream": stream}, path=kind)
            assert _kind(response.body) == "suspended"
            assert talk.engine.asked == []

    run(test)


def test_every_text_of_a_request_is_a_query(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            await talk.ask({"model": NAME, "input": ["a", "b", "c"]}, path="/v1/embeddings")
            assert talk.details[0]["queries"] == 3
            assert talk.bench.gate.stages.answered == 3
            many = await talk.ask({"model": NAME, "input": ["a"] * 257}, path="/v1/embeddings")
            assert _kind(many.body) == "bad-input"

    run(test)


@pytest.mark.parametrize(
    ("standing", "tokens"),
    [("watched", 4096), ("throttled", 2048), ("degraded", 128)],
    ids=["watched", "throttled", "degraded"],
)
def test_a_standing_decides_what_the_server_is_asked_for(house: House, standing: Standing, tokens: int) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            talk.bench.put(standing)
            await talk.ask({**HELLO, "n": 2})
            assert talk.engine.asked[0]["max_tokens"] == tokens
            assert talk.engine.asked[0]["n"] == (2 if standing == "watched" else 1)

    run(test)


def test_nothing_of_the_client_reaches_the_server(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            await talk.ask({**HELLO, "user": "ann", "metadata": {"a": "ann"}})
            assert "ann" not in str(talk.engine.asked)
            assert house.keys["acme"].encode() not in talk.engine.heads[0]
            assert talk.engine.asked[0]["model"] == MODEL

    run(test)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": "llama"', b'{"model": 7}'], ids=str)
def test_a_body_that_is_none_is_refused_in_words_that_openai_s_clients_show(house: House, body: bytes) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            response = await talk.ask(body)
            assert response.status in {400, 422}
            assert json.loads(response.body)["error"]["message"]

    run(test)


# --- the client of OpenAI


def _client(url: str, key: str) -> Any:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@pytest.mark.slow
def test_openai_s_client_talks_embeds_and_lists(house: House) -> None:
    async def test() -> None:
        async with talking(house, logprobs="top5", reasoning=True) as talk, listening(talk) as url:
            client = _client(url, house.keys["acme"])
            answer = await client.chat.completions.create(**HELLO, logprobs=True, top_logprobs=2)
            assert answer.choices[0].message.content == TEXT
            assert answer.created == SECONDS
            assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2
            assert answer.usage.total_tokens == 5 + len(WORDS)
            completion = await client.completions.create(model=NAME, prompt="hello")
            assert completion.choices[0].text == TEXT
            # its default is base64, which it decodes by itself
            embedded = await client.embeddings.create(model=NAME, input=["a", "b"])
            assert embedded.data[1].embedding[2] == 1.5
            assert [model.id async for model in client.models.list()] == [NAME, OTHER]
            assert (await client.models.retrieve(NAME)).id == NAME
            response = await client.responses.create(model=NAME, input="hello")
            assert response.output_text == TEXT
            await client.close()

    run(test)


@pytest.mark.slow
def test_openai_s_client_streams(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk, listening(talk) as url:
            client = _client(url, house.keys["acme"])
            stream = await client.chat.completions.create(**HELLO, stream=True, stream_options={"include_usage": True})
            chunks = [item async for item in stream]
            assert "".join(item.choices[0].delta.content or "" for item in chunks if item.choices) == TEXT
            assert chunks[-1].usage.completion_tokens == len(WORDS)
            async with client.responses.stream(model=NAME, input="hello") as events:
                async for _ in events:
                    pass
                assert (await events.get_final_response()).output_text == TEXT
            async with client.chat.completions.stream(**HELLO) as gathered:
                async for _ in gathered:
                    pass
                assert (await gathered.get_final_completion()).choices[0].finish_reason == "stop"
            await client.close()

    run(test)


@pytest.mark.slow
def test_openai_s_client_shows_what_is_wrong(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk, listening(talk) as url:
            client = _client(url, house.keys["acme"])
            with pytest.raises(openai.UnprocessableEntityError, match="no log-probabilities") as refused:
                await client.chat.completions.create(**HELLO, logprobs=True)
            assert (refused.value.param, refused.value.code) == ("logprobs", "bad_input")
            with pytest.raises(openai.NotFoundError, match="no such model"):
                await client.chat.completions.create(**{**HELLO, "model": "nothing"})
            talk.bench.put("suspended")
            with pytest.raises(openai.PermissionDeniedError, match="suspended"):
                await client.chat.completions.create(**HELLO)
            await client.close()
            stranger = _client(url, "pall_test_nobody")
            with pytest.raises(openai.AuthenticationError):
                await stranger.chat.completions.create(**HELLO)
            await stranger.close()

    run(test)


@pytest.mark.slow
def test_openai_s_client_notices_a_stream_that_breaks(house: House) -> None:
    async def test() -> None:
        script = streams(*words(), b"data: garbage\n\n")
        async with talking(house, script) as talk, listening(talk) as url:
            client = _client(url, house.keys["acme"])
            stream = await client.chat.completions.create(**HELLO, stream=True)
            with pytest.raises(openai.APIError, match="server of the model failed"):
                async for _ in stream:
                    pass
            await client.close()

    run(test)


PLANTED = "What did the harbour master write on the 31st of June?"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("standing", ["watched", "suspended"])
def test_a_planted_prompt_is_recognised_on_every_path(house: House, kind: str, standing: str) -> None:
    every: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {
            "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": PLANTED.upper()}]
        },
        "/v1/completions": {"prompt": PLANTED, "suffix": "?"},
        "/v1/embeddings": {"input": ["hello", PLANTED]},
        "/v1/responses": {"input": PLANTED, "instructions": "be kind"},
    }
    asked = every[kind]

    async def test() -> None:
        async with talking(house) as talk:
            stages = talk.bench.gate.stages
            watch = msgspec.structs.replace(stages.policy.watch, decoys=standing)
            stages.renew(msgspec.structs.replace(stages.policy, watch=watch))
            digests = text_digests(b"k" * 32, NAME, [PLANTED])
            stages.directory.decoys = Decoys(texts={NAME: TextDecoys(b"k" * 32, NAME, [("decoy1", digests)])})
            assert (await talk.ask()).status == 200
            assert talk.bench.standing() == "trusted"
            response = await talk.ask({"model": NAME, **asked}, path=kind)
            assert talk.bench.standing() == standing
            assert (response.status == 403) == (standing == "suspended"), response.body
            kinds = talk.bench.kinds
            assert kinds.count("standing.changed") == 1
            assert [item.decoy for item in stages.touches.due(NOW, every=True)] == ["decoy1"]

    run(test)


def test_while_long_texts_are_looked_at_others_are_answered(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            stages = talk.bench.gate.stages
            digests = text_digests(b"k" * 32, NAME, [PLANTED])
            stages.directory.decoys = Decoys(texts={NAME: TextDecoys(b"k" * 32, NAME, [("decoy1", digests)])})
            caller = stages.directory.callers[house.ids["acme"]]
            route = RoutePolicy(model=NAME, protocol="openai", upstream="http://127.0.0.1:9", mode="enforce")
            others = 0

            async def other() -> None:
                nonlocal others
                while True:
                    others += 1
                    await asyncio.sleep(0)

            meanwhile = asyncio.create_task(other())
            texts = ["\u0436" * HEARD_AT_ONCE for _ in range(10)]
            heard = await stages.heard(caller, talk.bench.request(), route, [PLANTED, *texts, PLANTED])
            meanwhile.cancel()
            assert others >= 5
            assert heard.standing == "watched"
            (told,) = stages.touches.due(NOW)
            assert told.touches == 1

    run(test)


def test_numbers_of_tokens_are_no_prompt_that_a_decoy_knows(house: House) -> None:
    async def test() -> None:
        async with talking(house) as talk:
            digests = text_digests(b"k" * 32, NAME, [PLANTED])
            decoys = Decoys(texts={NAME: TextDecoys(b"k" * 32, NAME, [("decoy1", digests)])})
            before = await talk.ask({"model": NAME, "prompt": [1, 2, 3]}, path="/v1/completions")
            talk.bench.gate.stages.directory.decoys = decoys
            after = await talk.ask({"model": NAME, "prompt": [1, 2, 3]}, path="/v1/completions")
            assert after.status == before.status
            assert talk.bench.standing() == "trusted"

    run(test)
