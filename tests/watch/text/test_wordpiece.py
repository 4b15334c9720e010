"""Texts as token numbers: as the tokenizer that a file describes, or not at all."""

import json
import time
from typing import Any

import pytest

from palladion.errors import FormatError
from palladion.watch.text.wordpiece import TOKENIZER_BYTES_MAX, TOKENS_MAX, WordPiece
from tests.watch.text.encoders import PIECES, tokenizer


def read(**changes: Any) -> WordPiece:
    return WordPiece.read(tokenizer(**changes), what="that file")


def pieces(text: str, **changes: Any) -> list[str]:
    return [PIECES[number] for number in read(**changes).numbers(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("River  stones", "river stone ##s"),
        ("Signaling, twice?", "signal ##ing , t ##w ##i ##c ##e ?"),
        ("", ""),
        ("caf\u00e9", "c ##a ##f ##e"),
        ("a\u4e1cb", "a [UNK] b"),
        ("a\x00b\u200b", "a ##b"),
        ("stone\u2028stone", "stone stone"),
        ("stone\u20acs", "[UNK]"),
        ("x" * 101, "[UNK]"),
        ("[SEP] river", "[ s ##e ##p ] river"),
        ("\ud800stone", "stone"),
    ],
    ids=["case", "pieces", "nothing", "accent", "ideograph", "control", "space", "unknown", "long", "special", "half"],
)
def test_a_text_is_cut_into_the_longest_pieces(text: str, expected: str) -> None:
    assert pieces(text) == ["[CLS]", *expected.split(), "[SEP]"]


def test_what_a_file_says_of_case_and_accents_counts() -> None:
    kept = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": False, "strip_accents": False}

    assert pieces("River", normalizer={**kept, "lowercase": False}) == ["[CLS]", "[UNK]", "[SEP]"]
    assert pieces("caf\u00e9", normalizer={**kept, "lowercase": True}) == ["[CLS]", "[UNK]", "[SEP]"]


def test_of_a_long_text_both_ends_count() -> None:
    words = ["river"] * 20 + ["stone"] * 500 + ["market"] * 20

    found = pieces(" ".join(words))

    assert found == ["[CLS]", *["river"] * 15, *["market"] * 15, "[SEP]"]
    assert len(read(truncation=None).numbers("river " * 1000)) == TOKENS_MAX
    assert len(read(truncation={"max_length": 10_000}).numbers("river " * 1000)) == TOKENS_MAX


def test_a_text_that_fits_exactly_is_whole_and_a_word_across_the_end_is_cut() -> None:
    assert pieces("river " * 30) == ["[CLS]", *["river"] * 30, "[SEP]"]
    assert pieces("river " * 29 + "signaling") == [
        "[CLS]",
        *["river"] * 15,
        *["river"] * 13,
        "signal",
        "##ing",
        "[SEP]",
    ]


def test_bert_s_own_form_of_special_tokens_is_read_too() -> None:
    assert pieces("river", post_processor={"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}) == [
        "[CLS]",
        "river",
        "[SEP]",
    ]


def test_garbage_of_any_length_takes_little_time() -> None:
    tokens = read()
    text = " ".join(f"{'abcdefghij' * 9}{number}" for number in range(20_000))

    began = time.process_time()
    assert len(tokens.numbers(text[:4096])) == 32
    assert time.process_time() - began < 0.5


def vocabulary(**changes: Any) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(tokenizer())["model"]
    return {**model, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": vocabulary(type="Unigram")}, "has Unigram for its model, expected WordPiece"),
        ({"normalizer": None}, "has None for its normalizer, expected BertNormalizer"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "has Whitespace for its pre_tokenizer"),
        ({"post_processor": {"type": "ByteLevel"}}, "has ByteLevel for its post_processor"),
        ({"post_processor": {"type": "TemplateProcessing", "single": []}}, "where the text stands"),
        ({"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3]}}, "what stands around a text"),
        ({"model": vocabulary(unk_token="[NONE]")}, "no number for unknown words"),
        ({"model": vocabulary(vocab={})}, "has no words"),
        ({"model": vocabulary(vocab={"[UNK]": -1})}, "numbers that are not from 0"),
        ({"model": vocabulary(vocab={"[UNK]": 1.5})}, "is no tokenizer.json"),
        ({"truncation": {"max_length": 9}}, "leaves less than 8 of a text"),
    ],
    ids=[
        "kind",
        "normalizer",
        "words",
        "around",
        "template",
        "bert",
        "unknown",
        "empty",
        "negative",
        "broken",
        "short",
    ],
)
def test_what_is_no_tokenizer_that_is_known_here_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match="that file") as caught:
        read(**changes)
    assert message in caught.value.message


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (TOKENIZER_BYTES_MAX + 1)])
def test_bytes_that_are_no_tokenizer_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="that file"):
        WordPiece.read(data, what="that file")


@pytest.mark.torch
def test_numbers_are_those_of_the_reference() -> None:
    tokenizers: Any = pytest.importorskip("tokenizers", reason="it comes with the torch extra")
    reference = tokenizers.Tokenizer.from_str(tokenizer(truncation=None).decode())
    reference.encode_special_tokens = True
    texts = [
        "River stones: signaling!",
        "caf\u00e9 na\u00efve \u0391\u03a3 \u0130x",
        "a\u4e1c\uac00b \u00bd",
        "[CLS]?'",
        "\t\n x\x07y\ufffd",
        "",
    ]
    texts += ["".join(chr(code) for code in range(start, start + 64)) for start in range(0, 0x600, 64)]

    for text in texts:
        assert read(truncation=None).numbers(text) == reference.encode(text).ids, ascii(text)
