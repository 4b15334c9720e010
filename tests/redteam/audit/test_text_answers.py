"""A language model in a folder: greedy and drawn answers, and what each step of its route leaves of them."""

from pathlib import Path

import numpy as np
import pytest

from palladion.model.read import read_folder
from palladion.policy import RoutePolicy
from palladion.redteam.audit.text_answers import FolderText, doors_of, is_text_folder, words_of
from palladion.redteam.distilling import ANSWER_TOKENS
from tests.gate.transformers_server import write_model

pytestmark = [pytest.mark.torch, pytest.mark.slow]

PROMPTS = [f"Tell me of {word}." for word in ("Troy", "Sparta", "Ithaca", "a much longer and rather odd question")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of bytes."""
    pytest.importorskip("torch", reason="this needs torch: pip install 'palladion[torch]'")
    pytest.importorskip("transformers", reason="this needs transformers: pip install 'palladion[torch]'")
    made = tmp_path_factory.mktemp("llama")
    write_model(made)
    return made


def _route(**settings: object) -> RoutePolicy:
    return RoutePolicy(model="m", protocol="openai", upstream="http://127.0.0.1:9", **settings)  # type: ignore[arg-type]


def test_greedy_answers_are_the_same_alone_or_beside_others(folder: Path) -> None:
    model = FolderText(folder, seed=1)
    together = list(model.answers(PROMPTS, temperature=0.0, again=0))
    alone = next(FolderText(folder, seed=2).answers(PROMPTS[1:2], temperature=0.0, again=0))
    assert alone.text == together[1].text
    assert len(together[0].places) == ANSWER_TOKENS
    # what is said is what was likeliest
    for place in together[0].places:
        values = [value for _, value in place.likeliest]
        assert place.likeliest[0][0] == place.token
        assert values == sorted(values, reverse=True)


def test_drawn_answers_differ_and_are_the_same_from_the_same_seed(folder: Path) -> None:
    first, again, same = (
        [item.text for item in FolderText(folder, seed=1).answers(PROMPTS, temperature=1.0, again=number)]
        for number in (0, 1, 0)
    )
    assert first == same
    assert first != again
    assert len(set(first)) == len(PROMPTS)


def test_a_route_shows_fewer_tokens_and_alternatives(folder: Path) -> None:
    model = FolderText(folder, seed=1)
    doors = doors_of(model, _route(logprobs="top5", decimals=2, tokens_max=20, tokens_degraded=4))
    whole, given, cut = (
        next(doors[name].answers(PROMPTS[:1], temperature=0.0, again=0))
        for name in ("undefended", "deployed", "degraded")
    )
    assert [len(place.likeliest) for place in whole.places] == [20] * ANSWER_TOKENS
    assert [len(place.likeliest) for place in given.places] == [5] * 20
    assert all(round(value, 2) == value for place in given.places for _, value in place.likeliest)
    assert cut.places == ()
    assert whole.text.startswith(cut.text)
    assert cut.text == "".join(place.token for place in whole.places[:4])


def test_steps_that_show_the_same_are_one_door(folder: Path) -> None:
    model = FolderText(folder, seed=1)
    assert list(doors_of(model, _route())) == ["undefended", "deployed"]
    doors = doors_of(model, _route(tokens_max=20))
    assert list(doors) == ["undefended", "deployed", "throttled"]
    assert words_of(doors)["throttled"] == "up to 10 tokens, log probabilities of no alternatives"


def test_a_folder_with_a_language_model_is_recognised(folder: Path, tmp_path: Path) -> None:
    assert is_text_folder(read_folder(folder))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    for content in (b"{}", b"[]", b"no", b'{"architectures": "X"}', b'{"architectures": ["BertModel"]}'):
        (tmp_path / "config.json").write_bytes(content)
        assert not is_text_folder(read_folder(tmp_path))
    assert np.isfinite(len(PROMPTS))
