"""Weights move as carriers say, and the same whether in blocks or all at once."""

import numpy as np
import pytest

from palladion.mark import places as places_module
from palladion.mark.carriers import NormalStream, normals, sign_bits, signs_of
from palladion.mark.fingerprints import stamp_place, stamp_rows
from palladion.mark.places import Place, places
from palladion.mark.stamping import Moved, moved_by
from palladion.mark.weights import AMPLITUDE, mark_place, mark_rows

from .suspects import KEY, OTHER_KEY, OWNERSHIP, Array, matrix, saved


def _place(rows: int, columns: int, dtype: str = "float32") -> Place:
    (place,) = places(saved({"w": matrix(rows, columns).astype(dtype)}))
    return place


def _at_once(place: Place, *, signs: bool, normal: bool) -> Array:
    count, shape = place.weights.size, place.weights.shape
    change = np.zeros(count)
    if signs:
        change += signs_of(sign_bits(KEY, count), count)
    if normal:
        change += normals(OTHER_KEY, count)
    return place.weights + AMPLITUDE * place.scale * change.reshape(shape)


@pytest.mark.parametrize(("signs", "normal"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize(("rows", "columns"), [(60, 64), (61, 33), (9, 1000), (1000, 9), (2, 5000)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_give_what_one_pass_gives(
    monkeypatch: pytest.MonkeyPatch, dtype: str, rows: int, columns: int, *, signs: bool, normal: bool
) -> None:
    monkeypatch.setattr(places_module, "BLOCK_NUMBERS", 512)
    place = _place(rows, columns, dtype)
    moved = moved_by(
        place,
        signs=sign_bits(KEY, place.weights.size) if signs else None,
        normals=NormalStream(OTHER_KEY) if normal else None,
        amplitude=AMPLITUDE,
    )
    assert moved.dtype == place.weights.dtype
    assert np.allclose(moved, _at_once(place, signs=signs, normal=normal), rtol=1e-6, atol=1e-8)


def test_a_place_is_not_changed_itself() -> None:
    place = _place(60, 64)
    before = place.weights.copy()
    stamp_place(place, OWNERSHIP, OTHER_KEY)
    assert np.array_equal(place.weights, before)


def test_a_stamp_has_the_mark_of_what_is_served_in_it() -> None:
    place = _place(61, 33)
    fingerprint = (stamp_place(place, OWNERSHIP, OTHER_KEY) - mark_place(place, OWNERSHIP)) / place.scale / AMPLITUDE
    there = np.vdot(fingerprint, fingerprint)
    assert there == pytest.approx(place.weights.size, rel=0.1)
    # what is left correlates with nothing of the ownership mark
    mark = (mark_place(place, OWNERSHIP) - place.weights) / place.scale / AMPLITUDE
    assert abs(np.vdot(fingerprint, mark)) < 5 * np.sqrt(place.weights.size)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_any_rows_in_any_order_are_those_of_the_whole(dtype: str) -> None:
    place = _place(61, 33, dtype)
    whole = stamp_place(place, OWNERSHIP, OTHER_KEY)
    rows = stamp_rows(place, OWNERSHIP, OTHER_KEY)
    assert rows.shape == whole.shape
    for there in (slice(40, 61), slice(3, 4), slice(0, 40), slice(60, 70), slice(None)):
        assert np.array_equal(rows[there], whole[there])


def test_single_weights_are_those_of_the_whole() -> None:
    place = _place(61, 33)
    rows, there = mark_rows(place, OWNERSHIP), (np.array([60, 0, 7, 7]), np.array([32, 0, 5, 4]))
    assert np.array_equal(rows[there], mark_place(place, OWNERSHIP)[there])
    with pytest.raises(ValueError, match="row by row"):
        stamp_rows(place, OWNERSHIP, OTHER_KEY)[there]


def test_without_carriers_the_weights_stay_as_they_are() -> None:
    place = _place(61, 33)
    rows = Moved(place, signs=None, normals=None, amplitude=AMPLITUDE)
    assert np.array_equal(rows[:], place.weights)
    assert np.array_equal(rows[np.array([3]), np.array([4])], place.weights[[3], [4]])
