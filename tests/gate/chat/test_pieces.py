"""What requests are made of: each field within its limits, and free JSON small and flat."""

from typing import Any

import msgspec
import pytest

from palladion.gate.chat.pieces import DEPTH_MAX, VALUES_MAX, Format, Message, Tool, bounded, decode
from palladion.gate.problems import Problem

PICTURE = "data:image/png;base64,aGVsbG8="


def _problem(kind: Any, document: object) -> Problem:
    with pytest.raises(Problem) as caught:
        decode(msgspec.json.Decoder(kind), msgspec.json.encode(document))
    return caught.value


@pytest.mark.parametrize(
    "document",
    [
        {"role": "user", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "wav"}}]},
        {"role": "tool", "content": "7", "tool_call_id": "a"},
        {
            "role": "assistant",
            "tool_calls": [{"type": "function", "id": "a", "function": {"name": "f", "arguments": "{}"}}],
        },
    ],
    ids=["text", "parts", "picture", "sound", "tool", "call"],
)
def test_messages_are_sent_on_as_they_were_understood(document: dict[str, Any]) -> None:
    decoded = decode(msgspec.json.Decoder(Message), msgspec.json.encode(document))
    assert msgspec.json.decode(msgspec.json.encode(decoded)) == document


@pytest.mark.parametrize(
    "url",
    ["http://10.0.0.1/admin", "https://example.com/a.png", "file:///etc/passwd", "data:text/html;base64,aGVsbG8=", ""],
)
def test_a_picture_that_the_server_would_have_to_fetch_is_refused(url: str) -> None:
    problem = _problem(Message, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]})
    assert problem.kind == "bad-input"
    assert problem.field == "content[0].image_url.url"
    assert problem.detail == "pictures come within the request: data:image/png;base64,… (or jpeg, gif, webp)"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"role": "root", "content": "x"}, "role"),
        ({"role": "user", "content": "x", "weight": 1}, "weight"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": "a"}}]}, "content[0].type"),
        ({"role": "user", "content": 7}, "content"),
    ],
    ids=["role", "unknown field", "unknown part", "type"],
)
def test_a_broken_message_is_refused_by_its_field(document: object, field: str) -> None:
    assert _problem(Message, document).field == field


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (
            {"role": "root"},
            'invalid enum value \'root\': expected "assistant" or "developer" or "system" or "tool" or "user"',
        ),
        ({"role": "user", "tool_calls": [{"type": "x"}]}, "invalid value 'x': expected \"function\""),
        (
            {"role": "user", "content": [{"type": "file"}]},
            'invalid value \'file\': expected "text" or "refusal" or "image_url" or "input_audio"',
        ),
    ],
    ids=["role", "tag", "part"],
)
def test_a_wrong_word_is_answered_by_the_right_ones(document: object, detail: str) -> None:
    assert _problem(Message, document).detail == detail


def test_of_a_long_wrong_word_a_little_is_repeated_and_the_right_ones_whole() -> None:
    detail = _problem(Message, {"role": "x" * 10_000}).detail
    assert detail.endswith('or "user"')
    assert len(detail) < 300


def test_another_form_is_looked_up_in_the_docs() -> None:
    assert "docs/chat.md" in _problem(Tool, {"type": "function", "function": {"name": "a b"}}).detail


def test_tools_that_a_server_would_run_itself_are_refused() -> None:
    assert _problem(Tool, {"type": "web_search"}).kind == "bad-input"


def test_formats_are_told_apart_by_their_type() -> None:
    for document in ({"type": "text"}, {"type": "json_object"}):
        decoded: Any = decode(msgspec.json.Decoder(Format), msgspec.json.encode(document))
        assert msgspec.json.decode(msgspec.json.encode(decoded)) == document


def test_what_is_no_json_is_a_bad_request() -> None:
    with pytest.raises(Problem) as caught:
        decode(msgspec.json.Decoder(Message), b"{" * 100_000)
    assert caught.value.kind == "bad-request"


def test_free_json_may_be_a_schema() -> None:
    bounded({"type": "object", "properties": {"a": {"type": "array", "items": [1, 2.5, None, True]}}}, "schema")


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [_nested(DEPTH_MAX + 1), list(range(VALUES_MAX + 1)), [[1] * 200] * 200, 2**63, {"a": [-(2**70)]}],
    ids=["deep", "long", "wide", "large", "larger"],
)
def test_free_json_that_is_deep_or_long_or_large_is_refused(value: object) -> None:
    with pytest.raises(Problem) as caught:
        bounded(value, "tools[0].function.parameters")
    assert caught.value.field == "tools[0].function.parameters"


def test_free_json_at_its_limits_passes() -> None:
    bounded(_nested(DEPTH_MAX), "x")
    bounded(2**63 - 1, "x")
