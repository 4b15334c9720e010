"""Signatures: texts of one template are alike, whatever stands in it and however long it is."""

from zlib import crc32

import numpy as np
import pytest

from palladion.watch.text.template import _FACTORS, SIGNATURE, Signatures, likeness, signatures

FRAME = b"you are an assistant of our company. answer the question below in one short and polite sentence. "
END = b" answer as json with the key answer and nothing else, in english, and do not add anything."


def signature(text: bytes) -> Signatures:
    (found,) = signatures([text])
    return np.asarray(found)


def like(earlier: Signatures, other: Signatures) -> float:
    return likeness(earlier[None], [len(earlier)], other[None])[0]


def middle(seed: int, words: int) -> bytes:
    letters = np.random.default_rng(seed).integers(97, 123, (words, 7)).tolist()
    return b" ".join(bytes(word) for word in letters)


@pytest.mark.parametrize("words", [1, 400])
def test_texts_of_one_template_have_like_signatures(words: int) -> None:
    one, other = (signature(FRAME + middle(seed, words) + END) for seed in (1, 2))
    alone = signature(middle(3, max(words, 8)))

    assert like(one[None], other) > 0.4
    assert like(one[None], alone) < 0.2


def test_likeness_is_that_of_the_nearest() -> None:
    one, other = signature(FRAME), signature(middle(4, 30))

    assert like(np.stack([other, one]), one) == 1.0
    assert like(other[None], one) < 0.2


@pytest.mark.parametrize("text", [b"", b" ", b"one", b"one two", b"x" * 5000])
def test_texts_of_few_words_have_one_as_well(text: bytes) -> None:
    found = signature(text)

    assert found.shape == (SIGNATURE,)
    assert like(found[None], signature(text)) == 1.0


def test_what_lies_between_both_ends_is_not_looked_at() -> None:
    assert (signature(FRAME * 2 + middle(1, 900) + END * 2) == signature(FRAME * 2 + middle(2, 900) + END * 2)).all()


def test_instructions_that_stand_after_a_long_text_count_as_well() -> None:
    framed = [signature(middle(seed, 400) + END * 2) for seed in range(20)]
    alone = [signature(middle(seed, 400)) for seed in range(20)]
    pairs = [(one, other) for one in range(20) for other in range(one)]

    # 14 of 44 shingles are common
    assert np.mean([like(framed[one][None], framed[other]) for one, other in pairs]) > 0.2
    assert np.mean([like(alone[one][None], alone[other]) for one, other in pairs]) < 0.05


def test_signatures_do_not_depend_on_texts_beside_them() -> None:
    texts = [b"", b"one", FRAME + END, b"one two", FRAME * 3 + middle(5, 80), b"a b c", b""]

    np.testing.assert_array_equal(signatures(texts), np.stack([signature(text) for text in texts]))
    assert signatures([]).shape == (0, SIGNATURE)


def test_only_what_was_seen_of_a_ring_counts() -> None:
    zeros = np.zeros((2, 4, SIGNATURE), np.uint16)

    assert likeness(zeros, [0, 1], zeros[:, 0]) == [0.0, 1.0]


def slow_signature(text: bytes) -> list[int]:
    """Shingle by shingle, in whole numbers."""
    words = text[:160].split()[:16] + (text[-160:].split()[-16:] if len(text) > 160 else [])
    hashes = [crc32(word) for word in words]
    shingles = [
        ((one * 0x9E3779B97F4A7C15 + other) * 0x9E3779B97F4A7C15 + last) % 2**64
        for one, other, last in zip(hashes, hashes[1:], hashes[2:], strict=False)
    ]
    return [min(factor * shingle % 2**64 for shingle in shingles) >> 48 for factor in _FACTORS.ravel().tolist()]


@pytest.mark.parametrize(
    "text", [b"one two three", middle(7, 4), middle(8, 5), FRAME + END, FRAME + middle(6, 40) + END]
)
def test_every_shingle_of_a_text_counts(text: bytes) -> None:
    assert signatures([b"a b c d", text, b""])[1].tolist() == slow_signature(text)
