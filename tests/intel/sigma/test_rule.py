"""Rules: what they mean, and what of Sigma is refused by name."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.intel.sigma.rule import DEPTH_MAX, RULE_BYTES_MAX, Window, member, parse_rule
from palladion.ledger.record import Record

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SUSPENDED = Record(
    "standing.changed",
    NOW,
    "watch",
    "client:00",
    {"to": "suspended", "from": "trusted", "n": 7, "ok": True, "by": [{"client": "client:1"}, {"client": "client:2"}]},
)


def rule(condition: str = "selection", **changes: Any) -> dict[str, Any]:
    searches = changes.pop("searches", {"selection": {"kind": "standing.changed"}})
    return {
        "title": "A rule",
        "id": "rule-1",
        "name": "one",
        "logsource": {"product": "palladion", "category": "ml_inference"},
        "detection": {**searches, "condition": condition},
        "level": "high",
    } | changes


def correlation(**changes: Any) -> dict[str, Any]:
    told = {
        "type": "event_count",
        "rules": ["one"],
        "group-by": ["subject"],
        "timespan": "10m",
        "condition": {"gte": 3},
    } | changes
    return {"title": "Several", "id": "rule-2", "level": "critical", "correlation": told}


def _parse(document: Any) -> Any:
    return parse_rule(json.dumps(document).encode(), what="it")


def _fits(search: Any, record: Record = SUSPENDED) -> bool:
    return bool(_parse(rule(searches={"selection": search})).test(record))


@pytest.mark.parametrize(
    ("search", "fits"),
    [
        ({"kind": "standing.changed"}, True),
        ({"kind": "standing"}, False),
        ({"kind|startswith": "standing."}, True),
        ({"subject|endswith": "00"}, True),
        ({"subject|contains": "ent:"}, True),
        ({"subject|contains": "nobody"}, False),
        ({"details.to": ["degraded", "suspended"]}, True),
        ({"details.to": "suspended", "actor": "user:a"}, False),
        ([{"actor": "user:a"}, {"details.to": "suspended"}], True),
        ({"details.n": 7}, True),
        ({"details.n": 8}, False),
        ({"details.ok": True}, True),
        ({"details.gone": "x"}, False),
        ({"details.by.client": "client:2"}, True),
        ({"subject|contains|all": ["client", "00"]}, True),
        ({"subject|contains|all": ["client", "01"]}, False),
    ],
)
def test_a_search_compares_fields(search: Any, fits: bool) -> None:
    assert _fits(search) is fits


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("yes", True),
        ("no", False),
        ("yes and no", False),
        ("yes or no", True),
        ("not no", True),
        ("no or yes and no", False),
        ("(no or yes) and yes", True),
        ("not (yes and not no)", False),
        ("not not yes", True),
    ],
)
def test_conditions_are_read_as_sigma_does(condition: str, fits: bool) -> None:
    searches = {"yes": {"actor": "watch"}, "no": {"actor": "user:a"}}
    assert _parse(rule(condition, searches=searches)).test(SUSPENDED) is fits


@pytest.mark.parametrize(
    ("condition", "kinds"),
    [
        ("a", ("x.a",)),
        ("a or b", ("x.a", "x.b")),
        ("a and c", ("x.a",)),
        ("a or c", ()),
        ("not a", ()),
        ("a and b", ()),
    ],
)
def test_the_index_is_asked_for_the_kinds_that_can_fit(condition: str, kinds: tuple[str, ...]) -> None:
    searches = {"a": {"kind": "x.a"}, "b": {"kind": "x.b"}, "c": {"actor": "watch"}}
    assert _parse(rule(condition, searches=searches)).kinds == kinds


def test_a_correlation_is_a_window() -> None:
    found = _parse([rule(), correlation()])
    assert (found.title, found.id, found.level) == ("Several", "rule-2", "critical")
    assert found.window == Window(("subject",), 600, 3)
    counted = correlation(type="value_count", condition={"gte": 2, "field": "details.to"}, rules=["rule-1"])
    assert _parse([rule(), counted]).window == Window(("subject",), 600, 2, "details.to")


UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "logsource": (rule(logsource={"product": "windows"}), "logsource"),
    "timeframe": (rule(searches={"selection": {"kind": "a.b"}, "timeframe": "5m"}), "write a correlation"),
    "keywords": (rule(searches={"selection": ["mimikatz"]}), "keywords are not supported"),
    "modifier": (rule(searches={"selection": {"actor|re": "a.*"}}), "modifier 're'"),
    "two-modifiers": (rule(searches={"selection": {"actor|base64|contains": "a"}}), "base64|contains"),
    "wildcard": (rule(searches={"selection": {"actor": "user:*"}}), "wildcard"),
    "null": (rule(searches={"selection": {"actor": None}}), "no text, number or list"),
    "field": (rule(searches={"selection": {"CommandLine": "a"}}), "field 'CommandLine'"),
    "one-of": (rule("1 of selection*"), "condition '1'"),
    "all-of": (rule("all of them"), "condition 'all'"),
    "pipe": (rule("selection | count() > 3"), "| count()"),
    "name": (rule("other"), "names 'other'"),
    "bracket": (rule("(selection"), "bracket"),
    "end": (rule("selection selection"), "goes on with 'selection'"),
    "empty": (rule(""), "names ''"),
    "deep": (rule("(" * (DEPTH_MAX + 1) + "selection" + ")" * (DEPTH_MAX + 1)), "brackets"),
    "negated": (rule("not " * 5000 + "selection"), "brackets"),
    "level": (rule(level="urgent"), "level is 'urgent'"),
    "member": (rule(action="global"), "'action' in a rule"),
    "type": ([rule(), correlation(type="temporal")], "type 'temporal'"),
    "rules": ([rule(), correlation(rules=["one", "two"])], "names the rule of its file alone"),
    "group": ([rule(), correlation(**{"group-by": ["User"]})], "group-by"),
    "span": ([rule(), correlation(timespan="1y")], "timespan"),
    "long": ([rule(), correlation(timespan="91d")], "at most 90 days"),
    "operator": ([rule(), correlation(condition={"lt": 3})], "gte, and nothing else"),
    "zero": ([rule(), correlation(condition={"gte": 0})], "a number from 1"),
    "counted": ([rule(), correlation(type="value_count", condition={"gte": 2})], "field and gte"),
    "aliases": ([rule(), correlation(aliases={})], "'aliases' in a correlation"),
    "three": ([rule(), correlation(), correlation()], "not one rule"),
    "text": ("rule", "not one rule"),
}


@pytest.mark.parametrize(("document", "words"), UNSUPPORTED.values(), ids=UNSUPPORTED.keys())
def test_what_is_not_supported_is_refused_by_name(document: Any, words: str) -> None:
    with pytest.raises(FormatError) as caught:
        _parse(document)
    assert words in caught.value.message
    assert caught.value.message.startswith("it")


@pytest.mark.parametrize("data", [b"title: A rule\n", b'{"a":1,"a":2}', b"\xff", b" " * (RULE_BYTES_MAX + 1)])
def test_what_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_rule(data, what="it")


def test_members_of_lists_are_several() -> None:
    assert member(SUSPENDED, "details.by.client") == ["client:1", "client:2"]
    assert member(SUSPENDED, "details.by") == []
    assert member(SUSPENDED, "details.ok") == ["true"]
    assert member(SUSPENDED, "details.to.deeper") == []
