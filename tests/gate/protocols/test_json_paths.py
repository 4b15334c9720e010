"""Plain JSON by paths: strict towards clients and upstreams, and what is sent is written anew."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from palladion.errors import FormatError, PolicyError
from palladion.gate.problems import Problem
from palladion.gate.protocols.json_paths import JsonPaths, JsonPathsUpstream
from palladion.gate.protocols.protocol import About, Asked, Encoded, NotFiniteError
from palladion.model.run import Port
from palladion.policy import RoutePolicy
from palladion.policy.tensors import FixedPolicy, TensorPolicy

X = TensorPolicy(name="x", type="float32", shape=(2,), path="$.instances[*]")
SCORES = TensorPolicy(name="scores", type="float32", shape=(3,), path="$.predictions[*].scores")
ROUTE = RoutePolicy(
    model="digits",
    protocol="json",
    upstream="http://127.0.0.1:1",
    upstream_path="/v1/models/digits:predict",
    inputs=(X,),
    outputs=(SCORES,),
    fixed=(FixedPolicy(path="$.signature_name", value="serving_default"),),
)
ABOUT = About("digits", "", (), (Port("scores", "float32", (None, 3)),))


def _client(route: RoutePolicy = ROUTE, *, rows_max: int = 4) -> JsonPaths:
    upstream = JsonPathsUpstream(route)
    return JsonPaths(route, upstream.inputs, upstream.outputs, rows_max=rows_max)


def _with(**changes: Any) -> RoutePolicy:
    changed: RoutePolicy = msgspec.structs.replace(ROUTE, **changes)
    return changed


def _refused(body: bytes, route: RoutePolicy = ROUTE) -> tuple[str, str]:
    with pytest.raises(Problem) as caught:
        _client(route).decode(body, {})
    return caught.value.kind, caught.value.field


def test_a_question_becomes_arrays_and_a_request_of_our_own() -> None:
    asked = _client().decode(b' { "instances" : [[1, 2.50], [3e0, -4]] } ', {})
    assert asked.rows == 2
    assert asked.feeds["x"].dtype == np.float32
    target, sent = JsonPathsUpstream(ROUTE).encode_request(asked.feeds, asked.rows)
    assert target == b"/v1/models/digits:predict"
    assert sent.body == b'{"instances":[[1.0,2.5],[3.0,-4.0]],"signature_name":"serving_default"}'


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b"", ("bad-request", "")),
        (b"\xef\xbb\xbf{}", ("bad-request", "")),
        (b"[" * 100_000, ("bad-request", "")),
        (b'{"a":' * 100_000, ("bad-request", "")),
        (b'{"instances":[[1,NaN]]}', ("bad-request", "")),
        (b'{"instances":["\xff"]}', ("bad-request", "")),
        (b'{"instances":["\\ud800"]}', ("bad-request", "")),
        (b'{"instances":[[1,1e400]]}', ("bad-input", "$[...][0][1]")),
        (b'{"instances":[[1,%s]]}' % (b"9" * 5000), ("bad-input", "$[...][0][1]")),
        (b'{"instances":[[1,%s]]}' % (b"9" * 400), ("bad-input", "$.instances[0][1]")),
        (b'{"instances":[[1,1e39]]}', ("bad-input", "$.instances[0][1]")),
        (b'{"instances":[[1,2],[3,true]]}', ("bad-input", "$.instances[1][1]")),
        (b'{"instances":[[1,2],[3,null]]}', ("bad-input", "$.instances[1][1]")),
        (b'{"instances":[[1,2],[3,"4"]]}', ("bad-input", "$.instances[1][1]")),
        (b'{"instances":[[1,2],[3]]}', ("bad-input", "$.instances[*]")),
        (b'{"instances":[[1,2,3]]}', ("bad-input", "$.instances[*]")),
        (b'{"instances":[]}', ("bad-input", "$.instances")),
        (b'{"instances":[[1,2],[1,2],[1,2],[1,2],[1,2]]}', ("bad-input", "$.instances")),
        (b'{"instances":[[1,2]],"signature_name":"other"}', ("bad-input", "$.signature_name")),
        (b'{"instances":[[1,2]],"verbose":true}', ("bad-input", "$.verbose")),
        (b'{"instances":[{"0":1,"1":2}]}', ("bad-input", "$.instances[0]")),
    ],
)
def test_what_is_not_exactly_a_question_is_refused_by_its_path(body: bytes, refused: tuple[str, str]) -> None:
    assert _refused(body) == refused


def test_a_member_that_comes_twice_counts_once_and_goes_on_once() -> None:
    asked = _client().decode(b'{"instances":[[9,9],[9,9]],"instances":[[1,2]]}', {})
    assert asked.feeds["x"].tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        ("string", '"\\u00e4"', "1"),
        ("bool", "true", "1"),
        ("uint8", "255", "256"),
        ("int64", "-9223372036854775808", "1.5"),
        ("float16", "65504", "65536"),
        ("uint64", "18446744073709551615", "18446744073709551616"),
        ("int8", "-128", "-129"),
    ],
)
def test_every_type_takes_its_own_values_alone(type_: str, good: str, bad: str) -> None:
    route = _with(inputs=(TensorPolicy(name="x", type=type_, path="$[*]"),), fixed=())  # type: ignore[arg-type]
    array = _client(route).decode(f"[{good}]".encode(), {}).feeds["x"]
    assert array.shape == (1,)
    assert JsonPathsUpstream(route).encode_request({"x": array}, 1)[1].body in {
        f"[{good}]".encode(),
        f"[{good}.0]".encode(),
        '["ä"]'.encode(),
    }
    assert _refused(f"[{bad}]".encode(), route)[0] == "bad-input"


def test_columns_of_different_lengths_are_refused() -> None:
    columns = tuple(TensorPolicy(name=name, type="float32", path=f"$.{name}[*]") for name in "ab")
    assert _refused(b'{"a":[1,2],"b":[1]}', _with(inputs=columns, fixed=())) == ("bad-input", "$.b[*]")


def test_an_answer_is_read_by_paths_and_nothing_else_of_it() -> None:
    body = b'{"predictions":[{"scores":[0.5,0.25,0.25],"debug":"secret"}],"version":7}'
    outputs = JsonPathsUpstream(ROUTE).decode_answer(body, [], 1)
    assert outputs.keys() == {"scores"}
    assert _client().encode(Asked({}, 1), outputs, ABOUT).body == b'{"predictions":[{"scores":[0.5,0.25,0.25]}]}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"predictions":[]}',
        b'{"predictions":[{"scores":[1,2,3]}]}',
        b'{"predictions":[{"scores":[1,2,3]},{"scores":[1,2]}]}',
        b'{"predictions":[{"scores":[1,2,3]},{"scores":[1,2,1e39]}]}',
        b'{"predictions":[{"scores":[1,2,3]},{"scores":[1,2,"3"]}]}',
        b'{"error":"no"}',
        b'{"predictions":[{"scores":[1,2,1e999]}]}',
        b'{"predictions":[{"scores":[1,2,3]},{"scores":[1,2,3]},{"scores":[1,2,3]}]}',
        b'"\xff"',
    ],
)
def test_an_answer_that_does_not_fit_is_none(body: bytes) -> None:
    with pytest.raises(FormatError, match="its answer"):
        JsonPathsUpstream(ROUTE).decode_answer(body, [], 2)


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e39", b"1e999", b" NaN "])
def test_an_answer_with_a_number_that_is_none_is_told_from_a_broken_one(number: bytes) -> None:
    body = b'{"predictions":[{"scores":[1,2,%s]}]}' % number
    with pytest.raises(NotFiniteError):
        JsonPathsUpstream(ROUTE).decode_answer(body, [], 1)


@pytest.mark.parametrize("body", [b'{"predictions":[{"scores":[1,2,NaN', b'{"error":"NaN"}', b'{"error":NaNo}'])
def test_a_broken_answer_is_not_excused_by_a_word(body: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        JsonPathsUpstream(ROUTE).decode_answer(body, [], 1)
    assert not isinstance(caught.value, NotFiniteError)


def _answering(path: str, *shape: int, type_: str = "float32") -> JsonPathsUpstream:
    tensor = TensorPolicy(name="scores", type=type_, shape=shape, path=path)  # type: ignore[arg-type]
    return JsonPathsUpstream(_with(outputs=(tensor,)))


HOSTILE_BYTES = 2**21


def _flood(head: bytes, unit: bytes, tail: bytes) -> bytes:
    return head + b",".join([unit] * (HOSTILE_BYTES // (len(unit) + 1))) + tail


@pytest.mark.parametrize(
    ("upstream", "body"),
    [
        (_answering("$.o[*]", 3), _flood(b'{"o":[', b"[]", b"]}")),
        (_answering("$.o[*]", 3), _flood(b'{"o":[[', b"[]", b"]]}")),
        (_answering("$.o[*]", 3), _flood(b'{"o":[[', b"0", b"]]}")),
        (_answering("$.o[*]", 3), _flood(b'{"o":[[0,0],', b"{}", b"]}")),
        (_answering("$.o[*].s", 3), _flood(b'{"o":[', b'{"s":[0,0,0]}', b"]}")),
        (_answering("$.o[*]", -1, -1), _flood(b'{"o":[[', b"[]", b"]]}")),
        (_answering("$.o[*]", -1), _flood(b'{"o":[[', b"0", b"]]}")),
        (_answering("$.o[*]", 64, 64), _flood(b'{"o":[[', b"[]", b"]]}")),
        (_answering("$.o[*]", -1, 4, type_="string"), _flood(b'{"o":[[', b"[]", b"]]}")),
        (_answering("$.o[*]", -1, -1, type_="string"), _flood(b'{"o":[[', b"[]", b"]]}")),
    ],
)
def test_a_hostile_answer_takes_no_more_memory_than_a_sound_one(upstream: JsonPathsUpstream, body: bytes) -> None:
    with pytest.raises(FormatError):
        upstream.decode_answer(b"{}", [], 1)
    tracemalloc.start()
    with pytest.raises(FormatError):
        upstream.decode_answer(body, [], 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < HOSTILE_BYTES / 8


@pytest.mark.parametrize(
    ("upstream", "body"),
    [
        (_answering("$.o[*]", 3), _flood(b'{"z":[', b"[]", b'],"o":[[0,0,0]]}')),
        (_answering("$.o[0][*]", 3), _flood(b'{"o":[[[0,0,0]],', b"[]", b"]}")),
        (_answering("$.o[*].s", 3), _flood(b'{"o":[{"z":[', b"[]", b'],"s":[0,0,0]}]}')),
    ],
)
def test_what_no_path_names_takes_no_memory(upstream: JsonPathsUpstream, body: bytes) -> None:
    tracemalloc.start()
    assert upstream.decode_answer(body, [], 1)["scores"].tolist() == [[0, 0, 0]]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < HOSTILE_BYTES / 8


@pytest.mark.parametrize(
    ("upstream", "body", "values"),
    [
        (_answering("$.o[*]", 2, 2), b'{"o":[[[1,2],[3,4]],[[5,6],[7,8]]]}', [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
        (_answering("$.o[*]", -1, 1), b'{"o":[[[1],[2]],[[3],[4]]]}', [[[1], [2]], [[3], [4]]]),
        (_answering("$[1].o[*]"), b'[{"o":"z"},{"o":[1,2]},3]', [1, 2]),
        (_answering("$.o[*][1]", type_="string"), b'{"o":[["a","b","c"],["d","e"]]}', ["b", "e"]),
        (_answering("$.o[*]['a b']", type_="bool"), b'{"o":[{"a b":true},{"\\u0061 b":false}]}', [True, False]),
        (_answering("$[*]"), b" [ 1.5 ,\n 2 ] ", [1.5, 2]),
    ],
)
def test_answers_of_any_form_are_read_row_by_row(upstream: JsonPathsUpstream, body: bytes, values: object) -> None:
    assert upstream.decode_answer(body, [], 2)["scores"].tolist() == values


def test_what_is_added_to_the_headers_of_one_answer_is_not_in_the_next() -> None:
    client, upstream = _client(), JsonPathsUpstream(ROUTE)
    asked = client.decode(b'{"instances":[[1,2]]}', {})
    forms: list[Callable[[], Encoded]] = [
        lambda: client.describe("/", ABOUT),
        lambda: client.encode(asked, {}, ABOUT),
        lambda: upstream.encode_request(asked.feeds, 1)[1],
    ]
    for encode in forms:
        encode().headers.append((b"connection", b"close"))
        assert encode().headers == [(b"content-type", b"application/json")]


def test_a_label_alone_is_told_where_the_policy_puts_it_or_beside() -> None:
    label = {"label": np.array([2])}
    assert _client().encode(Asked({}, 1), label, ABOUT).body == b'{"label":[2]}'
    placed = _with(outputs=(SCORES, TensorPolicy(name="label", type="int64", path="$.predictions[*].class")))
    assert _client(placed).encode(Asked({}, 1), label, ABOUT).body == b'{"predictions":[{"class":2}]}'


def test_what_json_cannot_say_is_not_answered() -> None:
    with pytest.raises(Problem) as caught:
        _client().encode(Asked({}, 1), {"scores": np.array([[np.nan, 0, 0]])}, ABOUT)
    assert caught.value.kind == "model-failed"


def test_the_description_has_the_paths_of_what_clients_get() -> None:
    route = _with(outputs=(SCORES, TensorPolicy(name="hidden", type="float32", path="$.predictions[*].hidden")))
    described = msgspec.json.decode(_client(route).describe("/", ABOUT).body)
    assert described["inputs"] == [{"name": "x", "type": "float32", "shape": [2], "path": "$.instances[*]"}]
    assert [item["name"] for item in described["outputs"]] == ["scores"]


def test_single_rows_are_asked_one_by_one() -> None:
    route = _with(inputs=(TensorPolicy(name="x", type="float32", shape=(2,), path="$.features"),), fixed=())
    asked = _client(route).decode(b'{"features":[1,2]}', {})
    assert asked.feeds["x"].tolist() == [[1, 2]]
    assert JsonPathsUpstream(route).encode_request(asked.feeds, 1)[1].body == b'{"features":[1.0,2.0]}'
    assert _refused(b'{"features":[1,"2"]}', route) == ("bad-input", "$.features[1]")


@pytest.mark.parametrize(
    "changes",
    [
        {"upstream_path": ""},
        {"inputs": ()},
        {"outputs": ()},
        {"inputs": (X, X)},
        {"inputs": (X, TensorPolicy(name="y", type="float32", path="$.instances[*].y"))},
        {"outputs": (TensorPolicy(name="scores", type="float32", path="$.scores"),)},
        {"fixed": (FixedPolicy(path="$.instances", value=1),)},
        {"outputs": (TensorPolicy(name="scores", type="float32", path="$['a\"b'][*]"),)},
    ],
)
def test_a_policy_that_cannot_be_asked_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((PolicyError, ValueError)):
        JsonPathsUpstream(_with(**changes))


MODEL_X, MODEL_SCORES = Port("x", "float32", ("n", 2)), Port("scores", "float32", (None, 3))


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ([Port("z", "float32", (None, 2))], [MODEL_SCORES], "name 'x', and the model has z"),
        ([Port("x", "int64", (None, 2))], [MODEL_SCORES], "the model has 'x' of int64"),
        ([Port("x", "float32", (None, 3))], [MODEL_SCORES], "with 3 in a row"),
        ([Port("x", "float32", (None, 2, 1))], [MODEL_SCORES], "with 2×1 in a row"),
        ([MODEL_X, Port("y", "float32", (None,))], [MODEL_SCORES], "do not name 'y'"),
        ([MODEL_X], [Port("other", "float32", (None, 3))], "name 'scores'"),
    ],
)
def test_a_policy_of_another_model_is_refused(inputs: list[Port], outputs: list[Port], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JsonPaths(ROUTE, inputs, outputs, rows_max=4)


def test_an_output_that_the_policy_does_not_name_is_no_fault() -> None:
    make: Callable[..., JsonPaths] = JsonPaths
    assert make(ROUTE, [MODEL_X], [MODEL_SCORES, Port("more", "float32", (None,))], rows_max=4).paths == {
        "/v1/models/digits/predict": "ask describe"
    }
