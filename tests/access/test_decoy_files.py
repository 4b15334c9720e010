"""Ids of planted files are keyed, and their places sealed: the registry alone tells neither."""

import pytest

from palladion.access.decoy_files import PLACES_MAX, file_hash, open_places, seal_places
from palladion.errors import FormatError, TamperError

KEY, OTHER = bytes(32), bytes(range(32))
PLACES = ["s3://models/fraud-prod.sealed", "https://files.example/x"]


def test_an_id_has_one_hash_under_one_key() -> None:
    assert file_hash(KEY, "ab") == file_hash(KEY, "ab")
    assert len({file_hash(KEY, "ab"), file_hash(KEY, "ac"), file_hash(OTHER, "ab")}) == 3
    with pytest.raises(ValueError, match="32"):
        file_hash(b"short", "ab")


def test_places_come_back_to_their_decoy_alone() -> None:
    sealed = seal_places(KEY, "d1", PLACES)
    assert open_places(KEY, "d1", sealed) == PLACES
    assert b"models" not in sealed
    assert seal_places(KEY, "d1", PLACES) != sealed
    for key, decoy, data in ((OTHER, "d1", sealed), (KEY, "d2", sealed), (KEY, "d1", sealed[:-1] + b"\0")):
        with pytest.raises(TamperError, match="changed"):
            open_places(key, decoy, data)
    with pytest.raises(FormatError, match="no sealed place"):
        open_places(KEY, "d1", b"PDR1" + bytes(40))


@pytest.mark.parametrize("places", [[], ["x"] * (PLACES_MAX + 1), [""], ["x" * 3000]])
def test_places_are_bounded(places: list[str]) -> None:
    with pytest.raises(FormatError, match="1 to 16 places"):
        seal_places(KEY, "d1", places)
