"""Reads a ledger without its lock: the published checkpoint, its entries and tree nodes, and proofs from them.

Sees what the last checkpoint covers; entries after it are in the writer's journal. An entry is handed out only once its
hash, and all others of its tile, were found to lead to the signed root. Tiles and bundles as such are handed out
unproved, to `audit`, which recomputes everything.
"""

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from palladion import files
from palladion.errors import FormatError, NotFoundError, StorageError, TamperError
from palladion.ledger import merkle
from palladion.ledger.checkpoint import NOTE_BYTES_MAX, Checkpoint, VerifierKey, verify_checkpoint
from palladion.ledger.pruning import KEPT, Pruned, Prunings, kept_entries
from palladion.ledger.tiles import (
    BUNDLE_BYTES_MAX,
    TILE_BYTES_MAX,
    TILE_LEVELS,
    TILE_WIDTH,
    decode_bundle,
    decode_hashes,
    split_entries,
    tile_path,
    width_of,
)

CHECKPOINT_FILE = "checkpoint"
TILES_CACHED_MAX = 512  # 4 MiB of hashes; a proof touches a handful of tiles
NODES_CACHED_MAX = 65_536  # hashes above the lowest tiles, some 12 MB: a bundle's proof needs nearly those of the last


class LedgerReader:
    """A ledger at the state of its last checkpoint, whose signature was verified."""

    def __init__(self, directory: Path, key: VerifierKey, *, note: bytes | None = None) -> None:
        """At the last checkpoint, or at that of an earlier `note`. Raises TamperError, FormatError."""
        self.directory = directory
        self._key = key
        self.note = read_note(directory) if note is None else note
        self.checkpoint: Checkpoint = verify_checkpoint(self.note, key)
        self._tiles: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._pruned: Prunings | None = None

    @property
    def size(self) -> int:
        """How many entries the checkpoint covers."""
        return self.checkpoint.size

    @property
    def pruned(self) -> Pruned | None:
        """Until where this ledger was pruned, if it was. Raises TamperError where nothing in it says so."""
        return self._prunings().last

    def entry(self, index: int) -> bytes:
        """The bytes of entry `index`, proved.

        Raises NotFoundError if the checkpoint does not cover it, or if it was pruned; TamperError.
        """
        self._require(index)
        entry = self.bundle(index // TILE_WIDTH).get(index % TILE_WIDTH)
        if entry is None:
            found = self.pruned
            said = f": entry {found.record} says so" if found is not None else ""
            raise NotFoundError(f"entry {index} was pruned{said}", "its hash is still in the tree")
        return entry

    def entries(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Index and bytes of the entries from `start` to `end` (exclusive; without it, all), proved.

        Those that were pruned are left out. Raises TamperError at the first that cannot be proved.
        """
        end = self.size if end is None else min(end, self.size)
        for bundle in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            for place, entry in self.bundle(bundle).items():
                index = bundle * TILE_WIDTH + place
                if start <= index < end:
                    yield index, entry

    def bundle(self, index: int) -> dict[int, bytes]:
        """The entries of a bundle by their place in it, proved; those that were pruned are left out. TamperError."""
        entries, leaves = self.remaining(index)
        self._prove(index, leaves)
        return entries

    def lasting_entry(self, index: int) -> bytes:
        """As `entry`, of one that is never pruned; so this needs not know what was."""
        self._require(index)
        bundle, place = divmod(index, TILE_WIDTH)
        if (self.directory / tile_path(KEPT, bundle)).exists() and not self._has(bundle):
            kept = kept_entries(self.directory, bundle)
            leaves = self.hashes(0, bundle)
            if place not in kept or merkle.leaf_hash(kept[place]) != leaves[place]:
                raise NotFoundError(f"entry {index} was not kept")
            self._prove(bundle, leaves)
            return kept[place]
        entries, leaves = self.checked_bundle(bundle)
        self._prove(bundle, leaves)
        return entries[place]

    def tail(self, count: int) -> list[tuple[int, bytes]]:
        """The last `count` entries, oldest first, proved. Raises TamperError."""
        return list(self.entries(max(0, self.size - count)))

    def inclusion_proof(self, index: int) -> list[bytes]:
        """The audit path of entry `index` to the checkpoint's root."""
        self._require(index)
        return merkle.inclusion_proof(index, self.size, self.node)

    def consistency_proof(self, old_size: int) -> list[bytes]:
        """The proof that the tree of `old_size` entries is a prefix of this one."""
        return merkle.consistency_proof(old_size, self.size, self.node)

    def root_at(self, size: int) -> bytes:
        """The root over the first `size` entries, from the tiles as they are."""
        return merkle.tree_root(size, self.node)

    def node(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree, from the tile that holds it or its descendants."""
        found = self._nodes.get((level, index))
        if found is not None:
            return found
        tile_level, above = divmod(level, TILE_LEVELS)
        first = index << above
        count = 1 << above
        hashes = self.hashes(tile_level, first // TILE_WIDTH)
        start = first % TILE_WIDTH
        found = merkle.list_root(hashes[start : start + count])
        if tile_level and above:
            if len(self._nodes) >= NODES_CACHED_MAX:
                self._nodes.clear()
            self._nodes[level, index] = found
        return found

    def hashes(self, level: int, index: int) -> list[bytes]:
        """The hashes of a tile."""
        key = (level, index)
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        width = width_of(index, self.size >> (TILE_LEVELS * level))
        data, found = self._read(level, index, width, TILE_BYTES_MAX)
        hashes = decode_hashes(data, found, what=f"tile {tile_path(level, index, found)}")[:width]
        self._tiles[key] = hashes
        if len(self._tiles) > TILES_CACHED_MAX:
            self._tiles.popitem(last=False)
        return hashes

    def checked_bundle(self, index: int) -> tuple[list[bytes], list[bytes]]:
        """The entries of a bundle and their leaf hashes, which are those of the tile beside it.

        Raises TamperError naming the first entry that does not fit. The tile itself may be forged all the same.
        """
        width = width_of(index, self.size)
        data, found = self._read("entries", index, width, BUNDLE_BYTES_MAX)
        stored = self.hashes(0, index)
        problem = ""
        try:
            entries = decode_bundle(data, found, what=f"bundle {tile_path('entries', index, found)}")[:width]
        except FormatError as error:
            # the hashes still say where it begins to be another one
            entries, problem = split_entries(data, width)[0], error.message
        leaves = merkle.leaf_hashes(entries)
        if leaves == stored and not problem:
            return entries, leaves
        place = next((i for i, leaf in enumerate(leaves) if leaf != stored[i]), len(leaves))
        entry = index * TILE_WIDTH + place
        if not problem:
            raise TamperError(f"entry {entry} was changed: it does not fit its hash in the tree")
        if place < width:
            problem += f": entry {entry} was removed, cut, or another was put in before it"
        raise TamperError(problem)

    def remaining(self, index: int) -> tuple[dict[int, bytes], list[bytes]]:
        """As `checked_bundle`, by place; of a bundle that was pruned, what was kept of it."""
        if not self._is_pruned(index):
            entries, leaves = self.checked_bundle(index)
            return dict(enumerate(entries)), leaves
        stored, kept = self.hashes(0, index), self._prunings().kept(index)
        for place, entry in kept.items():
            if merkle.leaf_hash(entry) != stored[place]:
                number = index * TILE_WIDTH + place
                raise TamperError(f"entry {number} was changed: it does not fit its hash in the tree")
        return kept, stored

    def check_prunings(self) -> None:
        """Raise TamperError unless each pruning is on record, with digests of what was kept."""
        self._prunings().check()

    def _has(self, index: int) -> bool:
        return (self.directory / tile_path("entries", index)).exists()

    def _is_pruned(self, index: int) -> bool:
        if width_of(index, self.size) < TILE_WIDTH or self._has(index):
            return False
        # where this one is not covered, somebody may be pruning at this moment
        return self._covers(index) or self._covers(index, again=True)

    def _covers(self, index: int, *, again: bool = False) -> bool:
        last = self._prunings(again=again).last
        return last is not None and (index + 1) * TILE_WIDTH <= last.until

    def _prunings(self, *, again: bool = False) -> Prunings:
        if self._pruned is None or again:
            # what was pruned since an earlier checkpoint is said after that
            self._pruned = Prunings(LedgerReader(self.directory, self._key))
        return self._pruned

    def _prove(self, index: int, leaves: list[bytes]) -> None:
        first, last = index * TILE_WIDTH, index * TILE_WIDTH + len(leaves) - 1
        # the path of one leaf is made of all others of its tile, so it proves them too
        path = self.inclusion_proof(first)
        try:
            merkle.verify_inclusion(leaves[0], first, self.size, path, self.checkpoint.root)
        except TamperError:
            raise TamperError(
                f"entries {first} to {last} do not lead to the signed root: one of them was changed, "
                "together with its hash, or a tile above them was",
                "palladion ledger verify says which",
            ) from None

    def _read(self, level: int | str, index: int, width: int, bytes_max: int) -> tuple[bytes, int]:
        """A tile's bytes and width: the partial one, or the full one if the log has grown since our checkpoint."""
        path = self.directory / tile_path(level, index, width)
        full = self.directory / tile_path(level, index)
        if path != full and not path.exists() and full.exists():
            path, width = full, TILE_WIDTH
        if not path.exists():
            # the checkpoint is signed, so the file was here
            raise TamperError(f"the ledger lacks {path.relative_to(self.directory)}, which its checkpoint covers")
        return files.read_limited(path, size_max=bytes_max, what="the ledger's tile"), width

    def _require(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise NotFoundError(f"no entry {index}: the checkpoint covers entries 0 to {self.size - 1}")


def read_note(directory: Path) -> bytes:
    """The signed note of the last checkpoint, not verified. Raises TamperError if there is none: no ledger lacks it."""
    path = directory / CHECKPOINT_FILE
    try:
        return files.read_limited(path, size_max=NOTE_BYTES_MAX, what="the ledger's checkpoint")
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise TamperError(f"there is no {path}: it was removed, or the folder holds no ledger") from None
        raise
