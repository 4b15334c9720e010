"""Entries as a Parquet file, through DuckDB (the extra `export`): flat columns, row groups, little memory.

Rows go to DuckDB in pieces, as JSON lines, and wait in a database file beside the target until all of them are there:
an entry that cannot be proved leaves no file. The same entries give the same bytes with one version of DuckDB.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from palladion import files
from palladion.clock import timestamp
from palladion.errors import MissingExtraError, StorageError
from palladion.export.item import Item, Source

ROW_GROUP_ROWS = 61_440  # thirty of DuckDB's vectors: some 20 MB of records before they are compressed
PIECE_BYTES = 32 * 1024 * 1024  # of JSON lines on the disk at a time
MEMORY = "512MB"  # DuckDB spills to the scratch folder beyond
COLUMNS = {
    "entry": "BIGINT",
    "time": "TIMESTAMP",  # UTC
    "kind": "VARCHAR",
    "actor": "VARCHAR",
    "subject": "VARCHAR",
    "client": "VARCHAR",
    "name": "VARCHAR",
    "model": "VARCHAR",
    "version": "BIGINT",
    "route": "VARCHAR",
    "standing": "VARCHAR",
    "leaf": "VARCHAR",
    "details": "VARCHAR",  # JSON
}


def write_parquet(path: Path, items: Iterable[Item], source: Source) -> int:
    """Write `items` in their order, replacing `path` in one step; returns how many there are.

    Raises MissingExtraError, StorageError, and whatever `items` raises; then `path` is as it was.
    """
    duckdb = _duckdb()
    rows = (_row(item) for item in items)
    count = 0
    with files.scratch_directory(path.with_name(f".{path.name}.export")) as scratch:
        settings = {
            "threads": 1,  # several would write row groups in the order in which they are done
            "memory_limit": MEMORY,
            "temp_directory": str(scratch / "spill"),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        target = scratch / "rows.parquet"
        try:
            with duckdb.connect(str(scratch / "rows.duckdb"), config=settings) as database:
                columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
                database.execute(f"CREATE TABLE entry ({columns})")
                while written := _write_piece(scratch / "piece.json", rows):
                    _take_in(database, scratch / "piece.json")
                    count += written
                database.execute(_copy(target, source))
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise StorageError(f"{path}: the Parquet file could not be written: {reason}") from None
        with files.storage_errors(path):
            target.chmod(files.PRIVATE_FILE)
            with target.open("rb") as stream:
                os.fsync(stream.fileno())
            target.replace(path)
        files.sync_directory(path.parent)
    return count


def _write_piece(path: Path, rows: Iterator[bytes]) -> int:
    count = size = 0
    with files.storage_errors(path), path.open("wb") as stream:
        for row in rows:
            size += stream.write(row)
            count += 1
            if size >= PIECE_BYTES:
                break
    return count


def _row(item: Item) -> bytes:
    record, (model, version) = item.record, item.model
    row = {
        "entry": item.number,
        "time": timestamp(record.time).removesuffix("Z"),
        "kind": record.kind,
        "actor": record.actor,
        "subject": record.subject,
        "client": item.client,
        "name": item.name,
        "model": model,
        "version": version,
        "route": item.route,
        "standing": item.standing,
        "leaf": item.leaf,
        "details": msgspec.json.encode(record.details, order="sorted").decode(),
    }
    return msgspec.json.encode(row) + b"\n"


def _take_in(database: Any, path: Path) -> None:
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
    options = f"format = 'newline_delimited', columns = {{{columns}}}"
    database.execute(f"INSERT INTO entry SELECT * FROM read_json(?, {options})", [str(path)])  # noqa: S608  # constants


def _copy(target: Path, source: Source) -> str:
    about = {"log": source.origin, "size": str(source.size), "root": source.root, "key": source.authority}
    metadata = ", ".join(f"{name}: {_quoted(text)}" for name, text in about.items())
    options = f"FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}, KV_METADATA {{{metadata}}}"
    return f"COPY entry TO {_quoted(str(target))} ({options})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _duckdb() -> Any:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        if error.name != "duckdb":
            raise
        raise MissingExtraError("Parquet needs DuckDB", "pip install 'palladion[export]'") from None
    return duckdb
