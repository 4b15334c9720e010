"""A language model behind `transformers serve`, asked through the gate by OpenAI's own client: nothing is made up."""

from pathlib import Path
from typing import Any

import openai
import pytest

from palladion.policy import RoutePolicy
from tests.gate import transformers_server
from tests.gate.gates import House
from tests.gate.service import configure, serving

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(300)]  # torch is imported twice

NAME = "llama"
TOKENS = 12
MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me of Troy."}]


def test_a_model_behind_transformers_serve_answers_whole_and_in_pieces(house: House, tmp_path: Path) -> None:
    copy = house.copy(tmp_path)
    (tmp_path / "server").mkdir()
    with transformers_server.running(tmp_path / "server") as (address, model):
        route = RoutePolicy(
            model=NAME, mode="enforce", protocol="openai", upstream=address, upstream_model=model, tokens_max=TOKENS
        )
        configure(copy, route)
        with serving(copy) as service:
            url = f"http://{service.host}:{service.port}/v1"
            with openai.OpenAI(base_url=url, api_key=copy.keys["acme"], max_retries=0) as client:
                _chat(client)
                _completions(client)
                _responses(client)
                with pytest.raises(openai.NotFoundError):
                    client.chat.completions.create(model="another", messages=MESSAGES)
                # this server has none of these, and says so
                with pytest.raises(openai.APIStatusError):
                    client.embeddings.create(model=NAME, input="Troy")
            assert service.terminate() == 0
    records = [entry.decode() for _, entry in copy.installation.read_ledger().entries()]
    assert [sum(f'"{kind}"' in entry for entry in records) for kind in ("answer.begun", "answer.given")] == [2, 6]
    assert not any('"answer.broken"' in entry or str(model) in entry for entry in records)


def _chat(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=NAME, messages=MESSAGES, temperature=0, max_tokens=8)
    (choice,) = whole.choices
    assert (whole.model, choice.finish_reason) == (NAME, "length")
    assert choice.message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8
    pieces = list(
        client.chat.completions.create(
            model=NAME,
            messages=MESSAGES,
            temperature=0,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    # a model that draws nothing says the same again
    said = "".join(item.choices[0].delta.content or "" for item in pieces if item.choices)
    assert said == choice.message.content
    assert [item.choices[0].finish_reason for item in pieces if item.choices][-1] == "length"
    assert pieces[-1].usage is not None
    assert pieces[-1].usage.completion_tokens == 8
    # who asks for more than the route allows gets as many as it does
    bounded = client.chat.completions.create(model=NAME, messages=MESSAGES, max_completion_tokens=10_000)
    assert bounded.usage is not None
    assert bounded.usage.completion_tokens <= TOKENS


def _completions(client: openai.OpenAI) -> None:
    whole = client.completions.create(model=NAME, prompt="Troy stood", temperature=0, max_tokens=4)
    assert whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 4


def _responses(client: openai.OpenAI) -> None:
    whole = client.responses.create(model=NAME, input="Tell me of Troy.", temperature=0, max_output_tokens=4)
    assert whole.model == NAME
    assert whole.output_text
    kinds = [
        event.type
        for event in client.responses.create(
            model=NAME, input="Tell me of Troy.", temperature=0, max_output_tokens=4, stream=True
        )
    ]
    assert kinds[0] == "response.created"
    assert kinds[-1] in {"response.completed", "response.incomplete"}
    assert "response.output_text.delta" in kinds
