"""Decoding: every defect is told with the field at fault, and what is right comes through unchanged."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.gate.decode import WORDS_CHARACTERS_MAX, InputDecoder, numbers, packed, verify_exact
from palladion.gate.problems import Problem
from palladion.model.run import Port

FLOATS = Port("x", "float32", ("n", 4))
MANY = (
    Port("amount", "float32", ("n", 2)),
    Port("country", "string", ("n",)),
    Port("count", "int16", ("n", 1)),
    Port("new", "bool", ("n",)),
)
MANY_INPUTS: dict[str, Any] = {
    "amount": [[1.5, 2.0], [3.0, 4.0]],
    "country": ["de", "fr"],
    "count": [[7], [8]],
    "new": [True, False],
}


def _decode(body: bytes, *ports: Port, rows_max: int = 4) -> tuple[dict[str, NDArray[Any]], int]:
    return InputDecoder(ports or (FLOATS,), rows_max=rows_max).decode(body)


def _problem(body: bytes, *ports: Port) -> Problem:
    with pytest.raises(Problem) as caught:
        _decode(body, *ports)
    return caught.value


def test_rows_of_one_input_come_as_an_array_of_the_models_type() -> None:
    feeds, rows = _decode(b'{"inputs": [[1, 2.5, -3e2, 0], [4, 5, 6, 7]]}')
    assert rows == 2
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].tolist() == [[1, 2.5, -300, 0], [4, 5, 6, 7]]


def test_several_inputs_come_by_name_each_in_its_type() -> None:
    feeds, rows = _decode(json.dumps({"inputs": MANY_INPUTS}).encode(), *MANY)
    assert rows == 2
    assert {name: array.tolist() for name, array in feeds.items()} == MANY_INPUTS
    assert [feeds[port.name].dtype.kind for port in MANY] == ["f", "O", "i", "b"]


def test_rows_of_any_size_are_taken_where_the_model_takes_any() -> None:
    feeds, _ = _decode(b'{"inputs": [[[1, 2, 3]], [[4, 5, 6]]]}', Port("x", "float32", ("n", None, "width")))
    assert feeds["x"].shape == (2, 1, 3)


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        pytest.param('[[1, 2, 3, "4"]]', "inputs[0][3]", id="text for a number"),
        pytest.param("[[1, 2, 3, 4], [1, 2, true, 4]]", "inputs[1][2]", id="a truth value for a number"),
        pytest.param("[[1, 2, 3, null]]", "inputs[0][3]", id="null"),
        pytest.param("[[1, 2, 3, [4]]]", "inputs[0][3]", id="too deep"),
        pytest.param("[1, 2, 3, 4]", "inputs[0]", id="not deep enough"),
        pytest.param("5", "inputs", id="no array"),
        pytest.param('{"x": [[1, 2, 3, 4]]}', "inputs", id="an object for the one input"),
        pytest.param("[[1, 2, 3, 4], [1, 2, 3]]", "inputs", id="ragged"),
        pytest.param("[[1, 2, 3]]", "inputs", id="too narrow"),
        pytest.param("[[1, 2, 3, 4, 5]]", "inputs", id="too wide"),
        pytest.param("[[]]", "inputs", id="an empty row"),
        pytest.param("[]", "inputs", id="no rows"),
        pytest.param("[" + ",".join(["[1,2,3,4]"] * 5) + "]", "inputs", id="too many rows"),
        pytest.param("[[1, 2, 3, 1e999]]", "inputs[0][3]", id="beyond every double"),
        pytest.param("[[1, 2, 3, 1e39]]", "inputs[0][3]", id="beyond float32"),
        pytest.param("[[1, -3.5e38, 3, 4]]", "inputs[0][1]", id="below float32"),
        pytest.param("[[1, 2, 3, " + "9" * 5000 + "]]", "inputs[0][3]", id="thousands of digits"),
    ],
)
def test_a_wrong_input_is_told_with_its_field(inputs: str, field: str) -> None:
    found = _problem(f'{{"inputs": {inputs}}}'.encode())
    assert (found.kind, found.field) == ("bad-input", field)
    assert found.detail


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({}, "inputs", id="nothing"),
        pytest.param({"inputs": [[1, 2, 3, 4]], "extra": 1}, "extra", id="unknown field"),
        pytest.param([], "", id="no object"),
        pytest.param(None, "", id="null"),
    ],
)
def test_a_body_of_another_form_is_told_what_is_wrong(body: object, field: str) -> None:
    found = _problem(json.dumps(body).encode())
    assert (found.kind, found.field) == ("bad-input", field)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        pytest.param({"country": None}, "inputs.country", id="null"),
        pytest.param({"country": ["de"]}, "inputs.country", id="fewer rows than the first"),
        pytest.param({"country": ["de", 3]}, "inputs.country[1]", id="number for a text"),
        pytest.param({"count": [[7], [40_000]]}, "inputs.count", id="beyond the integer type"),
        pytest.param({"count": [[7], [8.5]]}, "inputs.count[1][0]", id="a fraction for an integer"),
        pytest.param({"count": [[7], [True]]}, "inputs.count[1][0]", id="a truth value for an integer"),
        pytest.param({"new": [True, 1]}, "inputs.new[1]", id="number for a truth value"),
        pytest.param({"amount": [[1, 2], [1e39, 2]]}, "inputs.amount[1][0]", id="beyond float32"),
        pytest.param({"model": "x"}, "inputs.model", id="unknown input"),
    ],
)
def test_the_one_of_several_inputs_that_is_wrong_is_named(changes: dict[str, Any], field: str) -> None:
    found = _problem(json.dumps({"inputs": {**MANY_INPUTS, **changes}}).encode(), *MANY)
    assert (found.kind, found.field) == ("bad-input", field)


@pytest.mark.parametrize("name", MANY_INPUTS)
def test_an_input_that_is_missing_is_named(name: str) -> None:
    inputs = {key: value for key, value in MANY_INPUTS.items() if key != name}
    assert _problem(json.dumps({"inputs": inputs}).encode(), *MANY).field == f"inputs.{name}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"inputs": [[1, 2, 3, NaN]]}',
        b'{"inputs": [[1, 2, Infinity, 4]]}',
        b"\xff\xfe",
        b'{"inputs": [[1, 2, 3, 4]]} 2',
        b"{'a': 1}",
    ],
)
def test_what_is_no_json_is_no_request(body: bytes) -> None:
    assert _problem(body).kind == "bad-request"


@pytest.mark.parametrize("prefix", [b'{"inputs": ', b'{"other": ', b""])
def test_a_hundred_thousand_brackets_are_refused_and_crash_nothing(prefix: bytes) -> None:
    assert _problem(prefix + b"[" * 100_000 + b"]" * 100_000).status in {400, 422}


@pytest.mark.parametrize("literal", ["9" * 5000, "-" + "9" * 100_000, "99999999999999999999", "1e3"])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_integers_of_any_length_are_refused_without_being_computed(literal: str, dtype: str) -> None:
    assert _problem(f'{{"inputs": [[{literal}]]}}'.encode(), Port("x", dtype, (None, 1))).kind == "bad-input"


def test_texts_of_different_lengths_are_refused_as_ragged() -> None:
    assert _problem(b'{"inputs": [["a"], ["b", "c"]]}', Port("x", "string", (None, None))).field == "inputs"


def test_a_name_as_long_as_the_body_is_not_repeated() -> None:
    found = _problem(json.dumps({"x" * 100_000: 1}).encode())
    assert max(len(found.detail), len(found.field)) <= WORDS_CHARACTERS_MAX


def test_an_input_whose_name_looks_like_a_path_is_still_told_apart() -> None:
    ports = (Port("a.b[0]", "float32", (None,)), Port("`x`", "float32", (None,)))
    found = _problem(b'{"inputs": {"a.b[0]": [1], "`x`": ["y"]}}', *ports)
    assert found.field == "inputs.`x`[0]"


@pytest.mark.parametrize(("ports", "named"), [((), "none"), ((FLOATS, Port("scale", "float32", ())), "scale")])
def test_a_model_that_takes_no_rows_cannot_be_asked(ports: tuple[Port, ...], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        InputDecoder(ports, rows_max=4)


_NUMBERS = {
    "float32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "float64": st.floats(allow_nan=False, allow_infinity=False),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint8": st.integers(0, 255),
    "bool": st.booleans(),
    "string": st.text(max_size=8),
}


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(_NUMBERS)), st.integers(1, 4), st.integers(0, 3))
def test_whatever_is_encoded_comes_back(data: st.DataObject, dtype: str, rows: int, width: int) -> None:
    row = st.lists(_NUMBERS[dtype], min_size=width, max_size=width)
    values = data.draw(st.lists(row, min_size=rows, max_size=rows))
    port = Port("x", dtype, (None, width))
    feeds, count = _decode(msgspec.json.encode({"inputs": values}), port)
    assert count == rows
    assert feeds["x"].shape == (rows, width)
    assert feeds["x"].tolist() == values


@settings(max_examples=60)
@given(st.binary(max_size=64) | st.text(max_size=64).map(str.encode))
def test_no_body_gets_more_than_a_problem(body: bytes) -> None:
    assert _problem(body, FLOATS).status in {400, 422}


def test_the_watch_sees_all_numbers_of_a_row_side_by_side_and_no_texts() -> None:
    feeds, rows = _decode(json.dumps({"inputs": MANY_INPUTS}).encode(), *MANY)
    assert numbers(feeds, rows).tolist() == [[1.5, 2, 7, 1], [3, 4, 8, 0]]


def test_rows_without_numbers_have_no_columns() -> None:
    feeds, rows = _decode(b'{"inputs": ["a", "b"]}', Port("x", "string", (None,)))
    assert numbers(feeds, rows).shape == (2, 0)
    feeds, rows = _decode(b'{"inputs": [[], []]}', Port("x", "float32", (None, None)))
    assert numbers(feeds, rows).shape == (2, 0)


_PACKED = {
    "float32": st.floats(-3e38, 3e38),
    "float64": st.floats(),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
}


@given(st.data(), st.sampled_from(sorted(_PACKED)), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_what_is_packed_is_what_numpy_makes_of_it(data: st.DataObject, dtype: str, shape: list[int]) -> None:
    count = int(np.prod(shape))
    flat = data.draw(st.lists(_PACKED[dtype], min_size=count, max_size=count))
    values = np.array(flat, object).reshape(shape).tolist()
    found = packed(values, dtype, len(shape))
    assert found is not None
    with np.errstate(over="ignore"):
        expected = np.array(values, dtype)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("values", "dtype", "rank"),
    [
        ([[1.0], [1.0, 2.0]], "float32", 2),
        ([[[1.0], [2.0]], [[1.0]]], "float32", 3),
        ([], "float32", 2),
        ([2**31], "int32", 1),
        ([-(2**63) - 1], "int64", 1),
        ([1], "int16", 1),
        (["a"], "string", 1),
        ([True], "bool", 1),
    ],
)
def test_what_cannot_be_packed_is_left_to_numpy(values: list[Any], dtype: str, rank: int) -> None:
    assert packed(values, dtype, rank) is None


@pytest.mark.parametrize(("dtype", "value"), [("int64", 2**53), ("int64", -(2**63)), ("uint64", 2**64 - 1)])
def test_an_integer_that_the_watch_would_take_for_another_is_told_by_its_field(dtype: str, value: int) -> None:
    feeds = {"x": np.zeros((2, 1), np.float32), "id": np.array([[1], [value]], dtype)}
    with pytest.raises(Problem) as caught:
        verify_exact(feeds)
    assert (caught.value.kind, caught.value.field) == ("bad-input", "inputs.id")
    with pytest.raises(Problem) as caught:
        verify_exact({"id": feeds["id"]})
    assert caught.value.field == "inputs"


@pytest.mark.parametrize("value", [2**53 - 1, 1 - 2**53])
def test_integers_that_a_double_tells_apart_pass(value: int) -> None:
    verify_exact({"id": np.array([[value]], np.int64), "none": np.zeros((1, 0), np.int64)})
    verify_exact({"x": np.array([[1e300]]), "word": np.array(["a"], object), "small": np.array([[-128]], np.int8)})
