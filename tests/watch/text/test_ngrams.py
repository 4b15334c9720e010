"""Texts as vectors: likeness is kept, long texts cost no more, and nobody outside knows what is looked at."""

import numpy as np
import pytest

from palladion.watch.text.ngrams import CELLS, LOOKED_BYTES, SALT_MAX, NgramHash, folded


def long_text(length: int = 20_000) -> str:
    return "".join(chr(97 + place * place % 23) + str(place) for place in range(length // 2))


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

    assert abs(NgramHash(1).vector(text) @ NgramHash(2).vector(text)) < 0.2
    np.testing.assert_array_equal(NgramHash(1).vector(text), NgramHash(1).vector(text))


@pytest.mark.parametrize("text", [b"", b"a", b"ab"])
def test_a_text_without_n_grams_has_no_direction(text: bytes) -> None:
    assert not NgramHash(1).vector(text).any()


@pytest.mark.parametrize("text", [b"abc", b"abcd", b"abcde", b"a" * LOOKED_BYTES, bytes(range(256))])
def test_every_other_text_has_one(text: bytes) -> None:
    vector = NgramHash(SALT_MAX - 1).vector(text)

    assert vector.shape == (CELLS,)
    # signs can cancel counts out, and a sum of fewer is left as it is
    assert 0 < vector @ vector <= 1 + 1e-9


def test_n_grams_spread_over_the_cells() -> None:
    vector = NgramHash(3).vector(long_text(4000).encode())

    assert np.count_nonzero(vector) > 0.5 * CELLS
    assert abs((vector > 0).mean() - (vector < 0).mean()) < 0.1
