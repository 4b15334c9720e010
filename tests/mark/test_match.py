"""Tensors are found again by what they hold, whoever hides them and however; and no key has a say in it."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from palladion.mark import match as module
from palladion.mark.match import CORRELATION_MIN, Match, matches, sizes
from palladion.mark.places import places
from palladion.mark.weights import OwnershipKey, mark_place, mark_rows
from palladion.model.model import Model
from palladion.model.tensors import DTYPES, Tensor

from .suspects import (
    KEY,
    OTHER_KEY,
    OTHER_OWNERSHIP,
    OWNERSHIP,
    PAYLOAD,
    Array,
    each,
    marked,
    matrix,
    network,
    noisy,
    numbers_of,
    one_matrix,
    quantised,
    saved,
    stamped,
)


def _found(original: Model, suspect: Model) -> dict[str, Match]:
    return {place.name: found for place, found in matches(original, suspect) if found is not None}


def _names(original: Model, suspect: Model) -> dict[str, str]:
    return {name: found.suspect for name, found in _found(original, suspect).items()}


def _carried(found: Match) -> float:
    """The correlation of a residual with the mark that `marked` put in; 1 for nothing but the mark, 0 for nothing."""
    place = found.place
    mark = (mark_place(place, OWNERSHIP) - place.weights) / np.where(place.scale > 0, place.scale, 1)
    length = np.sqrt(np.square(found.residual).sum() * np.square(mark).sum())
    return float(np.vdot(found.residual, mark) / length) if length else 0.0


def test_every_place_is_found_in_a_copy() -> None:
    model = network()
    found = _found(model, saved(marked(model)))
    assert list(found) == [place.name for place in places(model)]
    for item in found.values():
        assert item.correlation > 0.999
        assert _carried(item) > 0.97


def test_nothing_is_found_in_strangers() -> None:
    assert _names(network(1), saved(marked(network(11)))) == {}


def test_tensors_are_found_under_other_names_and_in_another_order() -> None:
    model = network()
    suspect = saved({f"{index}": numbers for index, numbers in enumerate(reversed(marked(model).values()))})
    found = _names(model, suspect)
    assert found.keys() == {place.name for place in places(model)}
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize(
    "reshape",
    [np.transpose, lambda w: w.reshape(1, *w.shape), lambda w: w.reshape(-1), lambda w: w.reshape(8, 12, 64)],
)
def test_a_matrix_is_found_transposed_and_in_another_shape(reshape: Callable[[Array], Array]) -> None:
    model = one_matrix()
    suspect = saved({"w": reshape(marked(model)["w"])})
    residual = _found(model, suspect)["w"].residual
    assert np.array_equal(residual, _found(model, saved(marked(model)))["w"].residual)


def test_a_square_matrix_is_told_from_its_transpose() -> None:
    model = saved({"w": matrix(64, 64)})
    for turn in (np.asarray, np.transpose):
        assert _carried(_found(model, saved({"w": turn(marked(model)["w"])}))["w"]) > 0.97


@pytest.mark.slow
def test_the_right_one_of_many_equal_layers_is_found() -> None:
    model = saved({f"layer {index}": matrix(32, 32, seed=index) for index in range(60)})
    suspect = saved({f"x{hash_of(name)} {name}": numbers for name, numbers in marked(model).items()})
    assert all(suspect.endswith(f" {name}") for name, suspect in _names(model, suspect).items())
    assert len(_names(model, suspect)) == 60


def hash_of(name: str) -> int:
    """An order of its own for the names of a suspect."""
    return int(np.random.default_rng(len(name) + int(name.split()[1])).integers(1000))


def test_the_nearest_of_alike_layers_is_found() -> None:
    # layers that were trained from the same start: correlations of 0.995 and more
    base = matrix(96, 64)
    model = saved({f"{index}": base + 0.05 * matrix(96, 64, seed=10 + index) for index in range(6)})
    suspect = saved({f"stolen {name}": numbers for name, numbers in marked(model).items()})
    assert _names(model, suspect) == {f"{index}": f"stolen {index}" for index in range(6)}


@pytest.mark.slow
def test_equal_tensors_are_told_apart_by_name() -> None:
    # tied weights that an exporter stored twice, once transposed: each copy carries a mark of its own
    tensors: dict[str, Array] = {}
    for index in range(6):
        weights = matrix(40, 20, seed=index)
        tensors |= {f"a{index}": weights, f"b{index}": weights.T.copy(), f"c{index}": weights.copy()}
    model = saved(tensors)
    assert _names(model, saved(marked(model))) == {name: name for name in tensors}


HOSTILE: dict[str, Array] = {
    "zeros": np.zeros((96, 64), np.float32),
    "nan": np.full((96, 64), np.nan, np.float32),
    "infinite": np.full((96, 64), np.inf, np.float32),
    "huge": np.full((96, 64), 3e38, np.float32),
    "huge in doubles": matrix().astype(np.float64) * 1e306,
    "tiny": matrix().astype(np.float64) * 1e-306,
    "constant": np.ones((96, 64), np.float32),
    "empty": np.empty((0, 64), np.float32),
    "one number": np.ones(1, np.float32),
    "0-d": np.array(1.0, np.float32),
    "truth": np.eye(96, 64, dtype=bool),
    "complex": matrix().astype(np.complex64),
    "integers": np.arange(96 * 64, dtype=np.int64).reshape(96, 64),
    "largest integers": np.full((96, 64), np.iinfo(np.uint64).max, np.uint64),
    "exponents": np.ones((96, 64), ml_dtypes.float8_e8m0fnu),
    "wild": np.where(np.eye(96, 64) > 0, 1e308, 1e-308),
}
LIKE_OURS = {"huge in doubles", "tiny"}  # the unmarked original, in another scale
PACKED = Tensor("packed", DTYPES["float4_e2m1fn"], (96, 64), np.zeros(96 * 64 // 2, np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("error")
def test_a_hostile_tensor_is_no_match_and_hides_none(name: str) -> None:
    model = one_matrix()
    unrelated = saved({"0": HOSTILE[name], "1": matrix(seed=99)})
    assert _names(model, unrelated) == ({"w": "0"} if name in LIKE_OURS else {})
    for order in (("0", "w"), ("w", "0")):
        tensors = {"0": HOSTILE[name], "w": marked(model)["w"]}
        beside = _found(model, saved({f"{index}": tensors[item] for index, item in enumerate(order)}))
        assert _carried(beside["w"]) > (0.97 if name not in LIKE_OURS else -1)


def test_types_that_cannot_be_compared_are_passed_over() -> None:
    model = one_matrix()
    suspect = saved({"truth": HOSTILE["truth"], "complex": HOSTILE["complex"], "b": np.ones(3, np.float32)})
    assert _names(model, suspect) == {}
    assert sizes(suspect) == {3}


def test_packed_numbers_are_unpacked_and_compared() -> None:
    suspect = saved({"b": np.ones(3, np.float32)}, [PACKED])
    assert sizes(suspect) == {3, 96 * 64}
    assert _names(one_matrix(), suspect) == {}


def test_a_suspect_without_tensors_is_compared_with_nothing() -> None:
    assert _names(network(), saved({})) == {}
    assert sizes(saved({})) == set()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_thief_cannot_hide_a_tensor_behind_a_few_ruined_weights(value: float) -> None:
    # a row of an embedding that no input uses can be anything
    model = one_matrix()
    weights = marked(model)["w"].copy()
    weights[:5] = value
    found = _found(model, saved({"w": weights}))["w"]
    assert _carried(found) > 0.5
    assert np.abs(found.residual).max() < 0.1


@pytest.mark.parametrize("change", [np.asarray, quantised("int8"), quantised("uint8", zero_point=128, axis=1)])
def test_what_is_subtracted_decides_nothing_but_the_residual(change: Callable[[Array], Array]) -> None:
    model = network()
    suspect = saved(each(marked(model), change))
    plain = _found(model, suspect)
    other = {
        place.name: found for place, found in matches(model, suspect, lambda place: mark_place(place, OTHER_OWNERSHIP))
    }
    for name, found in plain.items():
        assert other[name] is not None
        assert (other[name].suspect, other[name].correlation) == (found.suspect, found.correlation)  # type: ignore[union-attr]


def test_no_key_has_a_say_in_what_is_matched_and_how() -> None:
    # the trap: an alignment that looks at the marked copy makes every suspect depend on the key
    model = network()
    suspect = saved(stamped(model, OTHER_KEY))
    before = _found(model, suspect)
    for key in (KEY, OTHER_KEY, bytes(32)):
        marked(model, OwnershipKey(key, PAYLOAD))
        for name, found in _found(model, suspect).items():
            assert np.array_equal(found.residual, before[name].residual)
    assert not {"derive", "signs", "normals", "mark_place"} & vars(module).keys()


def test_what_was_not_changed_leaves_no_residual() -> None:
    model = network()
    for found in _found(model, saved(numbers_of(model))).values():
        assert np.abs(found.residual).max() < 1e-5


def test_rows_that_carry_nothing_have_no_residual() -> None:
    weights = matrix()
    weights[::3] = 0
    model = saved({"w": weights})
    suspect = marked(model)["w"].copy()
    suspect[::3] = matrix(32, 64, seed=5)
    found = _found(model, saved({"w": suspect}))["w"]
    assert not found.residual[::3].any()
    assert _carried(found) > 0.9


@pytest.mark.parametrize(("share", "carried"), [(0.01, 0.7), (0.1, 0.4), (0.3, 0.15)])
def test_weights_that_were_changed_a_lot_do_not_drown_the_others(share: float, carried: float) -> None:
    model = one_matrix()
    weights = marked(model)["w"].copy()
    changed = np.random.default_rng(3).random(weights.shape) < share
    weights[changed] += matrix(seed=5)[changed]
    assert _carried(_found(model, saved({"w": weights}))["w"]) > carried


def test_weights_of_few_bits_of_which_most_stayed_as_they_were_are_not_clipped_away() -> None:
    # stored in 8-bit floats, a mark moves one weight in ten, and that one by a whole step
    model = one_matrix(128, 128)
    ours, mark = numbers_of(model)["w"], marked(model)["w"] - numbers_of(model)["w"]
    moved = np.random.default_rng(2).random(ours.shape) < 0.1
    found = _found(model, saved({"w": np.where(moved, ours + 10 * mark, ours)}))["w"]
    assert _carried(found) > 0.9 * np.sqrt(0.1)


def test_what_is_too_unlike_is_no_match() -> None:
    model = one_matrix()
    for share, expected in ((0.5, True), (0.22, False), (0.1, False)):
        mixed = share * marked(model)["w"] + np.sqrt(1 - share**2) * matrix(seed=77)
        assert ("w" in _found(model, saved({"w": mixed.astype(np.float32)}))) == expected
    assert 0.1 < CORRELATION_MIN < 0.5


def test_where_samples_are_taken_depends_on_every_weight_of_the_original() -> None:
    place = next(places(one_matrix()))
    weights = numbers_of(one_matrix())["w"].copy()
    weights[-1, -1] += np.float32(1e-3)
    other = next(places(saved({"w": weights})))
    assert not np.array_equal(module._positions(place), module._positions(other))
    assert np.array_equal(module._positions(place), module._positions(next(places(one_matrix()))))


def test_a_few_copies_of_one_tensor_are_in_memory_at_a_time() -> None:
    model = saved({f"{index}": matrix(256, 512, seed=index) for index in range(6)})
    suspect = saved(marked(model))
    tracemalloc.start()
    try:
        for _ in matches(model, suspect):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 256 * 512 * 4


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_weights_of_16_bits_are_matched_as_the_same_numbers_in_32_are(dtype: Any) -> None:
    narrow = matrix(200, 512).astype(dtype)
    suspect = saved({"w": noisy(0.05)(narrow.astype(np.float32))})
    ((_, one),) = matches(saved({"w": narrow}), suspect)
    ((_, other),) = matches(saved({"w": narrow.astype(np.float32)}), suspect)
    assert one is not None
    assert other is not None
    assert (one.correlation, one.variance) == (other.correlation, other.variance)
    assert np.array_equal(one.residual, other.residual)


@pytest.mark.parametrize("columns", [64, 33])
def test_what_is_subtracted_may_be_computed_a_few_rows_at_a_time(columns: int) -> None:
    original = saved({"w": matrix(96, columns)})
    suspect = saved(marked(original))
    ((_, whole),) = matches(original, suspect, lambda place: mark_place(place, OTHER_OWNERSHIP))
    ((_, rows),) = matches(original, suspect, lambda place: mark_rows(place, OTHER_OWNERSHIP))
    assert whole is not None
    assert rows is not None
    assert whole.variance == rows.variance
    assert np.array_equal(whole.residual, rows.residual)
