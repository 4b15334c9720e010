"""Syslog messages, read back by a parser that knows RFC 5424 and not our code."""

import re
from typing import NamedTuple

import pytest
from hypothesis import given

from palladion.export import cef, syslog
from palladion.export.item import Item, shortened, visible
from tests.export.items import ITEMS, SOURCE, WHO, answer, item

_HEADER = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) "
)


class Message(NamedTuple):
    """The parts of a message."""

    priority: int
    time: str
    host: str
    kind: str
    data: dict[str, str]
    text: bytes


def parse(raw: bytes) -> Message:
    """The parts of `raw`; fails on what is no message with one element of structured data, or none."""
    head = _HEADER.match(raw)
    assert head is not None
    assert (head[4], head[5]) == (b"palladion", b"-")
    rest, data = raw[head.end() :], dict[str, str]()
    if rest.startswith(b"- "):
        rest = rest[2:]
    else:
        assert rest.startswith(b"[palladion@32473 ")
        rest = rest[len(b"[palladion@32473") :]
        while not rest.startswith(b"]"):
            found = re.match(rb' ([!-<>-\\^-~]{1,32})="((?:\\["\\\]]|[^"\\\]])*)"', rest)
            assert found is not None, rest[:80]
            assert found[1].decode() not in data
            data[found[1].decode()] = re.sub(r'\\(["\\\]])', r"\1", found[2].decode())
            rest = rest[found.end() :]
        assert rest.startswith(b"] ")
        rest = rest[2:]
    return Message(int(head[1]), head[2].decode(), head[3].decode(), head[6].decode(), data, rest)


def split(stream: bytes) -> list[bytes]:
    """The messages of a connection with octet counting."""
    found = []
    while stream:
        length, _, rest = stream.partition(b" ")
        assert re.fullmatch(rb"[1-9][0-9]*", length)
        found.append(rest[: int(length)])
        assert len(found[-1]) == int(length)
        stream = rest[int(length) :]
    return found


def test_a_detection_has_its_cause_and_ids() -> None:
    found = parse(syslog.encode(item("answer.refused", {"reason": "rate-limited", "requests": 7}), SOURCE))
    assert (found.data["cause"], found.data["techniques"]) == ("rate", "AML.T0040 AML.T0034 LLM10:2025")


def test_an_answer_as_a_message() -> None:
    found = parse(syslog.encode(answer(), SOURCE))
    assert (found.priority, found.host, found.kind) == (13 * 8 + 6, "gate-1.example", "answer.given")
    assert found.time == "2026-05-01T12:30:00.123999Z"
    assert found.data == {
        "entry": "7",
        "log": SOURCE.origin,
        "leaf": answer().leaf,
        "size": "1000",
        "root": SOURCE.root,
        "actor": WHO,
        "subject": "fraud@3",
        "client": WHO,
        "model": "fraud",
        "version": "3",
        "route": "/v1/fraud",
        "standing": "trusted",
    }
    assert found.text.startswith(b"\xef\xbb\xbfA request was answered; ")
    assert found.text.endswith(b'"standing":"trusted"}')


def test_the_signs_of_structured_data_are_escaped_and_no_others() -> None:
    raw = syslog.encode(item("x.y", subject='a]b"c\\d=e'), SOURCE)
    assert b' subject="a\\]b\\"c\\\\d=e"' in raw
    assert parse(raw).data["subject"] == 'a]b"c\\d=e'


def test_a_suspension_is_critical() -> None:
    assert parse(syslog.encode(item("standing.changed", {"to": "suspended"}), SOURCE)).priority == 13 * 8 + 2


def test_cef_travels_in_a_message_without_a_mark_before_it() -> None:
    found = parse(syslog.encode_cef(answer(), SOURCE))
    assert found.text == cef.encode(answer(), SOURCE)


@pytest.mark.parametrize("before", range(4))
def test_a_message_has_no_more_bytes_than_a_receiver_should_take_and_ends_in_a_character(before: int) -> None:
    long = "x" * before + "𝔘" * 10_000
    raw = syslog.encode(item("answer.given", {"route": long, "t": long}, actor=f"client:{long}", name=long), SOURCE)
    assert syslog.MESSAGE_BYTES_MAX - 4 < len(raw) <= syslog.MESSAGE_BYTES_MAX
    parse(raw).text.decode()


def test_the_worst_structured_data_leaves_room_for_a_text() -> None:
    worst = "\u202e" * 512
    raw = syslog.encode(
        item("answer.given", {"route": worst, "standing": worst}, actor=f"client:{worst}", subject=worst, name=worst),
        SOURCE,
    )
    assert len(raw) == syslog.MESSAGE_BYTES_MAX or raw.endswith(b"}")
    assert len(raw) <= syslog.MESSAGE_BYTES_MAX


@pytest.mark.slow
@given(ITEMS)
def test_no_content_breaks_a_message_or_becomes_a_parameter(found: Item) -> None:
    raw = syslog.encode(found, SOURCE)
    assert len(raw.decode().splitlines()) == 1
    message = parse(raw)
    known = {"entry", "log", "leaf", "size", "root", "actor", "subject", "client", "name", "model", "version"}
    assert message.data.keys() <= known | {"route", "standing"}
    assert message.data.get("actor", "") == visible(shortened(found.record.actor, 128))
    assert message.data["leaf"] == found.leaf
    assert message.text.startswith(b"\xef\xbb\xbf")
    assert len(raw) <= syslog.MESSAGE_BYTES_MAX


@pytest.mark.slow
@given(ITEMS, ITEMS)
def test_messages_on_a_connection_are_told_apart(one: Item, other: Item) -> None:
    messages = [encode(found, SOURCE) for found in (one, other) for encode in (syslog.encode, syslog.encode_cef)]
    assert split(b"".join(map(syslog.framed, messages))) == messages
