"""Leases on disk: whole or not at all, private, and ended by a command while the broker runs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from palladion.broker import leases as module
from palladion.broker.leases import Lease, Leases
from palladion.clock import timestamp
from palladion.errors import BusyError, NotFoundError, StorageError

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def lease(number: int = 1, **changes: Any) -> Lease:
    values = {
        "id": f"{number:032x}", "client": "c", "name": "acme/web", "model": "fraud", "version": 1, "file_id": "ab" * 16,
        "header_digest": "cd" * 32, "recipient": "lab", "purpose": "exec", "machine": "", "approval": "",
        "made": timestamp(NOW), "until": timestamp(NOW + timedelta(minutes=30)), "end": "",
    }  # fmt: skip
    return Lease(**{**values, **changes})


def test_leases_are_kept_renewed_and_forgotten_when_they_have_ended(tmp_path: Path) -> None:
    kept = Leases(tmp_path)
    assert kept.all() == []
    kept.put(lease(1), now=NOW)
    renewed = lease(1).prolonged(NOW + timedelta(hours=1))
    kept.put(renewed, now=NOW, known=True)
    assert kept.all() == [renewed]
    kept.put(lease(2, until=timestamp(NOW + timedelta(hours=3))), now=NOW + timedelta(hours=1))
    assert [one.id for one in kept.all()] == [f"{2:032x}"]
    assert (tmp_path / "broker" / "leases.json").stat().st_mode & 0o077 == 0


def test_a_lease_goes_on_to_its_end_at_most() -> None:
    end = NOW + timedelta(minutes=40)

    assert lease(end=timestamp(end)).prolonged(NOW + timedelta(hours=1)).ends_at == end


def test_an_ended_lease_is_nobody_s_and_is_not_renewed(tmp_path: Path) -> None:
    kept = Leases(tmp_path)
    kept.put(lease(), now=NOW)

    assert kept.get(lease().id, client="c") == lease()
    with pytest.raises(NotFoundError):
        kept.get(lease().id, client="d")
    assert kept.end(lease().id) == lease()
    with pytest.raises(NotFoundError):
        kept.end(lease().id)
    with pytest.raises(NotFoundError):
        kept.put(lease(), now=NOW, known=True)


def test_neither_one_client_nor_all_take_more_than_their_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OWNED_MAX", 2)
    monkeypatch.setattr(module, "LEASES_MAX", 3)
    kept = Leases(tmp_path)
    for number in (1, 2):
        kept.put(lease(number), now=NOW)
    with pytest.raises(BusyError):
        kept.put(lease(3), now=NOW)
    kept.put(lease(2), now=NOW, known=True)
    kept.put(lease(3, client="d"), now=NOW)
    with pytest.raises(BusyError):
        kept.put(lease(4, client="e"), now=NOW)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"leases":[{}],"v":1}', b'{"leases":[],"v":2}', b'{"v":1, "leases":[]}']
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, data: bytes) -> None:
    kept = Leases(tmp_path)
    kept.put(lease(), now=NOW)
    (tmp_path / "broker" / "leases.json").write_bytes(data)

    with pytest.raises(StorageError):
        kept.all()
