"""What a request is charged: the upstream's count as far as it can be true."""

import pytest

from palladion.gate.chat.usage import BYTES_PER_TOKEN_MAX, Tally


def _tally(texts: int = 10, size: int = 4, *, request_bytes: int = 400, completion_max: int = 100) -> Tally:
    tally = Tally(request_bytes, completion_max)
    for _ in range(texts):
        tally.see("x" * size)
    return tally


def test_what_is_reported_is_charged() -> None:
    tally = _tally()
    tally.report(30, 12)
    assert (tally.prompt, tally.completion, tally.total) == (30, 12, 42)


def test_the_last_report_counts() -> None:
    tally = _tally()
    tally.report(30, 5)
    tally.report(30, 12)
    assert tally.total == 42


def test_without_a_report_pieces_and_bytes_are_counted() -> None:
    assert (_tally().prompt, _tally().completion) == (100, 10)
    assert _tally(1, 400).completion == 100


def test_a_report_of_nothing_does_not_make_an_answer_free() -> None:
    tally = _tally(10, 160)
    tally.report(0, 0)
    assert tally.completion == 1600 // BYTES_PER_TOKEN_MAX


@pytest.mark.parametrize(("prompt", "completion"), [(10**9, 12), (30, 10**9)])
def test_a_report_of_too_much_does_not_spend_the_budget(prompt: int, completion: int) -> None:
    tally = _tally()
    tally.report(prompt, completion)
    assert tally.prompt <= 400
    assert tally.completion <= 100


def test_while_an_answer_comes_each_piece_is_a_token_at_least() -> None:
    assert _tally(3, 1).so_far == 3
    assert _tally(1, 160).so_far == 10


def test_letters_beyond_ascii_count_by_their_bytes() -> None:
    tally = Tally(1, 100)
    tally.see("é" * 16)
    assert tally.so_far == 2
