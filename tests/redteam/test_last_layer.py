"""The last layer of small stand-ins for language models: how wide, what is in it, and that the gate does not tell."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from palladion.gate.chat.answered import Alternative, Place
from palladion.gate.chat.asked import ChatAsked
from palladion.gate.chat.terms import terms
from palladion.gate.problems import Problem
from palladion.policy import RoutePolicy
from palladion.redteam.last_layer import (
    RefusedError,
    TextDoor,
    aligned_rms,
    hidden_size,
    numerical_rank,
    projection,
)

Precision = Literal["fp32", "bf16", "decimal"]
SIZES = [(32, 500), (64, 1000), (128, 2000)]


class Model:
    """A random last layer behind a service that takes biases and shows the five likeliest tokens, or all."""

    bias = 100.0

    def __init__(self, hidden: int, vocabulary: int, precision: Precision = "fp32", alternatives: int = 5) -> None:
        self.vocabulary, self.precision = vocabulary, precision
        self.alternatives = alternatives
        generator = np.random.default_rng(hidden)
        self.layer = (generator.standard_normal((vocabulary, hidden)) / np.sqrt(hidden)).astype(np.float32)
        self.hidden, self.asked = hidden, 0
        self._states: dict[str, Any] = {}

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        self.asked += 1
        logits = self._logits(prompt).copy()
        for token, bias in biases.items():
            logits[token] += np.float32(bias)
        chosen = np.argsort(-logits)[: self.alternatives]
        if self.alternatives < self.vocabulary or self.precision == "decimal":
            highest = logits.max()
            logits = logits - highest - np.log(np.exp(logits - highest).sum())
        if self.precision == "decimal":
            logits = np.round(logits, 1)
        return {int(token): float(logits[token]) for token in chosen}

    def _logits(self, prompt: str) -> Any:
        if prompt not in self._states:
            seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
            state = 4 * np.random.default_rng(seed).standard_normal(self.hidden).astype(np.float32)
            found = self.layer @ state
            self._states[prompt] = _bf16(found) if self.precision == "bf16" else found
        return self._states[prompt]


class Gated:
    """The same behind the gate: what a request may say, what goes upstream, and what is shown of the answer."""

    def __init__(self, model: Model, route: RoutePolicy, alternatives: int = 5, bias: float = 100.0) -> None:
        self.vocabulary, self.alternatives, self.bias = model.vocabulary, alternatives, bias
        self.refusals: set[str] = set()
        self._model, self._route = model, route

    def __call__(self, prompt: str, biases: Mapping[int, float]) -> Mapping[int, float]:
        request = {"model": "m", "messages": [{"role": "user", "content": prompt}], "max_tokens": 1} | {
            "logprobs": True, "top_logprobs": min(20, self.alternatives),
        }  # fmt: skip
        if biases:
            request["logit_bias"] = {str(token): bias for token, bias in biases.items()}
        try:
            asked = msgspec.json.decode(msgspec.json.encode(request), type=ChatAsked)
            asked.check(self._route)
        except Problem as problem:
            self.refusals.add(problem.field or "")
            raise RefusedError(f"refused: {problem.field}") from None
        given = terms(self._route, "contract")
        asked.bind(given, "upstream")
        shown = sorted(self._model(prompt, {}).items(), key=lambda item: -item[1])[: asked.alternatives or 0]
        place = Place("t0", shown[0][1], None, [Alternative(f"t{token}", logprob) for token, logprob in shown])
        place.disclose(asked.alternatives or 0, given.decimals)
        return {int(item.token[1:]): item.logprob for item in place.top_logprobs}


def _bf16(values: Any) -> Any:
    """To the nearest bfloat16."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def _found(door: TextDoor, queries: int = 10**7) -> int | None:
    return hidden_size(door, queries, np.random.default_rng(1)).hidden


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "decimal"])
@pytest.mark.parametrize(("hidden", "vocabulary"), SIZES)
def test_the_width_is_exact_from_logits_and_from_five_biased_tokens(
    hidden: int, vocabulary: int, precision: Precision
) -> None:
    for alternatives in (5, vocabulary):
        model = Model(hidden, vocabulary, precision, alternatives)
        width = hidden_size(model, 10**7, np.random.default_rng(1))
        assert width.hidden == hidden
        assert width.queries == model.asked


@pytest.mark.slow
def test_the_layer_comes_back_up_to_a_linear_map() -> None:
    for hidden, vocabulary in SIZES[:2]:
        for precision, most in (("fp32", 1e-4), ("bf16", 0.02), ("decimal", 0.1)):
            model = Model(hidden, vocabulary, precision)  # type: ignore[arg-type]
            found = projection(model, hidden, 10**6, np.random.default_rng(1))
            assert found.weights.shape == (vocabulary, hidden)
            assert found.queries == model.asked
            assert aligned_rms(found, model.layer) <= most


def test_a_layer_that_is_another_one_does_not_align() -> None:
    found = projection(Model(32, 500, alternatives=500), 32, 100, np.random.default_rng(1))
    other = np.random.default_rng(5).standard_normal((500, 32))
    assert aligned_rms(found, other) > 0.8
    assert aligned_rms(found, 3 * Model(32, 500).layer @ np.diag(np.arange(1, 33)) + 7) < 1e-4


def test_strong_directions_are_no_width_and_noise_has_none() -> None:
    generator = np.random.default_rng(2)
    noise = generator.standard_normal((48, 96))
    assert numerical_rank(noise)[0] is None
    assert numerical_rank(noise + 50)[0] is None
    low = generator.standard_normal((48, 20)) @ generator.standard_normal((20, 96))
    assert numerical_rank(low + 0.05 * noise)[0] == 20
    assert numerical_rank(low + 50 + 0.05 * noise)[0] == 21
    assert numerical_rank(np.zeros((48, 96))) == (None, 1.0)
    assert numerical_rank(np.ones((2, 4)))[0] is None


def test_the_budget_ends_the_attack() -> None:
    model = Model(64, 1000)
    width = hidden_size(model, 700, np.random.default_rng(1))
    assert (width.hidden, width.queries, model.asked) == (None, 700, 700)
    assert "700 queries" in width.reason
    with pytest.raises(RefusedError, match="700 queries"):
        projection(model, 64, 700, np.random.default_rng(1))


def test_a_model_with_more_dimensions_than_half_its_tokens_is_not_measured() -> None:
    width = hidden_size(Model(90, 100, alternatives=100), 10**5, np.random.default_rng(1))
    assert width.hidden is None
    assert "full rank" in width.reason


def test_a_bias_that_is_too_small_is_noticed() -> None:
    model = Model(32, 500)
    model.bias = 0.1
    width = hidden_size(model, 10**5, np.random.default_rng(1))
    assert width.hidden is None
    assert "not among those" in width.reason


@pytest.mark.parametrize("logprobs", ["never", "chosen", "top5"])
@pytest.mark.parametrize("logit_bias", ["never", "blocklist", "any"])
@pytest.mark.parametrize(
    "bias", [100.0, pytest.param(-100.0, marks=pytest.mark.slow), pytest.param(0.0, marks=pytest.mark.slow)]
)
def test_the_gates_policy_makes_it_fail_at_ten_times_the_queries(logprobs: Any, logit_bias: Any, bias: float) -> None:
    open_door = Model(32, 500)
    needed = hidden_size(open_door, 10**6, np.random.default_rng(1))
    assert needed.hidden == 32
    route = RoutePolicy(model="m", logprobs=logprobs, logit_bias=logit_bias)
    for alternatives in (5, 20, 500):
        gated = Gated(Model(32, 500, alternatives=500), route, alternatives, bias)
        width = hidden_size(gated, 10 * needed.queries, np.random.default_rng(1))
        assert width.hidden is None
        assert width.reason


def test_what_the_gate_refuses_is_the_two_together() -> None:
    route = RoutePolicy(model="m", logprobs="top5", logit_bias="any")
    gated = Gated(Model(32, 500, alternatives=500), route)
    assert _found(gated) is None
    assert gated.refusals == {"logit_bias"}
    # one alone is taken
    assert len(gated("hello", {})) == 5
