"""The Open Inference Protocol v2 towards upstreams: what is asked, and that nothing but an answer to it is taken."""

import tracemalloc
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.gate.protocols.open_inference_upstream import (
    Described,
    OpenInferenceUpstream,
    describe_target,
    read_metadata,
    takes_binary,
)
from palladion.gate.protocols.protocol import NotFiniteError
from palladion.gate.protocols.tensors import HEADER_LENGTH, OCTETS
from palladion.model.run import STRING, Port

METADATA: Mapping[str, Any] = {
    "name": "linear",
    "platform": "onnx",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
    "outputs": [
        {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
        {"name": "hidden", "datatype": "FP64", "shape": [-1, 4]},
    ],
}
DESCRIBED = read_metadata(msgspec.json.encode(METADATA))
FEEDS = {"x": np.array([[1, 2]], np.float32)}
SCORES: Mapping[str, Any] = {"name": "scores", "shape": [1, 2], "datatype": "FP32", "data": [0.25, 0.75]}
LABEL: Mapping[str, Any] = {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["yes"]}
HIDDEN: Mapping[str, Any] = {"name": "hidden", "shape": [1, 4], "datatype": "FP64", "data": [1, 2, 3, 4]}


def _codec(*, binary: bool = False) -> OpenInferenceUpstream:
    return OpenInferenceUpstream("linear", DESCRIBED, wanted=["scores", "label"], binary=binary)


def _read(*outputs: Mapping[str, Any], rest: bytes = b"", length: bool = False, **more: Any) -> Mapping[str, Any]:
    text = msgspec.json.encode({"model_name": "linear", "outputs": outputs, **more})
    headers = [(HEADER_LENGTH, str(len(text)).encode())] if rest or length else []
    return _codec().decode_answer(text + rest, headers, 1)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [b"[]", b"[0]", b"0"])
def test_a_hostile_answer_takes_no_more_memory_than_a_sound_one(unit: bytes) -> None:
    data = b",".join([unit] * 2**19)
    body = b'{"outputs":[{"name":"scores","shape":[1,2],"datatype":"FP32","data":[%s]}]}' % data
    tracemalloc.start()
    with pytest.raises(FormatError, match="elements, its shape says 2"):
        _codec().decode_answer(body, [], 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * len(body)


def test_a_number_that_is_none_is_told_from_a_broken_answer() -> None:
    binary = {**SCORES, "parameters": {"binary_data_size": 8}}
    del binary["data"]
    for number in (np.nan, -np.inf):
        with pytest.raises(NotFiniteError):
            _read(binary, LABEL, rest=np.array([0.5, number], "<f4").tobytes())
    with pytest.raises(NotFiniteError):
        _read({**SCORES, "data": [0.5, 1e39]}, LABEL)
    with pytest.raises(FormatError) as caught:
        _read({**SCORES, "data": [0.5, "NaN"]}, LABEL)
    assert not isinstance(caught.value, NotFiniteError)


# --- metadata


def test_metadata_becomes_ports() -> None:
    assert DESCRIBED.inputs == (Port("x", "float32", (None, 2)),)
    assert DESCRIBED.outputs[1] == Port("label", STRING, (None,))
    assert describe_target("a/b c") == b"/v2/models/a%2Fb%20c"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"inputs": []}, "0 inputs and 3 outputs"),
        ({"outputs": []}, "1 inputs and 0 outputs"),
        ({"inputs": [{"name": "x", "datatype": "TENSOR", "shape": [1]}]}, "the type 'TENSOR', which is none"),
        ({"inputs": [*METADATA["inputs"], *METADATA["inputs"]]}, "names input 'x' twice"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]}, "cannot be read"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1] * 17}]}, "cannot be read"),
        ({"inputs": [{"name": "", "datatype": "FP32", "shape": [1]}]}, "cannot be read"),
        ({"inputs": {}}, "cannot be read"),
    ],
)
def test_metadata_that_says_nothing_clear_is_refused(change: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read_metadata(msgspec.json.encode({**METADATA, **change}))


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b"\xff", b"[" * 100_000])
def test_what_is_no_metadata_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        read_metadata(body)
    assert not takes_binary(body)


@pytest.mark.parametrize("rows", [1, 3])
def test_as_many_rows_are_answered_as_were_asked(rows: int) -> None:
    outputs = [
        {**SCORES, "shape": [rows, 2], "data": [0.5] * 2 * rows},
        {**LABEL, "shape": [rows], "data": ["a"] * rows},
    ]
    with pytest.raises(FormatError, match=f"has {rows} rows for 2"):
        _codec().decode_answer(msgspec.json.encode({"outputs": outputs}), [], 2)


@pytest.mark.parametrize(
    ("extensions", "takes"),
    [(["binary_tensor_data"], True), (["a", "binary_tensor_data_extension"], True), (["sequence"], False), ([], False)],
)
def test_a_server_says_whether_it_takes_bytes(extensions: list[str], takes: bool) -> None:
    assert takes_binary(msgspec.json.encode({"name": "a", "extensions": extensions})) is takes


# --- requests


def test_a_request_asks_for_the_wanted_outputs_alone() -> None:
    target, sent = _codec().encode_request(FEEDS, 1)
    assert target == b"/v2/models/linear/infer"
    assert msgspec.json.decode(sent.body) == {
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}],
        "outputs": [{"name": "scores"}, {"name": "label"}],
    }
    assert sent.headers == [(b"content-type", b"application/json")]


def test_a_binary_request_has_its_tensors_after_the_json() -> None:
    _, sent = _codec(binary=True).encode_request(FEEDS, 1)
    headers = dict(sent.headers)
    length = int(headers[HEADER_LENGTH])
    document = msgspec.json.decode(sent.body[:length])
    assert headers[b"content-type"] == OCTETS
    assert document["inputs"][0] == {
        "name": "x",
        "shape": [1, 2],
        "datatype": "FP32",
        "parameters": {"binary_data_size": 8},
    }
    assert all(output["parameters"] == {"binary_data": True} for output in document["outputs"])
    assert sent.body[length:] == FEEDS["x"].tobytes()


def test_other_inputs_than_the_models_are_never_sent() -> None:
    with pytest.raises(ValueError, match="not those of the model"):
        _codec().encode_request({"y": FEEDS["x"]}, 1)


def test_a_number_that_bf16_does_not_hold_is_never_sent() -> None:
    described = Described(DESCRIBED.inputs, DESCRIBED.outputs, {**DESCRIBED.datatypes, ("input", "x"): "BF16"})
    codec = OpenInferenceUpstream("linear", described, wanted=["scores"], binary=True)
    with pytest.raises(ValueError, match="does not fit BF16"):
        codec.encode_request({"x": np.array([[3.4e38, 0]], np.float32)}, 1)


# --- answers


def test_an_answer_becomes_the_wanted_outputs() -> None:
    outputs = _read(LABEL, SCORES)
    assert outputs["scores"].tolist() == [[0.25, 0.75]]
    assert outputs["scores"].dtype == np.float32
    assert outputs["label"].tolist() == ["yes"]


def test_what_else_a_server_says_is_dropped() -> None:
    more: dict[str, Any] = {"id": "x", "model_version": "7", "parameters": {"took": 1}, "debug": {"path": "/secret"}}
    outputs = _read({**SCORES, "parameters": {"content_type": "np"}, "extra": 1}, HIDDEN, LABEL, **more)
    assert outputs.keys() == {"scores", "label"}


def test_a_binary_answer_is_read_in_its_order_past_what_is_not_wanted() -> None:
    def binary(tensor: Mapping[str, Any], size: int) -> dict[str, Any]:
        kept = {key: value for key, value in tensor.items() if key != "data"}
        return {**kept, "parameters": {"binary_data_size": size}}

    rest = np.array([1, 2, 3, 4], "<f8").tobytes() + b"\x03\0\0\0yes" + np.array([0.25, 0.75], "<f4").tobytes()
    outputs = _read(binary(HIDDEN, 32), binary(LABEL, 7), binary(SCORES, 8), rest=rest)
    assert (outputs["scores"].tolist(), outputs["label"].tolist()) == ([[0.25, 0.75]], ["yes"])


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [SCORES],
        [SCORES, LABEL, SCORES],
        [SCORES, LABEL, {**HIDDEN, "name": "other"}],
        [{**SCORES, "datatype": "FP64"}, LABEL],
        [{**SCORES, "shape": [2, 1]}, LABEL],
        [{**SCORES, "shape": [2, 1], "data": [0, 0]}, LABEL],
        [{**SCORES, "shape": [1, 3], "data": [0, 0, 0]}, LABEL],
        [{**SCORES, "shape": [2]}, LABEL],
        [{**SCORES, "shape": [-1, 2]}, LABEL],
        [{**SCORES, "data": [0.25]}, LABEL],
        [{**SCORES, "data": [0.25, "0.75"]}, LABEL],
        [{**SCORES, "data": [0.25, 1e39]}, LABEL],
        [{**SCORES, "data": [0.25, None]}, LABEL],
        [{key: value for key, value in SCORES.items() if key != "data"}, LABEL],
        [SCORES, {**LABEL, "data": [1]}],
        [{**SCORES, "parameters": {"binary_data_size": 8}}, LABEL],
    ],
    ids=str,
)
def test_an_answer_to_something_else_is_refused(outputs: list[Mapping[str, Any]]) -> None:
    with pytest.raises(FormatError, match="its answer"):
        _read(*outputs)


def test_an_answer_of_another_model_is_refused() -> None:
    with pytest.raises(FormatError, match="of the model 'other'"):
        _read(SCORES, LABEL, model_name="other")


def test_bytes_that_belong_to_no_tensor_are_refused() -> None:
    with pytest.raises(FormatError, match="1 bytes of binary data belong to no tensor"):
        _read(SCORES, LABEL, rest=b"x")


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"<html>", b"\xff", b'{"outputs":', b"[" * 100_000])
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError, match="its answer"):
        _codec().decode_answer(body, [], 1)


@pytest.mark.parametrize(
    "lengths", [lambda size: [size, size], lambda size: [size, size - 1], lambda _: ["x"], lambda size: [size + 1]]
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(lengths: Callable[[int], list[object]]) -> None:
    body = msgspec.json.encode({"outputs": [SCORES, LABEL]})
    headers = [(HEADER_LENGTH, str(length).encode()) for length in lengths(len(body))]
    with pytest.raises(FormatError, match=HEADER_LENGTH.decode()):
        _codec().decode_answer(body, headers, 1)


@given(st.binary(max_size=100), st.binary(max_size=4))
def test_bytes_of_whatever_kind_raise_nothing_but_format_errors(body: bytes, length: bytes) -> None:
    for headers in ([], [(HEADER_LENGTH, length)]):
        with pytest.raises(FormatError):
            _codec().decode_answer(body, headers, 1)


def test_what_the_operator_is_told_is_short() -> None:
    with pytest.raises(FormatError) as caught:
        _read(SCORES, LABEL, model_name="m" * 100_000)
    assert len(caught.value.message) < 300
