"""Slugs, lines, notes and digests: what is let in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import PalladionError
from palladion.registry import names


@given(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True))
def test_a_slug_is_handed_back(text: str) -> None:
    assert names.slug(text, what="the name") == text


@pytest.mark.parametrize(
    "text", ["", ".", "..", "-a", "_a", "A", "a b", "a/b", "a\n", "ä", "a\x00", "٣", "a" * 65, "ⅷ", "a\\b"]
)
def test_what_is_no_slug_is_refused(text: str) -> None:
    with pytest.raises(PalladionError, match="the name"):
        names.slug(text, what="the name")


def test_a_refused_name_comes_with_one_that_would_do() -> None:
    with pytest.raises(PalladionError) as caught:
        names.slug("Fraud Model (2026)", what="the name")
    assert caught.value.hints == ("fraud-model-2026 would be allowed",)
    assert names.slug("fraud-model-2026", what="the name")


@pytest.mark.parametrize("text", ["", "  ", "a\nb", "\x1b[31mred", "\u202eevil", "a\x00", "a" * 201, "\ud800"])
def test_what_would_upset_a_listing_is_no_label(text: str) -> None:
    with pytest.raises(PalladionError, match="the owner"):
        names.label(text, what="the owner")


def test_a_label_may_be_in_any_script() -> None:
    assert names.label("Ödön von Horváth, 研究所", what="the owner") == "Ödön von Horváth, 研究所"


def test_a_note_may_be_empty_and_have_lines() -> None:
    assert names.note("", what="the note") == ""
    assert names.note("two\nlines", what="the note") == "two\nlines"


@pytest.mark.parametrize("text", ["\x1b[2J", "a\rb", "a" * 2001])
def test_a_note_holds_no_control_characters_and_ends(text: str) -> None:
    with pytest.raises(PalladionError, match="the note"):
        names.note(text, what="the note")


@pytest.mark.parametrize("text", ["", "a b", "abcd", "a\n"])
def test_a_token_is_one_short_word(text: str) -> None:
    with pytest.raises(PalladionError, match="the key"):
        names.token(text, what="the key", characters_max=3)


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n"])
def test_a_wrong_digest_is_the_callers_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal digits were expected"):
        names.digest(text, what="the digest")


def test_a_choice_names_what_was_possible() -> None:
    with pytest.raises(PalladionError, match="the role is 'king', one of viewer, admin was expected"):
        names.one_of("king", ("viewer", "admin"), what="the role")


def test_an_unknown_name_comes_with_those_that_look_like_it() -> None:
    error = names.not_found("model", "digts", ["digits", "digit", "fraud"])
    assert error.message == "no model 'digts'"
    assert error.hints == ("did you mean digits or digit?",)


def test_an_unknown_name_among_none_says_so() -> None:
    assert names.not_found("model", "digits", []).message == "no model 'digits': there is none at all"
