"""Whom nothing is fitted to: thieves who are far from all others, however many of a kind; and hardly anybody honest."""

import numpy as np
import pytest

from palladion.watch.outliers import usual
from palladion.watch.rows import Rows
from palladion.watch.suspicion import CLIENTS_MIN

SEED = 31
SIZE = 6


def client(generator: np.random.Generator, queries: int = 40, away: float = 0.0) -> Rows:
    """An honest client's scores, or those of one whose first score is so far away."""
    scores = generator.standard_normal((queries, SIZE)) + 0.3 * generator.standard_normal(SIZE)
    scores[:, 0] += away
    return np.clip(scores, -3, 7)


@pytest.mark.slow
@pytest.mark.parametrize("thieves", [1, 2, 4])
def test_thieves_of_one_kind_do_not_hide_each_other(thieves: int) -> None:
    generator = np.random.default_rng(SEED)
    clients = [client(generator) for _ in range(200)] + [client(generator, away=7) for _ in range(thieves)]

    found = usual(clients)

    assert not found[200:].any()
    assert found[:200].mean() >= 0.99


def test_honest_clients_are_fitted_to() -> None:
    generator = np.random.default_rng(SEED)

    assert usual([client(generator) for _ in range(300)]).all()


def test_who_asked_once_is_no_outlier() -> None:
    generator = np.random.default_rng(SEED)
    clients = [client(generator) for _ in range(60)]
    clients.insert(7, client(generator, 1, away=7))

    assert usual(clients).tolist() == [True] * 61


def test_too_few_clients_are_refused() -> None:
    generator = np.random.default_rng(SEED)

    with pytest.raises(ValueError, match="at least"):
        usual([client(generator) for _ in range(CLIENTS_MIN - 1)])
