"""The grid: enough kinds for every model, three strengths each, and keys that stay."""

from collections import Counter

import numpy as np
import pytest

from palladion.mark.places import Place, places
from palladion.mark.weights import AMPLITUDE
from palladion.redteam.removal.attacks import GRID, Attack, Grip
from palladion.redteam.removal.trial import attacks_for
from tests.redteam.removal.subjects import forest, network, transformer


def _grip(place: Place, **changes: object) -> Grip:
    given = {"weights": place.weights, "clean": place.weights * 0.5, "chance": np.random.default_rng(4)}
    return Grip(place, **{**given, **changes})  # type: ignore[arg-type]


def _place() -> Place:
    return next(places(network().original))


def _attack(kind: str, strength: str) -> Attack:
    return next(item for item in GRID if (item.kind, item.strength) == (kind, strength))


def test_every_kind_has_three_strengths_and_keys_of_their_own() -> None:
    counts = Counter(attack.kind for attack in GRID if attack.kind != "exact copy")
    assert set(counts.values()) == {3}
    assert len({attack.key for attack in GRID}) == len(GRID)
    assert all(" " not in attack.key for attack in GRID)


@pytest.mark.parametrize("trial", [network, transformer, forest])
def test_every_model_meets_ten_kinds(trial: object) -> None:
    kinds = {attack.kind for attack in attacks_for(trial().marked)} - {"exact copy"}  # type: ignore[operator]
    assert len(kinds) >= 10


def test_what_is_for_trees_is_for_trees_alone() -> None:
    trees, others = ({item.kind for item in attacks_for(trial().marked)} for trial in (forest, network))
    assert "trees dropped" in trees - others
    assert "rewired" in others - trees


@pytest.mark.parametrize("attack", [item for item in GRID if item.change is not None], ids=lambda item: item.key)
def test_each_change_keeps_shape_and_is_drawn_from_chance_alone(attack: Attack) -> None:
    place = _place()
    assert attack.change is not None
    first, second = attack.change(_grip(place)), attack.change(_grip(place))
    assert first.shape == place.weights.shape
    assert np.isfinite(first).all()
    assert np.array_equal(first, second)
    assert np.array_equal(first, place.weights) == (attack.kind == "exact copy")


def test_a_soup_is_between_the_two() -> None:
    place = _place()
    change = _attack("mixed with the original", "25 %").change
    assert change is not None
    assert change(_grip(place)) == pytest.approx(place.weights * (0.75 + 0.25 * 0.5), rel=1e-5)


def test_another_mark_is_as_large_as_it_says() -> None:
    place = _place()
    change = _attack("another mark over it", "5×").change
    assert change is not None
    moved = (change(_grip(place)) - place.weights) / place.scale
    assert np.abs(moved) == pytest.approx(np.full(moved.shape, 5 * AMPLITUDE), rel=1e-2)


def test_of_a_part_the_rest_is_a_strangers() -> None:
    place = _place()
    change = _attack("a part, int4", "a quarter").change
    assert change is not None
    taken, other = change(_grip(place)), change(_grip(place, part=False))
    assert np.corrcoef(taken.ravel(), place.weights.ravel())[0, 1] > 0.95
    assert abs(np.corrcoef(other.ravel(), place.weights.ravel())[0, 1]) < 0.1
