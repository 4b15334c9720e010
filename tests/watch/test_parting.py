"""Searches for what still holds together: parts that are found, the rest that is not read, links made meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest

from palladion.watch import parting
from palladion.watch.parting import Search
from palladion.watch.scratch import Scratch


def linked(*tokens: str, ties: tuple[tuple[str, str], ...] = ()) -> Scratch:
    """Each word is a token, and each of its letters an organisation whose only account has shown it."""
    scratch = Scratch()
    for token in tokens:
        for place, letter in enumerate(list(token)):
            scratch.all("INSERT INTO holder VALUES (?, ?, ?, ?)", (token, f"client {letter}", letter, place))
    for first, second in ties:
        scratch.all("INSERT INTO tie VALUES (?, ?), (?, ?)", (first, second, second, first))
    return scratch


def count_rows(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each query from now on reads."""
    ask: Callable[..., list[Any]] = scratch.all
    read: list[int] = []

    def counted(query: str, values: tuple[str, str, int]) -> list[Any]:
        rows = ask(query, values)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(scratch, "all", counted)
    return read


def run(search: Search) -> set[str]:
    steps = 0
    while not search.done:
        search.step()
        steps += 1
        assert steps < 500
    return {"".join(sorted(part)) for part in search.parts()}


def test_who_is_held_together_by_nothing_else_is_a_part_and_the_last_is_the_rest() -> None:
    found = run(Search(linked("bc", "dx", "xy", "yz"), "abd"))

    assert found == {"a", "bc"}


def test_whoever_meets_is_one_part() -> None:
    assert run(Search(linked("ab", "cd", "dx", "xy", "yz", "zu", "uv"), "abc")) == {"ab"}
    assert run(Search(linked("ax", "xb"), "ab")) == set()


def test_ties_hold_as_tokens_do() -> None:
    assert run(Search(linked("xyz", "zu", "uv", ties=(("a", "b"), ("c", "x"))), "abc")) == {"ab"}


@pytest.mark.slow
def test_the_rest_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = "".join(chr(number) for number in range(0x4E00, 0x4E00 + 3000))
    scratch = linked(crowd, "a" + crowd[0])
    read = count_rows(scratch, monkeypatch)

    assert run(Search(scratch, "ab")) == {"b"}
    assert sum(read) <= 3 * parting.PAGE


def test_no_step_reads_more_than_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parting, "PAGE", 3)
    scratch = linked("abcdefghij", "klmnopqrst")
    read = count_rows(scratch, monkeypatch)
    search = Search(scratch, "ak")
    steps = 0
    while not search.done:
        search.step()
        steps += 1

    assert {frozenset(part) for part in search.parts()} < {frozenset("abcdefghij"), frozenset("klmnopqrst")}
    assert max(read) == 3
    assert len(read) <= steps


def test_a_link_that_is_made_meanwhile_counts_also_for_a_part_that_was_found() -> None:
    scratch = linked("bcd", "xyz", "zu", "uv")
    search = Search(scratch, "abx")
    for _ in range(4):
        search.step()
    search.connect("a", "v")

    assert run(search) == {"bcd"}


def test_whom_a_link_brings_in_meanwhile_is_of_the_part() -> None:
    search = Search(linked("xyz", "zu", "uv", "nm"), "ax")
    search.step()

    search.connect("n", "a")

    assert run(search) == {"amn"}
