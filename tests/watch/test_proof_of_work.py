"""Proof of work: a solution answers one request of one client for a while, and costs what it says."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.registry.rows import Standing
from palladion.watch.proof_of_work import (
    AHEAD_S,
    DIFFICULTY_MAX,
    LIFETIME_S,
    UnprovenError,
    difficulty_of,
    make_challenge,
    solve,
    verify_work,
)

KEY, NONCE, REQUEST = b"k" * 32, b"n" * 32, sha256(b"body").digest()
NOW = 1_800_000_000.0
BITS = 8


def challenge(**changes: object) -> str:
    parts: dict[str, object] = {"client": "ada", "request": REQUEST, "difficulty": BITS, "now": NOW, "nonce": NONCE}
    return make_challenge(KEY, **{**parts, **changes})  # type: ignore[arg-type]


def check(presented: str, **changes: object) -> None:
    parts: dict[str, object] = {"client": "ada", "request": REQUEST, "difficulty": BITS, "now": NOW}
    verify_work(presented=presented, **{"key": KEY, **parts, **changes})  # type: ignore[arg-type]


SOLVED = solve(challenge())


def test_a_solution_is_taken_and_costs_what_it_says() -> None:
    check(SOLVED)
    check(SOLVED, now=NOW + LIFETIME_S)
    check(SOLVED, now=NOW - AHEAD_S)
    check(SOLVED, difficulty=BITS - 1)
    counters = [int(solve(challenge(nonce=bytes([number]) * 32)).rpartition(".")[2]) for number in range(200)]

    assert 0.7 * 2**BITS <= sum(counters) / len(counters) <= 1.3 * 2**BITS


@pytest.mark.parametrize(
    "changes",
    [
        {"client": "eve"},
        {"request": sha256(b"another").digest()},
        {"key": b"K" * 32},
        {"difficulty": BITS + 1},
        {"now": NOW + LIFETIME_S + 1},
        {"now": NOW - AHEAD_S - 1},
    ],
    ids=["another client", "another request", "another key", "fallen since", "too old", "from the future"],
)
def test_a_solution_for_something_else_is_none(changes: dict[str, object]) -> None:
    with pytest.raises(UnprovenError):
        check(SOLVED, **changes)


def test_a_number_that_solves_nothing_is_refused() -> None:
    made, _, counter = SOLVED.rpartition(".")
    with pytest.raises(UnprovenError, match="does not prove the work"):
        check(f"{made}.{int(counter) + 1}")


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(SOLVED) - 1), letter=st.characters(max_codepoint=0x2FF))
def test_one_changed_letter_is_refused(place: int, letter: str) -> None:
    changed = SOLVED[:place] + letter + SOLVED[place + 1 :]
    if changed == SOLVED:
        return
    try:
        check(changed)
    except UnprovenError:
        return
    # another number may be a solution as well, one in 2 ** BITS: nothing else is
    assert changed.rpartition(".")[0] == SOLVED.rpartition(".")[0]


@pytest.mark.parametrize(
    "presented",
    [
        *(
            "",
            ".",
            "0",
            SOLVED + "0" * 40,
            SOLVED.replace(".", ".0"),
            SOLVED.replace(".", ".-"),
            SOLVED + "\n",
            "=" * 80,
        ),
        *(f"{'A' * 78}.1", f"{'_' * 78}.1"),
    ],
)
def test_what_is_no_solution_is_refused(presented: str) -> None:
    with pytest.raises(UnprovenError):
        check(presented)


def test_a_challenge_of_more_bits_than_there_are_is_not_solved() -> None:
    with pytest.raises(ValueError, match="1 to 24 bits"):
        challenge(difficulty=DIFFICULTY_MAX + 1)
    with pytest.raises(UnprovenError, match="not to be solved"):
        solve("A" * len(challenge()))
    with pytest.raises(UnprovenError, match="no solution among"):
        solve(challenge(difficulty=DIFFICULTY_MAX), tries_max=2)


def test_the_lower_a_client_stands_the_more_it_is_asked_for() -> None:
    standings: list[Standing] = ["trusted", "watched", "throttled", "degraded", "suspended"]
    assert [difficulty_of(standing, 16) for standing in standings] == [0, 14, 16, 18, 0]
    assert [difficulty_of(standing, 0) for standing in standings] == [0] * 5
    assert difficulty_of("watched", 1) == 1
    assert difficulty_of("degraded", DIFFICULTY_MAX) == DIFFICULTY_MAX
    with pytest.raises(ValueError, match="got 25"):
        difficulty_of("throttled", DIFFICULTY_MAX + 1)


@pytest.mark.parametrize("changes", [{"nonce": b"short"}, {"now": -1.0}, {"request": b""}, {"difficulty": 0}])
def test_parts_of_other_sizes_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="bytes"):
        challenge(**changes)
