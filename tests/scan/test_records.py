"""TFRecord files are told by the checksums of their lengths, up to their last byte."""

from palladion.scan.content import examine
from palladion.scan.look import Look
from palladion.scan.records import is_records
from palladion.scan.source import Held
from tests.scan.corpus.hidden import records


def test_records_are_told_and_a_checksum_is_known() -> None:
    data = records(b"\x09" + bytes(20)) + records(b"")
    assert data[:12] == bytes.fromhex("1500000000000000") + data[8:12]
    assert is_records(Held(data))
    assert examine(Look(examine), Held(data), "it") == "tfrecords"


def test_what_follows_or_is_changed_is_none() -> None:
    data = records(bytes(20))
    assert not is_records(Held(data + b"x"))
    assert not is_records(Held(data[:8] + bytes(4) + data[12:]))
    assert not is_records(Held(b""))
