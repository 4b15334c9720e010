"""Requests to model servers: what is written, and what never is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.gate.upstream.request import METHODS, RESERVED, TARGET_BYTES_MAX, Headers, RequestWriter

HEAD_BYTES_MAX = 32 * 1024


def writer(headers: Headers = ()) -> RequestWriter:
    return RequestWriter("models.test", headers, head_bytes_max=HEAD_BYTES_MAX)


def test_a_request_is_written_by_us_alone() -> None:
    request = writer([(b"Authorization", b"Bearer k")]).write(b"POST", b"/v1?a=b", [(b"x-id", b"1 2")], b"{}")
    assert request.head == (
        b"POST /v1?a=b HTTP/1.1\r\nhost: models.test\r\naccept-encoding: identity\r\nAuthorization: Bearer k\r\n"
        b"x-id: 1 2\r\ncontent-length: 2\r\n\r\n"
    )
    assert request.body == b"{}"
    assert "Bearer" not in repr(request)


def test_only_requests_that_may_have_a_body_announce_its_length() -> None:
    assert b"content-length: 0\r\n" in writer().write(b"POST", b"/", [], b"").head
    assert b"content-length" not in writer().write(b"GET", b"/", [], b"").head
    with pytest.raises(ValueError, match="body does not go with GET"):
        writer().write(b"GET", b"/", [], b"x")


def test_only_head_is_answered_by_a_head() -> None:
    assert [method for method in METHODS if writer().write(method, b"/", [], b"").head_only] == [b"HEAD"]


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"get", b"", b"GET / HTTP/1.1\r\nx: y\r\n\r\nGET"])
def test_other_methods_are_refused(method: bytes) -> None:
    with pytest.raises(ValueError, match="method"):
        writer().write(method, b"/", [], b"")


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"v1",
        b"http://other.test/",
        b"*",
        b"/a b",
        b"/a\r\nx: y",
        b"/a#b",
        b"/\xff",
        b"/\0",
        b"/" * (TARGET_BYTES_MAX + 1),
    ],
)
def test_other_targets_are_refused(target: bytes) -> None:
    with pytest.raises(ValueError, match="target"):
        writer().write(b"GET", target, [], b"")


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"\xe4", b"a\0", b"(a)"])
def test_names_that_are_no_tokens_are_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="name of a header"):
        writer().write(b"GET", b"/", [(name, b"v")], b"")
    with pytest.raises(ValueError, match="name of a header"):
        writer([(name, b"v")])


@pytest.mark.parametrize("end", [b"\r\nb: c", b"\nb", b"\rb", b"\0b", b" ", b"\t", b"\xe4", b"\x7f"])
def test_values_that_end_or_are_no_ascii_are_refused_and_not_shown(end: bytes) -> None:
    value = b"secret" + end
    for write in (lambda: writer().write(b"GET", b"/", [(b"key", value)], b""), lambda: writer([(b"key", value)])):
        with pytest.raises(ValueError, match="value of key is not printable") as caught:
            write()
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_what_frames_a_request_is_written_by_nobody_else(name: bytes) -> None:
    for spelt in (name, name.upper()):
        with pytest.raises(ValueError, match="written by us"):
            writer().write(b"GET", b"/", [(spelt, b"v")], b"")


def test_a_clients_key_never_goes_beside_ours() -> None:
    with pytest.raises(ValueError, match="goes with every request already"):
        writer([(b"Authorization", b"ours")]).write(b"GET", b"/", [(b"AUTHORIZATION", b"theirs")], b"")


def test_a_head_is_bounded() -> None:
    with pytest.raises(ValueError, match="a head has at most"):
        writer().write(b"GET", b"/", [(b"a", b"b" * HEAD_BYTES_MAX)], b"")


@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=3), st.binary(max_size=8))
def test_no_header_or_target_adds_a_line(headers: list[tuple[bytes, bytes]], target: bytes) -> None:
    try:
        head = writer().write(b"GET", b"/" + target, headers, b"").head
    except ValueError:
        return
    assert head.count(b"\n") == head.count(b"\r\n") == head.count(b"\r") == 4 + len(headers)
    assert head.count(b"\r\n\r\n") == 1
    assert b"\0" not in head
