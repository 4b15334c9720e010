"""Clients whose saved part in their group counts no more, until a state that says so is durable."""

import numpy as np

from palladion.watch.client import ClientState
from palladion.watch.outdated import Outdated


def corrected(outdated: Outdated, client: str) -> tuple[int, int]:
    state = ClientState(pooled_sums=np.ones(8), pooled_count=7, pooled_suspected=3)
    outdated.correct(client, state)
    assert (state.pooled_count == 0) == (not state.pooled_sums.any())
    return state.pooled_count, state.pooled_suspected


def test_a_part_counts_no_more_and_suspicion_only_if_it_was_not_forgiven() -> None:
    outdated = Outdated()
    outdated.add(["a"], forgiven=False)
    outdated.add(["b"], forgiven=True)

    assert [corrected(outdated, client) for client in "abc"] == [(0, 3), (0, 0), (7, 3)]


def test_until_the_new_state_is_durable_what_is_read_is_still_the_old_one() -> None:
    outdated = Outdated()
    outdated.add(["a", "b", "c"], forgiven=False)
    assert outdated.first(2) == ["a", "b"]
    assert outdated.first(None) == ["a", "b", "c"]

    outdated.settle("a", saved=True)
    outdated.settle("b", saved=False)
    outdated.keep_told({"a"})
    assert [corrected(outdated, client)[0] for client in "abc"] == [0, 7, 0]

    outdated.keep_told(())
    assert corrected(outdated, "a") == (7, 3)
    assert outdated.first(None) == ["c"]


def test_who_was_forgiven_stays_so_when_another_epoch_begins() -> None:
    outdated = Outdated()
    outdated.add(["a", "b"], forgiven=True)
    outdated.settle("a", saved=True)

    outdated.add(["a", "b"], forgiven=False)

    assert [corrected(outdated, client) for client in "ab"] == [(0, 0), (0, 0)]


def test_who_is_in_memory_is_known_no_more() -> None:
    outdated = Outdated()
    outdated.add(["a", "b"], forgiven=False)
    outdated.settle("b", saved=True)

    assert [outdated.drop(client) for client in "abc"] == [True, False, False]
    assert [corrected(outdated, client)[0] for client in "ab"] == [7, 7]
    assert outdated.first(None) == []
