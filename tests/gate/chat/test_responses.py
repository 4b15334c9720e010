"""The responses API: what is told of a response, whole and in events, and how it ends."""

import json
from typing import Any

import msgspec
import pytest

from palladion.errors import FormatError
from palladion.gate.chat.events import DONE
from palladion.gate.chat.response_request import ResponseAsked
from palladion.gate.chat.responses import Responses, Streamed
from palladion.gate.chat.terms import Terms, terms
from palladion.gate.chat.texts import Label
from palladion.policy import RoutePolicy

CLOSED = terms(RoutePolicy(model="m"), "contract")
OPEN = terms(RoutePolicy(model="m", reasoning=True), "contract")
TEXT = {"type": "output_text", "text": "Troy", "annotations": []}
MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [TEXT]}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "f", "arguments": "{}", "status": "completed"}
SEARCH = {"type": "web_search_call", "id": "ws_1"}
RESPONSE = {
    "id": "resp_secret", "status": "completed", "output": [THOUGHT, SEARCH, MESSAGE, CALL], "model": "secret",
    "usage": {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}, "instructions": "secret",
}  # fmt: skip


def _work() -> Responses:
    asked = ResponseAsked(model="m", input="hello")
    asked.bind(CLOSED, "secret")
    return Responses(asked, Label("id", 5, "m"), request_bytes=100)


def _whole(response: object, given: Terms = CLOSED) -> dict[str, Any]:
    answer, _ = _work().whole(msgspec.json.encode(response), given)
    found: dict[str, Any] = msgspec.json.decode(answer)
    return found


def _take(streamed: Streamed, kind: str, **fields: Any) -> list[dict[str, Any]]:
    return _read(streamed.take(json.dumps({"type": kind, "sequence_number": 99, **fields}).encode()))


def _read(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in data.decode().split("\n") if line.startswith("data: ")]


def test_a_whole_response_is_written_anew() -> None:
    said = _whole(RESPONSE)
    assert (said["id"], said["model"], said["status"]) == ("resp_id", "m", "completed")
    assert said["output"] == [MESSAGE, CALL]
    assert said["usage"] == {"input_tokens": 5, "output_tokens": 9, "total_tokens": 14}
    assert "secret" not in str(said)


def test_thoughts_are_shown_where_the_route_says_so() -> None:
    assert _whole(RESPONSE, OPEN)["output"] == [THOUGHT, MESSAGE, CALL]


def test_a_response_that_is_not_complete_says_why() -> None:
    said = _whole({**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "content_filter"}})
    assert said["incomplete_details"] == {"reason": "content_filter"}


@pytest.mark.parametrize("status", ["failed", "in_progress", "queued", None])
def test_a_response_without_an_end_is_refused(status: str | None) -> None:
    with pytest.raises(FormatError):
        _whole({**RESPONSE, "status": status})


def test_items_that_are_not_told_of_leave_no_gap_in_the_numbers() -> None:
    streamed = _work().streamed(CLOSED)
    assert _take(streamed, "response.output_item.added", output_index=0, item=THOUGHT) == []
    assert _take(streamed, "response.reasoning_text.delta", output_index=0, content_index=0, delta="hm") == []
    (added,) = _take(streamed, "response.output_item.added", output_index=1, item={**MESSAGE, "content": []})
    assert (added["output_index"], added["sequence_number"]) == (0, 0)
    (delta,) = _take(
        streamed, "response.output_text.delta", output_index=1, item_id="msg_1", content_index=0, delta="T"
    )
    assert (delta["output_index"], delta["sequence_number"], delta["delta"]) == (0, 1, "T")


def test_the_last_event_is_held_back() -> None:
    streamed = _work().streamed(CLOSED)
    assert _take(streamed, "response.completed", response=RESPONSE) == []
    assert streamed.complete
    (last,) = _read(streamed.end())
    assert (last["type"], last["response"]["output"]) == ("response.completed", [MESSAGE, CALL])
    assert streamed.finish == "completed"


def test_what_is_cut_ends_incomplete_with_what_there_is() -> None:
    streamed = _work().streamed(CLOSED)
    _take(streamed, "response.output_item.added", output_index=0, item={**MESSAGE, "content": []})
    _take(streamed, "response.output_text.delta", output_index=0, delta="Tro")
    _take(streamed, "response.output_item.added", output_index=1, item={**CALL, "arguments": ""})
    _take(streamed, "response.function_call_arguments.delta", output_index=1, delta='{"a')
    streamed.cut()
    (last,) = _read(streamed.end())
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    message, call = last["response"]["output"]
    assert (message["content"][0]["text"], message["status"]) == ("Tro", "incomplete")
    assert call["arguments"] == '{"a'


def test_events_that_are_not_known_are_dropped() -> None:
    streamed = _work().streamed(CLOSED)
    assert _take(streamed, "response.something.new", output_index=0, secret=1) == []
    assert streamed.take(DONE) == b""


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("response.failed", {"response": {"error": {"message": "prompt of somebody"}}}),
        ("error", {"message": "prompt of somebody"}),
        ("response.completed", {}),
        ("response.completed", {"response": {"status": "in_progress"}}),
        ("response.output_text.delta", {"delta": "x"}),
        ("response.output_text.delta", {"output_index": 0, "delta": 7}),
    ],
    ids=["failed", "error", "says nothing", "no end", "about nothing", "type"],
)
def test_a_stream_that_is_none_is_refused(kind: str, fields: dict[str, Any]) -> None:
    with pytest.raises(FormatError) as caught:
        _take(_work().streamed(CLOSED), kind, **fields)
    assert "somebody" not in caught.value.message
