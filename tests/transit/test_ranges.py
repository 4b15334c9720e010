"""A file by ranges: one and the same file in every answer, or a refusal; retries go on where they broke off."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from palladion.errors import FormatError, NotFoundError, StorageError
from palladion.seal.source import read
from palladion.transit.connection import Limits
from palladion.transit.ranges import FILE_BYTES_MAX, HEAD_BYTES, NoRangesError, WebSource
from palladion.transit.url import parse_url
from palladion.transit.web import Web
from tests.transit.factories import IMPATIENT, QUICK
from tests.transit.servers import Handler, Hook, Shelf, after, answering, hang_up, only, serving

pytestmark = pytest.mark.service  # servers on loopback

CONTENT = os.urandom(300_000)


def _open(shelf: Shelf, path: str = "/x", *, limits: Limits = QUICK) -> WebSource:
    return WebSource(Web(limits), lambda _fresh: (parse_url(shelf.url(path)), {}), "it")


def _lying(**changes: Any) -> Hook:
    """The right bytes under a head that says something else."""

    def hook(handler: Handler) -> bool:
        data = handler.shelf.files[handler.place]
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        last = min(last, len(data) - 1)
        headers = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "ETag": handler.shelf.etag(handler.place)}
        body = data[first : last + 1]
        for name, value in changes.items():
            headers[name.replace("_", "-")] = value.format(first=first, last=last, size=len(data))
        handler.answer(206, headers, body)
        return True

    return hook


def test_any_range_is_read_and_the_first_answer_brings_size_and_head() -> None:
    with serving({"/x": CONTENT}) as shelf:
        source = _open(shelf)
        assert (source.size, source.head) == (len(CONTENT), CONTENT[:HEAD_BYTES])
        assert shelf.gets() == [f"0-{HEAD_BYTES - 1}"]
        assert read(source, 1000, 250_000) == CONTENT[250_000:251_000]
        assert read(source, 0, 5) == b""
        assert read(source, 1, len(CONTENT) - 1) == CONTENT[-1:]
        source.close()
        source.close()


def test_a_file_smaller_than_the_first_range_is_read() -> None:
    with serving({"/x": b"tiny"}) as shelf:
        assert (_open(shelf).size, _open(shelf).head) == (4, b"tiny")


def test_what_lies_beyond_the_end_is_not_asked_for() -> None:
    with serving({"/x": b"tiny"}) as shelf:
        source = _open(shelf)
        with pytest.raises(FormatError, match="has 4 bytes, fewer than"):
            read(source, 4, 1)
        assert len(shelf.asked) == 1


def test_a_missing_file_is_told() -> None:
    with serving() as shelf, pytest.raises(NotFoundError, match="it does not exist"):
        _open(shelf)


def test_an_empty_file_is_told() -> None:
    with serving({"/x": b""}) as shelf, pytest.raises(FormatError, match="it is empty"):
        _open(shelf)


def test_a_server_without_ranges_is_refused_with_a_way_out() -> None:
    with serving({"/x": CONTENT}) as shelf:
        shelf.ranges = False
        with pytest.raises(NoRangesError, match="whole files only") as caught:
            _open(shelf)
        assert "palladion pull" in caught.value.hints[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Content_Range": "bytes 1-{last}/{size}"}, "sends bytes 1 to"),
        ({"Content_Range": "bytes {first}-9/{size}"}, "asked for were"),
        ({"Content_Range": "bytes {first}-{last}/*"}, "does not say which bytes"),
        ({"Content_Range": "bytes {first}-{last}/-1"}, "does not say which bytes"),
        ({"Content_Range": "nonsense"}, "does not say which bytes"),
        ({"Content_Range": "bytes {first}-{last}/1" + "0" * 14}, "at most"),
        ({"Content_Range": "bytes {first}-{last}/1" + "0" * 400}, "does not say which bytes"),
        ({"Content_Encoding": "gzip"}, "comes compressed"),
        ({"Content_Length": "5"}, "announces 5 bytes"),
        ({"Content_Length": "99999999"}, "announces 99999999 bytes"),
    ],
)
def test_a_head_that_lies_is_refused(changes: dict[str, str], reason: str) -> None:
    with serving({"/x": CONTENT}, _lying(**changes)) as shelf, pytest.raises(FormatError, match=reason):
        _open(shelf)


def test_the_largest_size_that_a_sealed_file_can_have_is_the_limit() -> None:
    with serving({"/x": CONTENT}, _lying(Content_Range=f"bytes {{first}}-{{last}}/{FILE_BYTES_MAX}")) as shelf:
        assert _open(shelf).size == FILE_BYTES_MAX
    with (
        serving({"/x": CONTENT}, _lying(Content_Range=f"bytes {{first}}-{{last}}/{FILE_BYTES_MAX + 1}")) as shelf,
        pytest.raises(FormatError, match="at most"),
    ):
        _open(shelf)


def test_a_server_that_sends_another_range_than_asked_is_refused() -> None:
    with serving({"/x": CONTENT}, after("GET", 1, _lying(Content_Range="bytes 0-99/{size}"))) as shelf:
        source = _open(shelf)
        with pytest.raises(FormatError, match="sends bytes 0 to 99, asked for were 100000 to 100099"):
            read(source, 100, 100_000)


def test_a_range_without_length_that_goes_on_is_refused() -> None:
    def endless(handler: Handler) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 100-199/{len(CONTENT)}")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(100):
            handler.send(b"1000\r\n" + bytes(4096) + b"\r\n")
        handler.close_connection = True
        return True

    with serving({"/x": CONTENT}, after("GET", 1, endless)) as shelf:
        source = _open(shelf)
        with pytest.raises(FormatError, match="more than it announced"):
            read(source, 100, 100)


def _swap(handler: Handler) -> bool:
    handler.shelf.files["/x"] = os.urandom(len(CONTENT))
    return False


def _ignoring_conditions(handler: Handler) -> bool:
    del handler.headers["If-Match"]
    return False


@pytest.mark.parametrize("obedient", [True, False], ids=["honours If-Match", "ignores If-Match"])
def test_a_file_swapped_between_two_ranges_is_noticed(obedient: bool) -> None:
    hooks: list[Hook] = [only("GET", 1, _swap)]
    if not obedient:
        hooks.append(_ignoring_conditions)
    with serving({"/x": CONTENT}, *hooks) as shelf:
        source = _open(shelf)
        with pytest.raises(FormatError, match="replaced by another file"):
            read(source, 100, 100_000)
        assert shelf.headers[1]["If-Match"].startswith('"')


def test_a_file_that_changes_its_size_is_noticed_without_any_tag() -> None:
    def grow(handler: Handler) -> bool:
        handler.shelf.files["/x"] += b"more"
        return False

    with serving({"/x": CONTENT}, only("GET", 1, grow)) as shelf:
        shelf.etags = False
        source = _open(shelf)
        with pytest.raises(FormatError, match="replaced by another file"):
            read(source, 100, 100_000)


def test_times_serve_where_there_is_no_tag() -> None:
    times = iter(["Mon, 01 Jan 2026 00:00:00 GMT", "Mon, 01 Jan 2026 00:00:00 GMT", "Tue, 02 Jan 2026 00:00:00 GMT"])

    def dated(handler: Handler) -> bool:
        return _lying(Last_Modified=next(times), ETag="")(handler)

    with serving({"/x": CONTENT}, dated) as shelf:
        source = _open(shelf)
        read(source, 100, 100_000)
        assert shelf.headers[1]["If-Unmodified-Since"].startswith("Mon")
        with pytest.raises(FormatError, match="replaced by another file"):
            read(source, 100, 100_000)


def test_a_weak_tag_is_compared_and_not_asked_for() -> None:
    with serving({"/x": CONTENT}, _lying(ETag='W/"1"')) as shelf:
        source = _open(shelf)
        read(source, 100, 100_000)
        assert "If-Match" not in shelf.headers[1]
        shelf.hooks[:] = [_lying(ETag='W/"2"')]
        with pytest.raises(FormatError, match="replaced by another file"):
            read(source, 100, 100_000)


def _broken_off_after(count: int) -> Hook:
    def hook(handler: Handler) -> bool:
        first, last = map(int, handler.headers["Range"].removeprefix("bytes=").split("-"))
        data = handler.shelf.files[handler.place]
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        handler.send_header("Content-Length", str(last - first + 1))
        handler.end_headers()
        handler.send(data[first : first + count])
        return hang_up(handler)

    return hook


def test_a_range_that_breaks_off_goes_on_where_it_did() -> None:
    content = os.urandom(2**20)
    with serving({"/x": content}, only("GET", 1, _broken_off_after(700_000))) as shelf:
        source = _open(shelf)
        assert read(source, 900_000, 100_000) == content[100_000:1_000_000]
        first, second = (int(asked.partition("-")[0]) for asked in shelf.gets()[1:])
        # what was received in whole pieces is not asked for again
        assert (first, 100_000 < second <= 800_000) == (100_000, True)


def test_interruptions_end_after_some_attempts_with_pauses() -> None:
    waited: list[float] = []
    with serving({"/x": CONTENT}, after("GET", 1, answering(503, {"Retry-After": "3"}))) as shelf:
        source = _open(shelf, limits=replace(QUICK, wait=waited.append))
        with pytest.raises(StorageError, match="503 Service Unavailable"):
            read(source, 100, 100_000)
        assert len(shelf.asked) == 1 + QUICK.attempts
    assert waited == [3, 3, 3]


def test_a_server_that_always_breaks_off_is_given_up() -> None:
    with serving({"/x": CONTENT}, after("GET", 1, _broken_off_after(10))) as shelf:
        source = _open(shelf)
        with pytest.raises(StorageError, match="broke off"):
            read(source, 100_000, 100_000)
        assert len(shelf.asked) == 1 + QUICK.attempts


def test_a_range_that_drips_is_given_up_whatever_the_attempts() -> None:
    def drip(handler: Handler) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes 100-199/{len(CONTENT)}")
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        while not handler.shelf.over.wait(0.02) and not handler.close_connection:
            handler.send(b"x")
        return True

    with serving({"/x": CONTENT}, after("GET", 1, drip)) as shelf:
        source = _open(shelf, limits=IMPATIENT)
        with pytest.raises(StorageError, match="too slow"):
            read(source, 100, 100)


def _expiring(status: int) -> tuple[Hook, Callable[[bool], tuple[Any, dict[str, str]]], list[bool]]:
    asked: list[bool] = []

    def hook(handler: Handler) -> bool:
        return (
            handler.headers.get("Authorization") == "old"
            and len(asked) < 2
            and handler.shelf.gets() != [f"0-{HEAD_BYTES - 1}"]
            and answering(status)(handler)
        )

    def locate(fresh: bool) -> tuple[Any, dict[str, str]]:
        asked.append(fresh)
        return None, {"Authorization": "new" if fresh else "old"}

    return hook, locate, asked


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_that_expires_meanwhile_is_asked_for_again(status: int) -> None:
    hook, locate, asked = _expiring(status)
    with serving({"/x": CONTENT}, hook) as shelf:
        url = parse_url(shelf.url("/x"))
        source = WebSource(Web(QUICK), lambda fresh: (url, locate(fresh)[1]), "it")
        assert read(source, 100, 100_000) == CONTENT[100_000:100_100]
        assert asked == [False, True]
        assert shelf.headers[-1]["Authorization"] == "new"


def test_after_a_redirect_its_target_is_asked_and_gets_no_credentials() -> None:
    with serving({"/y": CONTENT}) as store, serving({}, answering(302, {"Location": store.url("/y")})) as shelf:
        url = parse_url(shelf.url("/x"))
        source = WebSource(Web(QUICK), lambda _fresh: (url, {"Authorization": "secret"}), "it")
        assert read(source, 100, 100_000) == CONTENT[100_000:100_100]
        assert len(shelf.asked) == 1
        assert not any("Authorization" in headers for headers in store.headers)
        # the target's address has expired: the way there is asked for again
        store.hooks.append(only("GET", 0, answering(403)))
        assert read(source, 100, 100_000) == CONTENT[100_000:100_100]
        assert len(shelf.asked) == 2
