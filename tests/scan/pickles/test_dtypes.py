"""Dtypes that NumPy writes are sound; those that lie about what their fields hold are not."""

import pickle

import numpy as np
import pytest

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.pickles.dtypes import dtype_of, is_dtype, sound_state
from palladion.scan.pickles.values import Made, Ref
from palladion.scan.source import Held

NUMPY = Ref("numpy", "dtype", "class")
DOUBLE = Made(NUMPY, ("f8", False, True))
OBJECT = Made(NUMPY, ("O8", False, True))
SOUND = (
    np.dtype([("a", "f8"), ("b", "O"), ("c", "U5", (2,))]),
    np.dtype([("a", "M8[ns]"), ("b", [("x", "i4"), ("y", "S3")])]),
    np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [4], "itemsize": 16}),
    np.dtype((np.record, [("a", "f4")])),
    np.dtype("S7"),
    np.dtype(("O", (2,))),
    np.dtype([("s", [("o", "O")])]),
    np.dtype("M8[ns]"),
)


def _structure() -> Made:
    return Made(NUMPY, ("V8", False, True))


@pytest.mark.parametrize("sound", SOUND, ids=str)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_what_numpy_writes_is_accepted(sound: np.dtype, protocol: int) -> None:
    look = Look(examine)
    examine(look, Held(pickle.dumps(np.zeros(2, dtype=sound), protocol)), "it")
    assert look.findings == []


@pytest.mark.parametrize(
    ("base", "fields", "size", "flags"),
    [
        (None, {"a": (OBJECT, 0)}, 8, 16),
        (None, {"a": (DOUBLE, 1)}, 8, 16),
        (None, {"a": (DOUBLE, -8)}, 8, 16),
        (None, {"a": (DOUBLE, 0)}, 800, 16),
        (None, {"a": DOUBLE}, 8, 16),
        (None, {"a": ("f8", 0)}, 8, 16),
        (None, Made(Ref("builtins", "dict", "class"), ()), 8, 16),
        ((DOUBLE, (2,)), None, 8, 16),
        ((DOUBLE, ("x",)), None, 8, 16),
        (DOUBLE, None, 8, 16),
        (None, {"a": (DOUBLE, 0)}, 8, None),
    ],
)
def test_fields_that_lie_are_not(base: object, fields: object, size: int, flags: int | None) -> None:
    assert sound_state(_structure(), (3, "|", None, ("a",), {"a": (DOUBLE, 0)}, 8, 1, 16))
    assert not sound_state(_structure(), (3, "|", base, ("a",), fields, size, 1, flags))


def test_a_state_is_put_in_once() -> None:
    made = _structure()
    made.states.append((3, "|", None, None, None, 8, 1, 0))
    assert not sound_state(made, (3, "|", None, None, None, 8, 1, 0))
    assert not sound_state(_structure(), "text")
    assert not sound_state(DOUBLE, (3, "|", None, ("a",), {"a": (DOUBLE, 0)}, 8, 1, 16))


def test_early_states_have_no_fields() -> None:
    assert sound_state(DOUBLE, (1, "<", None, None, None, -1))
    assert not sound_state(_structure(), (1, "<", None, ("a",), {"a": (DOUBLE, 0)}, 8))


def test_dtypes_are_known_however_they_are_named() -> None:
    assert is_dtype(Made(Ref("numpy.dtypes", "VoidDType", "class"), ()))
    assert is_dtype(DOUBLE)
    assert not is_dtype(Made(Ref("numpy", "ndarray", "class"), ()))
    assert dtype_of(DOUBLE) == ("f", 8)


def test_fields_that_are_shared_on_every_level_are_looked_at_once() -> None:
    inner = Made(NUMPY, ("f8", False, True))
    for _ in range(24):
        outer = _structure()
        outer.states.append((3, "|", None, ("a", "b"), {"a": (inner, 0), "b": (inner, 0)}, 8, 1, 0))
        inner = outer
    assert dtype_of(inner) == ("V", 8)


def test_dtypes_deeper_than_any_of_numpys_cannot_be_told() -> None:
    inner = Made(NUMPY, ("f8", False, True))
    for _ in range(40):
        outer = _structure()
        outer.states.append((3, "|", None, ("a",), {"a": (inner, 0)}, 8, 1, 0))
        inner = outer
    assert dtype_of(inner) in {None, ("O", 8)}
