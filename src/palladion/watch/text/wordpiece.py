"""Texts as token numbers: WordPiece as Hugging Face's tokenizer.json states it, of the encoders that descend from BERT.

Other kinds of tokenizers are refused by name. The names of special tokens mean nothing within a text: whoever writes
"[SEP]" has written five letters. Of a long text both ends count (`TOKENS_MAX`), and no more of it is cut up than that.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import msgspec

from palladion.errors import FormatError

TOKENIZER_BYTES_MAX = 16 * 1024 * 1024  # 120,000 words of all languages take 3 MB
VOCABULARY_MAX = 1_000_000
TOKENS_MAX = 256  # of a text: time grows with them, and encoders of sentences were trained on 128 or 256
WORD_LETTERS_MAX = 200  # longer words are unknown ones, whatever a file says
_TOKENS_MIN = 8  # fewer would leave nothing between the special ones
_WORDS_KNOWN = 16_384  # cut up already; the words of a language that are often used
_HINT = "take an encoder that descends from BERT: its tokenizer.json says WordPiece"
# as BERT has them, so that each is a word (CJK Unified Ideographs, and their extensions)
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
_CHARACTERS_KNOWN = 16_384  # a script or two; what is rarer is looked up each time


class _Vocabulary(msgspec.Struct, frozen=True):
    """`model` of a tokenizer.json."""

    type: str
    vocab: dict[str, int]
    unk_token: str
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100


class _Normaliser(msgspec.Struct, frozen=True):
    type: str
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    lowercase: bool = True


class _Kind(msgspec.Struct, frozen=True):
    type: str


class _Truncation(msgspec.Struct, frozen=True):
    max_length: int


class _File(msgspec.Struct, frozen=True):
    """What a tokenizer.json says, as far as it matters for one text."""

    model: _Vocabulary
    normalizer: _Normaliser
    pre_tokenizer: _Kind
    post_processor: dict[str, Any]
    truncation: _Truncation | None = None


@dataclass(frozen=True, eq=False)
class WordPiece:
    """A tokenizer, as read. `before` and `after` are the special tokens around a text of at most `length` tokens."""

    pieces: Mapping[str, int]
    unknown: int
    prefix: str
    letters_max: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    length: int
    folds: "_Folds"

    @classmethod
    def read(cls, data: bytes, *, what: str) -> "WordPiece":
        """From the bytes of a tokenizer.json. Raises FormatError, naming `what`, for none or one of another kind."""
        if len(data) > TOKENIZER_BYTES_MAX:
            raise FormatError(f"{what} has more than {TOKENIZER_BYTES_MAX} bytes")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{what} is no tokenizer.json: {error}") from None
        _check_kinds(document, what)
        try:
            file = msgspec.convert(document, _File)
        except msgspec.ValidationError as error:
            raise FormatError(f"{what} is no tokenizer.json: {error}") from None
        model, normaliser = file.model, file.normalizer
        numbers = model.vocab.values()
        if not 0 < len(model.vocab) <= VOCABULARY_MAX or min(numbers) < 0 or max(numbers) >= VOCABULARY_MAX:
            raise FormatError(f"{what} has no words, or numbers that are not from 0 to {VOCABULARY_MAX - 1}")
        if model.unk_token not in model.vocab:
            raise FormatError(f"{what} has no number for unknown words, {model.unk_token!r}")
        before, after = _around(file.post_processor, model.vocab, what)
        stated = TOKENS_MAX if file.truncation is None else file.truncation.max_length
        length = min(stated, TOKENS_MAX)
        if length - len(before) - len(after) < _TOKENS_MIN:
            raise FormatError(f"{what} cuts texts to {length} tokens, which leaves less than {_TOKENS_MIN} of a text")
        strip = normaliser.lowercase if normaliser.strip_accents is None else normaliser.strip_accents
        folds = _Folds(
            lower=normaliser.lowercase, strip=strip, clean=normaliser.clean_text, apart=normaliser.handle_chinese_chars
        )
        return cls(
            model.vocab,
            model.vocab[model.unk_token],
            model.continuing_subword_prefix,
            max(1, min(model.max_input_chars_per_word, WORD_LETTERS_MAX)),
            before,
            after,
            length,
            folds,
        )

    @property
    def largest(self) -> int:
        """The largest number that a token can have."""
        return max(*self.pieces.values(), *self.before, *self.after)

    def numbers(self, text: str) -> list[int]:
        """The tokens of a text with those around it, at most `length`: of a long one the first and the last."""
        words = self.folds.words(text)
        room = self.length - len(self.before) - len(self.after)
        first = list(_up_to(room, map(self._cut, words)))
        if len(first) <= room:
            return [*self.before, *first, *self.after]
        half = room // 2
        # from behind, each word's last piece comes first
        last = list(_up_to(half, (self._cut(word)[::-1] for word in reversed(words))))[:half]
        return [*self.before, *first[: room - half], *reversed(last), *self.after]

    @cached_property
    def _cut(self) -> Any:
        return lru_cache(maxsize=_WORDS_KNOWN)(self._pieces_of)

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.pieces))

    def _pieces_of(self, word: str) -> tuple[int, ...]:
        """The longest pieces, one after the other; a word that is not made of pieces is unknown as a whole."""
        if len(word) > self.letters_max:
            return (self.unknown,)
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = self.prefix if start else ""
            for end in range(min(len(word), start + self._longest - len(prefix)), start, -1):
                number = self.pieces.get(prefix + word[start:end])
                if number is not None:
                    break
            else:
                return (self.unknown,)
            found.append(number)
            start = end
        return tuple(found)


class _Folds(dict[int, str]):
    """What becomes of each character of a text, found out when it comes first; satisfies `str.translate`."""

    def __init__(self, *, lower: bool, strip: bool, clean: bool, apart: bool) -> None:
        super().__init__()
        self._lower, self._strip, self._clean, self._apart = lower, strip, clean, apart

    def words(self, text: str) -> list[str]:
        """The words of a text as BERT splits it: at white space, and around each mark and ideograph."""
        if self._strip and not text.isascii():
            text = unicodedata.normalize("NFD", text)
        return text.translate(self).split()

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        folded = self._folded(letter)
        if len(self) < _CHARACTERS_KNOWN:
            self[code] = folded
        return folded

    def _folded(self, letter: str) -> str:
        code, category = ord(letter), unicodedata.category(letter)
        if letter in "\t\n\r":
            return " "
        if self._clean and (code == 0xFFFD or category in {"Cc", "Cf", "Co", "Cs"}):
            return ""
        if letter.isspace():
            return " "
        if self._strip and category == "Mn":
            return ""
        folded = letter.lower() if self._lower else letter
        mark = category.startswith("P") or (33 <= code <= 126 and not letter.isalnum())
        if mark or (self._apart and any(first <= code <= last for first, last in _IDEOGRAPHS)):
            return f" {folded} "
        return folded


def _check_kinds(document: Any, what: str) -> None:
    """Refuse by name what is a tokenizer of another kind."""
    if not isinstance(document, dict):
        raise FormatError(f"{what} is no tokenizer.json")
    expected = {"model": {"WordPiece"}, "normalizer": {"BertNormalizer"}, "pre_tokenizer": {"BertPreTokenizer"},
                "post_processor": {"TemplateProcessing", "BertProcessing"}}  # fmt: skip
    for part, kinds in expected.items():
        stated = document.get(part)
        kind = stated.get("type") if isinstance(stated, dict) else None
        if kind not in kinds:
            told = re.sub(r"[^\w-]", "", str(kind))[:40]
            raise FormatError(f"{what} has {told} for its {part}, expected {' or '.join(sorted(kinds))}", _HINT)


def _around(processor: Mapping[str, Any], vocabulary: Mapping[str, int], what: str) -> tuple[tuple[int, ...], ...]:
    """The numbers of the special tokens before and after a text."""
    around: list[list[str]] = [[], []]
    try:
        if processor["type"] == "BertProcessing":
            around = [[str(processor["cls"][0])], [str(processor["sep"][0])]]
        else:
            seen = 0
            for step in processor["single"]:
                if "Sequence" in step:
                    seen += 1
                else:
                    around[min(seen, 1)].append(str(step["SpecialToken"]["id"]))
            if seen != 1:
                raise FormatError(f"{what} does not say where the text stands among its special tokens")
        before, after = ([vocabulary[name] for name in names] for names in around)
    except (KeyError, IndexError, TypeError):
        raise FormatError(f"{what} does not say what stands around a text") from None
    return tuple(before), tuple(after)


def _up_to(count: int, words: Iterable[Sequence[int]]) -> Iterator[int]:
    """The tokens of words up to the word with which there are more than `count`."""
    made = 0
    for pieces in words:
        yield from pieces
        made += len(pieces)
        if made > count:
            return
