"""Smuggling against a real gate: each request is refused, or answered once, and nothing hidden reaches the model."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.gate.gates import House
from tests.gate.service import WAIT_SECONDS_MAX, Service, configure, serving

from .corpus import BODY, CHUNKED, START, Requests
from .counting import Counting, counting, json_route
from .wire import exchange, listen

pytestmark = pytest.mark.service

NAMES = Requests(b"")


class Target:
    """A gate before a model that counts."""

    def __init__(self, service: Service, model: Counting) -> None:
        self.service = service
        self.requests = Requests(service.house.keys["acme"].encode())
        self._model = model

    def asked(self) -> list[Any]:
        """What the model was asked since the last time that somebody wanted to know."""
        asked = list(self._model.asked)
        self._model.asked.clear()
        return asked

    def runs(self) -> int:
        """How often the model was asked since the last time that somebody wanted to know."""
        return len(self.asked())


@pytest.fixture(scope="module")
def target(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    mine = house.copy(tmp_path_factory.mktemp("smuggling"))
    with counting() as model:
        limits = {"queries_per_second": 1e6, "burst": 1_000_000}
        configure(mine, json_route(model.address), gate={"body_seconds_max": 2}, limits=limits)
        with serving(mine) as service:
            yield Target(service, model)
            assert "Traceback" not in service.complaints


@pytest.fixture(autouse=True)
def nothing_before(target: Target) -> None:
    target.runs()


@pytest.mark.parametrize("name", NAMES.refused())
def test_what_can_be_read_in_two_ways_is_refused_once_and_hung_up(target: Target, name: str) -> None:
    heard = exchange(target.service, target.requests.refused()[name])
    assert (heard.statuses, heard.ended, target.runs()) == ([400], True, 0)


@pytest.mark.parametrize("name", NAMES.not_found())
def test_another_spelling_of_a_path_is_another_path(target: Target, name: str) -> None:
    heard = exchange(target.service, target.requests.not_found()[name])
    assert (heard.statuses, target.runs()) == ([404], 0)


@pytest.mark.parametrize("name", NAMES.answered())
def test_what_can_be_read_in_one_way_is_answered_once(target: Target, name: str) -> None:
    heard = exchange(target.service, target.requests.answered()[name])
    assert (heard.statuses, target.runs()) == ([200], 1)


def test_what_reaches_the_model_and_the_client_is_written_by_the_gate(target: Target) -> None:
    body = b' { "verbose" : false, "rows":[[1e0, 2.50]] } '
    heard = exchange(target.service, target.requests.post(body=body))
    assert target.asked() == [{"rows": [[1.0, 2.5]], "verbose": False}]
    document = msgspec.json.decode(heard.data.partition(b"\r\n\r\n")[2])
    assert document.keys() == {"answers"}
    assert [row.keys() for row in document["answers"]] == [{"scores"}]


@pytest.mark.parametrize("name", NAMES.answered())
def test_how_it_is_cut_into_packets_does_not_matter(target: Target, name: str) -> None:
    data = target.requests.answered()[name]
    pieces = [data[begin : begin + 7] for begin in range(0, len(data), 7)]
    assert (exchange(target.service, *pieces).statuses, target.runs()) == ([200], 1)


def test_requests_one_after_the_other_are_answered_in_order(target: Target) -> None:
    right, stranger, lost = (
        target.requests.post(),
        target.requests.post(key=b"no"),
        target.requests.start(b"POST /x HTTP/1.1"),
    )
    heard = exchange(target.service, right + stranger + lost + right, answers=4)
    assert (heard.statuses, heard.ended, target.runs()) == ([200, 401, 404, 200], False, 2)
    assert (exchange(target.service, right * 20, answers=20).statuses, target.runs()) == ([200] * 20, 20)


def test_garbage_behind_a_request_is_not_taken_for_its_answer(target: Target) -> None:
    right = target.requests.post()
    heard = exchange(target.service, right + right + b"garbage\r\n\r\n" + right, answers=2)
    assert (heard.statuses, heard.ended, target.runs()) == ([200, 200], True, 2)


def test_a_broken_body_behind_an_answer_gets_no_second_one(target: Target) -> None:
    head = target.requests.post(CHUNKED, b"", length=False, key=b"no")
    with socket.create_connection((target.service.host, target.service.port), WAIT_SECONDS_MAX) as peer:
        peer.sendall(head)
        first = listen(peer)
        peer.sendall(b"zz\r\n" + target.requests.post())
        rest = listen(peer)
    assert (first.statuses, first.ended, rest.data, rest.ended, target.runs()) == ([401], False, b"", True, 0)


def test_a_trailer_is_no_credential(target: Target) -> None:
    trailer = b"10\r\n" + BODY + b"\r\n0\r\nauthorization: Bearer " + target.requests.key + b"\r\n\r\n"
    heard = exchange(target.service, target.requests.post(CHUNKED, trailer, length=False, key=b""))
    assert (heard.statuses, target.runs()) == ([401], 0)


def test_who_waits_for_leave_gets_it_with_its_answer(target: Target) -> None:
    heard = exchange(target.service, target.requests.post(b"expect: 100-continue\r\n"), answers=2)
    assert (heard.statuses, target.runs()) == ([100, 200], 1)
    heard = exchange(target.service, target.requests.post(b"expect: 100-continue\r\n", key=b"no"))
    assert (heard.statuses, target.runs()) == ([401], 0)


def test_a_body_of_a_get_is_no_request(target: Target) -> None:
    hidden = target.requests.post()
    heard = exchange(target.service, target.requests.post(body=hidden, start=START.replace(b"POST", b"GET")))
    assert (heard.statuses, target.runs()) == ([200], 0)


@pytest.mark.parametrize("frame", [b"10;" + b"a" * 1000, b"0" * 1000], ids=["extensions", "zeros"])
def test_frames_without_end_are_cut_off(target: Target, frame: bytes) -> None:
    started = target.requests.post(CHUNKED, b"1\r\n{\r\n" + frame, length=False)
    heard = exchange(target.service, started, *[frame[3:]] * 300)
    assert (heard.statuses in ([400], []), heard.ended, target.runs()) == (True, True, 0)


@pytest.mark.parametrize("length", [40, 17])
def test_a_request_that_is_cut_short_reaches_nobody(target: Target, length: int) -> None:
    cut = target.requests.post(b"content-length: %d\r\n" % length, length=False)
    heard = exchange(target.service, cut, half_close=True)
    assert (heard.statuses in ([400], []), target.runs()) == (True, 0)


def test_a_chunk_as_large_as_can_be_told_has_no_more_time_than_others(target: Target) -> None:
    heard = exchange(target.service, target.requests.chunked(b"8000000000000010\r\n" + BODY))
    assert (heard.statuses, target.runs()) == ([408], 0)


@pytest.mark.slow
def test_the_slow_are_cut_off_and_the_others_served(target: Target, tmp_path: Path) -> None:
    right = target.requests.post()
    lingering: dict[str, tuple[bytes, Callable[[list[int]], bool]]] = {
        "silent": (b"", lambda statuses: statuses == []),
        "in the head": (right[:60], lambda statuses: statuses == []),
        "in the body": (right[:-1], lambda statuses: statuses == [408]),
        "in a chunk": (target.requests.chunked(b"10\r\n{"), lambda statuses: statuses == [408]),
        "in the next head": (right, lambda statuses: statuses == []),
    }
    peers = {}
    for name, (data, _) in lingering.items():
        peers[name] = socket.create_connection((target.service.host, target.service.port), WAIT_SECONDS_MAX)
        peers[name].sendall(data)
        if data == right:
            assert listen(peers[name]).statuses == [200]
            peers[name].sendall(right[:60])
    begun = time.monotonic()
    for _ in range(20):
        assert exchange(target.service, right + target.requests.start(b"POST /x HTTP/1.1"), answers=2).statuses == [
            200,
            404,
        ]
    for name, (_, fits) in lingering.items():
        with peers[name] as peer:
            heard = listen(peer, answers=99)
        assert fits(heard.statuses), (name, heard)
        assert heard.ended, name
    assert time.monotonic() - begun < WAIT_SECONDS_MAX
    assert target.runs() == 20 + 1


def test_who_stops_sending_behind_a_request_gets_its_answer_or_none(target: Target) -> None:
    heard = exchange(target.service, target.requests.post(), half_close=True)
    assert heard.statuses in ([200], [])
    assert target.runs() <= 1
