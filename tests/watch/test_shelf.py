"""States that were read from somewhere, and whose successors go elsewhere."""

from palladion.watch.shelf import Kept, Shelf, Unshelved


def test_what_was_read_is_found_of_an_organisation_that_is_not_known() -> None:
    shelf: Shelf = Unshelved({"a": b"state"})

    assert shelf.get("a") == Kept(None, b"state")
    assert shelf.get("b") is None
    assert list(shelf.of("acme")) == []


def test_everybody_is_pending_so_that_all_stay_in_memory() -> None:
    pending = Unshelved({"a": b"state"}).pending()

    assert "a" in pending
    assert "whoever comes" in pending
    assert (len(pending), list(pending)) == (0, [])
    assert list(Unshelved({"a": b"state"}).all()) == ["a"]
