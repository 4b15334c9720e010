"""The one table of what language models are asked: whoever speaks of a path finds the same ones."""

from typing import get_args

from palladion.access.cedar import ACTIONS
from palladion.gate.chat.kinds import KINDS, Asked


def test_every_kind_reads_as_a_request_of_its_own() -> None:
    assert {kind.asked for kind in KINDS.values()} == set(get_args(Asked))
    assert len(KINDS) == len(get_args(Asked))


def test_every_action_is_one_that_policies_can_name() -> None:
    assert {kind.action for kind in KINDS.values()} <= set(ACTIONS)


def test_paths_end_differently_so_that_the_end_says_which_is_meant() -> None:
    assert [one for one in KINDS for other in KINDS if one != other and one.endswith(other)] == []
