"""When retained bodies are erased: each so many days after it was asked, those with marks later than the others.

Of a body with a mark the number of its cell stays, without anything else: were it forgotten, a later query of the cell
would pass for its first, and its client may have chosen it by the answer to the real one (`sampling`). A file is
replaced in one step, under a new key; after a crash it is the old one or the new one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from palladion import files
from palladion.ledger.bodies import body_path
from palladion.ledger.body import Body, decode_body, encode_body
from palladion.ledger.body_file import make_head, read_content, read_data, write_content
from palladion.ledger.record import Record


@dataclass(frozen=True)
class Days:
    """How long bodies stay: `unmarked` days, and at least as long with a mark."""

    unmarked: int
    marked: int

    def cut(self, now: datetime) -> tuple[float, float]:
        """What was asked before, without and with a mark, is due; in seconds since 1970."""
        unmarked, marked = (now - timedelta(days=days) for days in (self.unmarked, self.marked))
        return unmarked.timestamp(), marked.timestamp()


def is_due(folder: Path, key: bytes, name: tuple[str, str], days: Days, now: datetime) -> bool:
    """Whether anything in the file of a client and version is to be erased now.

    Reads no further than the first query that is not old. Raises as `read_retained`.
    """
    path = body_path(folder, *name)
    cut = days.cut(now)
    undated: set[bool] = set()  # whether they have marks, of those before the next one with a time
    for data in read_data(path, key, name):
        if not data:
            continue
        body = decode_body(data, what=str(path))
        undated.add(body.strength > 0)
        if body.at == 0:
            continue
        if body.at >= cut[False]:
            return False
        if any(body.at < cut[is_marked] for is_marked in undated):
            return True
        undated.clear()
    return any(_changed(path) < cut[is_marked] for is_marked in undated)


def expire(folder: Path, key: bytes, name: tuple[str, str], days: Days, now: datetime) -> int:
    """Erase what is due in a file, which nobody else may have open for writing; how many bodies that were.

    A file with nothing left is deleted. Raises as `read_retained`, and StorageError.
    """
    path = body_path(folder, *name)
    content = read_content(path, key, name)
    level = content.sample().level
    kept = content.at(level)
    found = _dated([data for _, data in kept], path)
    cut = days.cut(now)
    left: list[tuple[int, bytes]] = []
    erased = 0
    for (priority, data), body in zip(kept, found, strict=True):
        if body is None:
            left.append((priority, data))
        elif body.at >= cut[body.strength > 0]:
            left.append((priority, encode_body(body)))
        else:
            erased += 1
            if body.strength > 0:
                left.append((priority, b""))
    if not erased:
        return 0
    if left:
        head = make_head(content.capacity, level, late=content.late)
        write_content(path, key, name, head, left)
    else:
        _delete(path)
    return erased


def expired_record(bodies: int, clients: int, days: Days, *, actor: str, subject: str, now: datetime) -> Record:
    """What the ledger keeps of one time that bodies were erased."""
    details: dict[str, Any] = {
        "bodies": bodies,
        "clients": clients,
        "days": days.unmarked,
        "marked_days": days.marked,
    }
    return Record("bodies.expired", now, actor, subject, details)


def _dated(entries: Sequence[bytes], path: Path) -> list[Body | None]:
    """The bodies, None for one that was erased. One without a time is as old as the next that has one, or the file."""
    at = _changed(path)
    found: list[Body | None] = []
    for data in reversed(entries):
        body = decode_body(data, what=str(path)) if data else None
        if body is not None and body.at == 0:
            body = replace(body, at=at)
        at = at if body is None else body.at
        found.append(body)
    return found[::-1]


def _changed(path: Path) -> float:
    with files.storage_errors(path):
        return path.stat().st_mtime


def _delete(path: Path) -> None:
    with files.storage_errors(path):
        path.unlink()
        files.sync_directory(path.parent)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
            files.sync_directory(path.parent.parent)
