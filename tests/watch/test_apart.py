"""Instruments fitted to two sets of clients: neither takes itself for all that there is."""

import numpy as np
import pytest

from palladion.watch.apart import fit_apart
from palladion.watch.features import FEATURES, Features
from palladion.watch.instruments import Episode, Instruments

from . import factories

SEED = 97
LEVEL, OUTSIDE = list(FEATURES).index("level"), list(FEATURES).index("outside")


def test_features_are_fitted_to_some_and_all_else_to_others() -> None:
    generator = np.random.default_rng(SEED)
    seen, others = ([factories.honest(generator) for _ in range(25)] for _ in range(2))

    made = fit_apart(seen, others, generator)

    inputs, scores = (np.concatenate([getattr(one, name) for one in seen]) for name in ("inputs", "scores"))
    features = Features.fit(inputs, scores)
    np.testing.assert_array_equal(made.features.low, features.low)
    np.testing.assert_array_equal(made.features.directions, features.directions)
    # the scores of whom they are fitted to are centred, those of the others nearly
    assert abs(np.concatenate(made.score(others)).mean(axis=0)[LEVEL]) < 1e-3
    assert abs(np.concatenate(made.score(seen)).mean(axis=0)[LEVEL]) > 1e-3


@pytest.mark.slow
def test_that_clients_leave_the_range_of_others_is_part_of_what_is_usual() -> None:
    generator = np.random.default_rng(SEED)
    seen, others = ([factories.honest(generator) for _ in range(25)] for _ in range(2))
    together, apart = Instruments.fit([*seen, *others], generator), fit_apart(seen, others, generator)

    def spread(made: Instruments, clients: list[Episode]) -> float:
        return float(np.concatenate(made.score(clients))[:, OUTSIDE].std())

    assert spread(together, [*seen, *others]) == spread(apart, seen) == 0
    assert spread(apart, others) > 0.1


def test_the_generator_decides_which_of_many_rows_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palladion.watch.apart.REFERENCE_ROWS_MAX", 100)
    clients = [factories.honest(np.random.default_rng(SEED + index)) for index in range(40)]
    first, again, other = (
        fit_apart(clients[:20], clients[20:], np.random.default_rng(seed)).features.centre for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
