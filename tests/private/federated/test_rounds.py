"""Round after round: the model takes its steps, and a training that learnt nothing is an error."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import InconclusiveError
from palladion.private.federated import aggregate
from palladion.private.federated.layout import Layout
from palladion.private.federated.rounds import Ended, Rounds, mean_step

from .house import SIZE, Road, name_of, road_of, terms_of, update_of

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


def _counted(road: Road, rounds: int, *, connected: list[list[str]] | None = None) -> tuple[Ended, list[list[str]]]:
    """Train, and give which nodes were asked in every exchange; `connected` says who is there, round by round."""
    asked: list[list[str]] = []
    there = iter(connected or [])

    def ask(bodies: Mapping[str, bytes]) -> dict[str, bytes]:
        asked.append(list(bodies))
        return road.ask({node: body for node, body in bodies.items() if not node.startswith("stranger")})

    nodes = (lambda: next(there)) if connected else (lambda: road.nodes)
    return Rounds(road.terms, nodes, ask, mean_step).run(MODEL, rounds), asked


def test_a_round_after_a_round_takes_four_exchanges() -> None:
    road = road_of(terms_of(4, threshold=3))
    last, asked = _counted(road, 3)
    assert len(asked) == 5 + 4 + 4
    mean = sum(update_of(number) for number in range(4)) / 4
    assert np.allclose(last.model, 3 * mean, atol=1e-5)


def test_who_dropped_out_gives_its_keys_while_others_unmask_and_is_back() -> None:
    road = road_of(terms_of(4, threshold=3))
    road.lost = {("AskUpdate", name_of(3))}

    def back(question: Any) -> Any:
        road.lost = set()
        return question

    road.asked = {("AskReveal", name_of(0)): back}
    last, asked = _counted(road, 2)
    assert len(asked) == 5 + 4
    assert len(last.summed.survivors) == 4


def test_who_connects_between_rounds_is_asked_alone_and_takes_part() -> None:
    road = road_of(terms_of(4, threshold=3))
    last, asked = _counted(road, 2, connected=[road.nodes[:3], road.nodes])
    assert asked[5] == [road.nodes[3]]
    assert len(asked) == 5 + 5
    assert len(last.summed.survivors) == 4


def test_keys_of_another_identity_for_the_next_round_are_not_taken() -> None:
    road = road_of(terms_of(4, threshold=3))

    def swapped(reply: Any) -> Any:
        forged = reply.next and msgspec.structs.replace(reply.next, mask_key=bytes(range(32)))
        return msgspec.structs.replace(reply, next=forged)

    road.changed = {("AskReveal", name_of(2)): swapped}
    last, asked = _counted(road, 2)
    # it is asked again when the round begins, and says its own
    assert asked[5] == [road.nodes[2]]
    assert len(last.summed.survivors) == 4


def test_a_site_that_came_back_on_another_node_is_heard_there() -> None:
    road = road_of(terms_of(4, threshold=3))
    first = aggregate(road.terms, 1, MODEL, road.nodes, road.ask, go_on=True)

    def ask(bodies: Mapping[str, bytes]) -> dict[str, bytes]:
        # the old node is gone, and the site has forgotten the round
        moved = {node.replace("again", "node of"): body for node, body in bodies.items() if node != road.nodes[0]}
        return {node if node != road.nodes[0] else again: data for node, data in road.ask(moved).items()}

    again = f"again {name_of(0)}"
    road.states.pop(name_of(0))
    second = aggregate(road.terms, 2, MODEL, [*road.nodes, again], ask, present=first.following)
    assert len(second.survivors) == 4


def test_keys_of_another_round_are_a_mistake() -> None:
    road = road_of(terms_of(4, threshold=3))
    first = aggregate(road.terms, 1, MODEL, road.nodes, road.ask, go_on=True)
    with pytest.raises(ValueError, match="keys of another round than 3"):
        aggregate(road.terms, 3, MODEL, road.nodes, road.ask, present=first.following)


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
