"""Requests of the responses API: nothing that needs a server to remember, and nothing that it would run or fetch."""

from typing import Any

import msgspec
import pytest

from palladion.gate.chat.response_request import ResponseAsked
from palladion.gate.chat.terms import terms
from palladion.gate.problems import Problem
from palladion.policy import RoutePolicy

ROUTE = RoutePolicy(model="m")
ASK = {"model": "m", "input": "hello"}


def _sent(document: object) -> dict[str, Any]:
    asked = msgspec.json.decode(msgspec.json.encode(document), type=ResponseAsked)
    asked.check(ROUTE)
    asked.bind(terms(ROUTE, "contract"), "upstream/m")
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(asked))
    return found


def test_the_server_is_told_to_keep_nothing() -> None:
    about = {"user": "ann", "metadata": {"a": "b"}, "store": True, "top_logprobs": 0, "include": []}
    assert _sent({**ASK, **about}) == {
        "model": "upstream/m", "input": "hello", "store": False, "stream": False, "max_output_tokens": 4096,
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"background": True},
        {"prompt": {"id": "pmpt_1"}},
        {"include": ["message.output_text.logprobs"]},
        {"top_logprobs": 5},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "mcp", "server_url": "http://10.0.0.1"}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.1/a.png"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://10.0.0.1/a"}]}]},
        {"input": []},
        {"foo": 1},
    ],
    ids=str,
)
def test_what_has_to_be_remembered_run_or_fetched_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        _sent({**ASK, **change})


def test_what_was_said_before_is_sent_on_as_it_came() -> None:
    said = {"type": "output_text", "text": "Troy", "annotations": []}
    items = [
        {"type": "message", "role": "user", "content": "hello"},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [said]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "7"},
    ]
    assert _sent({**ASK, "input": items})["input"] == items


def test_tokens_are_capped() -> None:
    assert _sent({**ASK, "max_output_tokens": 10_000})["max_output_tokens"] == 4096
    assert _sent({**ASK, "max_output_tokens": 5})["max_output_tokens"] == 5


def test_schemas_and_options_are_checked() -> None:
    deep: Any = {}
    for _ in range(50):
        deep = {"a": deep}
    for change, field in (
        ({"tools": [{"type": "function", "name": "f", "parameters": deep}]}, "tools[0].parameters"),
        ({"text": {"format": {"type": "json_schema", "name": "f", "schema": deep}}}, "text.format.schema"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ):
        with pytest.raises(Problem) as caught:
            _sent({**ASK, **change})
        assert caught.value.field == field
