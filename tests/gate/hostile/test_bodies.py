"""Bodies that are hard on a parser, at every place that takes one: each is refused at once, and the gate goes on."""

import time

import pytest

from palladion.gate.chat.models import LanguageModels
from palladion.gate.requests import Response
from palladion.policy import RoutePolicy
from tests.gate.gates import MODEL, Bench, House, open_gate, problem

from .routes import BY_PATHS, INFERENCE, LANGUAGE

DEPTH = 100_000
PREDICT, PATHS, INFER, CHAT = (
    f"/v1/models/{MODEL}/predict",
    "/json",
    f"/v2/models/{MODEL}/infer",
    "/v1/chat/completions",
)
ROW = b"[0.5,-1,2,%s]"
TENSOR = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":%s}]}'
AROUND = {PREDICT: b'{"inputs":[%s]}', PATHS: b'{"rows":[%s]}', INFER: TENSOR}
NO_JSON = {
    "nothing": b"",
    "a mark of the byte order": b"\xef\xbb\xbf{}",
    "UTF-16": '{"inputs":[]}'.encode("utf-16"),
    "bytes that are no text": b'{"\xff":1}',
    "half a surrogate": b'{"\\ud800":1}',
    "surrogates in the wrong order": b'{"\\udc00\\ud800":1}',
    "surrogates in UTF-8": b'{"\xed\xa0\x80":1}',
    "a NUL behind": b"{}\0",
    "two documents": b"{}{}",
    "arrays in arrays": b"[" * DEPTH,
    "arrays in arrays that end": b"[" * DEPTH + b"]" * DEPTH,
    "objects in objects": b'{"inputs":' * DEPTH,
    "objects in objects that end": b'{"inputs":' * DEPTH + b"1" + b"}" * DEPTH,
    "a deep member that nobody knows": b'{"x":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "a deep value": b'{"inputs":[' + b"[" * DEPTH + b"]" * DEPTH + b"]}",
    "a comment": b"{}//",
    "a single quote": b"{'inputs':1}",
    "a comma too many": b'{"inputs":[1,],}',
    "a long name": b'{"%s":1}' % (b"a" * 500_000),
    "many names": b"{" + b",".join(b'"%d":1' % number for number in range(50_000)) + b"}",
    "a text without end": b'{"inputs":"' + b"a" * 500_000,
    "a number without end": b'{"inputs":' + b"1" * 500_000 + b"}",
}
NUMBERS = {
    "NaN": b"NaN",
    "infinite": b"Infinity",
    "infinite below": b"-Infinity",
    "too large": b"1e400",
    "larger": b"1e999999999",
    "too large for the model": b"1e39",
    "of 400 digits": b"9" * 400,
    "of 5,000 digits": b"9" * 5000,
    "zeros before": b"01",
    "a plus": b"+1",
    "hexadecimal": b"0x1",
    "a point alone": b"1.",
    "a truth": b"true",
    "null": b"null",
    "a text": b'"1"',
    "an object": b"{}",
    "an array": b"[1]",
    "nothing": b"",
}


@pytest.fixture(scope="module")
def bench(house: House) -> Bench:
    # chat is asked in its own tests with a server behind it; here it has none, and needs none
    made = open_gate(house, RoutePolicy(model=MODEL, mode="enforce"), BY_PATHS, INFERENCE, limits={"burst": 100_000})
    models = LanguageModels(
        house.with_policy(LANGUAGE).policy, house.installation.paths.home, made.gate.stages, house.root
    )
    made.gate.serve(made.gate.served, models.endpoints)
    return made


def _ask(bench: Bench, path: str, body: bytes) -> Response:
    before = len(bench.watch.asked)
    begun = time.process_time()
    response = bench.ask(path=path, body=body)
    assert time.process_time() - begun < 2.0, "refusing this takes long"
    assert len(bench.watch.asked) == before, "it has reached the model"
    return response


@pytest.mark.parametrize("path", [PREDICT, PATHS, INFER, CHAT])
@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_question_is_refused(bench: Bench, path: str, name: str) -> None:
    response = _ask(bench, path, NO_JSON[name])
    assert response.status in {400, 422}
    assert problem(response) in {"bad-request", "bad-input"}
    assert len(response.body) < 2000, "it repeats what it was sent"


@pytest.mark.parametrize("path", AROUND)
@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_no_number_of_the_model_is_refused(bench: Bench, path: str, name: str) -> None:
    response = _ask(bench, path, AROUND[path] % (ROW % NUMBERS[name]))
    assert problem(response) in {"bad-request", "bad-input"}
    assert len(response.body) < 2000


@pytest.mark.parametrize("path", AROUND)
def test_a_right_question_is_answered_after_all_of_that(bench: Bench, path: str) -> None:
    assert bench.ask(path=path, body=AROUND[path] % (ROW % b"0.25")).status == 200


@pytest.mark.parametrize("path", AROUND)
def test_a_name_that_comes_twice_is_one_question_or_none(bench: Bench, path: str) -> None:
    body = AROUND[path] % (ROW % b"0.25")
    before = len(bench.watch.asked)
    response = bench.ask(path=path, body=body[:-1] + b"," + body[1:])
    assert response.status in {200, 422}
    assert len(bench.watch.asked) - before == (response.status == 200)
