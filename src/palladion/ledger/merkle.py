"""RFC 6962 Merkle trees over SHA-256: hashes, roots, inclusion and consistency proofs. Pure; knows no files.

Proofs are built from a function `node(level, index)` that gives the hash of the complete subtree of 2^level leaves that
starts at leaf index · 2^level.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from hmac import compare_digest

from palladion.errors import TamperError

HASH_BYTES = 32
SIZE_MAX = 2**48  # entries; far beyond any log, and it keeps every loop below 48 rounds
EMPTY_ROOT = sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """The hash of an entry (RFC 6962 §2.1: a zero byte before it, so that no entry can pass for a node)."""
    return sha256(b"\x00" + data).digest()


def leaf_hashes(entries: Sequence[bytes]) -> list[bytes]:
    """The hash of each entry."""
    return [sha256(b"\x00" + entry).digest() for entry in entries]


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two neighbouring subtrees."""
    return sha256(b"\x01" + left + right).digest()


def list_root(hashes: Sequence[bytes]) -> bytes:
    """The root over `hashes`, which are leaves, or equal complete subtrees of which the last may be smaller."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    # pairing neighbours and carrying an odd last one upwards is the same tree as RFC 6962's split at a power of two
    while len(level) > 1:
        paired = [sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def range_hash(start: int, end: int, node: NodeReader) -> bytes:
    """The hash of leaves `start` to `end` (exclusive), a range that occurs in a tree's recursive splits."""
    size = end - start
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(size)
    return node_hash(range_hash(start, middle, node), range_hash(middle, end, node))


def tree_root(size: int, node: NodeReader) -> bytes:
    """The root of the first `size` leaves."""
    return range_hash(0, size, node) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: NodeReader) -> list[bytes]:
    """The audit path of leaf `index` in the tree of the first `size` leaves (RFC 6962 §2.1.1), from the leaf up."""
    if not 0 <= index < size <= SIZE_MAX:
        raise ValueError(f"entry {index} is not in a tree of {size}")
    path = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(range_hash(middle, end, node))
            end = middle
        else:
            path.append(range_hash(start, middle, node))
            start = middle
    return path[::-1]


def consistency_proof(old_size: int, new_size: int, node: NodeReader) -> list[bytes]:
    """The proof that the tree of `old_size` is a prefix of that of `new_size` (RFC 6962 §2.1.2)."""
    if not 0 <= old_size <= new_size <= SIZE_MAX:
        raise ValueError(f"a tree of {old_size} cannot be a prefix of one of {new_size}")
    if old_size in (0, new_size):
        return []
    path = []
    start, end = 0, new_size
    whole = True
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(range_hash(middle, end, node))
            end = middle
        else:
            path.append(range_hash(start, middle, node))
            start = middle
            whole = False
    if not whole:
        path.append(range_hash(start, end, node))
    return path[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raise TamperError unless `path` proves that `leaf` is entry `index` of the tree of `size` with `root`.

    The procedure is RFC 9162 §2.1.3.2.
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise TamperError(f"the proof is for entry {index} of a tree of {size} entries, which has no such entry")
    # 1. f and s walk up the tree: f from the leaf, s from the last leaf.
    f, s, computed = index, size - 1, leaf
    for sibling in path:
        if s == 0:
            raise TamperError(f"the proof has {len(path)} hashes, more than a tree of {size} entries is high")
        # 2. a right child, or the last node of a level without right sibling, has its sibling to the left
        if f & 1 or f == s:
            computed = node_hash(sibling, computed)
            while f & 1 == 0 and f != 0:
                f >>= 1
                s >>= 1
        else:
            computed = node_hash(computed, sibling)
        f >>= 1
        s >>= 1
    # 3. the walk ended at the root, and the root is the one that was signed
    if s != 0:
        raise TamperError(f"the proof has {len(path)} hashes, too few for a tree of {size} entries")
    if not compare_digest(computed, root):
        raise TamperError(f"entry {index} is not in the tree: the proof leads to another root")


def verify_consistency(old_size: int, new_size: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Raise TamperError unless `path` proves that the old tree is a prefix of the new one (RFC 9162 §2.1.4.2)."""
    if not 0 <= old_size <= new_size <= SIZE_MAX:
        raise TamperError(f"a tree of {new_size} entries cannot continue one of {old_size}")
    if old_size in (0, new_size):
        known = EMPTY_ROOT if old_size == 0 else new_root
        if path or not compare_digest(old_root, known):
            raise TamperError("the trees are not consistent: their roots differ at the same size")
        return
    # 1. a complete old tree is itself the first node of the proof
    nodes = list(path) if old_size & (old_size - 1) else [old_root, *path]
    if not nodes:
        raise TamperError("the consistency proof is empty")
    f, s = old_size - 1, new_size - 1
    # 2. go up to the first level at which the last node of the old tree is not a right child
    while f & 1:
        f >>= 1
        s >>= 1
    old, new = nodes[0], nodes[0]
    for sibling in nodes[1:]:
        if s == 0:
            raise TamperError("the consistency proof has too many hashes")
        if f & 1 or f == s:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while f & 1 == 0 and f != 0:
                f >>= 1
                s >>= 1
        else:
            new = node_hash(new, sibling)
        f >>= 1
        s >>= 1
    # 3. both roots come out
    if s != 0:
        raise TamperError("the consistency proof has too few hashes")
    if not compare_digest(old, old_root) or not compare_digest(new, new_root):
        raise TamperError("the trees are not consistent: the old one is no prefix of the new one")


def _split(size: int) -> int:
    """The largest power of two below `size` (RFC 6962 §2.1)."""
    return 1 << ((size - 1).bit_length() - 1)
