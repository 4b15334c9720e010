"""Shares of a secret: enough give it back, fewer nothing, and each mistake has a sentence."""

from itertools import combinations

import pytest

from palladion.approvals import shares as room
from palladion.approvals.shares import WORDS, join, split
from palladion.errors import FormatError, KeysError, MissingExtraError

pytest.importorskip("shamir_mnemonic", reason="this needs the split extra")
SECRET = bytes(range(32))


@pytest.fixture(scope="module")
def made() -> list[str]:
    return split(SECRET, shares=4, needed=3)


def test_any_as_many_as_are_needed_give_the_secret_back(made: list[str]) -> None:
    assert all(len(text.split()) == WORDS for text in made)
    assert all(join(chosen) == SECRET for chosen in combinations(reversed(made), 3))
    assert join([f"  {made[0].upper()}\n", *made[1:]]) == SECRET


def test_fewer_do_not(made: list[str]) -> None:
    for chosen in (made[:2], [made[0], made[0], made[1]]):
        with pytest.raises(KeysError, match="2 different shares were given, 3 are needed"):
            join(chosen)
    with pytest.raises(KeysError, match="no share"):
        join([])


def test_shares_of_two_splits_are_told(made: list[str]) -> None:
    with pytest.raises(KeysError, match="different splits"):
        join([*made[:2], split(SECRET, shares=4, needed=3)[2]])


def test_a_wrong_word_is_told_without_quoting_it(made: list[str]) -> None:
    words = made[1].split()
    wrong = "academic" if words[9] != "academic" else "zero"
    for text in (" ".join([*words[:9], wrong, *words[10:]]), " ".join(words[:-1]), "not a share", "x" * 5000):
        with pytest.raises(FormatError, match="share 2 is none") as caught:
            join([made[0], text, made[2]])
        assert words[0] not in caught.value.message.split()
        assert caught.value.__context__ is None  # the library's own message quotes words


@pytest.mark.parametrize(("count", "needed"), [(3, 1), (2, 3), (17, 2), (0, 0)])
def test_numbers_that_make_no_sense_are_refused(count: int, needed: int) -> None:
    with pytest.raises(KeysError, match="shares were asked for"):
        split(SECRET, shares=count, needed=needed)
    with pytest.raises(ValueError, match="32"):
        split(b"short", shares=3, needed=2)


def test_without_the_library_there_is_an_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(room, "import_module", missing)
    with pytest.raises(MissingExtraError, match="shamir-mnemonic") as caught:
        split(SECRET, shares=3, needed=2)
    assert caught.value.hints == ("pip install 'palladion[split]'",)
