"""The Open Inference Protocol v2 towards clients: requests in JSON and bytes, answers in what was asked for."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.gate.contract import Contract
from palladion.gate.disclosure import disclose
from palladion.gate.problems import Problem
from palladion.gate.protocols.open_inference import (
    OpenInference,
    OpenInferenceErrors,
    model_paths,
    ready_page,
    server_page,
)
from palladion.gate.protocols.open_inference_upstream import Described, OpenInferenceUpstream
from palladion.gate.protocols.protocol import About, Asked, Encoded, ErrorForm
from palladion.gate.protocols.tensors import HEADER_LENGTH, OCTETS
from palladion.model.run import STRING, Port

from .arrays import DATATYPES, arrays, port, same

X = Port("x", "float32", (None, 2))
COUNTRY = Port("country", STRING, (None,))
SCORES = Port("scores", "float32", (None, 3))
LABEL = Port("label", "int64", (None,))
ABOUT = About("fraud", "3", [X], [SCORES, LABEL])
TENSOR: Mapping[str, Any] = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


def _protocol(*inputs: Port, rows_max: int = 4) -> OpenInference:
    return OpenInference("", "fraud", "3", inputs or [X], outputs=["scores", "label"], rows_max=rows_max)


def _decode(document: object, *inputs: Port, rest: bytes = b"", headers: Mapping[bytes, bytes] | None = None) -> Asked:
    text = document if isinstance(document, bytes) else msgspec.json.encode(document)
    if headers is None:
        headers = {HEADER_LENGTH: str(len(text)).encode()} if rest else {}
    return _protocol(*inputs).decode(text + rest, headers)


def _refused(document: object, *inputs: Port, **more: Any) -> tuple[str, str, str]:
    with pytest.raises(Problem) as caught:
        _decode(document, *inputs, **more)
    return caught.value.kind, caught.value.field, caught.value.detail


def _request(*inputs: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"inputs": list(inputs) or [TENSOR], **more}


# --- paths


def test_a_model_has_the_paths_of_the_protocol_and_those_of_its_version() -> None:
    paths = model_paths("/a", "fraud", "3")
    assert {path for path, action in paths.items() if action == "server"} == {
        "/a/v2",
        "/a/v2/health/live",
        "/a/v2/health/ready",
    }
    for base in ("/a/v2/models/fraud", "/a/v2/models/fraud/versions/3"):
        assert [paths[f"{base}{end}"] for end in ("", "/ready", "/infer")] == ["describe", "ready", "ask"]
    assert len(paths) == 9
    assert len(model_paths("", "fraud", "")) == 6


# --- what is asked


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]], ids=["flat", "nested"])
def test_data_may_be_flat_or_nested(data: object) -> None:
    asked = _decode(_request({**TENSOR, "shape": [2, 2], "data": data}))
    assert asked.rows == 2
    assert asked.feeds["x"].tolist() == [[1, 2], [3, 4]]
    assert asked.feeds["x"].dtype == np.float32


def test_binary_tensors_follow_the_json_in_their_order() -> None:
    country = {"name": "country", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}}
    numbers = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    rest = b"\x02\0\0\0de" + np.array([1, 2], "<f4").tobytes()
    asked = _decode(_request(country, numbers), X, COUNTRY, rest=rest)
    assert asked.feeds["country"].tolist() == ["de"]
    assert asked.feeds["x"].tolist() == [[1, 2]]
    # the watch goes by the model's order, whatever the client's
    assert list(asked.feeds) == ["x", "country"]


def test_json_and_binary_inputs_mix() -> None:
    country = {"name": "country", "shape": [1], "datatype": "BYTES", "data": ["de"]}
    numbers = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    asked = _decode(_request(country, numbers), X, COUNTRY, rest=np.array([1, 2], "<f4").tobytes())
    assert (asked.feeds["country"].tolist(), asked.feeds["x"].tolist()) == (["de"], [[1, 2]])


@pytest.mark.parametrize("content_type", ["np", "str"])
def test_words_of_mlservers_clients_change_nothing(content_type: str) -> None:
    document = _request(
        {**TENSOR, "parameters": {"content_type": content_type}}, parameters={"content_type": content_type}
    )
    assert _decode(document).feeds["x"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "y"}, "inputs[0].name"),
        ({"name": 1}, "inputs[0].name"),
        ({"datatype": "FP64"}, "inputs[0].datatype"),
        ({"datatype": "BF16"}, "inputs[0].datatype"),
        ({"shape": [2, 2]}, "inputs[0].data"),
        ({"shape": [1, 3]}, "inputs[0].shape"),
        ({"shape": [2]}, "inputs[0].shape"),
        ({"shape": [-1, 2]}, "inputs[0].shape[0]"),
        ({"shape": [1.5, 2]}, "inputs[0].shape[0]"),
        ({"shape": [1] * 17}, "inputs[0].shape"),
        ({"shape": [5, 2], "data": [0] * 10}, "inputs[0].shape"),
        ({"data": [1]}, "inputs[0].data"),
        ({"data": [1, "2"]}, "inputs[0].data[1]"),
        ({"data": [1, 1e39]}, "inputs[0].data[1]"),
        ({"data": None}, "inputs[0].data"),
        ({"extra": 1}, "inputs[0].extra"),
        ({"parameters": {"shared_memory_region": "a"}}, "inputs[0].parameters.shared_memory_region"),
        ({"parameters": {"binary_data_size": 8}}, "inputs[0].data"),
        ({"parameters": {"binary_data_size": -1}}, "inputs[0].parameters.binary_data_size"),
        ({"parameters": {"content_type": "pickle"}}, "inputs[0].parameters.content_type"),
    ],
    ids=str,
)
def test_an_input_that_is_none_is_told_with_its_field(change: Mapping[str, Any], field: str) -> None:
    kind, told, _ = _refused(_request({**TENSOR, **change}))
    assert (kind, told) == ("bad-input", field)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        (_request(TENSOR, TENSOR), "inputs[1].name"),
        (_request(id=1), "id"),
        (_request(id="a" * 257), "id"),
        (_request(parameters={"sequence_id": 1}), "parameters.sequence_id"),
        (_request(parameters={"priority": 1}), "parameters.priority"),
        (_request(outputs=[{"name": "hidden"}]), "outputs[0].name"),
        (_request(outputs=[{"name": "label"}, {"name": "label"}]), "outputs[1].name"),
        (_request(outputs=[{"name": "label", "parameters": {"x": 3}}]), "outputs[0].parameters.x"),
        (_request(model="other"), "model"),
        ([], ""),
    ],
    ids=str,
)  # fmt: skip
def test_a_request_that_is_none_is_told_with_its_field(document: object, field: str) -> None:
    kind, told, _ = _refused(document)
    assert (kind, told) == ("bad-input", field)


def test_all_inputs_have_as_many_rows() -> None:
    country = {"name": "country", "shape": [2], "datatype": "BYTES", "data": ["de", "fr"]}
    kind, field, detail = _refused(_request(TENSOR, country), X, COUNTRY)
    assert (kind, field, detail) == ("bad-input", "inputs[1].shape", "it has 2 rows, expected 1 as in inputs[0]")


def test_an_input_that_is_missing_is_named() -> None:
    assert _refused(_request(), X, COUNTRY)[2] == "the input country is missing"


def test_an_output_that_is_not_disclosed_does_not_exist() -> None:
    assert _refused(_request(outputs=[{"name": "hidden"}]))[2] == "there is no such output, only label, scores"


BINARY = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}


@pytest.mark.parametrize(
    ("size", "rest", "field"),
    [
        (8, bytes(7), "inputs[0].parameters"),
        (8, bytes(9), "inputs"),
        (4, bytes(4), "inputs[0].data"),
        (12, bytes(12), "inputs[0].data"),
        (2**60, bytes(8), "inputs[0].parameters"),
    ],
)
def test_binary_data_of_another_size_is_refused(size: int, rest: bytes, field: str) -> None:
    kind, told, _ = _refused(_request({**BINARY, "parameters": {"binary_data_size": size}}), rest=rest)
    assert (kind, told) == ("bad-input", field)


def test_binary_data_without_the_header_is_no_json() -> None:
    body = msgspec.json.encode(_request(BINARY)) + bytes(8)
    assert _refused(body, headers={})[0] == "bad-request"
    assert _refused(_request(BINARY), headers={})[:2] == ("bad-input", "inputs[0].parameters")


@pytest.mark.parametrize("length", [b"0", b"1", b"-1", b"999999", b"a"])
def test_a_header_that_lies_about_the_json_is_refused(length: bytes) -> None:
    assert _refused(_request(), headers={HEADER_LENGTH: length})[0] == "bad-request"


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"inputs":[{"data":NaN}]}', b"\xef\xbb\xbf{}"])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert _refused(body)[0] in {"bad-request", "bad-input"}


def test_a_problem_repeats_no_more_than_some_words_of_a_client() -> None:
    _, field, detail = _refused(_request({**TENSOR, "a" * 10_000: 1}))
    assert len(field) + len(detail) <= 400
    assert len(_refused(_request({**TENSOR, "datatype": "F" * 10_000}))[2]) <= 200


@given(st.binary(max_size=200))
def test_bytes_of_whatever_kind_are_decoded_or_refused(body: bytes) -> None:
    with suppress(Problem):
        _decode(body)


# --- what is answered


def _answer(document: Mapping[str, Any], outputs: Mapping[str, NDArray[Any]], about: About = ABOUT) -> Encoded:
    return _protocol().encode(_decode(document), outputs, about)


OUTPUTS = {"scores": np.array([[0.5, 0.25, 0.25]], np.float32), "label": np.array([0])}


def test_an_answer_names_the_model_its_version_and_the_id() -> None:
    encoded = _answer(_request(id="tëst-1"), OUTPUTS)
    assert msgspec.json.decode(encoded.body) == {
        "model_name": "fraud",
        "model_version": "3",
        "id": "tëst-1",
        "outputs": [
            {"name": "scores", "shape": [1, 3], "datatype": "FP32", "data": [0.5, 0.25, 0.25]},
            {"name": "label", "shape": [1], "datatype": "INT64", "data": [0]},
        ],
    }
    assert encoded.headers == [(b"content-type", b"application/json")]


def test_without_an_id_or_a_version_none_is_answered() -> None:
    answered = msgspec.json.decode(_answer(_request(), OUTPUTS, About("fraud", "", [X], [SCORES])).body)
    assert answered.keys() == {"model_name", "outputs"}


def _named(encoded: Encoded) -> list[str]:
    length = dict(encoded.headers).get(HEADER_LENGTH)
    text = encoded.body if length is None else encoded.body[: int(length)]
    return [tensor["name"] for tensor in msgspec.json.decode(text)["outputs"]]


def test_only_outputs_that_were_asked_for_are_answered() -> None:
    assert _named(_answer(_request(outputs=[{"name": "label"}]), OUTPUTS)) == ["label"]


def test_where_nothing_asked_for_is_disclosed_all_that_is_comes() -> None:
    label = {"label": OUTPUTS["label"]}
    assert _named(_answer(_request(outputs=[{"name": "scores"}]), label)) == ["label"]


def test_an_answer_is_binary_where_that_was_asked_for() -> None:
    encoded = _answer(_request(parameters={"binary_data_output": True}), OUTPUTS)
    headers = dict(encoded.headers)
    assert headers[b"content-type"] == OCTETS
    length = int(headers[HEADER_LENGTH])
    tensors = msgspec.json.decode(encoded.body[:length])["outputs"]
    assert [tensor["parameters"] for tensor in tensors] == [{"binary_data_size": 12}, {"binary_data_size": 8}]
    assert all("data" not in tensor for tensor in tensors)
    assert encoded.body[length:] == np.array([0.5, 0.25, 0.25], "<f4").tobytes() + bytes(8)


def test_one_output_may_be_binary_and_another_not() -> None:
    wanted = [{"name": "scores", "parameters": {"binary_data": False}}, {"name": "label"}]
    encoded = _answer(_request(parameters={"binary_data_output": True}, outputs=wanted), OUTPUTS)
    length = int(dict(encoded.headers)[HEADER_LENGTH])
    scores, label = msgspec.json.decode(encoded.body[:length])["outputs"]
    assert scores["data"] == [0.5, 0.25, 0.25]
    assert label["parameters"] == {"binary_data_size": 8}


def test_rounded_numbers_have_the_type_that_was_described_and_few_digits() -> None:
    rounded = {"scores": np.array([[0.1, 0.7, 0.2]])}  # in double precision, as disclosure leaves them
    encoded = _answer(_request(), rounded)
    assert b'"datatype":"FP32","data":[0.1,0.7,0.2]' in encoded.body
    binary = _answer(_request(parameters={"binary_data_output": True}), rounded)
    assert binary.body.endswith(np.array([0.1, 0.7, 0.2], "<f4").tobytes())


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize(
    ("dtype", "scores", "promised"),
    [
        ("float16", [-3, -2, -4], {"decimals": 4, "top_k": 1}),
        ("float16", [0.4, 0.40002, 0.1], {"decimals": 5}),
        ("float32", [123.456780, 123.456787, 1], {"decimals": 1}),
        ("float32", [0.70000005, 0.29999995, 0], {"decimals": 1, "threshold": 0.7}),
        ("float32", [0.1, 0.69999993, 0.2], {"decimals": 4, "threshold": 0.7}),
    ],
)
def test_labels_and_decisions_are_kept_in_the_type_that_is_sent(
    dtype: str, scores: list[float], promised: Mapping[str, Any], binary: bool
) -> None:
    truth = np.array([scores], dtype)
    terms: dict[str, Any] = {"decimals": 17, "top_k": 0, "typed": True, **promised}
    shown = disclose({"scores": truth}, Contract("scores", None, "classes", "scores", **terms), "contract")
    about = About("fraud", "", [X], [Port("scores", dtype, (None, 3))])
    encoded = _answer(_request(parameters={"binary_data_output": binary}), shown, about)
    if binary:
        seen = np.frombuffer(encoded.body[-truth.nbytes :], truth.dtype)
    else:
        seen = np.array(msgspec.json.decode(encoded.body)["outputs"][0]["data"], truth.dtype)
    threshold = np.float64(promised.get("threshold", 100))
    assert seen.argmax() == truth.argmax()
    assert (seen >= threshold).tolist() == (truth[0] >= threshold).tolist()


def test_a_label_that_stands_in_for_scores_has_its_own_type() -> None:
    answered = msgspec.json.decode(_answer(_request(), {"label": np.array([2])}, About("f", "", [X], [SCORES])).body)
    assert answered["outputs"] == [{"name": "label", "shape": [1], "datatype": "INT64", "data": [2]}]


def test_texts_are_answered_in_json_and_in_bytes() -> None:
    about = About("fraud", "", [X], [Port("label", STRING, (None,))])
    texts = {"label": np.array(["nö"], object)}
    assert b'"datatype":"BYTES","data":["n\xc3\xb6"]' in _answer(_request(), texts, about).body
    binary = _answer(_request(parameters={"binary_data_output": True}), texts, about)
    assert binary.body.endswith(b"\x03\0\0\0n\xc3\xb6")


def test_numbers_that_json_has_no_word_for_are_not_answered() -> None:
    with pytest.raises(Problem) as caught:
        _answer(_request(), {"scores": np.array([[np.nan, 0, 0]], np.float32)})
    assert caught.value.kind == "model-failed"


@pytest.mark.slow
@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("datatype", DATATYPES)
@given(data=st.data())
def test_each_side_reads_what_the_other_writes(datatype: str, binary: bool, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 3))
    given_, answered = (data.draw(arrays(datatype, rows)) for _ in range(2))
    taken, gives = port("x", datatype, given_), port("y", datatype, answered)
    wire = {("input", "x"): datatype, ("output", "y"): datatype}
    upstream = OpenInferenceUpstream("m", Described((taken,), (gives,), wire), wanted=["y"], binary=binary)
    _, sent = upstream.encode_request({"x": given_}, rows)
    if datatype == "BF16":
        return  # of upstreams alone: towards clients it is FP32
    protocol = OpenInference("", "m", "", [taken], outputs=["y"], rows_max=3)
    asked = protocol.decode(sent.body, dict(sent.headers))
    assert asked.rows == rows
    assert same(asked.feeds["x"], given_)
    answer = protocol.encode(asked, {"y": answered}, About("m", "", [taken], [gives]))
    assert (HEADER_LENGTH in dict(answer.headers)) == binary
    assert same(upstream.decode_answer(answer.body, answer.headers, rows)["y"], answered)


# --- what is told without asking


def test_a_model_describes_itself_in_the_protocols_words() -> None:
    described = msgspec.json.decode(_protocol().describe("/v2/models/fraud", ABOUT).body)
    assert described == {
        "name": "fraud",
        "versions": ["3"],
        "platform": "palladion",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    }


@pytest.mark.parametrize("ready", [True, False])
def test_the_server_tells_whether_it_lives_and_is_ready(ready: bool) -> None:
    assert server_page("/v2/health/live", lambda: ready)[0] == 200
    status, page = server_page("/v2/health/ready", lambda: ready)
    assert (status, msgspec.json.decode(page.body)) == (200 if ready else 503, {"ready": ready})
    status, page = ready_page("fraud", ready=ready)
    assert (status, msgspec.json.decode(page.body)) == (200 if ready else 503, {"name": "fraud", "ready": ready})


def test_the_server_tells_its_extensions_and_no_version() -> None:
    status, page = server_page("/v2", lambda: False)
    assert (status, msgspec.json.decode(page.body)) == (
        200,
        {"name": "palladion", "version": "", "extensions": ["binary_tensor_data"]},
    )


def test_problems_have_the_sentence_that_clients_show() -> None:
    protocol = _protocol()
    assert isinstance(protocol, ErrorForm)
    problem = Problem("bad-input", "it is wrong", field="inputs[0].data")
    assert protocol.error_members(problem) == {"error": "inputs[0].data: it is wrong"}
    assert OpenInferenceErrors().error_members(Problem("busy")) == {"error": "Too many requests are being worked on"}


@pytest.mark.parametrize("inputs", [[], [Port("scale", "float32", ())], [Port("x", "complex64", (None,))]])
def test_a_model_that_no_request_can_be_written_for_is_refused(inputs: list[Port]) -> None:
    with pytest.raises(ValueError):
        OpenInference("", "fraud", "", inputs, outputs=["scores"], rows_max=1)
