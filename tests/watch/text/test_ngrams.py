"""Texts as vectors: likeness is kept, long texts cost no more, and nobody outside knows what is looked at."""

import numpy as np
import pytest

from palladion.watch.rows import Rows
from palladion.watch.text.ngrams import AT_ONCE, CELLS, LOOKED_BYTES, SALT_MAX, NgramHash, folded


def long_text(length: int = 20_000) -> str:
    return "".join(chr(97 + place * place % 23) + str(place) for place in range(length // 2))


def vector(text: bytes, salt: int) -> Rows:
    (found,) = NgramHash(salt).vectors([text])
    return np.asarray(found)


@pytest.mark.parametrize("letter", ["x", "é", "漢", "\U0001f600"])
def test_a_text_of_ten_megabytes_is_looked_at_in_a_few_kilobytes_with_both_ends(letter: str) -> None:
    looked = NgramHash(1).looked_at("begin" + letter * (10_000_000 // len(letter.encode())) + "end")

    assert len(looked) <= LOOKED_BYTES
    assert looked.startswith(b"begin")
    assert looked.endswith(b"end")


def test_a_text_that_fits_is_looked_at_whole() -> None:
    assert NgramHash(1).looked_at("ä" * (LOOKED_BYTES // 2)) == ("ä" * (LOOKED_BYTES // 2)).encode()


def test_what_is_looked_at_in_the_middle_depends_on_the_salt() -> None:
    first, other = (NgramHash(salt).looked_at(long_text()) for salt in (1, 2))

    assert first != other
    assert (first[:1000], first[-1000:]) == (other[:1000], other[-1000:])


def test_letters_counters_and_white_space_do_not_tell_texts_apart() -> None:
    assert folded(b"Ticket 17:\n\tHELLO") == folded(b"ticket 94:  hello") == b"ticket 00:  hello"


def test_likely_texts_have_likely_vectors_and_unit_length() -> None:
    one, near, far = NgramHash(7).vectors(
        [b"what is the capital of france", b"what is the capital of spain", b"zq 000 ;;"]
    )

    assert np.isclose(one @ one, 1)
    assert one @ near > 0.5 > abs(one @ far)


def test_order_of_pieces_hardly_matters_and_their_number_less_than_itself() -> None:
    hashing = NgramHash(7)
    once, often, other = hashing.vectors(
        [b"the river and the stone. ", b"the river and the stone. " * 20, b"copper signals"]
    )

    assert once @ often > 0.9
    assert abs(once @ other) < 0.3


def test_another_salt_gives_vectors_that_have_nothing_in_common() -> None:
    text = long_text(600).encode()

    assert abs(vector(text, 1) @ vector(text, 2)) < 0.2
    np.testing.assert_array_equal(vector(text, 1), vector(text, 1))


@pytest.mark.parametrize("text", [b"", b"a", b"ab"])
def test_a_text_without_n_grams_has_no_direction(text: bytes) -> None:
    assert not vector(text, 1).any()


@pytest.mark.parametrize("text", [b"abc", b"abcd", b"abcde", b"a" * LOOKED_BYTES, bytes(range(256))])
def test_every_other_text_has_one(text: bytes) -> None:
    found = vector(text, SALT_MAX - 1)

    assert found.shape == (CELLS,)
    # signs can cancel counts out, and a sum of fewer is left as it is
    assert 0 < found @ found <= 1 + 1e-9


def test_n_grams_spread_over_the_cells() -> None:
    found = vector(long_text(4000).encode(), 3)

    assert np.count_nonzero(found) > 0.5 * CELLS
    assert abs((found > 0).mean() - (found < 0).mean()) < 0.1


@pytest.mark.parametrize("place", [0, 3, 7])
def test_a_vector_does_not_depend_on_texts_beside_it(place: int) -> None:
    texts = [b"", b"ab", b"abc", b"", b"a river and a stone", b"abcd", b"abcde", b"x" * LOOKED_BYTES]
    turned = texts[place:] + texts[:place]

    for text, found in zip(turned, NgramHash(7).vectors(turned * AT_ONCE), strict=False):
        np.testing.assert_array_equal(found, vector(text, 7))


def test_four_letters_have_the_same_hash_wherever_they_stand() -> None:
    hashing = NgramHash(5)

    fours = hashing.hashed([b"say it", b"step", b"by step by"])[1]

    assert [place for place, found in enumerate(fours.tolist()) if found == hashing.four(b"step")] == [6, 13]
    with pytest.raises(ValueError, match="expected 4"):
        hashing.four(b"steps")


def slow_vector(text: bytes, hashing: NgramHash) -> Rows:
    """N-gram by n-gram, in whole numbers."""
    letters, counts = hashing._letters.tolist(), np.zeros(CELLS)
    for size in (3, 4, 5):
        for start in range(len(text) - size + 1):
            found = 0
            for letter in text[start : start + size]:
                found = found * 0x9E3779B1 + letters[letter]
            place = found * 0x85EBCA77 % 2**32 >> 21
            counts[place % CELLS] += -1 if place >= CELLS else 1
    roots = np.copysign(np.sqrt(np.abs(counts)), counts)
    return roots / max(1.0, float(np.linalg.norm(roots)))


@pytest.mark.parametrize("text", [b"abc", b"abcd", b"abcde" * 3, bytes(range(256))])
def test_every_n_gram_of_a_text_counts_once(text: bytes) -> None:
    hashing = NgramHash(9)

    found = hashing.vectors([b"another text", text, b"ab"])[1]

    np.testing.assert_allclose(found, slow_vector(text, hashing), atol=1e-12)
