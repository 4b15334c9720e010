"""Answers of model servers: which are read, which are refused, and that it does not matter how they are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.gate.upstream.answer import INTERIM_MAX, Answer, AnswerParser
from palladion.gate.upstream.errors import UpstreamError

from .reading import BODY_BYTES_MAX, LIMITS, Reading, bytewise, read

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


def one(data: bytes, *, head_only: bool = False) -> Reading:
    """The same, however it is cut: in whole and byte by byte."""
    whole = read([data], head_only=head_only)
    assert read(bytewise(data), head_only=head_only) == whole
    return whole


@pytest.mark.parametrize(
    ("data", "body", "reusable"),
    [
        (OK + b"content-length: 2\r\n\r\nok", b"ok", True),
        (OK + b"Content-Length: 0002 \t\r\n\r\nok", b"ok", True),
        (OK + b"content-length: 0\r\n\r\n", b"", True),
        (OK + b"content-encoding: Identity\r\ncontent-length: 2\r\n\r\nok", b"ok", True),
        (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (CHUNKED + b"1\r\no\r\n01;a=b\r\nk\r\n0\r\nt: v\r\n\r\n", b"ok", True),
        (OK + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", True),
        (OK + b"\r\nok", b"ok", True),
        (OK + b"\r\n", b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99999\r\n\r\n", b"", True),
        (INTERIM * INTERIM_MAX + OK + b"content-length: 2\r\n\r\nok", b"ok", True),
        (INTERIM + b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
    ],
)
def test_an_answer_is_read(data: bytes, body: bytes, reusable: bool) -> None:
    reading = one(data)
    assert isinstance(reading.outcome, Answer)
    assert (reading.outcome.body, reading.reusable, reading.read) == (body, reusable, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"H",
        OK,
        b"\r\n" + OK + b"content-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"ICE/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        INTERIM + b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 600 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        INTERIM * (INTERIM_MAX + 1),
        OK + b"content-length: 2\r\ncontent-length: 2\r\n\r\nok",
        OK + b"content-length: 2, 2\r\n\r\nok",
        OK + b"content-length: +2\r\n\r\nok",
        OK + b"content-length: \r\n\r\nok",
        OK + b"content-length : 2\r\n\r\nok",
        OK + b"content-length: 18446744073709551616\r\n\r\n",
        OK + b"content-length: %d\r\n\r\nok" % 2 + b"ok",
        OK + b"content-length: 00000000000000000000002\r\n\r\nok",
        OK + b"content-length: 3\r\n\r\nok",
        OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: gzip\r\n\r\nok",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: identity\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nok",
        OK + b"a: b\r\n c\r\ncontent-length: 2\r\n\r\nok",
        OK + b"a: b\0\r\ncontent-length: 2\r\n\r\nok",
        OK + b"a: b\rc\r\ncontent-length: 2\r\n\r\nok",
        OK + b"a b: c\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        CHUNKED + b"2\nok\n0\n\n",
        CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
        CHUNKED + b"2 \r\nok\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nokk\r\n0\r\n\r\n",
        CHUNKED + b"2\r\nok\r\n",
        CHUNKED + b"ffffffffffffffff\r\nok",
        CHUNKED + b"fffffffffffffffff\r\nok",
        CHUNKED + b"0\r\ncontent-length: 2\r\n\r\n",
    ],
)
def test_an_answer_that_can_be_read_in_two_ways_or_in_none_is_broken(data: bytes) -> None:
    assert read([data]).outcome == "broken"
    # cut into bytes, what follows an answer is found by who reads the connection
    cut = read(bytewise(data))
    assert cut.outcome == "broken" or cut.read < len(data)


@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\n", b"\r\nx", b"\0"])
@pytest.mark.parametrize(
    "answer",
    [
        OK + b"content-length: 2\r\n\r\nok",
        CHUNKED + b"0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok",
    ],
)
def test_more_than_was_announced_is_broken(answer: bytes, more: bytes) -> None:
    assert read([answer + more]).outcome == "broken"


def test_an_answer_to_head_ends_with_its_head() -> None:
    for framing in (b"content-length: 99999\r\n", b"transfer-encoding: chunked\r\n", b"", b"content-length: 0\r\n"):
        reading = one(OK + framing + b"\r\n", head_only=True)
        assert isinstance(reading.outcome, Answer)
        assert (reading.outcome.body, reading.reusable) == (b"", False)
    assert read([OK + b"content-length: 2\r\n\r\nok"], head_only=True).outcome == "broken"


@pytest.mark.parametrize(
    "data",
    [
        OK + b"a: " + b"b" * LIMITS.head_bytes_max + b"\r\ncontent-length: 0\r\n\r\n",
        OK + b"a:\r\n" * LIMITS.head_bytes_max,
        OK + b"content-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1),
        OK + b"\r\n" + b"x" * (BODY_BYTES_MAX + 1),
        CHUNKED + b"%x\r\n" % (BODY_BYTES_MAX + 1) + b"x" * (BODY_BYTES_MAX + 1),
    ],
)
def test_an_answer_that_is_too_large_is_refused_as_soon_as_that_is_known(data: bytes) -> None:
    assert read([data]).outcome == read(bytewise(data)).outcome == "too-large"


@pytest.mark.parametrize(
    "endless",
    [
        b"HTTP/1.1 200 " + b"O" * 10**6,
        b"HTTP/1.1 100 " + b"O" * 10**6,
        CHUNKED + b"1;" + b"x" * 10**6,
        CHUNKED + b"1\r\nx\r\n0\r\n" + b"a: b\r\n" * 10**6,
    ],
    ids=["reason", "interim", "extension", "trailers"],
)
def test_what_nobody_needs_cannot_go_on_for_ever(endless: bytes) -> None:
    reading = read(endless[place : place + 1000] for place in range(0, len(endless), 1000))
    assert reading.outcome == "too-large"
    assert reading.read < 100_000


def test_many_small_chunks_are_no_fault() -> None:
    data = CHUNKED + b"1\r\nx\r\n" * BODY_BYTES_MAX + b"0\r\n\r\n"
    assert read([data]).reusable


def test_over_tls_no_answer_ends_with_its_connection() -> None:
    parser = AnswerParser("it", LIMITS, secure=True)
    assert read([OK + b"content-length: 2\r\n\r\nok"], parser=parser).reusable
    assert read([OK + b"\r\nok"], parser=parser).outcome == "broken"


def test_trailers_are_dropped() -> None:
    outcome = one(CHUNKED + b"0\r\nset-cookie: x\r\n\r\n").outcome
    assert outcome == (200, [(b"transfer-encoding", b"chunked")], b"")


def test_names_are_in_lower_case_and_values_without_blanks_around() -> None:
    outcome = one(OK + b"Content-TYPE:  a b\t \r\nX:\r\ncontent-length: 0\r\n\r\n").outcome
    assert outcome == (200, [(b"content-type", b"a b"), (b"x", b""), (b"content-length", b"0")], b"")


def test_an_answer_is_not_printed_with_what_it_says() -> None:
    assert repr(Answer(200, [(b"set-cookie", b"secret")], b"secret")) == "<Answer 200 of 6 bytes>"


def test_a_fault_of_our_own_is_not_blamed_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = AnswerParser("it", LIMITS, secure=False)
    monkeypatch.setattr(parser, "_frame", None)
    with pytest.raises(Exception, match="callback") as caught:
        read([OK + b"content-length: 2\r\n\r\nok"], parser=parser)
    assert not isinstance(caught.value, UpstreamError)


HEADERS = st.lists(
    st.tuples(st.sampled_from([b"x-a", b"X-B", b"content-type"]), st.sampled_from([b"", b"1", b"a b; c=d", b"\xe4"])),
    max_size=4,
)


@st.composite
def valid(draw: st.DrawFn, framings: tuple[str, ...]) -> tuple[bytes, Answer]:
    """An answer as bytes, and what it says."""
    status = draw(st.integers(200, 599).filter(lambda status: status not in {204, 304}))
    headers, body = draw(HEADERS), draw(st.binary(max_size=60))
    framing = draw(st.sampled_from(framings))
    if framing == "length":
        headers.append((b"Content-Length", b"%d" % len(body)))
        framed = body
    elif framing == "chunks":
        headers.append((b"transfer-encoding", b"chunked"))
        cuts = sorted({0, len(body), *draw(st.lists(st.integers(0, len(body)), max_size=4))})
        framed = b"".join(b"%x\r\n%b\r\n" % (end - begin, body[begin:end]) for begin, end in pairwise(cuts))
        framed += b"0\r\n\r\n"
    else:
        framed = body
    head = b"HTTP/1.1 %d Sure\r\n" % status + b"".join(b"%b: %b\r\n" % pair for pair in headers) + b"\r\n"
    before = INTERIM * draw(st.integers(0, 2))
    return before + head + framed, Answer(status, [(name.lower(), value) for name, value in headers], body)


@given(valid(("length", "chunks", "close")), st.lists(st.integers(0, 400), max_size=12))
def test_however_an_answer_is_cut_it_says_the_same(pair: tuple[bytes, Answer], places: list[int]) -> None:
    data, answer = pair
    cuts = sorted({0, len(data), *(min(place, len(data)) for place in places)})
    reading = read(data[begin:end] for begin, end in pairwise(cuts))
    assert (reading.outcome, reading.read) == (answer, len(data))


@given(st.lists(valid(("length", "chunks")), min_size=2, max_size=4))
def test_answers_on_one_connection_do_not_mix(pairs: list[tuple[bytes, Answer]]) -> None:
    parser = AnswerParser("it", LIMITS, secure=False)
    for data, answer in pairs:
        assert read([data], parser=parser).outcome == answer
