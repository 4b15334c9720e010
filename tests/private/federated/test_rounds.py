"""Round after round: the model takes its steps, and a training that learnt nothing is an error."""

import numpy as np
import pytest

from palladion.errors import InconclusiveError
from palladion.private.federated.layout import Layout
from palladion.private.federated.rounds import Ended, Rounds, mean_step

from .house import SIZE, name_of, road_of, terms_of, update_of

MODEL = np.zeros(SIZE, np.float32)


def test_the_model_takes_the_mean_of_every_round() -> None:
    road, told = road_of(terms_of(4, threshold=3)), list[Ended]()
    last = Rounds(road.terms, lambda: road.nodes, road.ask, mean_step, ended=told.append).run(MODEL, 3)
    mean = sum(update_of(number) for number in range(4)) / 4
    assert np.allclose(last.model, 3 * mean, atol=1e-5)
    assert [item.summed.round for item in told] == [1, 2, 3]
    assert last.epsilon is None


def test_privacy_is_added_up_over_the_rounds() -> None:
    road, told = road_of(terms_of(4, threshold=3, noise_multiplier=5.0)), list[Ended]()
    Rounds(road.terms, lambda: road.nodes, road.ask, mean_step, ended=told.append).run(MODEL, 2, first=2)
    assert [item.epsilon for item in told] == [road.terms.spent(2).epsilon, road.terms.spent(3).epsilon]  # type: ignore[union-attr]
    assert told[0].epsilon < told[1].epsilon  # type: ignore[operator]


def test_a_round_of_too_few_ends_the_training_as_an_error() -> None:
    road, told = road_of(terms_of(4, threshold=3)), list[Ended]()
    road.lost = {("AskUpdate", name_of(number)) for number in range(2)}
    with pytest.raises(InconclusiveError, match="round 1 has 2 results"):
        Rounds(road.terms, lambda: road.nodes, road.ask, mean_step, ended=told.append).run(MODEL, 3)
    assert told == []
    road.lost = set()
    # its number is spent: the next one goes on
    assert Rounds(road.terms, lambda: road.nodes, road.ask, mean_step).run(MODEL, 1, first=2).summed.round == 2


def test_a_step_to_nan_is_an_error() -> None:
    road = road_of(terms_of(4, threshold=3))
    with pytest.raises(InconclusiveError, match="NaN"):
        Rounds(road.terms, lambda: road.nodes, road.ask, lambda model, _: model * np.nan).run(MODEL, 1)


@pytest.mark.parametrize(("rounds", "first"), [(0, 1), (6, 1), (3, 4), (1, 0)])
def test_other_rounds_than_agreed_are_a_mistake(rounds: int, first: int) -> None:
    road = road_of(terms_of(4, threshold=3))
    with pytest.raises(ValueError, match="agreed to"):
        Rounds(road.terms, lambda: road.nodes, road.ask, mean_step).run(MODEL, rounds, first=first)


def test_arrays_become_a_vector_and_back() -> None:
    layout = Layout({"b": (3, 2), "a": (4,)})
    arrays = {"a": np.arange(4, dtype=np.float32), "b": np.arange(6, dtype=np.float32).reshape(3, 2)}
    vector = layout.packed(arrays)
    assert vector.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    back = layout.unpacked(vector)
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    with pytest.raises(ValueError, match="other names or shapes"):
        layout.packed({"a": arrays["a"]})
    with pytest.raises(ValueError, match="was expected"):
        layout.unpacked(vector[1:])
