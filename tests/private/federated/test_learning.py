"""What sites learn together under masks and noise, beside what one place learns of all rows at the same ε."""

import numpy as np
import pytest

from bench.federated_sites import CLASSES, DESCENT, Stepper, parts
from palladion.private.dp.accounting import noise_for
from palladion.private.dp.linear import descend, prepared
from palladion.private.dp.randomness import Seeded
from palladion.private.federated.rounds import Rounds

from .house import name_of, road_of, terms_of

EPSILON, DELTA, TESTED, SITES = 4.0, 1e-4, 360, 10


@pytest.mark.slow
def test_masks_and_noise_at_the_sites_cost_a_point_at_most_beside_noise_at_one_place() -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="this needs scikit-learn: pip install 'palladion[demo]'")
    rows, labels = datasets.load_digits(return_X_y=True)
    together, apart = [], []
    noise = noise_for(EPSILON, DELTA, 1.0, DESCENT.steps)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(rows))
        tested, learnt = order[:TESTED], order[TESTED:]
        judged = prepared(rows[tested], DESCENT)
        weights = descend(
            rows[learnt],
            labels[learnt],
            classes=CLASSES,
            kind="classes",
            descent=DESCENT,
            noise_multiplier=noise,
            randomness=Seeded(np.random.default_rng(seed)),
        )
        together.append(float(((judged @ weights).argmax(axis=1) == labels[tested]).mean()))
        trains = dict(enumerate(parts(rows[learnt], labels[learnt], SITES)))
        terms = terms_of(
            SITES,
            size=weights.size,
            rounds=DESCENT.steps,
            clip=DESCENT.clipping,
            unit="example",
            rows_max=150,
            noise_multiplier=noise,
            delta=DELTA,
        )
        road, stepper = road_of(terms, trains, seed=seed), Stepper(len(learnt))
        on = Rounds(terms, lambda road=road: road.nodes, road.ask, stepper.step)  # type: ignore[misc]
        ended = on.run(np.zeros(weights.size, np.float32), DESCENT.steps)
        assert ended.epsilon == pytest.approx(EPSILON, rel=1e-6)
        assert len(ended.summed.survivors) == SITES
        assert name_of(0) in ended.summed.survivors
        apart.append(float(((judged @ stepper.averaged).argmax(axis=1) == labels[tested]).mean()))
    assert min(together) > 0.88
    assert np.mean(apart) > np.mean(together) - 0.01, f"{apart} beside {together}"
