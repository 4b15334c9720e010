"""Entries with their proofs as files that a stranger checks (`palladion ledger check`)."""

from collections.abc import Iterable
from pathlib import Path

from palladion import files
from palladion.ledger.proof import encode_proof
from palladion.ledger.reader import LedgerReader

PUBLIC_FILE = 0o644  # they are made to be handed out


def evidence_of(reader: LedgerReader, number: int, *, salt: bytes | None = None) -> tuple[bytes, bytes]:
    """An entry, proved, and its proof, with the `salt` of its digests if that is told. NotFoundError, TamperError."""
    return reader.entry(number), encode_proof(number, reader.inclusion_proof(number), reader.note, salt=salt)


def write_evidence(
    folder: Path, number: int, entry: bytes, proof: bytes, *, mode: int = PUBLIC_FILE
) -> tuple[Path, Path]:
    """Write both into a folder, which is made if need be; returns where. Raises StorageError."""
    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = folder / f"entry-{number}.json", folder / f"entry-{number}.tlog-proof"
    for path, data in zip(paths, (entry, proof), strict=True):
        files.write_atomically(path, data, mode=mode)
    return paths


def write_all(reader: LedgerReader, folder: Path, numbers: Iterable[int]) -> None:
    """Write entries with their proofs into a folder, which is made also for none."""
    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        write_evidence(folder, number, *evidence_of(reader, number))
