"""Text marks of engines that sample themselves: what a request must say, what an engine is started with, how to test.

vLLM, SGLang and TensorRT-LLM draw tokens by Gumbel-max with a generator of their own, which is fast and not
cryptographic: whoever sees enough marked text may learn to imitate it, or find the key. So a test of their text is a
sign, and evidence of its own only where nobody had reason to forge it. Sources: vLLM's and SGLang's documentation of
text watermarking (2026); Philox4x32-10 (Salmon et al., SC 2011); MurmurHash3's mixing (Appleby).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import derive
from palladion.mark.text.gumbel import WINDOW, Chance, Tokens

Engine = Literal["vllm", "sglang", "tensorrt-llm"]

KEY_BITS = 64  # what all three take
# A request below these is as good as greedy, and greedy answers carry no mark.
TEMPERATURE_MIN, TOP_P_MIN, TOP_K_MIN, MIN_P_MAX = 0.3, 0.5, 2, 0.5
# Names under which a request says that it wants no mark, or another key than ours.
_MARK_FIELDS = ("watermarking", "watermark")
_BEAM_FIELDS = ("use_beam_search", "best_of")
# Where an engine's own API keeps what its OpenAI-compatible one has at the top.
_NESTED = ("sampling_params", "extra_body")

Words = NDArray[np.uint64]
_MASK = np.uint64(2**32 - 1)


def engine_key(text_key: bytes) -> int:
    """The number that an engine takes as its key, from a tenant's `text.text_key`."""
    return int.from_bytes(derive(text_key, "engine")[: KEY_BITS // 8], "big")


def engine_settings(engine: Engine, key: int) -> dict[str, Any]:
    """What an engine is started with, as JSON: vLLM's --watermark-config, TensorRT-LLM's WatermarkConfig, the file of
    SGLang's --watermark-config (beside --enable-watermark and --watermark-enforce-all).

    It holds the key: write it where only the engine reads it, never into arguments that `ps` shows.
    """
    if engine == "sglang":
        return {"key": f"{key:016x}", "context_window": WINDOW}
    return {"algorithm": "gumbel", "key": key, "context_width": WINDOW}


def marked_request(request: Mapping[str, Any], engine: Engine, *, key: int) -> dict[str, Any]:
    """A client's request, as JSON, of which no answer goes unmarked: no opt-out, no other key, nothing greedy.

    SGLang takes the tenant's key with each request; the others have one key for an engine, so that tenants who are to
    be told apart need engines of their own. Speculative decoding is the engine's setting, not a request's.
    """
    changed = _sampled(request)
    for name in _NESTED:
        if name in request:
            changed[name] = _nested(request[name])
    if engine == "vllm":
        changed["watermarking"] = True
    elif engine == "sglang":
        changed["watermark"] = {"enabled": True, "key": f"{key:016x}"}
    return changed


def _nested(value: Any) -> Any:
    """Settings of one answer, or a list of them for a batch; what is neither asks for nothing."""
    if isinstance(value, list):
        return [_nested(item) for item in value]
    return _sampled(value) if isinstance(value, Mapping) else {}


def _sampled(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in settings.items() if name not in {*_MARK_FIELDS, *_BEAM_FIELDS}}
    for name, least in (("temperature", TEMPERATURE_MIN), ("top_p", TOP_P_MIN)):
        if name in kept and not _at_least(kept[name], least):
            kept[name] = least
    # a text or a truth is a number to engines that are lax about types: not asked for, it is their default
    if "top_k" in kept and not _is_number(kept["top_k"]):
        del kept["top_k"]
    elif 0 < kept.get("top_k", 0) < TOP_K_MIN:
        kept["top_k"] = TOP_K_MIN
    if "min_p" in kept and not (_is_number(kept["min_p"]) and kept["min_p"] <= MIN_P_MAX):
        kept["min_p"] = MIN_P_MAX
    return kept


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at_least(value: Any, least: float) -> bool:
    # None, a text or nan: the engine would take it as its default or refuse it; the least is what we know to be marked
    return _is_number(value) and value >= least


@dataclass(frozen=True)
class PhiloxChance:
    """vLLM's generator "philox": Philox4x32-10 over the context in blocks of four, then over the token."""

    key: int

    def __repr__(self) -> str:
        return "<PhiloxChance>"

    def uniforms(self, context: Tokens, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Numbers in [0, 1) for `tokens` (n,), from the upper 24 bits, as the engine takes them."""
        return np.asarray((self.words(context, tokens) >> np.uint64(8)) / 2**24)

    def words(self, context: Tokens, tokens: NDArray[np.int64]) -> Words:
        """The 32 bits for each of `tokens` (n,)."""
        low, high = self.key % 2**32, self.key >> 32
        state = [0x574D4358, len(context), 0, 0]
        for start in range(0, len(context), 4):
            padded = [*context[start : start + 4], *(2**32 - 1 - index for index in range(4))]
            block = padded[: len(context) - start] + [2**32 - 1 - index for index in range(len(context) - start, 4)]
            counter = [_word(mine ^ other) for mine, other in zip(state, block, strict=False)]
            state = [int(item[0]) for item in _philox(counter, low ^ start, high)]
        numbers = tokens.astype(np.uint64)
        counter = [numbers >> np.uint64(2), *(np.full_like(numbers, word) for word in state[:3])]
        drawn = _philox(counter, low ^ state[3], high ^ 0x574D544B)
        return np.choose((numbers & np.uint64(3)).astype(np.intp), drawn)


@dataclass(frozen=True)
class MurmurChance:
    """SGLang's generator: MurmurHash3's mixing over key, context and token."""

    key: int

    def __repr__(self) -> str:
        return "<MurmurChance>"

    def uniforms(self, context: Tokens, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Numbers in [0, 1) for `tokens` (n,)."""
        state = _word(0)
        for token in context:
            state = _mixed(state, _word(token))
        summary = _finished(state ^ _word(4 * len(context)))
        state = _word(0)
        for word in (_word(self.key), _word(self.key >> 32), summary):
            state = _mixed(state, word)
        return np.asarray(_finished(_mixed(state, tokens.astype(np.uint64)) ^ _word(16)) / 2**32)


# How the text of an engine is tested, by the engine; TensorRT-LLM does not document its generator.
CHANCES: Mapping[Engine, type[PhiloxChance] | type[MurmurChance]] = MappingProxyType(
    {"vllm": PhiloxChance, "sglang": MurmurChance}
)


def engine_chance(engine: Engine, key: int) -> Chance:
    """What `text.find_text` needs to test an engine's text. Raises ValueError for one whose generator is not known."""
    if engine not in CHANCES:
        raise ValueError(f"how {engine} draws its numbers is not documented: test its text with its own detector")
    return CHANCES[engine](key)


def _word(value: int) -> Words:
    return np.array([value % 2**32], np.uint64)


def _philox(counter: list[Words], key_0: int, key_1: int) -> list[Words]:
    first, second, third, fourth = counter
    for _ in range(10):
        product, other = np.uint64(0xD2511F53) * first, np.uint64(0xCD9E8D57) * third
        first, second, third, fourth = (
            (other >> np.uint64(32)) ^ second ^ np.uint64(key_0),
            other & _MASK,
            (product >> np.uint64(32)) ^ fourth ^ np.uint64(key_1),
            product & _MASK,
        )
        key_0, key_1 = (key_0 + 0x9E3779B9) % 2**32, (key_1 + 0xBB67AE85) % 2**32
    return [first, second, third, fourth]


def _mixed(state: Words, value: Words) -> Words:
    value = _rotated(value * np.uint64(0xCC9E2D51) & _MASK, 15) * np.uint64(0x1B873593) & _MASK
    return (_rotated(state ^ value, 13) * np.uint64(5) + np.uint64(0xE6546B64)) & _MASK


def _finished(value: Words) -> Words:
    value = (value ^ value >> np.uint64(16)) * np.uint64(0x85EBCA6B) & _MASK
    value = (value ^ value >> np.uint64(13)) * np.uint64(0xC2B2AE35) & _MASK
    return value ^ value >> np.uint64(16)


def _rotated(value: Words, bits: int) -> Words:
    return (value << np.uint64(bits) | value >> np.uint64(32 - bits)) & _MASK
