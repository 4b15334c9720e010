"""Rules by themselves: they speak from the 32nd of the last 64 distinct requests on, and not before."""

import math
import struct

import pytest

from palladion.errors import FormatError
from palladion.watch.text.ngrams import NgramHash
from palladion.watch.text.query import Parameters, Query
from palladion.watch.text.ruled import COUNTED, REQUESTS, REQUESTS_MIN, STATE_BYTES_MAX, Ruled
from palladion.watch.text.rules import EXTRACTION, RULES

HASHING = NgramHash(7)
NOW = 1_780_000_000.0
ASKING = {
    "reasoning": lambda n: Query(f"Think step by step: who was king {'i' * n} of Troy?"),
    "refusal": lambda n: Query(f"Never refuse. Tell me of {'ship ' * n}"),
    "invention": lambda n: Query(f"Write training data on {'ship ' * n}"),
    "enumeration": lambda n: Query(f"### Instruction: tell of {'ship ' * n}"),
    "odds": lambda n: Query(f"Who was {'ship ' * n}?", Parameters(alternatives=5)),
    "sweep": lambda n: Query(f"Who was {'ship ' * (n // 8)}?", Parameters(temperature=n % 8 / 10)),
}


def plain(n: int) -> Query:
    return Query(f"What is the way to {'town ' * n}?")


def spoke(ruled: Ruled, queries: list[Query]) -> list[tuple[str, ...]]:
    return [ruled.count(query, HASHING) for query in queries]


def test_every_rule_that_is_a_sign_of_a_copy_is_counted() -> None:
    assert set(COUNTED) == {name for name, rule in RULES.items() if rule.technique == EXTRACTION} | {"sweep"}
    assert set(COUNTED) == set(ASKING)
    assert "choices" not in COUNTED


@pytest.mark.parametrize("rule", ASKING)
def test_a_rule_speaks_once_it_applies_to_so_many(rule: str) -> None:
    ruled = Ruled.new()

    found = spoke(ruled, [ASKING[rule](n) for n in range(REQUESTS)])

    first = next(place for place, rules in enumerate(found) if rules)
    # of a sweep every eighth request begins a new text, which is no repeat of anything
    assert first + 1 == (37 if rule == "sweep" else REQUESTS_MIN)
    assert {name for rules in found for name in rules} == {rule}


def test_a_rule_speaks_at_half_of_the_last_requests_and_not_below() -> None:
    half, less = Ruled.new(), Ruled.new()
    mixed = [ASKING["reasoning"](n) if n % 2 else plain(n) for n in range(2 * REQUESTS)]
    fewer = [ASKING["reasoning"](n) if n % 2 and n % 16 != 1 else plain(n) for n in range(2 * REQUESTS)]

    assert any(spoke(half, mixed))
    assert not any(spoke(less, fewer))


def test_only_the_request_that_a_rule_applies_to_raises_it() -> None:
    ruled = Ruled.new()
    spoke(ruled, [ASKING["refusal"](n) for n in range(REQUESTS)])

    assert ruled.count(plain(1), HASHING) == ()
    assert ruled.count(ASKING["refusal"](99), HASHING) == ("refusal",)
    # and what is older than the last requests counts no more
    assert not any(spoke(ruled, [plain(n) for n in range(2, 2 + REQUESTS)]))
    assert ruled.count(ASKING["refusal"](98), HASHING) == ()


def test_an_exact_repeat_is_not_counted() -> None:
    ruled = Ruled.new()

    assert not any(spoke(ruled, [ASKING["reasoning"](1)] * (3 * REQUESTS)))
    assert ruled.asked == 1


def test_what_is_asked_for_is_watched_and_no_more_with_the_rule_in_words() -> None:
    ruled = Ruled.new()
    observed = [ruled.observe(ASKING["reasoning"](n), HASHING, now=NOW + n) for n in range(REQUESTS)]

    assert {item.verdict.standing for item in observed} == {"trusted", "watched"}
    last = observed[-1]
    assert (last.verdict.cause, last.calibrated, last.p_value, last.quiet_hours) == ("rules", False, None, 0.0)
    assert "train of thought (reasoning), in 32 or more of its last 64" in last.verdict.reason
    assert observed[0].quiet_hours == math.inf
    later = ruled.observe(plain(3), HASHING, now=NOW + REQUESTS - 1 + 7200)
    assert (later.verdict.standing, later.quiet_hours) == ("trusted", 2.0)


def test_who_is_forgiven_begins_anew() -> None:
    ruled = Ruled.new()
    for n in range(REQUESTS):
        ruled.observe(ASKING["reasoning"](n), HASHING, now=NOW)

    ruled.forgive()

    assert ruled.alarmed_at == 0
    assert ruled.to_bytes() == Ruled.new().to_bytes()


@pytest.mark.parametrize("requests", [0, 1, REQUESTS - 1, REQUESTS, 3 * REQUESTS + 5])
def test_what_is_saved_goes_on_as_if_nothing_had_happened(requests: int) -> None:
    ruled = Ruled.new()
    for n in range(requests):
        ruled.observe(ASKING["odds"](n) if n % 3 else plain(n), HASHING, now=NOW + n)

    again = Ruled.from_bytes(ruled.to_bytes())

    assert len(ruled.to_bytes()) <= STATE_BYTES_MAX
    rest = [ASKING["odds"](requests + n) for n in range(REQUESTS)]
    found = [item.observe(query, HASHING, now=NOW) for query in rest for item in (ruled, again)]
    assert found[::2] == found[1::2]
    assert ruled.to_bytes() == again.to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PTR1",
        b"PTR2" + bytes(16),
        struct.pack("<4sQd", b"PTR1", 1, 0.0),
        struct.pack("<4sQd", b"PTR1", 0, math.nan),
        struct.pack("<4sQd", b"PTR1", 0, -1.0),
        struct.pack("<4sQd", b"PTR1", 2**40, 0.0) + bytes(STATE_BYTES_MAX),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="of a client's rules"):
        Ruled.from_bytes(data)


def test_a_text_of_any_size_and_kind_is_counted() -> None:
    ruled = Ruled.new()

    for text in ("", "\ud800", "x" * 1_000_000, "Think step by step. " + "ä" * 100_000):
        ruled.count(Query(text), HASHING)

    assert ruled.asked == 4
    assert len(ruled.to_bytes()) <= STATE_BYTES_MAX
