"""The evaluation keys that are kept."""

from palladion.gate.encrypted.shelf import Shelf
from palladion.gate.encrypted.workers import Keys


def keys(name: str, size: int = 10) -> Keys:
    return Keys(name, bytes(size - 1), b"s")


def test_keys_are_there_for_who_sent_them_and_for_nobody_else() -> None:
    shelf = Shelf(bytes_max=100, per_client=2)
    shelf.put("a", "p", keys("k"))
    assert shelf.get("a", "p", "k") is not None
    assert shelf.get("b", "p", "k") is None
    assert shelf.get("a", "q", "k") is None


def test_a_client_keeps_its_newest_and_takes_no_room_of_others() -> None:
    shelf = Shelf(bytes_max=1000, per_client=2)
    shelf.put("b", "p", keys("k"))
    for name in ("1", "2", "3"):
        shelf.put("a", "p", keys(name))
    assert [shelf.get("a", "p", name) is None for name in ("1", "2", "3")] == [True, False, False]
    assert shelf.get("b", "p", "k") is not None


def test_what_was_used_longest_ago_goes_first() -> None:
    shelf = Shelf(bytes_max=25, per_client=2)
    shelf.put("a", "p", keys("k"))
    shelf.put("b", "p", keys("k"))
    assert shelf.get("a", "p", "k") is not None
    shelf.put("c", "p", keys("k"))
    assert shelf.get("b", "p", "k") is None
    assert shelf.get("a", "p", "k") is not None
    assert shelf.bytes == 20


def test_the_same_keys_again_are_counted_once() -> None:
    shelf = Shelf(bytes_max=100, per_client=1)
    for _ in range(3):
        shelf.put("a", "p", keys("k"))
    assert shelf.bytes == 10


def test_keys_of_a_program_that_is_gone_are_let_go() -> None:
    shelf = Shelf(bytes_max=100, per_client=2)
    shelf.put("a", "p", keys("k"))
    shelf.put("a", "q", keys("k"))
    shelf.keep({"q"})
    assert (shelf.get("a", "p", "k"), shelf.bytes) == (None, 10)


def test_one_client_cannot_take_the_room_of_all() -> None:
    shelf = Shelf(bytes_max=512, per_client=2)
    shelf.put("b", "p", keys("k", 1))
    shelf.put("c", "p", keys("k", 100))
    for program in ("p", "q", "r"):
        for name in ("1", "2"):
            shelf.put("a", program, keys(name, 236))
    assert shelf.get("b", "p", "k") is not None
    assert shelf.get("c", "p", "k") is not None
    assert shelf.get("a", "r", "2") is not None
    assert shelf.bytes == 337
