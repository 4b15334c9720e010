"""Weights: whoever is listed gets more, and over all clients nobody gets more than was given up."""

import math
import random

import pytest

from palladion.errors import FormatError
from palladion.gate.intelligence.weights import GRANT_MIN, Weights, read_granted


def _with(clients: int, share: float = 0.1) -> Weights:
    weights = Weights(share)
    for _ in range(clients):
        weights.enter()
    return weights


def test_who_is_not_listed_gives_up_its_share_and_who_is_gets_all_that_it_may() -> None:
    weights = _with(100)
    assert weights.of("a", 0.0) == 0.9
    assert weights.of("b", 0.5) == pytest.approx(math.exp(0.5))
    assert weights.of("a", 0.0) == 0.9


def test_there_is_no_more_than_was_given_up() -> None:
    weights = _with(10)
    assert weights.of("a", 2.0) == pytest.approx(0.9 + 1.0)
    assert weights.left == 0
    assert weights.of("b", 2.0) == 0.9
    for _ in range(100):
        weights.enter()
    assert weights.of("a", 2.0) == pytest.approx(math.exp(2))
    assert weights.left == pytest.approx(11 - (math.exp(2) - 0.9))


def test_the_first_client_of_all_is_as_if_there_were_no_lists() -> None:
    assert _with(1).of("a", 1.0) == pytest.approx(1.0)


def test_who_was_given_much_for_one_list_has_less_for_another() -> None:
    weights = _with(1000)
    assert weights.of("a", 2.0) == pytest.approx(math.exp(2))
    assert weights.of("a", 0.5) == pytest.approx(math.exp(0.5))


def test_what_was_given_is_not_taken_back_when_a_list_ends() -> None:
    weights = _with(20)
    given = weights.of("a", 0.5)
    assert weights.of("a", 0.0) == 0.9
    assert weights.left == pytest.approx(2.0 - (given - 0.9))
    assert weights.of("a", 0.5) == given


def test_who_is_forgotten_takes_what_it_gave_up_along_and_leaves_what_it_was_given() -> None:
    weights = _with(20)
    weights.of("a", 0.5)
    left = weights.left
    for _ in range(5):
        weights.leave()
    assert weights.left == pytest.approx(left - 0.5)
    for _ in range(15):
        weights.leave()
    assert weights.left == 0
    assert weights.of("b", 2.0) == 0.9


def test_the_mean_of_all_largest_weights_is_never_above_one() -> None:
    generator = random.Random(1)
    weights, largest = Weights(0.1), dict[str, float]()
    for _ in range(3000):
        client = f"c{generator.randrange(300)}"
        if client not in largest:
            weights.enter()
            largest[client] = 0.0
        odds = generator.choice([0.0, 0.0, 0.0, 0.3, 1.0, 2.0])
        largest[client] = max(largest[client], weights.of(client, odds))
        assert sum(largest.values()) / len(largest) <= 1 + 1e-9
    assert max(largest.values()) > 1.2
    assert weights.mean == pytest.approx(sum(largest.values()) / len(largest), abs=0.02)


def test_without_a_share_nobody_has_a_weight() -> None:
    assert _with(10, share=0.0).of("a", 2.0) == 1.0


def test_what_was_given_outlives_a_restart_and_is_given_once() -> None:
    weights = _with(100)
    given = weights.of("a", 1.0)
    weights.of("b", 0.0)
    saved = weights.changes()
    assert set(saved) == {"a"}
    assert weights.changes() == {}
    again = Weights(0.1)
    again.restore(read_granted(saved))
    again.enter()
    assert again.left == 0
    assert again.of("a", 1.0) == given
    assert again.of("b", 1.0) == 0.9


def test_crumbs_are_not_given() -> None:
    weights = _with(1, share=GRANT_MIN / 2)
    assert weights.of("a", 2.0) == 1 - GRANT_MIN / 2


@pytest.mark.parametrize("data", [b"", b"1234567", b"\xff" * 8, b"\x00" * 7 + b"\x7f", b"\x00" * 6 + b"\xf0\xbf"])
def test_a_saved_weight_that_none_wrote_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="client x"):
        read_granted({"x": data})
