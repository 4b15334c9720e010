"""Requests: what is refused by name, what becomes less, and what of it goes upstream."""

from typing import Any

import msgspec
import pytest

from palladion.gate.chat.asked import ChatAsked, CompletionAsked, EmbeddingAsked, count, model_of
from palladion.gate.chat.terms import terms
from palladion.gate.disclosure import Level
from palladion.gate.problems import Problem
from palladion.policy import RoutePolicy

OPEN = RoutePolicy(model="m", logprobs="top5", logit_bias="any")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
TEXT = {"model": "m", "prompt": "hello"}


def _decoded(kind: Any, document: object, route: RoutePolicy) -> Any:
    asked = msgspec.json.decode(msgspec.json.encode(document), type=kind)
    asked.check(route)
    return asked


def _sent(kind: Any, document: object, route: RoutePolicy = OPEN, level: Level = "contract") -> dict[str, Any]:
    asked = _decoded(kind, document, route)
    asked.bind(terms(route, level), "upstream/m")
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(asked))
    return found


def _field(kind: Any, document: object, route: RoutePolicy) -> str:
    with pytest.raises(Problem) as caught:
        _decoded(kind, document, route)
    assert caught.value.kind == "bad-input"
    return caught.value.field


def test_nothing_goes_upstream_that_says_who_asks_or_has_something_kept() -> None:
    about = {
        "user": "ann", "safety_identifier": "a", "prompt_cache_key": "k", "metadata": {"a": "b"}, "store": True,
        "service_tier": "flex",
    }  # fmt: skip
    assert _sent(ChatAsked, {**CHAT, **about}) == {**CHAT, "model": "upstream/m", "max_tokens": 4096}


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_tokens_are_capped_under_the_name_that_the_client_used(name: str) -> None:
    assert _sent(ChatAsked, {**CHAT, name: 10_000})[name] == 4096
    assert _sent(ChatAsked, {**CHAT, name: 7})[name] == 7


def test_the_lower_of_two_numbers_of_tokens_counts() -> None:
    sent = _sent(ChatAsked, {**CHAT, "max_tokens": 9, "max_completion_tokens": 5})
    assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 5)


@pytest.mark.parametrize("level", ["reduced", "label"])
def test_a_suspected_client_is_asked_less_for_without_being_told(level: Level) -> None:
    sent = _sent(ChatAsked, {**CHAT, "n": 3, "logprobs": True, "top_logprobs": 5, "max_tokens": 4000}, level=level)
    assert sent["n"] == 1
    assert sent["max_tokens"] == (2048 if level == "reduced" else 128)
    assert "logprobs" not in sent
    assert "top_logprobs" not in sent


def test_the_usage_of_a_stream_is_always_asked_for() -> None:
    assert _sent(ChatAsked, {**CHAT, "stream": True})["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"n": 5}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"50": 10}}, "logit_bias"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
    ids=str,
)
def test_what_a_route_never_gives_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    assert _field(ChatAsked, {**CHAT, **change}, RoutePolicy(model="m")) == field


def test_a_token_can_be_banned_by_default_and_nothing_else() -> None:
    assert _sent(ChatAsked, {**CHAT, "logit_bias": {"50": -100}}, RoutePolicy(model="m"))["logit_bias"] == {
        "50": -100.0
    }
    never = RoutePolicy(model="m", logit_bias="never")
    assert _field(ChatAsked, {**CHAT, "logit_bias": {"50": -100}}, never) == "logit_bias"


@pytest.mark.parametrize(
    ("kind", "document"),
    [(ChatAsked, {**CHAT, "logprobs": True}), (CompletionAsked, {**TEXT, "logprobs": 0})],
    ids=["chat", "completions"],
)
def test_biases_and_log_probabilities_never_go_together(kind: Any, document: dict[str, Any]) -> None:
    # Carlini et al. 2024: together they give any log-probability, and with those the last layer
    assert _field(kind, {**document, "logit_bias": {"1": -100}}, OPEN) == "logit_bias"


def test_no_more_alternatives_are_shown_than_the_route_says() -> None:
    chosen = RoutePolicy(model="m", logprobs="chosen")
    assert _sent(ChatAsked, {**CHAT, "logprobs": True}, chosen)["logprobs"] is True
    assert _field(ChatAsked, {**CHAT, "logprobs": True, "top_logprobs": 1}, chosen) == "top_logprobs"
    assert _field(CompletionAsked, {**TEXT, "logprobs": 6}, OPEN) == "top_logprobs"


@pytest.mark.parametrize("change", [{"echo": True}, {"best_of": 2}, {"prompt": []}, {"prompt": [[]]}, {"prompt": [-1]}])
def test_completions_take_nothing_that_tells_of_prompts(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        _decoded(CompletionAsked, {**TEXT, **change}, OPEN)


@pytest.mark.parametrize(("prompt", "rows"), [("a", 1), ([1, 2], 1), (["a", "b"], 2), ([[1], [2], [3]], 3)], ids=str)
def test_each_prompt_is_a_query(prompt: Any, rows: int) -> None:
    assert count(prompt) == rows
    assert _decoded(CompletionAsked, {**TEXT, "prompt": prompt}, OPEN).rows == rows
    assert _decoded(EmbeddingAsked, {"model": "m", "input": prompt}, OPEN).rows == rows


@pytest.mark.parametrize("prompt", [["a", 1], [1, [2]], ["a", [1]]], ids=str)
def test_prompts_of_several_kinds_are_refused(prompt: Any) -> None:
    assert _field(CompletionAsked, {**TEXT, "prompt": prompt}, OPEN) == "prompt"
    assert _field(EmbeddingAsked, {"model": "m", "input": prompt}, OPEN) == "input"


def test_embeddings_are_always_asked_for_as_numbers() -> None:
    sent = _sent(EmbeddingAsked, {"model": "m", "input": "a", "encoding_format": "base64", "user": "ann"})
    assert sent == {"model": "upstream/m", "input": "a", "encoding_format": "float"}


def test_schemas_are_bounded() -> None:
    deep: Any = {}
    for _ in range(50):
        deep = {"a": deep}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    assert _field(ChatAsked, {**CHAT, "tools": [tool]}, OPEN) == "tools[0].function.parameters"
    answer = {"type": "json_schema", "json_schema": {"name": "f", "schema": deep}}
    assert _field(ChatAsked, {**CHAT, "response_format": answer}, OPEN) == "response_format.json_schema.schema"


def test_the_model_is_read_whatever_else_a_request_says() -> None:
    assert model_of(b'{"x": [1, {"model": "other"}], "model": "m"}') == "m"
    with pytest.raises(Problem) as caught:
        model_of(b'{"model": 7}')
    assert caught.value.field == "model"
