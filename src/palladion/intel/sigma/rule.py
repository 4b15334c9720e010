"""A Sigma rule becomes something that our own query engine can ask. Pure; what is not supported is refused by name.

Of Sigma 2.0: detections with equality, `contains`, `startswith` and `endswith`, lists, `and`, `or`, `not` and brackets,
and correlations of the types event_count and value_count with group-by and timespan. Fields are those of a record:
kind, actor, subject, and details.NAME.

A rule is one file with one JSON document: the detection rule, or a list of it and its correlation. JSON is YAML 1.2, so
every tool for Sigma reads these files, and we need no YAML parser, whose aliases and tags are a way in.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from palladion.errors import FormatError
from palladion.ledger.record import Record

PRODUCT, CATEGORY = "palladion", "ml_inference"
RULE_BYTES_MAX = 64 * 1024
DEPTH_MAX = 20  # of brackets
ITEMS_MAX = 200  # conditions in one rule
TIMESPAN_SECONDS_MAX = 90 * 86_400
COUNT_MAX = 100_000  # events that are held of one group
LEVELS = ("informational", "low", "medium", "high", "critical")
Level = Literal["informational", "low", "medium", "high", "critical"]

Test = Callable[[Record], bool]
_FIELD = re.compile(r"kind|actor|subject|details(\.[A-Za-z0-9_-]{1,64}){1,4}")
_TIMESPAN = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9_*-]+)")
_MODIFIERS: Mapping[str, Callable[[str, str], bool]] = {
    "equals": lambda text, value: text == value,
    "contains": lambda text, value: value in text,
    "startswith": lambda text, value: text.startswith(value),
    "endswith": lambda text, value: text.endswith(value),
}
_RULE = {
    *("title", "id", "status", "description", "references", "author", "date", "modified", "tags", "level", "fields"),
    *("logsource", "detection", "falsepositives", "name", "license"),
}
_CORRELATION = {"title", "id", "status", "description", "references", "author", "date", "tags", "level", "correlation"}


@dataclass(frozen=True)
class Window:
    """How many events of a group have to come within `seconds`: events, or different values of the field `counted`."""

    group_by: tuple[str, ...]
    seconds: int
    least: int
    counted: str = ""


@dataclass(frozen=True)
class Rule:
    """A rule that can be run: `kinds` are those of the records that can fit, all where it is empty."""

    title: str
    id: str
    level: Level
    description: str
    tags: tuple[str, ...]
    kinds: tuple[str, ...]
    test: Test
    window: Window | None = None


def parse_rule(data: bytes, *, what: str) -> Rule:
    """The rule that `data` is. Raises FormatError, which names what is not supported."""
    if len(data) > RULE_BYTES_MAX:
        raise FormatError(f"{what} has {len(data)} bytes, at most {RULE_BYTES_MAX} are allowed")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_no_twins)
    except (ValueError, RecursionError):
        raise FormatError(
            f"{what} is not JSON, which is how rules are read here (JSON is YAML as well)",
            "yq -o=json RULE.yml turns other YAML into it",
        ) from None
    documents = document if isinstance(document, list) else [document]
    if not 1 <= len(documents) <= 2 or not all(isinstance(item, dict) for item in documents):
        raise FormatError(f"{what} is not one rule, or a list of one and its correlation")
    try:
        return _rule(documents[0], documents[1] if len(documents) == 2 else None)
    except FormatError as error:
        raise FormatError(f"{what}: {error.message}", *error.hints) from None


def member(record: Record, field: str) -> list[str]:
    """The texts of a field of a record: none where it is not there, several where it is a list."""
    if field in {"kind", "actor", "subject"}:
        return [str(getattr(record, field))]
    found: list[Any] = [record.details]
    for name in field.split(".")[1:]:
        found = [each[name] for item in found for each in _each(item) if isinstance(each, dict) and name in each]
    return [_text(item) for part in found for item in _each(part) if not isinstance(item, dict)]


def _rule(rule: dict[str, Any], correlation: dict[str, Any] | None) -> Rule:
    _known(rule, _RULE, "rule")
    source = rule.get("logsource")
    if source != {"product": PRODUCT, "category": CATEGORY}:
        raise FormatError(f"logsource is not product {PRODUCT} with category {CATEGORY}")
    detection = rule.get("detection")
    if not isinstance(detection, dict) or not isinstance(detection.get("condition"), str):
        raise FormatError("detection has no condition, which is one text")
    if "timeframe" in detection:
        raise FormatError("timeframe is not supported: write a correlation")
    searches = {name: _search(name, body) for name, body in detection.items() if name != "condition"}
    if not searches or sum(item.size for item in searches.values()) > ITEMS_MAX:
        raise FormatError(f"detection has no search, or more than {ITEMS_MAX} conditions")
    matcher = _Condition(detection["condition"], searches).parsed()
    told = correlation if correlation is not None else rule
    level = told.get("level", rule.get("level", "medium"))
    if level not in LEVELS:
        raise FormatError(f"level is {level!r:.40}, expected {', '.join(LEVELS)}")
    tags = rule.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise FormatError("tags is not a list of texts")
    return Rule(
        title=_required(told, "title"),
        id=_required(told, "id"),
        level=level,
        description=str(told.get("description", rule.get("description", "")))[:1000],
        tags=tuple(tags),
        kinds=tuple(sorted(matcher.kinds or ())),
        test=matcher.test,
        window=None if correlation is None else _window(correlation, rule),
    )


@dataclass(frozen=True)
class _Matcher:
    """A part of a condition; `kinds` are the only kinds of records that it can fit, None where it may fit any."""

    test: Test
    kinds: frozenset[str] | None
    size: int = 1


def _search(name: str, body: Any) -> _Matcher:
    if isinstance(body, dict) and body:
        return _all([_field(key, value) for key, value in body.items()])
    if isinstance(body, list) and body and all(isinstance(item, dict) and item for item in body):
        return _any([_search(name, item) for item in body])
    raise FormatError(f"detection {name[:40]!r} is not fields with values; keywords are not supported")


def _field(key: str, value: Any) -> _Matcher:
    field, *modifiers = key.split("|")
    if not _FIELD.fullmatch(field):
        raise FormatError(f"field {field[:80]!r} is none of a record: kind, actor, subject, details.NAME")
    every = modifiers[-1:] == ["all"]
    modifiers = modifiers[:-1] if every else modifiers
    if len(modifiers) > 1 or (modifiers and modifiers[0] not in _MODIFIERS) or modifiers == ["equals"]:
        raise FormatError(
            f"modifier {'|'.join(modifiers)[:80]!r} is not supported: contains, startswith, endswith, all"
        )
    compare = _MODIFIERS[modifiers[0] if modifiers else "equals"]
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, str | int | bool) for item in values):
        raise FormatError(f"field {field} is compared with what is no text, number or list of these")
    texts = [_text(item) for item in values]
    if any(sign in text for text in texts for sign in "*?"):
        raise FormatError(f"field {field} is compared with a wildcard: write contains, startswith or endswith")
    combine = all if every else any

    def test(record: Record) -> bool:
        found = member(record, field)
        return combine(any(compare(text, wanted) for text in found) for wanted in texts)

    kinds = frozenset(texts) if field == "kind" and not modifiers and not every else None
    return _Matcher(test, kinds, len(texts))


class _Condition:
    """Reads `a and not (b or c)` by descent."""

    def __init__(self, text: str, searches: Mapping[str, _Matcher]) -> None:
        self._tokens = _tokens(text)
        self._searches = searches
        self._depth = 0

    def parsed(self) -> _Matcher:
        found = self._either()
        if self._tokens:
            raise FormatError(f"condition goes on with {self._tokens[0][:40]!r}, which is not supported there")
        return found

    def _either(self) -> _Matcher:
        parts = [self._both()]
        while self._taken("or"):
            parts.append(self._both())
        return _any(parts)

    def _both(self) -> _Matcher:
        parts = [self._one()]
        while self._taken("and"):
            parts.append(self._one())
        return _all(parts)

    def _one(self) -> _Matcher:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise FormatError(f"condition has more than {DEPTH_MAX} brackets and negations in each other")
        try:
            if self._taken("not"):
                inner = self._one().test
                return _Matcher(lambda record: not inner(record), None)
            if self._taken("("):
                found = self._either()
                if not self._taken(")"):
                    raise FormatError("condition has a bracket that is not closed")
                return found
            name = self._tokens.pop(0) if self._tokens else ""
            if name in {"1", "all", "any"} or "*" in name:
                raise FormatError(f"condition {name!r} is not supported: name each detection")
            if name not in self._searches:
                raise FormatError(f"condition names {name[:40]!r}, which detection has not")
            return self._searches[name]
        finally:
            self._depth -= 1

    def _taken(self, token: str) -> bool:
        if self._tokens and self._tokens[0] == token:
            del self._tokens[0]
            return True
        return False


def _tokens(text: str) -> list[str]:
    found, place = list[str](), 0
    text = text.strip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise FormatError(f"condition has {text[place : place + 20]!r}, which is not supported")
        found.append(match[1])
        place = match.end()
    return found


def _all(parts: Sequence[_Matcher]) -> _Matcher:
    if len(parts) == 1:
        return parts[0]
    known = [part.kinds for part in parts if part.kinds is not None]
    kinds = frozenset.intersection(*known) if known else None
    tests = [part.test for part in parts]
    return _Matcher(lambda record: all(test(record) for test in tests), kinds, sum(part.size for part in parts))


def _any(parts: Sequence[_Matcher]) -> _Matcher:
    if len(parts) == 1:
        return parts[0]
    known = [part.kinds for part in parts if part.kinds is not None]
    kinds = frozenset[str]().union(*known) if len(known) == len(parts) else None
    tests = [part.test for part in parts]
    return _Matcher(lambda record: any(test(record) for test in tests), kinds, sum(part.size for part in parts))


def _window(document: dict[str, Any], rule: dict[str, Any]) -> Window:
    _known(document, _CORRELATION, "correlation")
    told = document.get("correlation")
    if not isinstance(told, dict):
        raise FormatError("the second document has no correlation")
    _known(told, {"type", "rules", "group-by", "timespan", "condition"}, "correlation")
    kind = told.get("type")
    if kind not in {"event_count", "value_count"}:
        raise FormatError(f"a correlation of type {kind!r:.40} is not supported: event_count and value_count are")
    if told.get("rules") not in ([rule.get("name")], [rule.get("id")]):
        raise FormatError("a correlation names the rule of its file alone, by name or id")
    groups = told.get("group-by", [])
    if not isinstance(groups, list) or not all(isinstance(name, str) and _FIELD.fullmatch(name) for name in groups):
        raise FormatError("group-by is not a list of fields of a record")
    span = _TIMESPAN.fullmatch(told["timespan"]) if isinstance(told.get("timespan"), str) else None
    seconds = int(span[1]) * _SECONDS[span[2]] if span else 0
    if not 0 < seconds <= TIMESPAN_SECONDS_MAX:
        raise FormatError("timespan is not one such as 10m, 1h or 7d, of at most 90 days")
    condition = told.get("condition")
    expected = {"gte"} if kind == "event_count" else {"gte", "field"}
    if not isinstance(condition, dict) or condition.keys() != expected:
        raise FormatError(
            f"the condition of {kind} has {' and '.join(sorted(expected))}, and nothing else is supported"
        )
    least, counted = condition["gte"], condition.get("field", "")
    if type(least) is not int or not 1 <= least <= COUNT_MAX or (counted and not _is_field(counted)):
        raise FormatError(f"the condition of {kind} is not a number from 1 to {COUNT_MAX} and a field of a record")
    return Window(tuple(groups), seconds, least, counted)


def _is_field(name: Any) -> bool:
    return isinstance(name, str) and _FIELD.fullmatch(name) is not None


def _known(document: dict[str, Any], names: set[str], what: str) -> None:
    unknown = sorted(set(document) - names)
    if unknown:
        raise FormatError(f"{unknown[0][:40]!r} in a {what} is not supported")


def _required(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise FormatError(f"{name} is missing, or no text of at most 200 characters")
    return value


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a member comes twice")
    return document
