"""Sentence encoders: unit vectors that depend on nothing but the text, and files that are none are refused at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.watch.text import encoder as room
from palladion.watch.text.encoder import Digests, NotOpened, SentenceEncoder
from tests.watch.text.encoders import PIECES, WIDTH, encoder, network, tokenizer

TEXTS = ["The river.", "Stone upon stone", "", "market " * 400, "\u4e1c", "The river."]


def table(**changes: Any) -> Any:
    made = np.random.default_rng(7).standard_normal((len(PIECES), WIDTH))
    for name, value in changes.items():
        made[PIECES.index(name)] = value
    return made


def test_a_vector_is_the_mean_over_the_tokens_and_has_length_one() -> None:
    rows = table()[[PIECES.index(piece) for piece in ("[CLS]", "river", "##s", "[SEP]")]]

    found = encoder().vector("Rivers")

    expected = rows.astype(np.float32).mean(axis=0)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected), rtol=1e-6)
    assert (found.shape, encoder().width) == ((WIDTH,), WIDTH)
    assert found.dtype == np.dtype("float32")


def test_texts_together_in_threads_and_pooled_by_the_network_give_what_each_gives_alone() -> None:
    several = SentenceEncoder(network(), tokenizer(), threads=3)
    pooled = SentenceEncoder(network(pooled=True), tokenizer())
    alone = np.array([encoder().vector(text) for text in TEXTS])

    np.testing.assert_array_equal(several.vectors(TEXTS), alone)
    np.testing.assert_array_equal(encoder().vectors(TEXTS), alone)
    np.testing.assert_allclose(pooled.vectors(TEXTS), alone, atol=1e-6)
    assert encoder().vectors([]).shape == (0, WIDTH)
    several.close()


def test_a_text_that_comes_again_is_not_worked_on_again_and_only_some_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh = SentenceEncoder(network(), tokenizer(), known=2)
    worked: list[int] = []
    run = fresh._session.run

    def counted(feeds: Any) -> Any:
        worked.append(1)
        return run(feeds)

    monkeypatch.setattr(fresh._session, "run", counted)
    fresh.vectors(["a", "b", "a", "c", "a", "b"])

    # "b" was pushed out by "c", because "a" had come again
    assert len(worked) == 4
    assert len(fresh._known) == 2


def test_every_input_that_exports_have_is_filled() -> None:
    names = ("input_ids", "attention_mask", "token_type_ids")

    found = SentenceEncoder(network(names=names), tokenizer()).vector("river")

    np.testing.assert_array_equal(found, encoder().vector("river"))


def test_digests_name_both_files() -> None:
    assert encoder().digests == Digests.of(network(), tokenizer())
    assert Digests.of(network(), tokenizer(version="2"))[0] == encoder().digests.encoder
    assert Digests.of(network(), tokenizer(version="2")) != encoder().digests


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (lambda: (b"no model", tokenizer()), "the encoder"),
        (lambda: (network(), b"{}"), "the tokenizer has None for its model"),
        (lambda: (network(names=("input_ids", "pixels")), tokenizer()), "takes 'pixels', expected"),
        (lambda: (network(names=("attention_mask",)), tokenizer()), "takes no input_ids"),
        (lambda: (network(tokens=32), tokenizer()), "expected one text of any length"),
        (lambda: (network(table=np.zeros((len(PIECES), 16))), tokenizer()), "no vector that has a direction"),
        (lambda: (network(table=np.full((len(PIECES), 8), np.nan)), tokenizer()), "no vector that has a direction"),
        (lambda: (network(table=np.ones((len(PIECES) - 1, 16))), tokenizer()), "fails on these inputs"),
        (
            lambda: (network(table=np.ones((len(PIECES), 1025))), tokenizer()),
            "1025 numbers a text, expected 16 to 1024",
        ),
        (lambda: (network(table=np.ones((len(PIECES), 15))), tokenizer()), "15 numbers a text, expected 16 to 1024"),
    ],
    ids=["onnx", "tokenizer", "input", "no numbers", "length", "zero", "nan", "vocabulary", "wide", "narrow"],
)
def test_files_that_are_no_encoder_are_refused_when_they_are_opened(
    files: Callable[[], tuple[bytes, bytes]], message: str
) -> None:
    with pytest.raises(FormatError) as caught:
        SentenceEncoder(*files())
    assert message in caught.value.message


def test_a_file_that_is_too_large_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ENCODER_BYTES_MAX", 100)
    with pytest.raises(FormatError, match="more than 100 bytes"):
        SentenceEncoder(network(), tokenizer())


def test_a_network_that_fails_on_one_text_says_so_and_quotes_nothing_of_it() -> None:
    broken = SentenceEncoder(network(table=table(river=np.nan)), tokenizer())

    assert broken.vector("stone").shape == (WIDTH,)
    with pytest.raises(FormatError, match="no vector that has a direction") as caught:
        broken.vector("river")
    assert "river" not in caught.value.message


def test_an_encoder_that_is_not_opened_tells_what_it_is_and_encodes_nothing() -> None:
    named = NotOpened(encoder().digests, WIDTH)

    with pytest.raises(ValueError, match="is not opened"):
        named.vectors(["a"])
