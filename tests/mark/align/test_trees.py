"""Trees that were written in another order are put in ours by their structure, and the mark is found as it was."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.mark import OwnershipKey, embed, trace, verify
from palladion.mark.align import realign as entry
from palladion.mark.align import trees as module
from palladion.mark.align.realign import realign
from palladion.mark.align.realigned import Realigned
from palladion.mark.align.trees import realign_trees
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import stamp_place
from palladion.mark.places import Survey
from palladion.mark.weights import find_ownership
from palladion.model.model import Model
from palladion.model.rewrite import rewritten as with_numbers
from palladion.model.run import open_session
from palladion.model.tensors import Tensor
from tests.mark.classifiers import network, rows, trees

from .trees_made import changed, halved, in_one_file, list_of, regressor, rewritten, version_5

KEY = OwnershipKey(derive(bytes(32), "trees"), bytes(range(16)))
VOTES, MARGINS = "node:label/class_weights", "node:y/target_weights"
Array = NDArray[Any]


def _log10_p(original: Model, suspect: Model) -> float:
    return verify(original, suspect, KEY).finding.log10_p


def _copy(original: Model) -> Model:
    return in_one_file(embed(original, KEY))


def _values(model: Model, name: str) -> Array:
    return np.asarray(model.tensors[name].data).reshape(-1)


@pytest.mark.parametrize("shares", [True, False])
def test_another_order_leaves_the_whole_mark(shares: bool) -> None:
    original = trees(shares=shares)
    copy = _copy(original)
    suspect = rewritten(copy)
    assert find_ownership(original, suspect, KEY).log10_p > -9

    outcome = verify(original, suspect, KEY)

    assert outcome.finding.log10_p == pytest.approx(_log10_p(original, copy))
    assert outcome.needed == ("trees in another order", "leaves in another order")
    assert outcome.finding.decoded == KEY.payload


def test_the_copy_written_again_does_what_it_did() -> None:
    # what the other tests undo is no ruin of the model
    copy, table = _copy(trees()), rows(200)
    answers = []
    for model in (copy, rewritten(copy, turned=True)):
        session = open_session(model)
        answers.append(session.run({"x": table})["scores"])
    assert np.asarray(answers[1]) == pytest.approx(np.asarray(answers[0]), abs=1e-5)


@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_of_fewer_trees_as_much_of_the_mark_is_left(kept: float) -> None:
    original = trees(100, depth=5, shares=False)
    copy = _copy(original)

    outcome = verify(original, rewritten(copy, kept=kept), KEY)

    assert outcome.finding.log10_p / _log10_p(original, copy) == pytest.approx(kept, abs=0.05)
    assert f"{round(3200 * (1 - kept))} leaf values missing" in outcome.needed


def test_rounded_thresholds_and_turned_tests_are_no_hiding_place() -> None:
    original = trees(100, depth=5, shares=False)
    copy = _copy(original)
    whole = _log10_p(original, copy)
    assert _log10_p(original, rewritten(copy, digits=3, turned=True)) == pytest.approx(whole)
    assert _log10_p(original, rewritten(copy, digits=2, kept=0.9)) / whole == pytest.approx(0.9, abs=0.05)


def test_moved_thresholds_still_tell_the_trees() -> None:
    original = trees(60)
    copy = _copy(original)
    moved = [number * (1 + 0.003 * (row % 3)) for row, number in enumerate(list_of(copy, "nodes_values"))]
    suspect = rewritten(changed(copy, {"nodes_values": moved}))
    assert _log10_p(original, suspect) == pytest.approx(_log10_p(original, copy))


def test_thresholds_far_from_ours_are_another_tree() -> None:
    original = trees(60)
    moved = [number + 1.0 for number in list_of(original, "nodes_values")]
    assert realign_trees(original, rewritten(changed(original, {"nodes_values": moved}))).needed == ()


def test_trees_that_were_cut_back_are_told_by_their_tops() -> None:
    original = regressor(80, 5)
    copy = _copy(original)
    # every third tree ends one level higher on its left side: the two leaves below node 15 are one
    kinds, ids, tree = (list_of(copy, f"nodes_{name}") for name in ("modes", "nodeids", "treeids"))
    cut = [number == 15 and of % 3 == 0 for number, of in zip(ids, tree, strict=True)]
    modes = [b"LEAF" if gone else kind for gone, kind in zip(cut, kinds, strict=True)]
    suspect = rewritten(changed(copy, {"nodes_modes": modes}))

    outcome = verify(original, suspect, KEY)

    assert outcome.finding.log10_p / _log10_p(original, copy) == pytest.approx(1 - 27 * 2 / 2560, abs=0.02)


def test_equal_tests_with_other_thresholds_are_told_apart_where_trees_are_missing() -> None:
    original = changed(regressor(400, 2), {"nodes_featureids": [0] * (400 * 7)})
    copy = _copy(original)
    moved = [number + 1e-3 for number in list_of(copy, "nodes_values")]
    suspect = rewritten(changed(copy, {"nodes_values": moved}), kept=0.9)
    assert _log10_p(original, suspect) / _log10_p(original, copy) == pytest.approx(0.9, abs=0.1)


def test_trees_that_are_alike_but_for_their_class_are_told_apart() -> None:
    original = trees(5, depth=6, shares=False)
    one = {name: list_of(original, name)[:127] * 5 for name in ("nodes_featureids", "nodes_values")}
    original = changed(original, one)
    found = realign_trees(original, rewritten(original, seed=2))
    assert found.needed[0] == "trees in another order"
    assert np.array_equal(_values(found.model, VOTES), _values(original, VOTES))


def test_trees_spread_over_two_ensembles_are_found() -> None:
    original = regressor()
    copy = _copy(original)
    outcome = verify(original, halved(copy), KEY)
    assert outcome.finding.log10_p == pytest.approx(_log10_p(original, copy))
    assert outcome.suspect.tensors.keys() >= {MARGINS}


def test_trees_of_others_are_ignored() -> None:
    original, grown = regressor(60), regressor(60)
    copy = _copy(original)
    # the same ensemble twice as large: the second half is a stranger's
    stranger = regressor(60, seed=9)
    lists = {
        name: list_of(copy, name) + [number + 60 * name.endswith("treeids") if numbered else number for number in more]
        for name in _LISTS
        for more, numbered in [(list_of(stranger, name), name.endswith("treeids"))]
    }
    suspect = rewritten(changed(grown, lists))
    outcome = verify(original, suspect, KEY)
    assert outcome.finding.log10_p == pytest.approx(_log10_p(original, copy))
    assert f"{60 * 32} leaf values added" in outcome.needed


_LISTS = [
    *(f"nodes_{name}" for name in ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids")),
    *("nodes_falsenodeids", "target_treeids", "target_nodeids", "target_ids", "target_weights"),
]


def test_the_newer_operator_is_put_in_order_too() -> None:
    original = version_5()
    assert realign_trees(original, version_5()).needed == ()
    found = realign_trees(original, version_5(order=4))
    assert found.needed == ("trees in another order", "leaves in another order")
    assert np.array_equal(
        _values(found.model, "node:y/leaf_weights"), _values(original, "node:y/leaf_weights"), equal_nan=True
    )


def test_an_ensemble_that_was_converted_to_the_newer_operator_is_found() -> None:
    original, suspect = regressor(), version_5(order=4)
    assert np.array_equal(_values(realign_trees(original, suspect).model, MARGINS), _values(original, MARGINS))


def test_recipients_are_named_by_copies_in_another_order() -> None:
    original = trees(100, shares=False)
    secret, other = derive(bytes(32), "recipient"), derive(bytes(32), "innocent")
    survey = Survey(original)

    def stamped(tensor: Tensor) -> Array | None:
        place = survey.place_of(tensor)
        return None if place is None else place.stored(stamp_place(place, KEY, secret), KEY.key)

    suspect = rewritten(in_one_file(with_numbers(original, stamped)), kept=0.9)
    ordered = verify(original, suspect, KEY).suspect

    found = trace(original, ordered, KEY, [("acme", secret), ("other", other)])

    assert [item.recipient for item in found.accusations if item.log10_p <= -9] == ["acme"]


def test_nothing_is_undone_where_nothing_is_in_another_order() -> None:
    original = trees()
    copy = _copy(original)
    assert realign_trees(original, copy).model is copy
    stranger = trees(seed=4)
    assert realign_trees(original, stranger).model is stranger
    dense = network()
    assert realign_trees(dense, dense).model is dense
    assert realign_trees(original, replace(copy, graph=None)).needed == ()


def test_equal_trees_are_taken_in_their_order() -> None:
    # structure alone decides: which of two equal trees is which, leaf values would tell, and they carry the mark
    original = regressor(40, 5)
    twins = changed(original, _twice(original))
    order = realign_trees(original, twins).model
    assert np.array_equal(_values(order, MARGINS), _values(twins, MARGINS)[: 40 * 32])


def _twice(model: Model) -> dict[str, list[Any]]:
    return {
        name: list_of(model, name) + [number + 40 * name.endswith("treeids") for number in list_of(model, name)]
        if name.endswith("ids")
        else list_of(model, name) * 2
        for name in _LISTS
    } | {"target_weights": [*list_of(model, "target_weights"), *np.zeros(40 * 32).tolist()]}


def test_alignment_never_looks_at_leaf_values() -> None:
    original = trees(60, shares=False)
    suspect = rewritten(original)
    sevens = changed(suspect, {"class_weights": np.arange(960, dtype=np.float32).tolist()})
    for ours in (original, changed(original, {"class_weights": [1.5] * 960})):
        source = _values(realign_trees(ours, sevens).model, VOTES).astype(int)
        assert np.array_equal(_values(suspect, VOTES)[source], _values(original, VOTES))


@pytest.mark.slow
def test_a_thousand_keys_find_nothing_in_an_unmarked_ensemble() -> None:
    original = trees(100, shares=False)
    suspect = rewritten(original, kept=0.9, digits=3)
    # three digits of each leaf value: an exact copy would leave nothing to test
    rounded = [float(f"{number:.2e}") for number in list_of(suspect, "class_weights")]
    ordered = realign(original, changed(suspect, {"class_weights": rounded}))
    assert ordered.needed
    keys = [OwnershipKey(derive(bytes(32), f"null {index}"), bytes(range(16))) for index in range(1000)]

    found = [find_ownership(original, ordered.model, key).log10_p for key in keys]

    assert any(log10_p < -0.1 for log10_p in found)
    assert sum(log10_p <= -3 for log10_p in found) <= 2


def test_several_values_of_a_leaf_for_one_target_stay_in_order() -> None:
    original = changed(trees(20), {"class_ids": [0] * (20 * 16 * 5)})
    lists = {name: list_of(original, name) for name in ("class_treeids", "class_nodeids", "class_weights")}
    suspect = changed(original, {name: [*items[100:], *items[:100]] for name, items in lists.items()})
    found = realign_trees(original, suspect)
    assert found.needed == ("leaves in another order",)
    assert np.array_equal(_values(found.model, VOTES), _values(original, VOTES))


def test_rounded_thresholds_tell_more_trees_than_can_be_compared_with_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = changed(regressor(400, 2), {"nodes_featureids": [0] * (400 * 7)})
    suspect = rewritten(original, digits=3)
    monkeypatch.setattr(module, "PAIRS_MAX", 0)
    assert np.array_equal(_values(realign_trees(original, suspect).model, MARGINS), _values(original, MARGINS))


def test_what_comes_after_trees_gets_them_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    original = trees()
    monkeypatch.setattr(entry, "realign_network", lambda ours, theirs: Realigned(theirs, ("units permuted",)))
    found = realign(original, rewritten(_copy(original)))
    assert found.needed == ("trees in another order", "leaves in another order", "units permuted")
    assert find_ownership(original, found.model, KEY).log10_p < -100
