"""Places in JSON: what paths name one, and what stands there in documents that fit and do not."""

from typing import Any

import pytest

from palladion.watch.places import Place, find, parse_place, shown


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("$.body.instances", ("body", "instances")),
        ("body.instances", ("body", "instances")),
        ("$['user-id']", ("user-id",)),
        ("$.items[0].x", ("items", 0, "x")),
        ("time", ("time",)),
        ("@timestamp", ("@timestamp",)),
        ("$.http.user-agent", ("http", "user-agent")),
    ],
)
def test_a_path_names_one_place(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "$.",
        "$..x",
        "$.x[*]",
        "$.x[-1]",
        "$.x[99999]",
        "$['x",
        "$[x]",
        "a b",
        "$.x.",
        "$.x['\n']",
        "." + "a." * 40,
    ],
)
def test_what_names_none_or_several_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no path of names and indexes"):
        parse_place(text)


@pytest.mark.parametrize(
    ("document", "place", "found"),
    [
        ({"a": {"b": [1, {"c": 2}]}}, ("a", "b", 1, "c"), 2),
        ({"a": '{"b": [3]}'}, ("a", "b", 0), 3),
        ({"a": "no JSON"}, ("a", "b"), None),
        ({"a": "\ud800"}, ("a", "b"), None),
        ({"a": [1]}, ("a", 1), None),
        ({"a": [1]}, ("a", "b"), None),
        ({"a": 5}, ("a", 0), None),
        ({"a": None}, ("a",), None),
        ({}, ("a",), None),
    ],
    ids=str,
)
def test_what_stands_at_a_place(document: Any, place: Place, found: object) -> None:
    assert find(document, place) == found


def test_a_place_is_shown_as_people_write_it() -> None:
    for text in ("$.body.instances[0]", "$['a b'].c"):
        assert shown(parse_place(text)) == text
