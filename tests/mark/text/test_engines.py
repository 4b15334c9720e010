"""Engines that mark text themselves: no request gets round it, and their text is tested with their own generators."""

import json
import math

import numpy as np
import pytest

from palladion.mark.text.engines import (
    TEMPERATURE_MIN,
    TOP_P_MIN,
    Engine,
    MurmurChance,
    PhiloxChance,
    engine_chance,
    engine_key,
    engine_settings,
    marked_request,
)
from palladion.mark.text.gumbel import find_text, text_key

KEY = engine_key(text_key(bytes(32), "acme", "1"))
ENGINES: tuple[Engine, ...] = ("vllm", "sglang", "tensorrt-llm")
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "opt_out",
    [
        {"watermarking": False},
        {"watermark": {"enabled": False}},
        {"watermark": {"key": "00000000deadbeef"}},
        {"sampling_params": {"watermarking": False}},
        {"extra_body": {"watermark": None}},
    ],
)
def test_a_client_cannot_opt_out(engine: Engine, opt_out: dict[str, object]) -> None:
    sent = json.dumps(marked_request({**CHAT, **opt_out}, engine, key=KEY))

    assert "false" not in sent
    assert "null" not in sent
    assert "deadbeef" not in sent


def test_sglang_gets_the_tenants_key_with_each_request() -> None:
    assert marked_request(CHAT, "sglang", key=0xAB)["watermark"] == {"enabled": True, "key": "00000000000000ab"}


def test_vllm_is_told_to_mark_and_never_given_the_key() -> None:
    sent = marked_request(CHAT, "vllm", key=KEY)

    assert sent == {**CHAT, "watermarking": True}


@pytest.mark.parametrize("temperature", [0, 0.0, -1, None, "0", math.nan, True])
def test_greedy_answers_are_not_asked_for(temperature: object) -> None:
    assert marked_request({**CHAT, "temperature": temperature}, "vllm", key=KEY)["temperature"] == TEMPERATURE_MIN


@pytest.mark.parametrize(
    ("field", "value", "sent"),
    [("top_k", 1, 2), ("top_k", 0, 0), ("top_k", -1, -1), ("top_p", 1e-9, TOP_P_MIN), ("min_p", 1.0, 0.5)],
)
def test_cut_offs_that_leave_one_token_are_widened(field: str, value: float, sent: float) -> None:
    assert marked_request({**CHAT, field: value}, "vllm", key=KEY)[field] == sent


def test_beam_search_is_taken_out_of_a_request() -> None:
    assert "use_beam_search" not in marked_request({**CHAT, "use_beam_search": True}, "vllm", key=KEY)


def test_a_request_that_asks_for_nothing_special_stays_as_it_is() -> None:
    asked = {**CHAT, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "max_tokens": 5, "stream": True}

    assert marked_request(asked, "tensorrt-llm", key=KEY) == asked


def test_settings_hold_the_key_as_each_engine_reads_it() -> None:
    assert engine_settings("vllm", KEY) == {"algorithm": "gumbel", "key": KEY, "context_width": 4}
    assert int(engine_settings("sglang", KEY)["key"], 16) == KEY
    assert 0 <= KEY < 2**64


def test_philox_gives_the_words_that_vllm_publishes() -> None:
    # tests/v1 of vLLM pins these for key 42
    words = [PhiloxChance(42).words(context, np.array([7, 8])).tolist() for context in ([1, 2, 3, 4], [4, 5, 6, 7])]

    assert words == [[425429266, 2706218805], [2494036831, 3424185538]]


def test_murmur_gives_what_the_published_definition_gives() -> None:
    def rotated(value: int, bits: int) -> int:
        return (value << bits | value >> (32 - bits)) % 2**32

    def mixed(state: int, value: int) -> int:
        value = rotated(value * 0xCC9E2D51 % 2**32, 15) * 0x1B873593 % 2**32
        return (rotated(state ^ value, 13) * 5 + 0xE6546B64) % 2**32

    def finished(value: int) -> int:
        value = (value ^ value >> 16) * 0x85EBCA6B % 2**32
        value = (value ^ value >> 13) * 0xC2B2AE35 % 2**32
        return value ^ value >> 16

    state = 0
    for token in (11, 12, 13):
        state = mixed(state, token)
    context = finished(state ^ 12)
    state = 0
    for word in (0x89ABCDEF, 0x01234567, context, 99):
        state = mixed(state, word)
    expected = finished(state ^ 16) / 2**32

    assert MurmurChance(0x0123456789ABCDEF).uniforms([11, 12, 13], np.array([99]))[0] == expected


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_text_that_an_engine_marked_is_found(engine: Engine) -> None:
    chance, rng = engine_chance(engine, KEY), np.random.default_rng(1)
    tokens = rng.integers(300, size=4).tolist()
    for _ in range(120):
        logits = 2 * rng.standard_normal(300)
        uniform = chance.uniforms(tokens[-4:], np.arange(300)) + 2**-33
        tokens.append(int(np.argmax(logits - np.log(-np.log(uniform)))))

    assert find_text([tokens], chance).log10_p < -15
    assert find_text([tokens], engine_chance(engine, KEY ^ 1)).log10_p > -3


def test_an_engine_whose_generator_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="not documented"):
        engine_chance("tensorrt-llm", KEY)


@pytest.mark.parametrize("value", ["1", True, None])
def test_a_cut_off_that_is_no_number_is_not_passed_on(value: object) -> None:
    assert "top_k" not in marked_request({**CHAT, "top_k": value}, "vllm", key=KEY)


def test_settings_of_a_batch_are_changed_one_by_one() -> None:
    sent = marked_request({"sampling_params": [{"temperature": 0}, "greedy"]}, "sglang", key=KEY)

    assert sent["sampling_params"] == [{"temperature": TEMPERATURE_MIN}, {}]
