"""Signatures: texts of one template are alike, whatever stands in it and however long it is."""

import numpy as np
import pytest

from palladion.watch.text.template import SIGNATURE, likeness, signature

FRAME = b"you are an assistant of our company. answer the question below in one short and polite sentence. "
END = b" answer as json with the key answer and nothing else, in english, and do not add anything."


def middle(seed: int, words: int) -> bytes:
    letters = np.random.default_rng(seed).integers(97, 123, (words, 7)).tolist()
    return b" ".join(bytes(word) for word in letters)


@pytest.mark.parametrize("words", [1, 400])
def test_texts_of_one_template_have_like_signatures(words: int) -> None:
    one, other = (signature(FRAME + middle(seed, words) + END) for seed in (1, 2))
    alone = signature(middle(3, max(words, 8)))

    assert likeness(one[None], other) > 0.4
    assert likeness(one[None], alone) < 0.2


def test_likeness_is_that_of_the_nearest() -> None:
    one, other = signature(FRAME), signature(middle(4, 30))

    assert likeness(np.stack([other, one]), one) == 1.0
    assert likeness(other[None], one) < 0.2


@pytest.mark.parametrize("text", [b"", b" ", b"one", b"one two", b"x" * 5000])
def test_texts_of_few_words_have_one_as_well(text: bytes) -> None:
    found = signature(text)

    assert found.shape == (SIGNATURE,)
    assert likeness(found[None], signature(text)) == 1.0


def test_what_lies_between_both_ends_is_not_looked_at() -> None:
    assert (signature(FRAME * 2 + middle(1, 900) + END * 2) == signature(FRAME * 2 + middle(2, 900) + END * 2)).all()


def test_instructions_that_stand_after_a_long_text_count_as_well() -> None:
    framed = [signature(middle(seed, 400) + END * 2) for seed in range(20)]
    alone = [signature(middle(seed, 400)) for seed in range(20)]
    pairs = [(one, other) for one in range(20) for other in range(one)]

    # 14 of 44 shingles are common
    assert np.mean([likeness(framed[one][None], framed[other]) for one, other in pairs]) > 0.2
    assert np.mean([likeness(alone[one][None], alone[other]) for one, other in pairs]) < 0.05
