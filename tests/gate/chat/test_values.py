"""The few values of a field, found by where it is in a request."""

import pytest

from palladion.gate.chat.asked import ChatAsked
from palladion.gate.chat.response_request import ResponseAsked
from palladion.gate.chat.values import values_of

ROLES = ['"assistant"', '"developer"', '"system"', '"tool"', '"user"']


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".messages[0].role", ROLES),
        (".messages[7].content[3].type", ['"text"', '"refusal"', '"image_url"', '"input_audio"']),
        (".messages[0].content[0].image_url.detail", ['"auto"', '"high"', '"low"']),
        (".tools[0].type", ['"function"']),
        (".tool_choice", ['"auto"', '"none"', '"required"']),
        (".modalities[0]", ['"text"']),
        (".response_format.type", ['"text"', '"json_object"', '"json_schema"']),
    ],
)
def test_values_are_found_through_lists_and_alternatives(path: str, values: list[str]) -> None:
    assert list(values_of(ChatAsked, path)) == values


def test_values_that_are_no_texts_are_shown_as_json() -> None:
    assert list(values_of(ResponseAsked, ".background")) == ["false"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        ".model",
        ".nothing.here",
        ".messages",
        "[0][1]",
        ".logit_bias[...]",
        ".response_format.json_schema",
        ".a`$.b",
    ],
)
def test_elsewhere_there_are_none(path: str) -> None:
    assert list(values_of(ChatAsked, path)) == []
