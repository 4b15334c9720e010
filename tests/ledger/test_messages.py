"""The messages of the admin socket: exact fields, known operations, bounded frames."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import errors
from palladion.errors import BusyError, FormatError, PalladionError, StorageError
from palladion.ledger import messages
from palladion.ledger.messages import (
    Acknowledged,
    Append,
    AskPolicy,
    AskStatus,
    Done,
    Failed,
    Freeze,
    Opened,
    PolicyInForce,
    PolicyReloaded,
    PublishCheckpoint,
    Published,
    ReceiptRow,
    Receipts,
    RecordRow,
    ReloadPolicy,
    Status,
    Thaw,
    Thawed,
    Write,
    decode_failure,
    decode_records,
    decode_reply,
    decode_request,
    encode_failure,
    encode_frame,
    encode_records,
    frame_length,
)
from palladion.ledger.record import Record, encode_record
from palladion.ledger.tiles import ENTRY_BYTES_MAX
from palladion.ledger.writer import BATCH_MAX

from .ledgers import record

ROW = ["model.opened", "2026-05-01T00:00:00.000000Z", "user:test", "fraud@1", {"n": 1}]
REQUESTS = [
    (Write(), b'{"op":"write"}'),
    (
        Append([RecordRow("model.opened", "2026-05-01T00:00:00.000000Z", "user:test", "fraud@1", {"n": 1})]),
        b'{"op":"append","records":' + msgspec.json.encode([ROW]) + b"}",
    ),
    (PublishCheckpoint(), b'{"op":"checkpoint"}'),
    (Freeze(), b'{"op":"freeze"}'),
    (Thaw(), b'{"op":"thaw"}'),
    (Done(), b'{"op":"done"}'),
    (AskStatus(), b'{"op":"status"}'),
    (AskPolicy(), b'{"op":"settings"}'),
    (ReloadPolicy("user:test"), b'{"op":"policy","actor":"user:test"}'),
]
REPLIES = [
    (Opened("ledger.example/test", 3), b'{"re":"opened","origin":"ledger.example/test","size":3}'),
    (Receipts([ReceiptRow(3, b"\x00" * 3)]), b'{"re":"receipts","receipts":[[3,"AAAA"]]}'),
    (Published(b"note"), b'{"re":"published","note":"bm90ZQ=="}'),
    (Thawed(held=True), b'{"re":"thawed","held":true}'),
    (Acknowledged(), b'{"re":"acknowledged"}'),
    (PolicyInForce({"gate": {}}), b'{"re":"settings","settings":{"gate":{}}}'),
    (PolicyReloaded("1f", [{"a": 1}]), b'{"re":"policy","digest":"1f","changes":[{"a":1}]}'),
    (Status({"routes": 2}), b'{"re":"status","status":{"routes":2}}'),
    (Failed("BusyError", "no", ["wait"]), b'{"re":"failed","kind":"BusyError","message":"no","hints":["wait"]}'),
]


@pytest.mark.parametrize(("message", "body"), REQUESTS, ids=lambda value: type(value).__name__)
def test_requests_read_as_they_are_written(message: messages.Request, body: bytes) -> None:
    assert encode_frame(message) == len(body).to_bytes(4, "big") + body
    assert decode_request(body) == message


@pytest.mark.parametrize(("message", "body"), REPLIES, ids=lambda value: type(value).__name__)
def test_replies_read_as_they_are_written(message: messages.Reply, body: bytes) -> None:
    assert encode_frame(message) == len(body).to_bytes(4, "big") + body
    assert decode_reply(body) == message


def _append(row: list[Any]) -> bytes:
    return msgspec.json.encode({"op": "append", "records": [row]})


BROKEN = {
    "empty": b"",
    "no-json": b"write",
    "no-object": b'["write"]',
    "no-operation": b"{}",
    "unknown-operation": b'{"op":"shell"}',
    "operation-of-a-reply": b'{"re":"opened","origin":"x","size":1}',
    "field-too-many": b'{"op":"write","force":true}',
    "field-missing": b'{"op":"append"}',
    "half": b'{"op":"wri',
    "more-after-it": b'{"op":"write"}{"op":"done"}',
    "row-too-short": _append(ROW[:4]),
    "row-too-long": _append([*ROW, 1]),
    "row-of-wrong-types": _append([1, *ROW[1:]]),
    "details-no-object": _append([*ROW[:4], []]),
    "not-utf-8": b'{"op":"\xff"}',
    "deep": b'{"op":"append","records":[["a","b","c","d",{"e":' + b"[" * 100_000,
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(FormatError, match="the admin socket got no request"):
        decode_request(body)


@given(st.sampled_from([body for _, body in REQUESTS + REPLIES]), st.data())
def test_changed_bytes_are_another_message_or_refused_and_nothing_else_happens(
    body: bytes, data: st.DataObject
) -> None:
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(body))] * 2)))
    changed = body[:start] + data.draw(st.binary(max_size=8)) + body[end:]
    for decode in (decode_request, decode_reply):
        with suppress(FormatError):
            assert encode_frame(decode(changed))


def test_a_frame_beyond_the_limit_is_refused_by_its_header() -> None:
    assert frame_length(b"\x04\x00\x00\x00") == messages.FRAME_BYTES_MAX
    with pytest.raises(FormatError, match="a frame of 67108865 bytes"):
        frame_length(b"\x04\x00\x00\x01")
    with pytest.raises(FormatError, match="at most 10 are allowed"):
        frame_length(b"\x00\x00\x00\x0b", bytes_max=10)
    with pytest.raises(ValueError, match="at most 67108864 are allowed"):
        encode_frame(Status({"x": "x" * messages.FRAME_BYTES_MAX}))


def test_the_largest_batch_fits_into_a_frame() -> None:
    largest = record(0, "x" * (ENTRY_BYTES_MAX - len(encode_record(record(0)))))
    assert len(encode_record(largest)) == ENTRY_BYTES_MAX
    one, none = len(encode_frame(encode_records([largest]))), len(encode_frame(encode_records([])))
    assert none + BATCH_MAX * (one - none + len(",")) <= messages.FRAME_BYTES_MAX


def test_records_arrive_as_they_were_sent() -> None:
    sent = [record(1, "ü"), Record("model.opened", datetime(2026, 1, 2, tzinfo=UTC), "", "", {"a": [1, None, {}]})]
    request = decode_request(encode_frame(encode_records(sent))[4:])
    assert isinstance(request, Append)
    assert decode_records(request) == sent


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["model.stolen", *ROW[1:]], "no kind of record"),
        ([ROW[0], "2026-05-01T00:00:00Z", *ROW[2:]], "not a canonical timestamp"),
        ([*ROW[:2], "x" * 513, *ROW[3:]], "at most 512 characters"),
        ([*ROW[:4], {"p": 0.5}], "float has no canonical form"),
        ([*ROW[:4], {"t": "x" * 66_000}], "at most 65535 fit"),
    ],
    ids=["kind", "time", "actor", "float", "size"],
)
def test_a_record_that_a_local_ledger_would_refuse_is_refused(row: list[Any], reason: str) -> None:
    request = decode_request(_append(row))
    assert isinstance(request, Append)
    with pytest.raises(ValueError, match=reason):
        decode_records(request)


def test_more_records_than_fit_one_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 1024"):
        decode_records(encode_records([record(0)] * (BATCH_MAX + 1)))


@pytest.mark.parametrize("kind", [BusyError, StorageError, FormatError, errors.UnsupportedFormatError])
def test_an_error_arrives_as_the_kind_it_was(kind: type[PalladionError]) -> None:
    error = decode_failure(encode_failure(kind("it is so", "do this", "or that")))
    assert type(error) is kind
    assert (error.message, error.hints) == ("it is so", ("do this", "or that"))


def test_a_mistake_in_a_call_arrives_as_a_value_error_and_an_unknown_kind_as_the_base() -> None:
    error = decode_failure(encode_failure(ValueError("nested deeper than 32")))
    assert (type(error), str(error)) == (ValueError, "nested deeper than 32")
    assert type(decode_failure(Failed("KeyboardInterrupt", "it is so", []))) is PalladionError
