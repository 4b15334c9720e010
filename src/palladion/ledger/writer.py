"""Appends to a ledger. Only one process writes: it holds the lock as long as the `Ledger` is open.

An entry's life: `append` writes it to the journal and syncs (group commit: one sync for the whole batch), then it is
acknowledged with a receipt; `checkpoint` writes tiles and bundles, syncs them, replaces the signed checkpoint in one
step, and empties the journal. A crash between any two of these loses nothing that was acknowledged.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import msgspec

from palladion import files
from palladion.errors import ConflictError, FormatError, StorageError, TamperError
from palladion.keys import Signer
from palladion.ledger import merkle
from palladion.ledger.checkpoint import Checkpoint, VerifierKey, sign_checkpoint, valid_origin
from palladion.ledger.journal import JournalWriter, read_journal, start_journal
from palladion.ledger.reader import CHECKPOINT_FILE, LedgerReader
from palladion.ledger.record import Record, decode_record, encode_record
from palladion.ledger.tiles import TILE_LEVELS, TILE_WIDTH, encode_bundle, tile_path

JOURNAL_FILE = "journal"
LOCK_FILE = "lock"
UNPUBLISHED_MAX = 65_536  # entries between two checkpoints: they are held in memory
UNPUBLISHED_BYTES_MAX = 256 * 1024 * 1024  # of the journal, for the same reason: an entry may have 64 KiB
SYNCED_ALONE_MAX = 16  # files; of fewer, threads gain nothing
SYNC_THREADS = 8
BATCH_MAX = 1024  # records in one append; with 64 KiB each they fill one journal batch


class Receipt(msgspec.Struct, frozen=True):  # a frozen dataclass takes eight times as long to make
    """The promise that an entry is in the log: which log, which entry, and its leaf hash."""

    origin: str
    index: int
    leaf_hash: bytes

    def __str__(self) -> str:
        return f"{self.origin}/{self.index}"


def encode_batch(records: Sequence[Record]) -> list[bytes]:
    """The entries of one append. Raises ValueError on more than `BATCH_MAX` records, or on one that cannot be one."""
    if len(records) > BATCH_MAX:
        raise ValueError(f"{len(records)} records in one batch, at most {BATCH_MAX} are allowed")
    return [encode_record(record) for record in records]


class Ledger:
    """An open, locked ledger. After a failed write it refuses everything: open it again to recover."""

    def __init__(self, directory: Path, origin: str, signer: Signer, journal_key: bytes) -> None:
        """Lock and recover the ledger in `directory`; `journal_key`, 32 bytes, tells our journal from a forged one.

        Raises BusyError if another process holds it, TamperError if what is there does not fit together.
        """
        self.directory = directory
        self.origin = origin
        self._signer = signer
        self._journal_key = journal_key
        self._failed = False
        with ExitStack() as stack:
            stack.enter_context(files.exclusive_lock(directory / LOCK_FILE, what=f"the ledger in {directory}"))
            self._recover()
            self._lock = stack.pop_all()

    @classmethod
    def create(cls, directory: Path, origin: str, signer: Signer, journal_key: bytes) -> "Ledger":
        """Make an empty ledger in `directory` and open it. Raises ConflictError if there is one already."""
        if not valid_origin(origin):
            raise ValueError(f"{origin!r} cannot be a log's origin")
        files.make_private_directory(directory)
        if (directory / CHECKPOINT_FILE).exists():
            raise ConflictError(f"there is a ledger in {directory} already")
        with files.exclusive_lock(directory / LOCK_FILE, what=f"the ledger in {directory}"):
            start_journal(directory / JOURNAL_FILE, journal_key, 0).close()
            note = sign_checkpoint(Checkpoint(origin, 0, merkle.EMPTY_ROOT), signer)
            files.write_atomically(directory / CHECKPOINT_FILE, note)
        return cls(directory, origin, signer, journal_key)

    @property
    def size(self) -> int:
        """How many entries are acknowledged."""
        return self._size

    @property
    def published(self) -> int:
        """How many entries the last checkpoint covers."""
        return self._published

    def append(self, records: Sequence[Record]) -> list[Receipt]:
        """Append `records`, at most `BATCH_MAX`; they are on the disk when this returns, all of them.

        Raises StorageError if they cannot be written: then none is acknowledged, though a later recovery may find them.
        """
        self._require_sound()
        entries = encode_batch(records)
        if not entries:
            return []
        self._failed = True  # unless the write below succeeds
        self._journal.append(entries)
        self._failed = False
        leaves = merkle.leaf_hashes(entries)
        receipts = [Receipt(self.origin, index, leaf) for index, leaf in enumerate(leaves, self._size)]
        self._grow(entries, leaves)
        if self._size - self._published >= UNPUBLISHED_MAX or self._journal.byte_count >= UNPUBLISHED_BYTES_MAX:
            self.checkpoint()
        return receipts

    def checkpoint(self) -> bytes:
        """Publish everything acknowledged so far; returns the signed note. Raises StorageError if that fails."""
        self._require_sound()
        if self._size == self._published:
            return self._note
        self._failed = True  # unless everything below succeeds
        with files.storage_errors(self.directory):
            self._publish()
        self._failed = False
        return self._note

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A block in which nobody publishes, so that the folder can be copied: the lock sees to that already."""
        yield

    def close(self) -> None:
        """Publish a checkpoint if there is something new, and give the lock back."""
        try:
            if not self._failed:
                self.checkpoint()
        finally:
            self._journal.close()
            self._lock.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_sound(self) -> None:
        if self._failed:
            raise StorageError(
                "the ledger refuses to go on after a failed write", "mend the disk, then start again: nothing is lost"
            )

    def _recover(self) -> None:
        # 1. the published part: the signed checkpoint, and the rightmost tile of each level
        reader = LedgerReader(self.directory, VerifierKey(self.origin, self._signer.public_key))
        self._note = reader.note
        self._size = self._published = reader.size
        self._rows: list[list[bytes]] = []
        level = 0
        while count := reader.size >> (TILE_LEVELS * level):
            self._rows.append(reader.hashes(level, count // TILE_WIDTH) if count % TILE_WIDTH else [])
            level += 1
        # the next checkpoint writes these entries and hashes again, so they have to fit each other
        self._bundle = reader.checked_bundle(reader.size // TILE_WIDTH)[0] if reader.size % TILE_WIDTH else []
        self._full: list[tuple[str, bytes]] = []
        if self._root() != reader.checkpoint.root:
            raise TamperError(
                f"the ledger's tiles do not lead to its signed root of {reader.size} entries",
                "palladion ledger verify names the first entry that was changed",
            )
        # 2. the journal: entries that were acknowledged after that checkpoint
        path = self.directory / JOURNAL_FILE
        content = read_journal(path, self._journal_key)
        if not content.first <= self._size <= content.first + len(content.entries):
            raise TamperError(
                f"the journal holds entries {content.first} to {content.first + len(content.entries)}, which does not "
                f"continue the checkpoint of {self._size}: one of the two was replaced"
            )
        entries = content.entries[self._size - content.first :]
        for index, entry in enumerate(entries, self._size):
            try:
                decode_record(entry, what=f"entry {index}, in the journal,")
            except FormatError as error:
                # once under a checkpoint it could never be taken out again
                raise TamperError(error.message) from None
        self._grow(entries, merkle.leaf_hashes(entries))
        self._journal = JournalWriter(path, self._journal_key, content)

    def _grow(self, entries: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        """Put entries into the tree in memory; what becomes full is kept for the next checkpoint."""
        start = 0
        while start < len(entries):
            # the bundle and the lowest row grow together, and are full together
            end = start + TILE_WIDTH - len(self._bundle)
            self._bundle += entries[start:end]
            self._row(0).extend(leaves[start:end])
            self._size = self._size - start + min(end, len(entries))
            if len(self._bundle) == TILE_WIDTH:
                self._full.append((tile_path("entries", self._size // TILE_WIDTH - 1), encode_bundle(self._bundle)))
                self._bundle = []
                self._carry()
            start = end

    def _carry(self) -> None:
        """Turn each row that is full into a tile, and its root into the next hash of the row above."""
        level = 0
        while len(row := self._row(level)) == TILE_WIDTH:
            index = (self._size >> (TILE_LEVELS * (level + 1))) - 1
            self._full.append((tile_path(level, index), b"".join(row)))
            self._rows[level] = []
            level += 1
            self._row(level).append(merkle.list_root(row))

    def _row(self, level: int) -> list[bytes]:
        if level == len(self._rows):
            self._rows.append([])
        return self._rows[level]

    def _root(self) -> bytes:
        below: list[bytes] = []
        for row in self._rows:
            below = [merkle.list_root([*row, *below])] if row or below else []
        return below[0] if below else merkle.EMPTY_ROOT

    def _publish(self) -> None:
        # 1. tiles and bundles, on the disk before anything signed speaks of them
        written = list(self._full)
        for level, row in enumerate(self._rows):
            # above the lowest, few tiles grow: one that did not is what the checkpoint in force leads to, and stays
            if row and self._size >> (TILE_LEVELS * level) != self._published >> (TILE_LEVELS * level):
                index = self._size >> (TILE_LEVELS * (level + 1))
                written.append((tile_path(level, index, len(row)), b"".join(row)))
        if self._bundle:
            path = tile_path("entries", self._size // TILE_WIDTH, len(self._bundle))
            written.append((path, encode_bundle(self._bundle)))
        _write_durably(self.directory, written)
        # 2. the checkpoint
        note = sign_checkpoint(Checkpoint(self.origin, self._size, self._root()), self._signer)
        files.write_atomically(self.directory / CHECKPOINT_FILE, note)
        self._note, self._published = note, self._size
        # 3. the journal begins anew; until then recovery skips what the checkpoint covers
        self._journal.close()
        self._journal = start_journal(self.directory / JOURNAL_FILE, self._journal_key, self._size)
        # 4. partial tiles that are full now (tlog-tiles allows it only then)
        for path, _ in self._full:
            shutil.rmtree(self.directory / f"{path}.p", ignore_errors=True)
        self._full = []


def _write_durably(directory: Path, contents: Sequence[tuple[str, bytes]]) -> None:
    """Write files that nothing refers to yet, then sync them and every folder on the way.

    They need no atomic replacement: a reader follows only the checkpoint, and a crash before it means that they are
    written again. What the checkpoint in force leads to must not be among them.
    """
    folders = {directory}
    descriptors = []
    try:
        for path, data in contents:
            target = directory / path
            if target.parent not in folders:
                files.make_private_directory(target.parent)
            with files.storage_errors(target):
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(target, flags, files.PRIVATE_FILE)
                descriptors.append(descriptor)
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
            folder = target.parent
            while folder not in folders:
                folders.add(folder)
                folder = folder.parent
        # all writes first, then all syncs: the first sync carries most of the others along
        with files.storage_errors(directory):
            _sync(descriptors)
            for folder in sorted(folders):
                files.sync_directory(folder)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _sync(descriptors: Sequence[int]) -> None:
    """Sync files, many of them side by side: the file system then commits them together, in a fifth of the time."""
    if len(descriptors) <= SYNCED_ALONE_MAX:
        for descriptor in descriptors:
            os.fsync(descriptor)
        return
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        # raises the first error, when all have ended: nothing is closed while it is synced
        list(pool.map(os.fsync, descriptors))
