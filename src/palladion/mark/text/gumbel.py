"""Marks in generated text: each token is drawn by chance that a secret key makes, and found again by that key.

Gumbel-max sampling (Aaronson 2022): of tokens with probabilities p, the one with the largest r^(1/p) is drawn, where r
is uniform and follows from the key, the tokens before and the token. Whoever lacks the key sees an ordinary sample.
Text that is independent of the key has scores -ln(1-r) whose sum is Gamma distributed: an exact p-value, for which no
model is needed.
"""

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from palladion.mark.carriers import derive
from palladion.mark.stats import best_of, log10_gamma_tail

WINDOW = 4  # tokens before one that its chance depends on; more would let one changed token spoil as many others
TOKEN_MAX = 2**32 - 1  # the largest number of a token
TOKENS_MAX = 10_000_000  # in one test: minutes, and more evidence than anybody needs
_WORD_BYTES = 4
_WORDS_PER_BLOCK = 16 // _WORD_BYTES

Tokens = Sequence[int]


class Chance(Protocol):
    """Keyed uniform numbers for tokens after a context."""

    def uniforms(self, context: Tokens, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """For each of `tokens` (n,) its number in [0, 1) after `context`, rounded down: never too much evidence."""
        ...


@dataclass(frozen=True)
class KeyedChance:
    """Our own generator: AES-256 in counter mode, under a key that HMAC-SHA-256 makes of `key` and the context."""

    key: bytes

    def __repr__(self) -> str:
        return "<KeyedChance>"

    def uniforms(self, context: Tokens, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Numbers in [0, 1) for `tokens` (n,). A whole vocabulary costs one pass of the cipher."""
        key = hmac.digest(self.key, b"".join(token.to_bytes(8, "big") for token in context), "sha256")
        if len(tokens) == 1:
            return self._one(key, int(tokens[0]))
        length = int(tokens.max()) + 1 if len(tokens) else 0
        words = np.frombuffer(_cipher(key, 0).update(bytes(_WORD_BYTES * length)), "<u4")
        return np.asarray(words[tokens] / 2**32)

    @staticmethod
    def _one(key: bytes, token: int) -> NDArray[np.float64]:
        block, place = divmod(token, _WORDS_PER_BLOCK)
        words = np.frombuffer(_cipher(key, block).update(bytes(16)), "<u4")
        return np.array([words[place] / 2**32])


def text_key(root: bytes, tenant: str, epoch: str) -> bytes:
    """The key of one tenant's text in one epoch (such as a month); `root` is the gate root's "text-marks"."""
    return derive(root, "text", tenant, epoch)


@dataclass(frozen=True)
class TextFinding:
    """What a test of text says: log10 of the p-value, the score behind it, and how many tokens were counted.

    Of tokens that follow the same context more than once, one is counted: the same chance twice is no new evidence.
    """

    log10_p: float
    score: float
    tokens: int


def find_text(texts: Iterable[Tokens], chance: Chance, *, window: int = WINDOW) -> TextFinding:
    """Test texts, as numbers of tokens of the generating model's tokenizer, together. Exact if they are independent of
    the key.

    The first `window` tokens of each are passed over, because what was before them is not known. Raises ValueError on
    numbers that no token has, and on more than `TOKENS_MAX` tokens.
    """
    score, count = 0.0, 0
    for context, token in _places(texts, window):
        score -= float(np.log1p(-chance.uniforms(context, np.array([token]))[0]))
        count += 1
    return TextFinding(log10_gamma_tail(score, count), score, count)


def trace_text(
    texts: Sequence[Tokens], chances: Mapping[str, Chance], *, window: int = WINDOW
) -> dict[str, TextFinding]:
    """Whose text is it: each key's finding, strongest first, with p-values that pay for all of `chances`.

    Name every key that was ever given, not only those that are suspected.
    """
    found = {name: find_text(texts, chance, window=window) for name, chance in chances.items()}
    corrected = {
        name: TextFinding(best_of([item.log10_p], len(found)), item.score, item.tokens) for name, item in found.items()
    }
    return dict(sorted(corrected.items(), key=lambda item: item[1].log10_p))


def _places(texts: Iterable[Tokens], window: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Every pair of context and token, once for each context: a model that repeats itself draws the same again."""
    if window < 1:
        raise ValueError(f"a context has at least one token, got {window}")
    seen: set[tuple[int, ...]] = set()
    total = 0
    for text in texts:
        total += len(text)
        if total > TOKENS_MAX:
            raise ValueError(f"at most {TOKENS_MAX} tokens are tested at once")
        if any(not 0 <= token <= TOKEN_MAX for token in text):
            raise ValueError(f"a token's number is 0 to {TOKEN_MAX}")
        for end in range(window, len(text)):
            context = tuple(text[end - window : end])
            if context not in seen:
                seen.add(context)
                yield context, int(text[end])


def _cipher(key: bytes, block: int) -> CipherContext:
    # the key is of one context only, so the counter counts blocks of tokens
    return Cipher(AES256(key), CTR(block.to_bytes(16, "big"))).encryptor()
