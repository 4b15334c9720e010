"""How far answers are rounded, also where they were made to sum to 1 afterwards, and where shares are even."""

import numpy as np
import pytest

from palladion.redteam.rounding import form, in_order, precision

SAID = np.random.default_rng(5).dirichlet(np.full(6, 0.5), 200)


def test_precision_is_of_what_is_shown() -> None:
    assert precision(np.array([[0.25, 0.75]])) == 2
    assert precision(np.array([[0.0, 1.0]])) == 0
    assert precision(np.array([[1 / 3, 2 / 3]])) is None


@pytest.mark.parametrize("decimals", [1, 2])
def test_rounding_is_seen_where_numbers_were_made_to_sum_to_one(decimals: int) -> None:
    rounded = np.round(SAID, decimals)
    found = form(rounded / rounded.sum(axis=1, keepdims=True))
    assert (found.decimals, found.spread) == (decimals, False)
    assert found.step > form(rounded).step > 0
    assert form(SAID).decimals is None
    assert form(SAID).step == 0


def test_even_shares_are_seen_and_the_largest_numbers_tell_how_far_it_rounds() -> None:
    largest = np.round(SAID.max(axis=1), 1)
    shared = np.repeat((1 - largest)[:, None] / 5, 6, axis=1)
    shared[np.arange(200), SAID.argmax(axis=1)] = largest
    found = form(shared[largest < 1])
    assert (found.decimals, found.spread) == (1, True)
    assert not form(np.eye(3)).spread
    assert np.array_equal(in_order(lambda rows: rows)(SAID), np.sort(SAID, axis=1))
