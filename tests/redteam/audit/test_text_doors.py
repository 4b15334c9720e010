"""Doors to a language model that runs here: what each shows, and what the gate's own checks refuse."""

from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.model.read import read_memory
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.redteam.audit.text_doors import (
    GatedText,
    LocalText,
    OpenText,
    UndefendedText,
    is_language_model,
    layers_of,
)
from palladion.redteam.last_layer import RefusedError
from tests.models import onnx_bytes
from tests.redteam.audit.texts import VOCABULARY, language_model


@pytest.fixture(scope="module")
def local() -> LocalText:
    return LocalText(open_session(language_model()))


def test_a_prompt_has_a_state_of_its_own(local: LocalText) -> None:
    assert local.vocabulary == VOCABULARY
    first, second = local.logits("a"), local.logits("b")
    assert first.shape == (VOCABULARY,)
    assert not np.allclose(first, second)
    assert np.array_equal(LocalText(open_session(language_model())).logits("a"), first)


def test_models_with_caches_are_asked_without_a_past() -> None:
    assert LocalText(open_session(language_model(caches=True))).logits("a").shape == (VOCABULARY,)


def test_what_is_no_language_model_is_refused() -> None:
    other = read_memory({"a.onnx": onnx_bytes()})
    assert is_language_model(language_model())
    assert not is_language_model(other)
    with pytest.raises(FormatError, match="no language model"):
        LocalText(open_session(other))


def test_the_open_service_shows_the_likeliest_and_takes_biases(local: LocalText) -> None:
    door = OpenText(local, alternatives=5)
    logits = local.logits("hello")
    shown = door("hello", {})
    assert set(shown) == set(np.argsort(-logits)[:5].tolist())
    assert max(shown.values()) == pytest.approx(logits.max() - np.log(np.exp(logits).sum()))
    last = int(logits.argmin())
    assert max(door("hello", {last: 100.0}), key=lambda token: door("hello", {last: 100.0})[token]) == last
    rounded = OpenText(local, alternatives=5, decimals=1)("hello", {})
    assert all(value == round(value, 1) for value in rounded.values())


def test_the_undefended_door_shows_all(local: LocalText) -> None:
    door = UndefendedText(local)
    assert len(door("hello", {})) == door.alternatives == VOCABULARY


@pytest.mark.parametrize(
    ("policy", "biases", "words"),
    [
        ({"logprobs": "top5", "logit_bias": "any"}, {1: 100.0}, "refuses logit_bias: biases do not go together"),
        ({"logprobs": "top5", "logit_bias": "never"}, {1: 100.0}, "takes no biases"),
        ({"logprobs": "never", "logit_bias": "any"}, {}, "refuses logprobs"),
        ({"logprobs": "chosen", "logit_bias": "any"}, {}, "refuses top_logprobs"),
    ],
)
def test_the_gate_says_what_it_refuses(
    local: LocalText, policy: dict[str, Any], biases: dict[int, float], words: str
) -> None:
    door = GatedText(OpenText(local), RoutePolicy(model="m", **policy))
    with pytest.raises(RefusedError, match=words):
        door("hello", biases)


def test_the_gate_shows_what_the_route_gives(local: LocalText) -> None:
    door = GatedText(OpenText(local), RoutePolicy(model="m", logprobs="top5", logit_bias="never", decimals=2))
    shown = door("hello", {})
    assert len(shown) == door.alternatives == 5
    assert all(value == round(value, 2) for value in shown.values())


def test_layers_are_found_by_their_shape() -> None:
    model = language_model(24)
    assert [item.shape for item in layers_of(model, VOCABULARY, 24)] == [(VOCABULARY, 24)] * 2
    assert layers_of(model, VOCABULARY, 23) == []
