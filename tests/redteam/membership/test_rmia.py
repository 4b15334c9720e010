"""RMIA against its formula written out, and what it needs."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam.membership.rmia import rmia

SEED = 8
Array = NDArray[np.float64]


def _probabilities() -> tuple[Array, NDArray[np.bool_], Array]:
    generator = np.random.default_rng(SEED)
    member = generator.random((6, 25)).argsort(axis=0) < 3
    return generator.beta(3, 1, (6, 25)), member, generator.beta(4, 1, (2, 25))


def _marginal(values: list[float], a: float) -> float:
    out = sum(values) / len(values)
    return 0.5 * ((1 + a) * out + (1 - a))


@pytest.mark.parametrize(("a", "gamma"), [(0.5, 1.0), (0.3, 2.0), (1.0, 1.5)])
@pytest.mark.parametrize("apart", [True, False])
def test_scores_are_those_of_the_formula(a: float, gamma: float, apart: bool) -> None:
    reference, member, target = _probabilities()
    generator = np.random.default_rng(SEED + 1)
    around = generator.beta(3, 1, (6, 30)), generator.beta(3, 1, (2, 30))
    if apart:
        found = rmia(
            reference, member, target, population_reference=around[0], population_target=around[1], a=a, gamma=gamma
        )
    else:
        found = rmia(reference, member, target, a=a, gamma=gamma)
    for which in range(2):
        own = [
            target[which, x] / _marginal([reference[m, x] for m in range(6) if not member[m, x]], a) for x in range(25)
        ]
        others = (
            [around[1][which, z] / _marginal([around[0][m, z] for m in range(6)], a) for z in range(30)]
            if apart
            else own
        )
        for x in range(25):
            share = sum(own[x] / other >= gamma for other in others) / len(others)
            assert found[which, x] == pytest.approx(share, abs=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    reference, member, target = _probabilities()
    with pytest.raises(ValueError, match="do not fit"):
        rmia(reference, member[:-1], target)
    with pytest.raises(ValueError, match="gamma"):
        rmia(reference, member, target, gamma=0)
    with pytest.raises(ValueError, match="population"):
        rmia(reference, member, target, population_reference=reference)
    with pytest.raises(ValueError, match="by every reference"):
        rmia(reference, np.ones_like(member), target)
