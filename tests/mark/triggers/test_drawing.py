"""How inputs of triggers are drawn."""

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.mark.triggers.drawing import RANGES_MAX, InputSpec, default_spec, draw, observed_spec
from palladion.model.run import Port

KEY = bytes(range(32))


def test_normal_inputs_are_normal() -> None:
    numbers = draw(InputSpec("x", "float32", (10_000,), "normal"), KEY)
    assert abs(numbers.mean()) < 0.04
    assert abs(numbers.std() - 1) < 0.04


def test_uniform_inputs_fill_the_range_of_each_feature() -> None:
    spec = InputSpec("x", "float64", (2,), "uniform", (0.0, -5.0), (1.0, 5.0))
    table = np.stack([draw(spec, index.to_bytes(32, "big")) for index in range(400)])
    assert table.dtype == np.float64
    assert (table.min(axis=0) < [0.05, -4.5]).all()
    assert (table.max(axis=0) > [0.95, 4.5]).all()
    assert ((table >= [0, -5]) & (table <= [1, 5])).all()


def test_corners_are_the_ends_of_the_range_of_each_feature() -> None:
    spec = InputSpec("x", "float32", (2,), "corners", (0.0, -5.0), (1.0, 5.0))
    table = np.stack([draw(spec, index.to_bytes(32, "big")) for index in range(40)])
    assert {tuple(row) for row in table.tolist()} == {(0, -5), (0, 5), (1, -5), (1, 5)}


def test_whole_inputs_reach_both_ends_of_their_range() -> None:
    numbers = draw(InputSpec("x", "int64", (500,), "whole", (-3.0,), (2.0,)), KEY)
    assert numbers.dtype == np.int64
    assert set(numbers.tolist()) == {-3, -2, -1, 0, 1, 2}


def test_patterns_are_smooth_pictures() -> None:
    picture = draw(InputSpec("x", "float32", (3, 32, 32), "pattern"), KEY)
    assert picture.shape == (3, 32, 32)
    assert 0 <= picture.min() < 0.2 < 0.8 < picture.max() <= 1
    assert np.abs(np.diff(picture, axis=2)).max() < 0.15
    assert not np.allclose(picture[0], picture[1])


def test_other_keys_draw_other_inputs_and_the_same_key_the_same() -> None:
    for kind in ("normal", "uniform", "pattern"):
        spec = InputSpec("x", "float32", (8, 8), kind)
        np.testing.assert_array_equal(draw(spec, KEY), draw(spec, KEY))
        assert not np.allclose(draw(spec, KEY), draw(spec, bytes(32)))


def test_a_port_alone_is_enough_for_real_numbers_of_known_size() -> None:
    assert default_spec(Port("x", "float32", ("N", 4))).draw == "normal"
    assert default_spec(Port("x", "float32", (1, 3, 8, 8))).draw == "pattern"
    for port in (Port("x", "float32", ("N", None)), Port("x", "int64", ("N", 4)), Port("x", "string", ("N", 1))):
        with pytest.raises(ValueError, match="input 'x'"):
            default_spec(port)


def test_known_rows_say_in_which_range_triggers_may_lie() -> None:
    table = np.array([[0, 10], [4, 20]], np.float32)
    spec = observed_spec(Port("x", "float32", ("N", 2)), table)
    assert (spec.draw, spec.low, spec.high) == ("corners", (0.0, 10.0), (4.0, 20.0))
    assert observed_spec(Port("x", "int64", ("N", 2)), table.astype(np.int64)).draw == "whole"
    assert observed_spec(Port("x", "float32", ("N", 2, 2)), np.ones((1, 2, 2), np.float32)).draw == "pattern"
    wide = observed_spec(Port("x", "float32", ("N", 999)), np.ones((1, RANGES_MAX + 1), np.float32))
    assert len(wide.low) == 1
    with pytest.raises(ValueError, match="finite"):
        observed_spec(Port("x", "float32", ("N", 2)), np.full((1, 2), np.nan, np.float32))


def test_a_description_comes_back_as_it_was() -> None:
    for spec in (
        InputSpec("x", "float32", (2,), "uniform", (0.1, -2.5), (0.3, 1e-9)),
        InputSpec("y", "int32", (4, 4), "whole", (0.0,), (7.0,)),
    ):
        assert InputSpec.parse(spec.description()) == spec
    with pytest.raises(FormatError):
        InputSpec.parse({"name": "x"})


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": "int64"},
        {"dtype": "bool", "draw": "whole"},
        {"draw": "other"},
        {"shape": (0,)},
        {"shape": (5_000_000,)},
        {"draw": "pattern"},
        {"low": (0.0, 0.0)},
        {"low": (2.0,)},
        {"high": (float("inf"),)},
        {"dtype": "int32", "draw": "whole", "high": (0.5,)},
        {"dtype": "int64", "draw": "whole", "high": (2.0**33,)},
        {"name": "x" * 300},
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, object]) -> None:
    good: dict[str, object] = {"name": "x", "dtype": "float32", "shape": (4,), "draw": "uniform"}
    with pytest.raises(ValueError, match=r"."):
        InputSpec(**(good | changes))  # type: ignore[arg-type]
