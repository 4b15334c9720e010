"""What of a server's words gets through: the fields that are named, and no others."""

from typing import Any

import msgspec
import pytest

from palladion.errors import FormatError
from palladion.gate.chat.answered import (
    HEARD_CHAT,
    HEARD_CHAT_CHUNK,
    ChatChoice,
    TextChoice,
    TextLogprobs,
    heard,
    rounded,
    told,
)
from palladion.gate.chat.terms import terms
from palladion.policy import RoutePolicy

OPEN = terms(RoutePolicy(model="m", logprobs="top5", reasoning=True, decimals=2), "contract")
CLOSED = terms(RoutePolicy(model="m"), "contract")
TOP = [{"token": letter, "logprob": -1.2345, "bytes": [1]} for letter in "abcdef"]
PLACE = {"token": "a", "logprob": -0.12345, "bytes": [97], "top_logprobs": TOP}
CHOICE: dict[str, Any] = {
    "index": 0,
    "message": {
        "role": "assistant", "content": "hello", "reasoning_content": "hm", "reasoning": "hm", "hidden_states": [1.5],
        "tool_calls": [],
    },
    "logprobs": {"content": [PLACE]},
    "finish_reason": "eos_token",
    "stop_reason": 7,
    "token_ids": [1, 2],
}  # fmt: skip


def _choice(**changes: Any) -> ChatChoice:
    found: ChatChoice = msgspec.convert({**CHOICE, **changes}, ChatChoice)
    return found


def _told(choice: Any, given: Any, alternatives: int | None) -> dict[str, Any]:
    told(choice, given, alternatives)
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(choice))
    return found


def test_only_named_fields_get_through() -> None:
    assert _told(_choice(), CLOSED, None) == {
        "index": 0,
        "message": {"role": "assistant", "content": "hello"},
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_thoughts_are_shown_where_the_route_says_so() -> None:
    message = _told(_choice(), OPEN, None)["message"]
    assert (message["reasoning_content"], message["reasoning"]) == ("hm", "hm")


def test_log_probabilities_are_rounded_and_as_many_as_were_asked_for() -> None:
    (place,) = _told(_choice(), OPEN, 2)["logprobs"]["content"]
    assert place["logprob"] == -0.12
    assert [item["logprob"] for item in place["top_logprobs"]] == [-1.23, -1.23]


@pytest.mark.parametrize(("given", "asked"), [(CLOSED, 2), (OPEN, None)], ids=["not given", "not asked"])
def test_log_probabilities_that_a_server_sends_anyway_are_withheld(given: Any, asked: int | None) -> None:
    assert _told(_choice(), given, asked)["logprobs"] is None


def test_the_highest_alternatives_of_a_text_are_kept() -> None:
    logprobs = TextLogprobs(["a"], [-0.12345, None], [{"a": -3.0, "b": -1.0, "c": -2.0}, None], [0])
    choice = TextChoice(0, "a", logprobs, "stop")
    assert _told(choice, OPEN, 2)["logprobs"] == {
        "tokens": ["a"], "token_logprobs": [-0.12, None], "top_logprobs": [{"b": -1.0, "c": -2.0}, None],
        "text_offset": [0],
    }  # fmt: skip
    assert _told(TextChoice(0, "a", logprobs, "stop"), OPEN, 0)["logprobs"]["top_logprobs"] is None


def test_known_ends_stay_and_others_become_stop() -> None:
    assert _told(_choice(finish_reason="length"), CLOSED, None)["finish_reason"] == "length"
    assert _told(_choice(finish_reason="repetition"), CLOSED, None)["finish_reason"] == "stop"


def test_everything_generated_is_counted_whether_or_not_it_is_told() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    choice = _choice(message={**CHOICE["message"], "tool_calls": [call]})
    assert choice.generated == "hellohmhmf{}"


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b'{"choices": null}', b'{"choices": [{"index": -1, "message": {}}]}',
     b'{"choices": [{"index": 0, "message": {"content": 7}}]}', b'{"error": {"message": "prompt of somebody"}}',
     b'{"choices": [], "usage": {"prompt_tokens": -1}}', b'{"choices": [], "usage": {"prompt_tokens": 1e30}}',
     b"\xff", b'{"a":' * 5000],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_answer_is_refused_without_a_word_of_it(data: bytes) -> None:
    for decoder in (HEARD_CHAT, HEARD_CHAT_CHUNK):
        with pytest.raises(FormatError) as caught:
            heard(decoder, data)
        assert "somebody" not in caught.value.message


def test_numbers_are_rounded_without_a_negative_zero() -> None:
    assert str(rounded(-0.001, 2)) == "0.0"
    assert rounded(-0.123456, 17) == -0.123456
