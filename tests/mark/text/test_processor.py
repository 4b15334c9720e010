"""Marks in what Transformers generates: found, without a change of what the model would say on average."""

from typing import Any

import numpy as np
import pytest

from palladion.mark.carriers import derive
from palladion.mark.text.gumbel import KeyedChance, find_text

torch = pytest.importorskip("torch", reason="this needs the torch extra")
transformers = pytest.importorskip("transformers", reason="this needs the transformers extra")
from palladion.mark.text.processor import TextMarker  # noqa: E402 (skipped as a whole without them)

pytestmark = [pytest.mark.torch, pytest.mark.slow]

CHANCE = KeyedChance(derive(bytes(32), "text"))
PROMPT = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])


def _model() -> Any:
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=2, vocab_size=300, n_positions=512, bos_token_id=0, eos_token_id=None
    )
    return transformers.GPT2LMHeadModel(config).eval()


def _generated(marker: TextMarker | None, *, count: int = 150, seed: int = 2, **settings: float) -> list[list[int]]:
    torch.manual_seed(seed)
    made = _model().generate(
        PROMPT,
        attention_mask=torch.ones_like(PROMPT),
        do_sample=True,
        max_new_tokens=count,
        pad_token_id=0,
        logits_processor=[marker] if marker else None,
        **settings,
    )
    return [row[PROMPT.shape[1] :].tolist() for row in made]


def test_every_generated_text_is_found() -> None:
    texts = _generated(TextMarker(CHANCE))

    assert all(find_text([text], CHANCE).log10_p < -50 for text in texts)


def test_the_samplers_own_settings_leave_the_mark() -> None:
    texts = _generated(TextMarker(CHANCE, temperature=0.9, top_k=100, top_p=0.95), temperature=0.7, top_k=50, top_p=0.9)

    assert all(find_text([text], CHANCE).log10_p < -30 for text in texts)


def test_text_without_the_marker_is_not_found() -> None:
    assert find_text(_generated(None), CHANCE).log10_p > -3


def test_two_texts_of_one_call_differ() -> None:
    first, second = _generated(TextMarker(CHANCE))

    assert first != second


def test_what_is_drawn_has_the_models_probabilities() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    expected = scores.softmax(dim=1)[0].numpy()

    drawn = np.zeros(4)
    for index in range(2000):
        marker = TextMarker(CHANCE)
        marker(torch.tensor([[0]]), scores)  # the prompt's end
        drawn[int(marker(torch.tensor([[0, index, 1, 2, 3]]), scores).argmax())] += 1

    assert np.abs(drawn / 2000 - expected).max() < 0.04


def test_a_context_that_comes_back_is_left_to_the_sampler() -> None:
    marker, scores = TextMarker(CHANCE), torch.zeros(1, 10)
    marker(torch.tensor([[0]]), scores)
    context = torch.tensor([[0, 1, 2, 3, 4]])

    assert torch.isinf(marker(context, scores)).sum() == 9
    assert torch.isinf(marker(context, scores)).sum() == 0


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}])
def test_settings_that_leave_nothing_to_chance_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="drawn by chance"):
        TextMarker(CHANCE, **settings)
