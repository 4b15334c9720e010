"""Records in words."""

from typing import Any

import pytest

from palladion.incident.dossier.words import found, said


@pytest.mark.parametrize(
    ("kind", "told", "words"),
    [
        ("incident.opened", {"clients": 1}, "a case about 1 account"),
        ("incident.opened", {"clients": 3}, "a case about 3 accounts"),
        ("incident.noted", {"text": "seen"}, "seen"),
        ("standing.changed", {"from": "a", "to": "b", "reason": "c"}, "a → b: c"),
        ("custody.recorded", {"step": "acquired", "source": "x"}, "acquired: x"),
        ("answer.given", {"queries": 1, "route": "/r"}, "1 query answered on /r"),
        ("answer.given", {"queries": 8, "route": "/r"}, "8 queries answered on /r"),
        ("answer.refused", {"requests": 2, "reason": "rate"}, "2 requests refused: rate"),
        ("client.added", {"scopes": ["predict:a", "route:b"]}, "may ask predict:a, route:b"),
        ("decoy.touched", {"touches": 2}, "a decoy was touched 2 times"),
        ("client.added", {"scopes": []}, "may ask everything"),
        ("client.key-added", {"prefix": "pall_live_x"}, "got the key pall_live_x…"),
        ("client.revoked", {}, None),
        ("later.kind", {"a": 1}, None),
    ],
)
def test_what_a_record_says(kind: str, told: dict[str, Any], words: str | None) -> None:
    assert said(kind, told) == words


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"version": "m@1", "log10_p": "-9.0"}, "m@1: log10 p -9.0, a finding"),
        ({"version": "m@1", "log10_p": "-8.9"}, "m@1: log10 p -8.9, no finding"),
        ({"version": "m@1", "log10_p": "x"}, "m@1: log10 p x, not a number"),
        (
            {"version": "m@1", "log10_p": "-20.0", "matches": 30, "answered": 64},
            "m@1: log10 p -20.0, a finding; 30 of 64 answers match",
        ),
        (
            {"version": "m@1", "log10_p": "-1.0", "recipients": 2, "accused": []},
            "m@1: log10 p -1.0, no finding; 2 recipients tested, named: nobody",
        ),
        (
            {"version": "m@1", "log10_p": "-1.0", "recipients": 1, "accused": [{"recipient": "r", "log10_p": "-30.0"}]},
            "m@1: log10 p -1.0, no finding; 1 recipient tested, named: r (log10 p -30.0)",
        ),
        ({"root": "ab", "first": 0}, "first 0, root ab"),
        ({"deep": [1, {"a": 2}]}, '{"deep":[1,{"a":2}]}'),
    ],
)
def test_what_a_test_found(item: dict[str, Any], words: str) -> None:
    assert found(item) == words
