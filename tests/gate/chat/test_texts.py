"""Texts, whole and in pieces: as many as were asked for, ended once, and the end held back."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.gate.chat.asked import ChatAsked, CompletionAsked
from palladion.gate.chat.events import DONE
from palladion.gate.chat.pieces import Message
from palladion.gate.chat.response_request import ResponseAsked
from palladion.gate.chat.responses import Responses
from palladion.gate.chat.terms import terms
from palladion.gate.chat.texts import Label, Streamed, Texts
from palladion.policy import RoutePolicy

from .engine import FINGERPRINT, MODEL, chunk, usage

FIELDS = [
    "choices", "index", "delta", "message", "content", "usage", "prompt_tokens", "finish_reason", "logprobs", "text",
    "type", "response", "item", "output_index", "tool_calls", "function", "output", "status",
]  # fmt: skip
GIVEN = terms(RoutePolicy(model="m"), "contract")


def _texts(n: int | None = None, *, include_usage: bool = False, prompts: int = 0) -> Texts:
    asked: Any
    if prompts:
        asked = CompletionAsked(model="m", prompt=["x"] * prompts, n=n)
    else:
        asked = ChatAsked(model="m", messages=[Message(role="user", content="hello")], n=n, stream=True)
    asked.bind(GIVEN, MODEL)
    return Texts(asked, Label("id", 5, "m"), request_bytes=100, include_usage=include_usage)


def _whole(texts: Texts, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    body = msgspec.json.encode({"id": "secret", "model": MODEL, "choices": choices, **more})
    answer, _ = texts.whole(body, GIVEN)
    found: dict[str, Any] = msgspec.json.decode(answer)
    return found


def _choice(index: int = 0, text: str = "hello", finish: str | None = "stop") -> dict[str, Any]:
    return {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": finish}


def _event(delta: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps(chunk(delta, **changes)).encode()


def _read(data: bytes) -> list[Any]:
    return [json.loads(item[6:]) for item in data.decode().split("\n\n") if item]


def test_a_whole_answer_is_written_anew() -> None:
    said = _whole(_texts(), [_choice()], usage=usage(5, 2), system_fingerprint=FINGERPRINT)
    assert said == {
        "id": "chatcmpl-id",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [{**_choice(), "logprobs": None}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def test_every_prompt_gets_its_answers_in_order() -> None:
    choices = [{"index": index, "text": str(index), "finish_reason": "stop"} for index in range(6)]
    said = _whole(_texts(3, prompts=2), choices[::-1])
    assert [choice["text"] for choice in said["choices"]] == list("012345")


@pytest.mark.parametrize(
    "choices",
    [[], [_choice(), _choice(1)], [_choice(1)], [_choice(finish=None)]],
    ids=["none", "too many", "another", "without an end"],
)
def test_a_whole_answer_that_was_not_asked_for_is_refused(choices: list[dict[str, Any]]) -> None:
    with pytest.raises(FormatError):
        _whole(_texts(), choices)


def _ended(streamed: Streamed, *deltas: dict[str, Any]) -> None:
    for delta in deltas:
        streamed.take(_event(delta))
    streamed.take(_event({}, finish_reason="stop"))
    assert not streamed.complete
    streamed.take(DONE)
    assert streamed.complete


def test_pieces_are_written_anew_and_the_end_is_held_back() -> None:
    streamed = _texts().streamed(GIVEN)
    (first,) = _read(streamed.take(_event({"role": "assistant", "content": "hello"})))
    assert (first["id"], first["model"]) == ("chatcmpl-id", "m")
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "hello"}
    assert streamed.take(_event({"content": "."}, finish_reason="stop")) == b""
    assert streamed.take(DONE) == b""
    (last,) = _read(streamed.end())
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["choices"][0]["delta"] == {"content": "."}
    assert streamed.finish == "stop"


@pytest.mark.parametrize(
    "beside",
    [{"reasoning_content": "hm"}, {"reasoning": "hm"}, {"role": "secret"}, {"refusal": "no"}, {"tool_calls": []}],
)
def test_a_text_hides_nothing_that_comes_beside_it(beside: dict[str, Any]) -> None:
    streamed = _texts().streamed(GIVEN)
    ((piece,),) = [said["choices"] for said in _read(streamed.take(_event({"content": "a", **beside})))]
    expected = {"role": "assistant"} if "role" in beside else {"refusal": "no"} if "refusal" in beside else {}
    assert piece["delta"] == {"content": "a", **expected}
    assert streamed._texts.tally.characters == 1 + len(
        "".join(str(text) for name, text in beside.items() if name not in {"role", "tool_calls"})
    )


def test_log_probabilities_that_nobody_is_given_do_not_come_with_a_piece() -> None:
    place = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    for texts, data in (
        (_texts(), _event({"content": "a"}, logprobs={"content": [place]})),
        (
            _texts(prompts=1),
            json.dumps(
                {"choices": [{"index": 0, "text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [-0.5]}}]}
            ).encode(),
        ),
    ):
        ((piece,),) = [said["choices"] for said in _read(texts.streamed(GIVEN).take(data))]
        assert piece["logprobs"] is None


def test_thoughts_leave_no_empty_pieces_behind() -> None:
    assert _texts().streamed(GIVEN).take(_event({"reasoning_content": "hm"})) == b""


def test_the_usage_comes_last_if_the_client_wants_it() -> None:
    texts = _texts(include_usage=True)
    streamed = texts.streamed(GIVEN)
    streamed.take(json.dumps({"choices": [], "usage": usage(5, 1)}).encode())
    _ended(streamed, {"content": "hello"})
    assert _read(streamed.end())[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}


def test_what_is_cut_says_length_for_every_answer_that_goes_on() -> None:
    streamed = _texts(2).streamed(GIVEN)
    streamed.take(_event({"content": "a"}))
    streamed.take(_event({}, index=1, finish_reason="stop"))
    streamed.cut()
    ends = {item["choices"][0]["index"]: item["choices"][0]["finish_reason"] for item in _read(streamed.end())}
    assert ends == {0: "length", 1: "stop"}
    assert streamed.finish == "length, stop"


def test_completions_are_cut_as_well() -> None:
    streamed = _texts(prompts=1).streamed(GIVEN)
    streamed.cut()
    assert _read(streamed.end())[0]["choices"] == [
        {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    ]


@pytest.mark.parametrize(
    "data",
    [
        DONE,
        _event({"content": "x"}, index=1),
        b'{"error": {"message": "out of memory"}}',
        b"garbage",
    ],
    ids=["ended early", "another answer", "an error", "garbage"],
)
def test_a_stream_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        _texts().streamed(GIVEN).take(data)


def test_nothing_follows_the_end_of_an_answer() -> None:
    streamed = _texts().streamed(GIVEN)
    streamed.take(_event({}, finish_reason="stop"))
    with pytest.raises(FormatError):
        streamed.take(_event({"content": "more"}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6),
    max_leaves=20,
)


@given(st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_server_says_is_understood_or_refused(data: bytes) -> None:
    work = Responses(ResponseAsked(model="m", input="x"), Label("id", 1, "m"), request_bytes=10)
    for streamed in (_texts().streamed(GIVEN), _texts(prompts=1).streamed(GIVEN), work.streamed(GIVEN)):
        with contextlib.suppress(FormatError):
            streamed.take(data)
    for texts in (_texts(), _texts(prompts=1), work):
        with contextlib.suppress(FormatError):
            texts.whole(data, GIVEN)
