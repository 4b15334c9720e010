"""Comparing the tensors of two versions."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.registry.diff import diff
from palladion.registry.rows import VersionTensor
from tests.registry.factories import digest, tensor

listings = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["x", "y"])).map(
    lambda items: [tensor(name, content) for name, content in items.items()]
)


def test_added_removed_changed_and_same_are_told_apart() -> None:
    old = [tensor("gone"), tensor("kept"), tensor("moved", "old")]
    new = [tensor("kept"), tensor("moved", "new"), tensor("new")]
    found = diff(old, new, graph_changed=True)
    assert [item.name for item in found.added] == ["new"]
    assert [item.name for item in found.removed] == ["gone"]
    assert found.changed == ((tensor("moved", "old"), tensor("moved", "new")),)
    assert [item.name for item in found.same] == ["kept"]
    assert found.graph_changed


@pytest.mark.parametrize("change", [{"dtype": "float16"}, {"shape": (3, 2)}, {"digest": digest("other")}])
def test_a_tensor_of_the_same_name_has_changed_if_anything_did(change: dict[str, Any]) -> None:
    found = diff([tensor("weight")], [tensor("weight", **change)], graph_changed=False)
    assert [after.name for _, after in found.changed] == ["weight"]


@given(listings, listings)
def test_every_tensor_is_in_exactly_one_list(old: list[VersionTensor], new: list[VersionTensor]) -> None:
    found = diff(old, new, graph_changed=False)
    listed = [t.name for part in (found.added, found.removed, found.same) for t in part]
    listed += [before.name for before, _ in found.changed]
    assert sorted(listed) == sorted({t.name for t in [*old, *new]})


@given(listings, listings)
def test_comparing_backwards_swaps_added_and_removed(old: list[VersionTensor], new: list[VersionTensor]) -> None:
    forwards, backwards = diff(old, new, graph_changed=False), diff(new, old, graph_changed=False)
    assert forwards.added == backwards.removed
    assert forwards.removed == backwards.added
    assert forwards.changed == tuple((before, after) for after, before in backwards.changed)


@given(listings)
def test_a_version_is_identical_to_itself_unless_the_graph_changed(tensors: list[VersionTensor]) -> None:
    assert diff(tensors, tensors[::-1], graph_changed=False).identical
    assert not diff(tensors, tensors, graph_changed=True).identical
