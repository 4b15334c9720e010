"""Asking a suspect's API: the budget holds, everything is captured, and every misbehaviour is a sentence."""

import json
import math
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.clock import ManualClock
from palladion.errors import FormatError, InconclusiveError, KeysError, PalladionError
from palladion.lifecycle import capture as capturing
from palladion.lifecycle import probe as probing
from palladion.lifecycle.capture import new_capture, verify_capture
from palladion.lifecycle.probe import (
    ANSWER_BYTES_MAX,
    WAITS_MAX,
    Api,
    Probed,
    Spending,
    answered,
    answers_of,
    parse_api,
    probe,
    read_answers,
    request_body,
)
from palladion.transit.url import Url, parse_url
from palladion.transit.web import Web
from tests.gate import certificates
from tests.lifecycle.apis import LIMITS, Answering, Reply, Suspect, suspect
from tests.lifecycle.installations import NOW

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many

HERE = parse_url("http://127.0.0.1:1/predict")
KEY = "palladion-test-key"
ROWS = np.arange(20, dtype=np.float32).reshape(10, 2)


def labels(document: Any) -> Any:
    return {"outputs": {"label": [int(row[0]) for row in document["inputs"]]}}


def asked(
    folder: Path, answer: Answering, *, budget: int = 10, make: Callable[[Url], Api] = lambda url: Api(url, KEY)
) -> tuple[Probed, Suspect, list[dict[str, Any]], list[float]]:
    waits: list[float] = []
    web = Web(LIMITS)
    with suspect(answer) as running, new_capture(folder / "c.jsonl", ManualClock(NOW)) as capture:
        found = probe(make(running.url), {"x": ROWS}, capture, budget=budget, web=web, wait=waits.append)
        web.close()
    lines = verify_capture((folder / "c.jsonl").read_bytes(), capture.digest)
    return found, running, lines, waits


def test_every_row_is_asked_once_and_answered(tmp_path: Path) -> None:
    found, running, lines, waits = asked(tmp_path, labels)
    assert found == Probed([0, 2, 4, 6, 8, 10, 12, 14, 16, 18], 10, None)
    assert running.rows == len(lines) == 10
    assert waits == [0.2] * 9
    assert json.loads(lines[3]["request"]["text"]) == {"inputs": [[6.0, 7.0]]}
    assert json.loads(lines[3]["answer"]["text"]) == {"outputs": {"label": [6]}}


def test_several_rows_go_into_one_request_where_the_api_takes_them(tmp_path: Path) -> None:
    found, running, _, _ = asked(tmp_path, labels, make=lambda url: Api(url, KEY, rows=4))
    assert [len(document["inputs"]) for document in running.asked] == [4, 4, 2]
    assert (found.queries, found.error, len(found.answers)) == (10, None, 10)


def test_the_key_is_sent_and_captured_nowhere(tmp_path: Path) -> None:
    _, running, _, _ = asked(tmp_path, labels)
    assert running.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in (tmp_path / "c.jsonl").read_text()
    assert KEY not in repr(Api(HERE, KEY))


def test_the_key_goes_into_the_header_that_the_api_wants(tmp_path: Path) -> None:
    _, running, _, _ = asked(tmp_path, labels, make=lambda url: Api(url, KEY, header="x-api-key"))
    assert running.headers[0]["x-api-key"] == KEY
    assert "authorization" not in running.headers[0]


@pytest.mark.parametrize("rows", [1, 3])
def test_the_budget_is_never_exceeded(tmp_path: Path, rows: int) -> None:
    found, running, _, _ = asked(tmp_path, labels, budget=7, make=lambda url: Api(url, KEY, rows=rows))
    assert running.rows == found.queries <= 7
    assert "budget" in str(found.error)
    assert found.answers[found.queries :] == [None] * (10 - found.queries)


def test_what_is_asked_again_counts_again(tmp_path: Path) -> None:
    busy = Reply(b"{}", 429, {"retry-after": "2"})
    found, running, lines, waits = asked(tmp_path, lambda _: busy, budget=3)
    assert running.rows == found.queries == len(lines) == 3
    assert waits == [2.0, 0.2, 2.0, 0.2, 2.0]
    assert "budget" in str(found.error)


def test_a_server_that_asks_for_patience_gets_little_of_it(tmp_path: Path) -> None:
    busy = Reply(b"{}", 429, {"retry-after": "2"})
    found, running, _, _ = asked(tmp_path, lambda _: busy, budget=100)
    assert running.rows == 1 + WAITS_MAX
    assert "asked less (429)" in str(found.error)


def test_a_server_that_wants_an_hour_gets_none(tmp_path: Path) -> None:
    found, running, _, _ = asked(tmp_path, lambda _: Reply(b"{}", 503, {"retry-after": "3600"}))
    assert running.rows == 1
    assert isinstance(found.error, InconclusiveError)


def test_budget_pace_and_patience_are_for_all_that_is_asked_in_a_test(tmp_path: Path) -> None:
    waits: list[float] = []
    spending, count = Spending(9, waits.append), 0

    def busy_at_first(document: Any) -> Any:
        nonlocal count
        count += 1
        return Reply(b"{}", 429, {"retry-after": "2"}) if count <= WAITS_MAX else labels(document)

    web, found = Web(LIMITS), []
    with suspect(busy_at_first) as running, new_capture(tmp_path / "c.jsonl", ManualClock(NOW)) as capture:
        for part in (ROWS[:4], ROWS[4:]):
            with suppress(InconclusiveError):
                for some in answers_of(Api(running.url), {"x": part}, capture, spending=spending, web=web):
                    found += some
        web.close()
    assert found == [0, 2, 4, 6, 8, 10]
    assert (running.rows, spending.spent, spending.left) == (9, 9, 0)
    assert waits == [2.0, 0.2] * WAITS_MAX + [0.2] * 5
    assert not spending.be_patient(1.0)


MISBEHAVIOUR: dict[str, tuple[Reply, type[PalladionError], str]] = {
    "refuses": (Reply(b"no", 401), KeysError, "refuses us: 401"),
    "forbids": (Reply(b"no", 403), KeysError, "refuses us: 403"),
    "asked too much": (Reply(b"no", 429), InconclusiveError, "asked less"),
    "redirects": (Reply(b"", 307, {"location": "http://127.0.0.1:9/"}), InconclusiveError, "redirects"),
    "does not take it": (Reply(b"no", 422), FormatError, "does not take what it is asked (422)"),
    "fails": (Reply(b"oops", 500), InconclusiveError, "answers 500"),
    "garbage": (Reply(b"\xff\xfe<html>"), FormatError, "not JSON"),
    "deep": (Reply(b"[" * 100_000), FormatError, "not JSON"),
    "other JSON": (Reply(b'{"result": 1}'), FormatError, "no outputs"),
    "too few rows": (Reply(b'{"outputs": {"label": []}}'), FormatError, "no outputs"),
    "too many rows": (Reply(b'{"outputs": {"label": [1, 2]}}'), FormatError, "2 rows, expected 1"),
    "huge": (Reply(b" " * (ANSWER_BYTES_MAX + 1)), FormatError, "more than"),
    "cut off": (Reply(b"{}", headers={"content-length": "99"}), PalladionError, "broke off"),
    "silent": (Reply(b"{}", stall=True), PalladionError, "too slow, or silent"),
}


@pytest.mark.parametrize("what", MISBEHAVIOUR)
def test_misbehaviour_ends_it_with_a_sentence_and_is_captured(tmp_path: Path, what: str) -> None:
    reply, kind, sentence = MISBEHAVIOUR[what]
    count = 0

    def twice_well(document: Any) -> Any:
        nonlocal count
        count += 1
        return labels(document) if count <= 2 else reply

    found, running, lines, _ = asked(tmp_path, twice_well)
    assert isinstance(found.error, kind)
    assert sentence in str(found.error)
    assert found.answers == [0, 2, *[None] * 8]
    assert running.rows == found.queries == len(lines) == 3
    assert lines[2].get("status", reply.status) == reply.status
    assert ("error" in lines[2]) is (what in {"huge", "cut off", "silent"})


def test_a_server_that_trickles_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "SECONDS_MAX", 0.0)
    found, _, lines, _ = asked(tmp_path, labels)
    assert "too slow" in str(found.error)
    assert lines[0]["error"]


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with new_capture(tmp_path / "c.jsonl", ManualClock(NOW)) as capture:
        found = probe(Api(HERE), {"x": ROWS}, capture, budget=10, web=Web(LIMITS), wait=lambda _: None)
    assert "cannot be reached" in str(found.error)


DESCRIBED: dict[str, tuple[str, Any, Any, list[Any]]] = {
    "instances": (
        '{"request": {"instances": "$inputs"}, "answer": "predictions.*.label"}',
        {"instances": [[0.0, 1.0]]},
        {"predictions": [{"label": "cat"}]},
        ["cat"],
    ),
    "scores": (
        '{"request": {"data": "$inputs", "raw": true}, "answer": "scores.*"}',
        {"data": [[0.0, 1.0]], "raw": True},
        {"scores": [[0.1, 0.7, 0.2]]},
        [[0.1, 0.7, 0.2]],
    ),
    "one row": (
        '{"request": {"features": "$row"}, "answer": "result.0.class"}',
        {"features": [0.0, 1.0]},
        {"result": [{"class": 7}]},
        [7],
    ),
    "open inference protocol": (
        '{"request": {"inputs": [{"shape": "$shape", "type": "FP32", "data": "$flat"}]}, "answer": "outputs.0.data.*"}',
        {"inputs": [{"shape": [1, 2], "type": "FP32", "data": [0.0, 1.0]}]},
        {"outputs": [{"name": "label", "data": [3]}]},
        [3],
    ),
    "by name": (
        '{"request": {"a": "$inputs.x"}, "answer": "*"}',
        {"a": [[0.0, 1.0]]},
        [2.0],
        [2],
    ),
}


@pytest.mark.parametrize("what", DESCRIBED)
def test_other_formats_are_described_in_json(what: str) -> None:
    description, request, answer, found = DESCRIBED[what]
    api = parse_api(description.encode(), HERE, None)
    assert json.loads(request_body(api, {"x": ROWS[:1]})) == request
    assert read_answers(api, json.dumps(answer).encode(), 1) == found


def test_several_inputs_go_by_name() -> None:
    body = request_body(Api(HERE), {"a": ROWS[:1], "b": np.array([[1]])})
    assert json.loads(body) == {"inputs": {"a": [[0.0, 1.0]], "b": [[1]]}}


def test_of_a_gates_outputs_the_label_counts_more_than_scores() -> None:
    both = {"outputs": {"scores": [[0.1, 0.9]], "label": ["spam"]}}
    assert read_answers(Api(HERE), json.dumps(both).encode(), 1) == ["spam"]
    assert read_answers(Api(HERE), b'{"outputs": {"scores": [[0.1, 0.9]]}}', 1) == [[0.1, 0.9]]
    assert read_answers(Api(HERE), b'{"outputs": {"label": [[4]]}}', 1) == [4]


def test_of_scores_the_highest_answers() -> None:
    assert [answered(item) for item in ([0.1, 0.9], "spam", 3, [])] == [1, "spam", 3, None]


@pytest.mark.parametrize(
    "said",
    [
        b"[[1" + b"0" * 400 + b", 1]]",
        b"[[1, -1" + b"0" * 400 + b"]]",
        b"[1" + b"0" * 400 + b"]",
        b"[[[9223372036854775808]]]",
        b"[1e300]",
        b"[1" + b"0" * 5000 + b"]",
    ],
)
def test_numbers_that_no_float_takes_are_refused(said: bytes) -> None:
    with pytest.raises(FormatError):
        read_answers(Api(HERE), b'{"outputs": {"label": ' + said + b"}}", 1)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_none_are_refused_wherever_they_come_from(
    monkeypatch: pytest.MonkeyPatch, number: float
) -> None:
    for said in ([number], [[number, 1.0]]):
        monkeypatch.setattr("msgspec.json.decode", lambda _, said=said: {"outputs": {"label": said}})
        with pytest.raises(FormatError):
            read_answers(Api(HERE), b"", 1)


def test_the_largest_numbers_that_fit_are_read() -> None:
    assert read_answers(Api(HERE), b'{"outputs": {"scores": [[9223372036854775807, 1e308]]}}', 1) == [
        [2**63 - 1, 1e308]
    ]


def test_lists_in_lists_do_not_exhaust_the_stack() -> None:
    for depth in range(700, 1000, 3):
        body = b'{"outputs": {"label": ' + b"[" * depth + b"7" + b"]" * depth + b"}}"
        with suppress(FormatError):  # where the parser itself gives up
            assert read_answers(Api(HERE), body, 1) == [7]


def test_an_answer_that_nobody_thought_of_is_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflow(_: object) -> None:
        raise OverflowError

    monkeypatch.setattr(probing, "_one", overflow)
    found, _, lines, _ = asked(tmp_path, labels)
    assert "cannot be read: OverflowError" in str(found.error)
    assert len(lines) == found.queries == 1


def test_a_capture_that_is_nearly_full_ends_it_before_anything_more_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    margin = 2 * ANSWER_BYTES_MAX + capturing.LINE_REST_BYTES_MAX
    monkeypatch.setattr(capturing, "FILE_BYTES_MAX", margin + 2500)
    found, running, lines, _ = asked(tmp_path, labels)
    assert "the capture is full" in str(found.error)
    assert 0 < found.queries == running.rows == len(lines) < 10
    assert found.answers[: len(lines)] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18][: len(lines)]


def test_a_request_too_large_to_be_captured_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "LINE_BYTES_MAX", 2 * ANSWER_BYTES_MAX)
    found, running, _, _ = asked(tmp_path, labels)
    assert isinstance(found.error, InconclusiveError)
    assert running.rows == found.queries == 0


@pytest.mark.parametrize("byte", [b"\x00", b'"', b"\n", b"\xff"])
def test_the_largest_answer_of_escapes_is_captured_and_verified(tmp_path: Path, byte: bytes) -> None:
    found, _, lines, _ = asked(tmp_path, lambda _: Reply(byte * ANSWER_BYTES_MAX))
    assert "not JSON" in str(found.error)
    assert len(lines) == 1
    assert (tmp_path / "c.jsonl").stat().st_size <= 2 * ANSWER_BYTES_MAX + 4096


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"{}",
        b"[" * 5000,
        b'{"request": 1, "answer": ""}',
        b'{"request": 1, "answer": "a..b"}',
        b'{"request": 1, "answer": "a.*.b.*"}',
        b'{"request": 1, "answer": "label", "rows": 4}',
        b'{"request": 1, "answer": "*", "rows": 0}',
        b'{"request": 1, "answer": "*", "header": "a b"}',
        b'{"request": 1, "answer": "*", "extra": 1}',
        b" " * 70_000,
    ],
)
def test_a_broken_description_is_refused(description: bytes) -> None:
    with pytest.raises(FormatError):
        parse_api(description, HERE, None)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ü", "x" * 5000])
def test_a_key_that_no_header_takes_is_refused(key: str) -> None:
    with pytest.raises(KeysError):
        Api(HERE, key)


@pytest.mark.parametrize("answer", [b'{"p": [{"l": {}}]}', b'{"p": [{"l": null}]}', b'{"p": {}}', b'{"p": [1]}', b"7"])
def test_an_answer_that_the_path_does_not_fit_is_refused(answer: bytes) -> None:
    api = parse_api(b'{"request": "$inputs", "answer": "p.*.l"}', HERE, None)
    with pytest.raises(FormatError):
        read_answers(api, answer, 1)


def test_who_answers_over_tls_is_captured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = certificates.Authority(tmp_path)
    issued = authority.issue("server", [certificates.address("127.0.0.1")])
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.path, issued.key)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps(labels(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    web, api = Web(LIMITS), Api(parse_url(f"https://127.0.0.1:{server.server_port}/predict"), KEY)
    with new_capture(tmp_path / "c.jsonl", ManualClock(NOW)) as capture:
        found = probe(api, {"x": ROWS}, capture, budget=10, web=web, wait=lambda _: None)
    web.close()
    server.shutdown()
    server.server_close()
    assert found.error is None
    lines = verify_capture((tmp_path / "c.jsonl").read_bytes(), capture.digest)
    assert [line["kind"] for line in lines] == ["server", *10 * ["exchange"]]
    assert lines[0]["address"] == f"127.0.0.1:{server.server_port}"
    assert lines[0]["certificates"][0]["sha256"] == issued.fingerprint
