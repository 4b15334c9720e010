"""Merkle trees against RFC 6962's definition and its reference vectors."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import TamperError
from palladion.ledger import merkle

# The eight leaves and roots of the Certificate Transparency reference implementation (google/certificate-transparency,
# merkle tests), which RFC 6962 implementations share as known answers.
LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def oracle_root(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1, word for word."""
    if not hashes:
        return merkle.EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return merkle.node_hash(oracle_root(hashes[:k]), oracle_root(hashes[k:]))


def oracle_path(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """RFC 6962 §2.1.1, word for word."""
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m < k:
        return [*oracle_path(m, hashes[:k]), oracle_root(hashes[k:])]
    return [*oracle_path(m - k, hashes[k:]), oracle_root(hashes[:k])]


def oracle_subproof(m: int, hashes: Sequence[bytes], complete: bool) -> list[bytes]:
    """RFC 6962 §2.1.2, word for word."""
    if m == len(hashes):
        return [] if complete else [oracle_root(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if m <= k:
        return [*oracle_subproof(m, hashes[:k], complete), oracle_root(hashes[k:])]
    return [*oracle_subproof(m - k, hashes[k:], False), oracle_root(hashes[:k])]


def leaves(size: int) -> list[bytes]:
    return [merkle.leaf_hash(str(number).encode()) for number in range(size)]


class Node:
    """A node reader over leaves in memory that insists on complete subtrees."""

    def __init__(self, hashes: Sequence[bytes]) -> None:
        self._hashes = hashes

    def __call__(self, level: int, index: int) -> bytes:
        subtree = self._hashes[index << level : (index + 1) << level]
        assert len(subtree) == 1 << level
        return oracle_root(subtree)


def test_the_roots_of_the_reference_vectors_come_out() -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in LEAVES]
    for size, root in enumerate(ROOTS, 1):
        assert merkle.list_root(hashes[:size]).hex() == root
        assert merkle.tree_root(size, Node(hashes)).hex() == root
    assert merkle.EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.slow
def test_every_proof_of_every_small_tree_is_that_of_the_rfc_and_verifies() -> None:
    hashes = leaves(70)
    for size in range(1, 71):
        root = oracle_root(hashes[:size])
        assert merkle.list_root(hashes[:size]) == root
        for index in range(size):
            path = merkle.inclusion_proof(index, size, Node(hashes))
            assert path == oracle_path(index, hashes[:size])
            merkle.verify_inclusion(hashes[index], index, size, path, root)
        for old in range(size + 1):
            path = merkle.consistency_proof(old, size, Node(hashes))
            assert path == ([] if old == 0 else oracle_subproof(old, hashes[:size], True))
            merkle.verify_consistency(old, size, oracle_root(hashes[:old]), root, path)


@given(st.integers(1, 300), st.data())
def test_a_changed_inclusion_proof_is_caught(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    index = data.draw(st.integers(0, size - 1))
    path = merkle.inclusion_proof(index, size, Node(hashes))
    root = oracle_root(hashes)
    changes = [
        (hashes[index], (index + 1) % size, path, root),
        (merkle.leaf_hash(b"forged"), index, path, root),
        (hashes[index], index, [*path, root], root),
        (hashes[index], index, path, merkle.leaf_hash(b"other root")),
    ]
    if path:
        place = data.draw(st.integers(0, len(path) - 1))
        changes.append((hashes[index], index, path[:-1], root))
        changes.append((hashes[index], index, [*path[:place], root, *path[place + 1 :]], root))
    if size == 1:
        changes.pop(0)  # index 0 again
    for leaf, at, proof, expected in changes:
        with pytest.raises(TamperError):
            merkle.verify_inclusion(leaf, at, size, proof, expected)


@given(st.integers(2, 300), st.data())
def test_a_changed_consistency_proof_is_caught(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    old = data.draw(st.integers(1, size - 1))
    path = merkle.consistency_proof(old, size, Node(hashes))
    old_root, root = oracle_root(hashes[:old]), oracle_root(hashes)
    place = data.draw(st.integers(0, len(path) - 1))
    wrong = merkle.leaf_hash(b"wrong")
    changes = [
        (wrong, root, path),
        (old_root, wrong, path),
        (old_root, root, [*path, wrong]),
        (old_root, root, path[:-1]),
        (old_root, root, [*path[:place], wrong, *path[place + 1 :]]),
    ]
    for before, after, proof in changes:
        with pytest.raises(TamperError):
            merkle.verify_consistency(old, size, before, after, proof)


def test_proofs_about_trees_of_the_same_size_or_none_need_no_hashes() -> None:
    root, other = leaves(2)
    merkle.verify_consistency(0, 5, merkle.EMPTY_ROOT, root, [])
    merkle.verify_consistency(5, 5, root, root, [])
    for arguments in (
        (0, 5, other, root, []),
        (5, 5, other, root, []),
        (5, 5, root, root, [other]),
        (6, 5, root, root, []),
    ):
        with pytest.raises(TamperError):
            merkle.verify_consistency(*arguments)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (0, merkle.SIZE_MAX + 1)])
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    with pytest.raises(TamperError, match="no such entry"):
        merkle.verify_inclusion(b"", index, size, [], b"")
    with pytest.raises(ValueError, match="is not in a tree"):
        merkle.inclusion_proof(index, size, Node([]))
