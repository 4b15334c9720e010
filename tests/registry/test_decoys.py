"""Decoys: kept as what they are recognised by, counted when they are touched, and retired for good."""

from datetime import timedelta

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import Decoy, Records, Registry, decoys
from palladion.registry.decoys import new_id


def _key(records: Records, label: str = "wiki", byte: int = 1, decoy: str = "") -> Decoy:
    prefix, key_hash = "pall_live_abcdef", bytes([byte]) * 32
    return records.decoys.add_key(
        decoy or new_id(), label, prefix=prefix, key_hash=key_hash, organisation="acme", actor="ada"
    )


def _rows(records: Records, data: bytes = b"sealed", count: int = 3) -> Decoy:
    return records.decoys.add_queries(
        new_id(), "rows", "copy of May", model="fraud", data=data, count=count, actor="ada"
    )


def test_a_key_is_found_by_its_hash_until_it_is_retired(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        made = _key(records)
        assert records.decoys.hashes() == {b"\1" * 32: made.id}
        assert records.decoys.live() == (made.id,)
        clock.advance(timedelta(hours=1))
        retired = records.decoys.retire(made.id[:5])
        assert (retired.id, retired.retired_at) == (made.id, clock.now())
        assert records.decoys.hashes() == {}
        assert records.decoys.live() == ()
        assert records.decoys.all(retired=False) == []
        assert records.decoys.all() == [retired]
        with pytest.raises(ConflictError, match="was retired on"):
            records.decoys.retire(made.id)
    assert (made.kind, made.label, made.organisation, made.prefix) == ("key", "wiki", "acme", "pall_live_abcdef")
    assert (made.model, made.count, made.touches, made.touched_at, made.incident) == (None, 1, 0, None, None)


def test_queries_are_kept_as_what_they_are_recognised_by(registry: Registry) -> None:
    with registry.write() as records:
        key, rows = _key(records), _rows(records)
        assert records.decoys.data(rows.id) == b"sealed"
        assert (rows.kind, rows.model, rows.count) == ("rows", "fraud", 3)
        for decoy in (key.id, "ff"):
            with pytest.raises(NotFoundError, match="with queries"):
                records.decoys.data(decoy)


def test_touches_are_counted_and_dated_by_the_last(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        made, first = _key(records), clock.now()
        case = records.incidents.open("decoy touched", actor="gate")
        records.decoys.touch(made.id, 2, at=first + timedelta(hours=2), incident=case.id)
        after = records.decoys.touch(made.id, 3, at=first)
    assert (after.touches, after.touched_at, after.incident) == (5, first + timedelta(hours=2), case.id)


def test_a_decoy_is_named_by_the_beginning_of_its_id(registry: Registry) -> None:
    with registry.write() as records:
        _key(records, byte=1, decoy="ab" * 8)
        _key(records, byte=2, decoy="ac" * 8)
        assert records.decoys.get("ab").id == "ab" * 8
        with pytest.raises(NotFoundError, match="2 decoys have an id that begins with 'a'"):
            records.decoys.get("a")
        for text in ("", "f", "%", "a%"):
            with pytest.raises(NotFoundError, match="no decoy with the id"):
                records.decoys.get(text)


@pytest.mark.parametrize(
    ("limit", "most", "what"),
    [
        ("LIVE_MAX", 2, "3 decoys, at most 2"),
        ("LIVE_BYTES_MAX", 11, "12 bytes of decoys, at most 11"),
        ("QUERIES_MAX", 6, "7 planted keys, rows and texts, at most 6"),
    ],
)
def test_no_more_can_be_than_a_gate_holds(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, limit: str, most: int, what: str
) -> None:
    monkeypatch.setattr(decoys, limit, most)
    with registry.write() as records:
        _key(records)
        first = _rows(records)
        with pytest.raises(ConflictError, match=what):
            _rows(records)
        # retired ones take up no room
        records.decoys.retire(first.id)
        _rows(records)


def test_what_cannot_be_a_decoy_is_refused(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoys, "DATA_BYTES_MAX", 8)
    with registry.write() as records:
        with pytest.raises(PalladionError, match="0 queries in 6 bytes"):
            _rows(records, count=0)
        with pytest.raises(PalladionError, match="3 queries in 9 bytes"):
            _rows(records, b"123456789")
        with pytest.raises(PalladionError, match="the label of a decoy is empty"):
            _key(records, label=" ")
        with pytest.raises(ValueError, match="a key's hash has 32 bytes, got 2"):
            records.decoys.add_key(new_id(), "wiki", prefix="p", key_hash=b"12", organisation=None, actor="ada")


def test_two_decoys_never_share_a_key(registry: Registry) -> None:
    with registry.write() as records:
        _key(records)
    with pytest.raises(PalladionError), registry.write() as records:
        _key(records)


def test_a_planted_file_is_found_by_the_hash_of_its_id_until_it_is_retired(registry: Registry) -> None:
    with registry.write() as records:
        key = _key(records, byte=1)
        file = records.decoys.add_file(new_id(), "file", "old disk", file_hash=b"\2" * 32, data=b"sealed", actor="ada")
        assert (file.kind, file.count, file.model, file.prefix) == ("file", 1, None, None)
        assert records.decoys.of_file(b"\2" * 32) == file
        assert records.decoys.of_file(b"\1" * 32) is None  # a key's
        assert records.decoys.hashes() == {b"\1" * 32: key.id}
        assert records.decoys.data(file.id) == b"sealed"
        records.decoys.retire(file.id)
        assert records.decoys.of_file(b"\2" * 32) is None
        with pytest.raises(ValueError, match="no kind of a sealed file"):
            records.decoys.add_file(new_id(), "rows", "x", file_hash=b"\3" * 32, data=b"", actor="ada")
        with pytest.raises(ValueError, match="32 bytes"):
            records.decoys.add_file(new_id(), "backup", "x", file_hash=b"\3", data=b"", actor="ada")
