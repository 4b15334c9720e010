"""Names of end users: one spelling for one user, and nothing that nobody sees."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access.users import BYTES_MAX, CHARACTERS_MAX, end_user_id, user_name

from .test_networks import UNSEEN


@pytest.mark.parametrize("name", ["ada", "ada@example.com", "6f1c-22", "Ada Lovelace", "a" * CHARACTERS_MAX, "Ἀθηνᾶ"])
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert user_name(name) == unicodedata.normalize("NFC", name)


def test_two_spellings_of_one_name_are_one_user() -> None:
    assert user_name("Zoe\u0308") == user_name("Zo\u00eb") == "Zo\u00eb"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="none"),
        pytest.param(" ", id="a blank"),
        pytest.param("ada ", id="a blank at the end"),
        pytest.param("\u2003ada", id="a wide blank"),
        pytest.param("a\x00da", id="NUL"),
        pytest.param("ada\n", id="a line break"),
        pytest.param("a\u200bda", id="a blank without width"),
        pytest.param("a\u202eda", id="the other direction"),
        pytest.param("a\u00adda", id="a soft hyphen"),
        pytest.param("a\ue000da", id="private use"),
        pytest.param("a\ud800da", id="half a surrogate"),
        pytest.param("a\u0378da", id="unassigned"),
        *(pytest.param(f"ada{character}", id=f"U+{ord(character):04X}") for character in UNSEEN),
        pytest.param("ada\u2800", id="an empty pattern of Braille"),
        pytest.param("a" * (CHARACTERS_MAX + 1), id="too long"),
        pytest.param("\u4e00" * CHARACTERS_MAX, id="too many bytes"),
    ],
)
def test_what_hides_or_is_too_long_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="a user's name"):
        user_name(name)


@given(st.text())
def test_a_name_that_is_taken_is_its_own_normal_form(text: str) -> None:
    try:
        name = user_name(text)
    except ValueError:
        return
    assert user_name(name) == name
    assert len(name.encode()) <= BYTES_MAX


SECRET = b"s" * 16


def test_an_id_is_of_one_reseller_one_user_one_key_and_one_secret() -> None:
    key = b"k" * 32
    ids = {
        end_user_id(key, SECRET, "acme", "ann"),
        end_user_id(key, SECRET, "globex", "ann"),
        end_user_id(key, SECRET, "acme", "bob"),
        end_user_id(b"o" * 32, SECRET, "acme", "ann"),
        end_user_id(key, b"t" * 16, "acme", "ann"),
    }
    assert len(ids) == 5
    assert all(re.fullmatch("[0-9a-f]{16}", found) for found in ids)


def test_however_a_user_is_written_the_id_is_one() -> None:
    key = b"k" * 32
    assert len({end_user_id(key, SECRET, "acme", user) for user in ("Ann", "ANN", "ａnn")}) == 1


def test_no_id_is_made_without_a_whole_key() -> None:
    with pytest.raises(ValueError, match="expected 32"):
        end_user_id(b"short", SECRET, "acme", "ann")


@pytest.mark.parametrize("secret", [b"", b"s" * 15, b"s" * 32])
def test_no_id_is_made_without_the_secret_of_a_reseller(secret: bytes) -> None:
    with pytest.raises(ValueError, match="expected 16"):
        end_user_id(b"k" * 32, secret, "acme", "ann")
