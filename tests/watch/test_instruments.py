"""The measuring chain as a whole: fitted the same way every time, and measuring everybody on their own."""

import numpy as np
import pytest

from palladion.watch import instruments as module
from palladion.watch.instruments import Episode, Instruments
from palladion.watch.memory import Memory

from . import factories

SEED = 53


def fitting(seed: int = SEED, clients: int = 30) -> list[Episode]:
    generator = np.random.default_rng(seed)
    return [factories.honest(generator) for _ in range(clients)]


@pytest.mark.parametrize(
    ("inputs", "scores"), [((3, 2), (4, 2)), ((3,), (3, 2)), ((3, 2, 2), (3, 2)), ((3, 2), (3,))], ids=str
)
def test_queries_and_answers_that_do_not_fit_are_no_episode(inputs: tuple[int, ...], scores: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are not an episode"):
        Episode(np.zeros(inputs), np.zeros(scores))


def test_the_same_clients_and_generator_give_the_same_instruments() -> None:
    first, again = (Instruments.fit(fitting(), np.random.default_rng(1)) for _ in range(2))

    np.testing.assert_array_equal(first.scores.quantiles, again.scores.quantiles)
    np.testing.assert_array_equal(first.effects.basis, again.effects.basis)
    np.testing.assert_array_equal(first.coverage.planes, again.coverage.planes)


def test_clients_are_scored_together_as_they_would_be_alone_and_query_by_query() -> None:
    instruments = factories.calibration().instruments
    generator = np.random.default_rng(SEED)
    clients = [factories.honest(generator, queries) for queries in (30, 1, 12)]
    clients.append(factories.asked(np.repeat(clients[0].inputs[:5], 3, axis=0)))  # asks everything three times

    together = instruments.score(clients)

    assert [len(scores) for scores in together] == [30, 1, 12, 5]
    for client, scores in zip(clients, together, strict=True):
        np.testing.assert_array_equal(instruments.score([client])[0], scores)
        memory = Memory()
        singly = [
            memory.measure(instruments.features, client.inputs[i : i + 1], client.scores[i : i + 1]).features
            for i in range(len(client.inputs))
        ]
        np.testing.assert_array_equal(instruments.score_features(np.concatenate(singly)), scores)


@pytest.mark.slow
def test_of_very_many_rows_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Instruments.fit(fitting(), np.random.default_rng(1))
    monkeypatch.setattr(module, "REFERENCE_ROWS_MAX", 300)

    drawn, again, other = (Instruments.fit(fitting(), np.random.default_rng(seed)) for seed in (1, 1, 2))

    np.testing.assert_array_equal(drawn.features.centre, again.features.centre)
    assert (drawn.features.centre != full.features.centre).any()
    assert (drawn.features.centre != other.features.centre).any()
    np.testing.assert_allclose(drawn.features.centre, full.features.centre, atol=0.5)


@pytest.mark.parametrize("clients", [1, 19])
def test_too_few_clients_cannot_be_fitted_to(clients: int) -> None:
    with pytest.raises(ValueError, match="at least 20 are needed"):
        Instruments.fit(fitting(clients=clients), np.random.default_rng(1))


def test_a_model_without_classes_can_be_fitted_to() -> None:
    clients = [Episode(client.inputs, np.zeros((len(client.inputs), 0))) for client in fitting()]

    instruments = Instruments.fit(clients, np.random.default_rng(1))

    assert np.isfinite(instruments.score(clients[:1])[0]).all()
