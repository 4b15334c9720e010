"""A local sealed file on its way out: verified as it is read, the same bytes in parts as in whole."""

from hashlib import sha256
from pathlib import Path

import pytest

from palladion.errors import ConflictError, FormatError, TamperError
from palladion.seal.source import FileSource
from palladion.seal.structure import read_structure
from palladion.transit.folder import FolderStore
from palladion.transit.store import Whole, after_body, before_body, beside, find, is_same, sent_pieces
from tests.seal.factories import Party
from tests.transit.factories import SEGMENT, sealed

pytestmark = pytest.mark.service  # servers on loopback


def test_pieces_are_the_file_and_so_are_its_parts(tmp_path: Path) -> None:
    made = sealed(tmp_path, segments=5)
    whole = Whole(made.path, made.publishers)
    assert b"".join(map(bytes, whole.pieces())) == made.data
    parts = [range(2), range(2, 4), range(4, 5)]
    assert b"".join(bytes(piece) for part in parts for piece in whole.pieces(part)) == made.data
    assert b"".join(map(whole.part, parts)) == made.data
    assert [whole.part_bytes(part) for part in parts] == [
        sum(len(piece) for piece in whole.pieces(part)) for part in parts
    ]
    assert whole.digest() == sha256(made.data).hexdigest()
    whole.close()
    whole.close()


def test_what_is_around_the_body_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    structure = read_structure(FileSource(made.path))
    layout = structure.layout
    assert before_body(structure) == made.data[: layout.body_offset]
    assert after_body(structure) == made.data[layout.digests_offset :]


def test_progress_tells_what_was_sent(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    whole = Whole(made.path, made.publishers)
    told: list[tuple[int, int]] = []
    for _ in sent_pieces(whole, lambda done, total: told.append((done, total))):
        pass
    assert told[-1] == (len(made.data), len(made.data))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_file_of_another_publisher_does_not_get_out(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        Whole(made.path, Party().publishers)


def test_a_damaged_segment_does_not_get_out(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    data = bytearray(made.data)
    data[SEGMENT + 5000] ^= 1
    made.path.write_bytes(data)
    whole = Whole(made.path, made.publishers)
    with pytest.raises(TamperError, match="segment 1 of 3"):
        whole.verify()
    with pytest.raises(TamperError, match="segment 1 of 3"):
        list(whole.pieces())


def test_a_file_that_changes_after_it_was_verified_does_not_get_out(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    whole = Whole(made.path, made.publishers)
    whole.verify()
    with made.path.open("r+b") as stream:
        stream.seek(2 * SEGMENT + 1000)
        stream.write(b"other")
    with pytest.raises(TamperError, match="segment 2 of 3"):
        list(whole.pieces())


def test_sidecars_are_those_that_are_there_and_small(tmp_path: Path) -> None:
    made = sealed(tmp_path)
    whole = Whole(made.path, made.publishers)
    assert whole.sidecars() == {}
    beside(made.path, ".license").write_bytes(b"licence")
    beside(made.path, ".tsr").write_bytes(b"stamp")
    beside(made.path, ".other").write_bytes(b"no business of ours")
    assert whole.sidecars() == {".license": b"licence", ".tsr": b"stamp"}
    beside(made.path, ".sig").write_bytes(bytes(4 * 1024 * 1024 + 1))
    with pytest.raises(FormatError, match="larger than"):
        whole.sidecars()


def test_what_lies_at_a_place_is_found_and_compared(tmp_path: Path) -> None:
    one, other = sealed(tmp_path, name="one"), sealed(tmp_path, name="other")
    found = find(FolderStore(one.path))
    assert found is not None
    assert is_same(found, read_structure(FileSource(one.path)))
    assert not is_same(found, read_structure(FileSource(other.path)))
    assert find(FolderStore(tmp_path / "nothing")) is None
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConflictError, match="is not a sealed file"):
        find(FolderStore(tmp_path / "text"))
