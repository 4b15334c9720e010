"""The protocol in protobuf: requests in numbers and in raw bytes, answers in what was asked for."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.gate.grpc.codec import CONTENTS, GrpcInference
from palladion.gate.grpc.head import PIECES_MAX, read_head
from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference import OpenInference
from palladion.gate.protocols.protocol import About, Asked, ErrorForm
from palladion.gate.protocols.tensors import BF16, DATATYPES, HEADER_LENGTH, Layout
from palladion.model.run import STRING, Port
from tests.gate.protocols.arrays import arrays, port, same

pytest.importorskip("google.protobuf", reason="this needs protobuf, a part of the grpc extra")

from palladion.gate.grpc.messages import load_messages

MESSAGES = load_messages()
X = Port("x", "float32", (None, 2))
COUNTRY = Port("country", STRING, (None,))
SCORES = Port("scores", "float32", (None, 3))
LABEL = Port("label", "int64", (None,))
ABOUT = About("fraud", "3", [X], [SCORES, LABEL])
OUTPUTS = {"scores": np.array([[0.5, 0.25, 0.25]], np.float32), "label": np.array([0])}
RAW = np.array([[1, 2]], "<f4").tobytes()
Change = Callable[[Any], object]


def _protocol(*inputs: Port, rows_max: int = 4) -> GrpcInference:
    return GrpcInference("/a", "fraud", "3", inputs or [X], outputs=["scores", "label"], rows_max=rows_max)


def _request(*, raw: bool = False, **more: Any) -> Any:
    request = MESSAGES["ModelInferRequest"](model_name="fraud", **more)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    if raw:
        request.raw_input_contents.append(RAW)
    else:
        tensor.contents.fp32_contents.extend([1, 2])
    return request


def _decode(request: Any, *inputs: Port) -> Asked:
    data = request if isinstance(request, bytes) else request.SerializeToString()
    read_head(data)
    return _protocol(*inputs).decode(data, {})


def _refused(request: Any, *inputs: Port) -> tuple[str, str, str]:
    with pytest.raises(Problem) as caught:
        _decode(request, *inputs)
    return caught.value.kind, caught.value.field, caught.value.detail


def _answer(request: Any, outputs: Mapping[str, NDArray[Any]] = OUTPUTS, about: About = ABOUT) -> Any:
    encoded = _protocol().encode(_decode(request), outputs, about)
    return MESSAGES["ModelInferResponse"].FromString(encoded.body)


# --- paths


def test_paths_are_those_of_rest_but_that_all_models_share_the_servers() -> None:
    paths = _protocol().paths
    assert {path for path, action in paths.items() if action == "server"} == {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
    }
    assert paths["/a/v2/models/fraud/infer"] == paths["/a/v2/models/fraud/versions/3/infer"] == "ask"
    assert len(paths) == 9


# --- what is asked


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_numbers_come_as_numbers_or_as_raw_bytes(raw: bool) -> None:
    asked = _decode(_request(raw=raw))
    assert asked.rows == 1
    assert asked.feeds["x"].tolist() == [[1, 2]]
    assert asked.feeds["x"].dtype == np.float32


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_inputs_are_in_the_models_order_whatever_the_clients(raw: bool) -> None:
    request = MESSAGES["ModelInferRequest"](model_name="fraud")
    country = request.inputs.add(name="country", datatype="BYTES", shape=[1])
    numbers = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    if raw:
        request.raw_input_contents.extend([b"\x02\0\0\0de", RAW])
    else:
        country.contents.bytes_contents.append(b"de")
        numbers.contents.fp32_contents.extend([1, 2])
    asked = _decode(request, X, COUNTRY)
    assert list(asked.feeds) == ["x", "country"]
    assert (asked.feeds["country"].tolist(), asked.feeds["x"].tolist()) == (["de"], [[1, 2]])


@pytest.mark.parametrize("text", ["np", "str"])
def test_words_of_mlservers_clients_change_nothing(text: str) -> None:
    request = _request()
    request.parameters["content_type"].string_param = text
    request.inputs[0].parameters["content_type"].string_param = text
    assert _decode(request).feeds["x"].tolist() == [[1, 2]]


def _shape(*sizes: int) -> Change:
    def change(request: Any) -> None:
        del request.inputs[0].shape[:]
        request.inputs[0].shape.extend(sizes)

    return change


def _contents(name: str, *values: Any) -> Change:
    def change(request: Any) -> None:
        request.inputs[0].contents.Clear()
        getattr(request.inputs[0].contents, name).extend(values)

    return change


def _copied(request: Any) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])


INPUT: Mapping[str, tuple[Change, str]] = {
    "name": (lambda r: setattr(r.inputs[0], "name", "y"), "inputs[0].name"),
    "twice": (_copied, "inputs[1].name"),
    "datatype": (lambda r: setattr(r.inputs[0], "datatype", "FP64"), "inputs[0].datatype"),
    "bf16": (lambda r: setattr(r.inputs[0], "datatype", "BF16"), "inputs[0].datatype"),
    "too many rows": (_shape(5, 2), "inputs[0].shape"),
    "no rows": (_shape(0, 2), "inputs[0].shape"),
    "another width": (_shape(1, 3), "inputs[0].shape"),
    "another rank": (_shape(2), "inputs[0].shape"),
    "no rank": (_shape(), "inputs[0].shape"),
    "a negative size": (_shape(1, -2), "inputs[0].shape[1]"),
    "all negative": (_shape(-1, -2), "inputs[0].shape[0]"),
    "a huge size": (_shape(2**62, 2), "inputs[0].shape[0]"),
    "a high rank": (_shape(*[1] * 17), "inputs[0].shape"),
    "two rows stated": (_shape(2, 2), "inputs[0].contents"),
    "too few": (_contents("fp32_contents", 1), "inputs[0].contents"),
    "too many": (_contents("fp32_contents", 1, 2, 3), "inputs[0].contents"),
    "none": (lambda r: r.inputs[0].ClearField("contents"), "inputs[0].contents"),
    "empty": (_contents("fp32_contents"), "inputs[0].contents"),
    "another type": (_contents("fp64_contents", 1, 2), "inputs[0].contents"),
    "two types": (lambda r: r.inputs[0].contents.int_contents.append(1), "inputs[0].contents"),
    "no number": (_contents("fp32_contents", 1, float("nan")), "inputs[0].contents[1]"),
    "infinite": (_contents("fp32_contents", float("inf"), 1), "inputs[0].contents[0]"),
    "raw as well": (lambda r: r.raw_input_contents.append(RAW), "raw_input_contents[0]"),
    "raw too many": (lambda r: r.raw_input_contents.extend([RAW, RAW]), "raw_input_contents"),
    "parameter": (
        lambda r: r.inputs[0].parameters["shared_memory_region"].string_param.__len__(),
        "inputs[0].parameters.shared_memory_region",
    ),
    "content type": (
        lambda r: setattr(r.inputs[0].parameters["content_type"], "string_param", "pickle"),
        "inputs[0].parameters.content_type",
    ),
    "form of one input": (
        lambda r: setattr(r.inputs[0].parameters["binary_data_output"], "bool_param", True),
        "inputs[0].parameters.binary_data_output",
    ),
    "no inputs": (lambda r: r.ClearField("inputs"), "inputs"),
    "id": (lambda r: setattr(r, "id", "a" * 257), "id"),
    "sequence": (lambda r: setattr(r.parameters["sequence_id"], "int64_param", 1), "parameters.sequence_id"),
    "form that is none": (
        lambda r: setattr(r.parameters["binary_data_output"], "string_param", "yes"),
        "parameters.binary_data_output",
    ),
    "output": (lambda r: r.outputs.add(name="hidden"), "outputs[0].name"),
    "output twice": (lambda r: (r.outputs.add(name="label"), r.outputs.add(name="label")), "outputs[1].name"),
    "output's parameter": (
        lambda r: setattr(r.outputs.add(name="label").parameters["classification"], "int64_param", 3),
        "outputs[0].parameters.classification",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "field"), INPUT.values(), ids=INPUT)
def test_what_is_wrong_is_told_with_its_field(change: Change, field: str) -> None:
    request = _request()
    change(request)
    kind, told, detail = _refused(request)
    assert (kind, told) == ("bad-input", field)
    assert detail


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (RAW[:7], "raw_input_contents[0]"),
        (RAW + b"\0", "raw_input_contents[0]"),
        (b"", "raw_input_contents[0]"),
        (np.array([1, np.nan], "<f4").tobytes(), "raw_input_contents[0][1]"),
        (np.array([-np.inf, 1], "<f4").tobytes(), "raw_input_contents[0][0]"),
    ],
)
def test_raw_bytes_that_are_not_the_tensor_are_refused(data: bytes, field: str) -> None:
    request = _request(raw=True)
    request.raw_input_contents[0] = data
    assert _refused(request)[:2] == ("bad-input", field)


def test_an_empty_message_of_contents_beside_raw_bytes_is_contents_too() -> None:
    request = _request(raw=True)
    request.inputs[0].contents.SetInParent()
    assert _refused(request)[:2] == ("bad-input", "raw_input_contents[0]")


def test_all_inputs_have_as_many_rows_and_none_is_missing() -> None:
    request = _request()
    assert _refused(request, X, COUNTRY)[2] == "the input country is missing"
    request.inputs.add(name="country", datatype="BYTES", shape=[2]).contents.bytes_contents.extend([b"de", b"fr"])
    assert _refused(request, X, COUNTRY)[1:] == ("inputs[1].shape", "it has 2 rows, expected 1 as in inputs[0]")


def test_texts_have_to_be_texts() -> None:
    request = MESSAGES["ModelInferRequest"](model_name="fraud")
    country = request.inputs.add(name="country", datatype="BYTES", shape=[2])
    country.contents.bytes_contents.extend([b"de", b"\xff"])
    assert _refused(request, COUNTRY)[1] == "inputs[0].contents[1]"


@pytest.mark.parametrize(
    ("dtype", "datatype", "field", "value"),
    [
        ("int8", "INT8", "int_contents", 300),
        ("uint8", "UINT8", "uint_contents", 256),
        ("int16", "INT16", "int_contents", -40_000),
        ("uint16", "UINT16", "uint_contents", 70_000),
    ],
)
def test_a_number_that_does_not_fit_the_type_is_refused(dtype: str, datatype: str, field: str, value: int) -> None:
    request = MESSAGES["ModelInferRequest"](model_name="fraud")
    tensor = request.inputs.add(name="n", datatype=datatype, shape=[1])
    getattr(tensor.contents, field).append(value)
    assert _refused(request, Port("n", dtype, (None,)))[1:] == (
        "inputs[0].contents",
        f"a number does not fit {datatype}",
    )


def test_half_precision_comes_in_raw_bytes_alone() -> None:
    taken = Port("h", "float16", (None,))
    request = MESSAGES["ModelInferRequest"](model_name="fraud")
    request.inputs.add(name="h", datatype="FP16", shape=[1]).contents.fp32_contents.append(1)
    assert _refused(request, taken)[2] == "FP16 is taken in raw_input_contents alone"
    request.inputs[0].ClearField("contents")
    request.raw_input_contents.append(np.array([1], "<f2").tobytes())
    assert _decode(request, taken).feeds["h"].tolist() == [1]


# field 15, a text, in each message in turn
UNKNOWN = b"\x7a\x01x"


@pytest.mark.parametrize("place", ["input", "contents", "output"])
def test_a_field_that_is_not_of_the_protocol_is_refused_wherever_it_stands(place: str) -> None:
    request = _request()
    message = {
        "input": lambda: request.inputs[0],
        "contents": lambda: request.inputs[0].contents,
        "output": lambda: request.outputs.add(name="label"),
    }[place]()
    message.MergeFromString(UNKNOWN)
    assert _refused(request) == ("bad-input", "", "the message has fields that are not of the protocol")
    with pytest.raises(Problem, match="field 15"):
        read_head(_request().SerializeToString() + UNKNOWN)


@pytest.mark.parametrize("data", [b"\x2a\x05\x0a", b"\x2a\x03\x0a\x01\xff", b"\x2a\x02\x0a\x05"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    assert _refused(data)[0] == "bad-request"


def test_a_problem_repeats_no_more_than_some_words_of_a_client() -> None:
    request = _request()
    request.parameters["a" * 10_000].bool_param = True
    assert len("".join(_refused(request)[1:])) <= 400
    request = _request()
    request.inputs[0].datatype = "F" * 10_000
    assert len(_refused(request)[2]) <= 200


@given(st.binary(max_size=200))
def test_bytes_of_whatever_kind_are_decoded_or_refused(body: bytes) -> None:
    with suppress(Problem):
        _decode(body)


# --- what is answered


def test_an_answer_names_the_model_its_version_and_the_id_in_numbers() -> None:
    answer = _answer(_request(id="tëst-1"))
    assert (answer.model_name, answer.model_version, answer.id) == ("fraud", "3", "tëst-1")
    scores, label = answer.outputs
    assert (scores.name, scores.datatype, list(scores.shape)) == ("scores", "FP32", [1, 3])
    assert list(scores.contents.fp32_contents) == [0.5, 0.25, 0.25]
    assert (label.datatype, list(label.contents.int64_contents)) == ("INT64", [0])
    assert not answer.raw_output_contents


def test_who_asks_in_raw_bytes_is_answered_in_raw_bytes() -> None:
    answer = _answer(_request(raw=True))
    assert list(answer.raw_output_contents) == [np.array([0.5, 0.25, 0.25], "<f4").tobytes(), bytes(8)]
    assert not any(tensor.HasField("contents") for tensor in answer.outputs)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_the_form_of_an_answer_can_be_asked_for(raw: bool) -> None:
    request = _request(raw=not raw)
    request.parameters["binary_data_output"].bool_param = raw
    assert bool(_answer(request).raw_output_contents) == raw


def test_only_outputs_that_were_asked_for_are_answered_or_all_that_is_disclosed() -> None:
    request = _request()
    request.outputs.add(name="label")
    assert [tensor.name for tensor in _answer(request).outputs] == ["label"]
    request.outputs[0].name = "scores"
    assert [tensor.name for tensor in _answer(request, {"label": OUTPUTS["label"]}).outputs] == ["label"]


def test_rounded_numbers_have_the_type_that_was_described() -> None:
    rounded = {"scores": np.array([[0.1, 0.7, 0.2]])}  # in double precision, as disclosure leaves them
    expected = np.array([0.1, 0.7, 0.2], "<f4")
    (scores,) = _answer(_request(), rounded).outputs
    assert (scores.datatype, list(scores.contents.fp32_contents)) == ("FP32", expected.tolist())
    assert list(_answer(_request(raw=True), rounded).raw_output_contents) == [expected.tobytes()]


def test_half_precision_is_answered_in_raw_bytes_and_all_else_with_it() -> None:
    about = About("fraud", "3", [X], [Port("scores", "float16", (None, 3)), LABEL])
    answer = _answer(_request(), OUTPUTS, about)
    assert list(answer.raw_output_contents) == [np.array([0.5, 0.25, 0.25], "<f2").tobytes(), bytes(8)]


def test_numbers_that_are_none_are_not_answered_as_numbers() -> None:
    with pytest.raises(Problem) as caught:
        _answer(_request(), {"scores": np.array([[np.nan, 0, 0]], np.float32)})
    assert caught.value.kind == "model-failed"


def test_a_model_describes_itself() -> None:
    described = MESSAGES["ModelMetadataResponse"].FromString(_protocol().describe("", ABOUT).body)
    assert (described.name, list(described.versions), described.platform) == ("fraud", ["3"], "palladion")
    (taken,) = described.inputs
    assert (taken.name, taken.datatype, list(taken.shape)) == ("x", "FP32", [-1, 2])
    assert [tensor.datatype for tensor in described.outputs] == ["FP32", "INT64"]


def test_problems_have_the_sentence_that_rest_tells() -> None:
    protocol = _protocol()
    assert isinstance(protocol, ErrorForm)
    assert protocol.error_members(Problem("bad-input", "it is wrong", field="id")) == {"error": "id: it is wrong"}


@pytest.mark.parametrize("inputs", [[], [Port("scale", "float32", ())], [Port("x", "complex64", (None,))]])
def test_a_model_that_no_request_can_be_written_for_is_refused(inputs: list[Port]) -> None:
    with pytest.raises(ValueError):
        GrpcInference("", "fraud", "", inputs, outputs=["scores"], rows_max=1)


# --- both ways


def _written(values: NDArray[Any], layout: Layout, *, raw: bool) -> bytes:
    """A request as a client would write it."""
    request = MESSAGES["ModelInferRequest"](model_name="m")
    tensor = request.inputs.add(name="x", datatype=layout.datatype, shape=values.shape)
    if raw:
        request.raw_input_contents.append(layout.write_binary(values))
    else:
        flat = values.reshape(-1).tolist()
        elements = [text.encode() for text in flat] if layout.datatype == "BYTES" else flat
        getattr(tensor.contents, CONTENTS[layout.datatype]).extend(elements)
    data: bytes = request.SerializeToString()
    return data


@pytest.mark.slow
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("datatype", sorted(set(DATATYPES.values()) - {BF16}))
@given(data=st.data())
def test_what_is_written_is_read_as_rest_reads_it(datatype: str, raw: bool, data: st.DataObject) -> None:
    if not raw and datatype not in CONTENTS:
        return
    rows = data.draw(st.integers(1, 3))
    given_, answered = (data.draw(arrays(datatype, rows)) for _ in range(2))
    taken, gives = port("x", datatype, given_), port("y", datatype, answered)
    layout = Layout(taken)
    body = _written(given_, layout, raw=raw)
    assert read_head(body) == ("m", "")
    protocol = GrpcInference("", "m", "", [taken], outputs=["y"], rows_max=3)
    asked = protocol.decode(body, {})
    binary = layout.write_binary(given_)
    head = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{list(given_.shape)},"parameters":'
    text = f'{head}{{"binary_data_size":{len(binary)}}}}}]}}'.encode()
    rest = OpenInference("", "m", "", [taken], outputs=["y"], rows_max=3)
    by_rest = rest.decode(text + binary, {HEADER_LENGTH: str(len(text)).encode()})
    assert asked.rows == by_rest.rows == rows
    assert same(asked.feeds["x"], given_)
    assert same(asked.feeds["x"], by_rest.feeds["x"])
    answer = MESSAGES["ModelInferResponse"].FromString(
        protocol.encode(asked, {"y": answered}, About("m", "", [taken], [gives])).body
    )
    (output,) = answer.outputs
    layout = Layout(gives)
    if raw:
        back = layout.read_binary(answer.raw_output_contents[0], list(output.shape))
    else:
        values = list(getattr(output.contents, CONTENTS[datatype]))
        back = layout.read_flat([text.decode() for text in values] if datatype == "BYTES" else values, output.shape)
    assert same(back, answered)


def test_a_mebibyte_of_unknown_fields_is_refused_in_a_moment() -> None:
    request = _request()
    request.inputs[0].MergeFromString(b"\x78\x01" * 500_000)  # field 15, a number
    began = time.process_time()  # it took half a second when each of them became an object
    assert _refused(request)[0] == "bad-input"
    assert time.process_time() - began < 0.2


def test_a_tensor_with_thousands_of_parameters_is_refused_before_it_is_read() -> None:
    request = _request()
    for number in range(PIECES_MAX):
        request.inputs[0].parameters[f"p{number}"].bool_param = True
    with pytest.raises(Problem, match="more pieces"):
        read_head(request.SerializeToString())


def test_sizes_that_come_one_by_one_are_no_more_pieces_than_a_tensor_has() -> None:
    tensor = b"\x0a\x01x" + b"\x18\x81\x01" * 8  # its name, and eight sizes of two bytes
    head = b"\x0a\x05fraud" + b"\x2a" + bytes([len(tensor)]) + tensor
    assert read_head(head) == ("fraud", "")
    with pytest.raises(Problem, match="ends within"):
        read_head(head[:-1])
