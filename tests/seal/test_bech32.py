"""Text forms of keys: BIP-350's own examples, round trips, and typing mistakes."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.seal.bech32 import decode_groups, decode_key, encode_key

# BIP-350, "Test vectors for Bech32m", valid strings; the text form here is stricter only in what `decode_key` adds
VALID = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
]
# from the same list of invalid strings: character outside the prefix's range, too long, no prefix, wrong checksum
INVALID = [
    "\x201xj0phk",
    "\x7f1g6xzxy",
    "1qyrz8wqd2c9m",
    "qyrz8wqd2c9m",
    "y1b0jsk6g",
    "lt1igcx5c0",
    "in1muywd",
    "mm1crxm3i",
]


LONG = bytes(range(64)) * 19  # a post-quantum key has 1,216 bytes


@pytest.mark.parametrize("text", VALID)
def test_published_texts_hold(text: str) -> None:
    prefix, _ = decode_groups(text, what="it")
    assert prefix == text.lower().rpartition("1")[0]


@pytest.mark.parametrize("text", [*INVALID, "a1LQFN3A", "", "1", VALID[2] + "q"])
def test_broken_texts_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"^it "):
        decode_groups(text, what="it")


@given(key=st.binary(min_size=32, max_size=32), tag=st.sampled_from(["", "x", "e"]))
def test_keys_survive_the_round_trip_in_both_cases(key: bytes, tag: str) -> None:
    text = encode_key("pallr", key, tag=tag)
    assert text.startswith(f"pallr1{tag}")
    assert decode_key(text, "pallr", tag=tag, what="it") == decode_key(text.upper(), "pallr", tag=tag, what="it") == key


@given(key=st.binary(min_size=32, max_size=32), place=st.integers(0), character=st.sampled_from("qpzry9x8gf2tvdw0s3jn"))
def test_one_wrong_character_is_found(key: bytes, place: int, character: str) -> None:
    text = encode_key("pallr", key, tag="x")
    place %= len(text)
    mistyped = text[:place] + character + text[place + 1 :]
    if mistyped != text:
        with pytest.raises(FormatError):
            decode_key(mistyped, "pallr", tag="x", what="it")


@pytest.mark.parametrize(
    ("prefix", "tag", "key_bytes"), [("pallp", "x", 32), ("pallr", "e", 32), ("pallr", "x", 31), ("pallr", "", 32)]
)
def test_a_key_of_another_kind_or_length_is_refused(prefix: str, tag: str, key_bytes: int) -> None:
    text = encode_key("pallr", bytes(32), tag="x")
    with pytest.raises(FormatError):
        decode_key(text, prefix, tag=tag, key_bytes=key_bytes, what="it")


def test_spare_bits_must_be_zero() -> None:
    # one byte takes two groups, of which two bits are spare; a tag puts any groups there
    assert decode_groups(encode_key("a", b"\x01"), what="it") == ("a", [0, 4])
    assert decode_key(encode_key("a", b"", tag="qy"), "a", key_bytes=1, what="it") == b"\x01"
    for groups in ("qx", "q9", "qyq"):
        with pytest.raises(FormatError, match="does not hold 1 bytes"):
            decode_key(encode_key("a", b"", tag=groups), "a", key_bytes=1, what="it")


def test_a_text_is_long_only_where_its_kind_says_so() -> None:
    text = encode_key("pallr", LONG, tag="h")
    with pytest.raises(FormatError, match="1959 characters, more than the 90 allowed"):
        decode_key(text, "pallr", tag="h", key_bytes=1216, what="it")
    with pytest.raises(FormatError, match="more than the 1958 allowed"):
        decode_key(text, "pallr", tag="h", key_bytes=1216, characters_max=1958, what="it")
    assert decode_key(text, "pallr", tag="h", key_bytes=1216, characters_max=1959, what="it") == LONG


@pytest.mark.slow
@given(st.dictionaries(st.integers(6, 1958), st.integers(1, 31), min_size=1, max_size=3))
def test_three_wrong_characters_are_found_in_a_long_text(mistakes: dict[int, int]) -> None:
    # but for the pair of the next test
    assume(not (len(mistakes) == 2 and max(mistakes) - min(mistakes) == 1023 and len(set(mistakes.values())) == 1))
    with pytest.raises(FormatError, match="mistyped"):
        decode_groups(_mistyped(encode_key("pallr", LONG, tag="h"), mistakes), characters_max=1959, what="it")


def test_two_like_mistakes_at_the_distance_of_the_codes_length_cancel_out() -> None:
    mistyped = _mistyped(encode_key("pallr", LONG, tag="h"), {100: 9, 1123: 9})
    assert decode_groups(mistyped, characters_max=1959, what="it")[0] == "pallr"


def test_refusals_do_not_quote_the_text() -> None:
    text = encode_key("palladion-identity-x25519-", b"\x07" * 32).upper()
    with pytest.raises(FormatError) as refusal:
        decode_key(text[:-1] + ("Q" if text[-1] != "Q" else "P"), "palladion-identity-x25519-", what="it")
    assert text[30:50] not in str(refusal.value)


def _mistyped(text: str, mistakes: dict[int, int]) -> str:
    """`text` with the five bits of some characters, by place, changed by others."""
    characters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    return "".join(
        characters[characters.index(character) ^ mistakes[place]] if place in mistakes else character
        for place, character in enumerate(text)
    )
