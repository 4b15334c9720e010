"""API keys: format, typing errors, hashes, and that none is ever printed."""

import re
import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.access import identity
from palladion.access.identity import (
    hash_api_key,
    key_hasher,
    key_prefix,
    new_api_key,
    parse_api_key,
    verify_api_key,
)
from palladion.errors import KeysError

PEPPER = bytes(range(32))
# The checksum is CRC-32 as gzip's trailer gives it (`printf … | gzip -c | tail -c8`: 3e8649ec, little-endian), turned
# into base 62 by `bc`: 04 20 17 34 18 34.
KNOWN = "pall_live_0123456789ABCDEFGHIJKLMNOPQR4KHYIY"
# openssl mac -macopt hexkey:0001…1f -macopt custom:pall/client-key -macopt size:32 -in FILE BLAKE2BMAC (OpenSSL 3.0.19)
KNOWN_HASH = "0878e60b7173230ba460d12bb3929d60babec936b77fafe7b564fb6f4830e054"

environments = st.from_regex(r"[a-z0-9]{1,16}", fullmatch=True)
random_parts = st.text(identity.BASE62, min_size=identity.RANDOM_CHARACTERS, max_size=identity.RANDOM_CHARACTERS)
bodies = st.builds(lambda environment, random: f"pall_{environment}_{random}", environments, random_parts)
keys = bodies.map(lambda body: body + identity._checksum(body))
characters = st.sampled_from(string.ascii_letters + string.digits + "_- ")


def test_the_known_key_is_accepted_and_hashed_as_openssl_does() -> None:
    key = parse_api_key(KNOWN)
    assert key.environment == "live"
    assert hash_api_key(PEPPER, key).hex() == KNOWN_HASH


@given(environments)
def test_a_new_key_parses_back(environment: str) -> None:
    key = new_api_key(environment)
    parsed = parse_api_key(key.text)
    assert (parsed.text, parsed.environment) == (key.text, environment)
    assert len(key.text) <= identity.KEY_CHARACTERS_MAX


@given(keys, st.data())
def test_every_wrong_character_is_caught(text: str, data: st.DataObject) -> None:
    parse_api_key(text)
    place = data.draw(st.integers(0, len(text) - 1))
    wrong = data.draw(characters.filter(lambda character: character != text[place]))
    with pytest.raises(KeysError):
        parse_api_key(text[:place] + wrong + text[place + 1 :])


@given(keys, st.data())
def test_swapped_neighbours_are_caught(text: str, data: st.DataObject) -> None:
    last = len(text) - identity.CHECKSUM_CHARACTERS - 1
    places = [place for place in range(last) if text[place] != text[place + 1]]
    place = data.draw(st.sampled_from(places))
    with pytest.raises(KeysError):
        parse_api_key(text[:place] + text[place + 1] + text[place] + text[place + 2 :])


@given(st.text(max_size=80))
def test_other_text_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(KeysError) as caught:
        parse_api_key("zz" + text + "zz")
    assert "zz" not in caught.value.message


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: f" {text}", lambda text: f"{text}\n", lambda text: text[:-1]]
)
def test_only_the_exact_spelling_is_accepted(change: Callable[[str], str]) -> None:
    with pytest.raises(KeysError):
        parse_api_key(change(KNOWN))


def test_a_hostile_length_is_refused_before_it_is_read() -> None:
    with pytest.raises(KeysError, match="1000000 characters, at most 56 were expected"):
        parse_api_key("a" * 1_000_000)


@pytest.mark.parametrize("environment", ["", "Live", "a_b", "a" * 17, "ä"])
def test_an_environment_that_no_key_can_name_is_the_callers_mistake(environment: str) -> None:
    with pytest.raises(ValueError, match="were expected"):
        new_api_key(environment)


def test_new_keys_differ_and_hold_at_least_128_bits_that_are_never_shown() -> None:
    keys = {new_api_key("test").text for _ in range(100)}
    assert len(keys) == 100
    hidden = identity.RANDOM_CHARACTERS - identity.SHOWN_CHARACTERS
    assert 62**hidden >= 2**128


def test_a_key_does_not_print_itself() -> None:
    key = parse_api_key(KNOWN)
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert "0123" not in shown
        assert "4KHYIY" not in shown


def test_the_prefix_shows_the_environment_and_six_characters() -> None:
    assert key_prefix(parse_api_key(KNOWN)) == "pall_live_012345"


def test_keys_are_not_compared_by_equality() -> None:
    assert parse_api_key(KNOWN) != parse_api_key(KNOWN)


def test_a_secret_scanner_can_find_keys_by_their_shape() -> None:
    found = re.search(r"pall_[a-z0-9]{1,16}_[0-9A-Za-z]{34}", f"api_key = '{new_api_key('live').text}'")
    assert found is not None


def test_the_right_key_is_verified_and_handed_back() -> None:
    key = new_api_key("live")
    assert verify_api_key(PEPPER, key, hash_api_key(PEPPER, key)) is key


@given(st.integers(0, 8 * 32 - 1))
def test_a_hash_with_one_flipped_bit_is_refused(bit: int) -> None:
    key = parse_api_key(KNOWN)
    wrong = (int.from_bytes(hash_api_key(PEPPER, key)) ^ (1 << bit)).to_bytes(32)
    with pytest.raises(KeysError, match="pall_live_012345… is not the one on record") as caught:
        verify_api_key(PEPPER, key, wrong)
    assert KNOWN not in caught.value.message


def test_another_pepper_gives_another_hash() -> None:
    key = parse_api_key(KNOWN)
    with pytest.raises(KeysError):
        verify_api_key(bytes(32), key, hash_api_key(PEPPER, key))


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_pepper_of_another_length_is_the_callers_mistake(size: int) -> None:
    with pytest.raises(ValueError, match=f"has {size} bytes, expected 32"):
        hash_api_key(bytes(size), parse_api_key(KNOWN))


def test_the_hasher_for_many_gives_the_same_hashes() -> None:
    digest = key_hasher(PEPPER)
    assert digest(KNOWN.encode()).hex() == KNOWN_HASH
    assert digest(KNOWN.encode()).hex() == KNOWN_HASH
    with pytest.raises(ValueError, match="31 bytes"):
        key_hasher(PEPPER[:-1])
