"""Marked text: found by its key, by no other, exactly as often by mistake as stated, and whoever it was made for."""

import numpy as np
import pytest
from scipy.stats import gamma, kstest

from palladion.mark.carriers import derive
from palladion.mark.stats import log10_gamma_tail
from palladion.mark.text.gumbel import KeyedChance, find_text, text_key, trace_text

ROOT = bytes(range(32))
VOCABULARY = 500


def _chance(tenant: str) -> KeyedChance:
    return KeyedChance(text_key(ROOT, tenant, "2026-11"))


def _written(chance: KeyedChance | None, count: int, *, seed: int, entropy: float = 3.0) -> list[int]:
    """Tokens of a toy model whose next one depends on the last; marked by `chance`, or not."""
    rng = np.random.default_rng(seed)
    logits = entropy * np.random.default_rng(7).standard_normal((VOCABULARY, VOCABULARY))
    tokens = [int(token) for token in rng.integers(VOCABULARY, size=4)]
    everything = np.arange(VOCABULARY)
    for _ in range(count):
        uniform = rng.random(VOCABULARY) if chance is None else chance.uniforms(tokens[-4:], everything) + 2**-33
        tokens.append(int(np.argmax(logits[tokens[-1]] - np.log(-np.log(uniform)))))
    return tokens


def test_marked_text_is_found_by_its_key() -> None:
    found = find_text([_written(_chance("acme"), 200, seed=1)], _chance("acme"))

    assert found.log10_p < -50
    assert found.tokens == 200


def test_marked_text_is_not_found_by_another_key() -> None:
    assert find_text([_written(_chance("acme"), 200, seed=1)], _chance("other")).log10_p > -3


def test_text_of_a_model_without_a_mark_is_not_found() -> None:
    assert find_text([_written(None, 400, seed=2)], _chance("acme")).log10_p > -3


@pytest.mark.slow
def test_p_values_of_independent_text_are_uniform() -> None:
    text = _written(None, 60, seed=3)

    p = [10 ** find_text([text], KeyedChance(derive(ROOT, f"{index}"))).log10_p for index in range(300)]

    assert kstest(p, "uniform").pvalue > 0.01


def test_a_third_of_the_tokens_replaced_leaves_evidence() -> None:
    text = np.array(_written(_chance("acme"), 400, seed=4))
    rng = np.random.default_rng(5)
    replaced = rng.random(len(text)) < 0.3
    text[replaced] = rng.integers(VOCABULARY, size=int(replaced.sum()))

    assert find_text([text.tolist()], _chance("acme")).log10_p < -9


def test_text_that_is_given_twice_counts_once() -> None:
    text = _written(_chance("acme"), 100, seed=6)

    assert find_text([text, text], _chance("acme")) == find_text([text], _chance("acme"))


def test_a_model_that_repeats_itself_gives_no_evidence() -> None:
    loop = [1, 2, 3, 4, 5] * 200

    found = find_text([loop], _chance("acme"))

    assert found.tokens == 5
    assert found.log10_p > -9


@pytest.mark.slow
def test_the_tenant_whose_text_it_is_is_named_and_the_others_pay_nothing() -> None:
    tenants = {name: _chance(name) for name in (f"tenant {index}" for index in range(30))}

    found = trace_text([_written(_chance("tenant 17"), 150, seed=8)], tenants)

    assert next(iter(found)) == "tenant 17"
    assert found["tenant 17"].log10_p < -20
    assert all(item.log10_p > -3 for name, item in found.items() if name != "tenant 17")
    alone = find_text([_written(_chance("tenant 17"), 150, seed=8)], _chance("tenant 17"))
    assert found["tenant 17"].log10_p == pytest.approx(alone.log10_p + np.log10(30))


def test_keys_differ_by_tenant_and_epoch() -> None:
    assert len({text_key(ROOT, tenant, epoch) for tenant in ("a", "b") for epoch in ("1", "2")}) == 4


def test_one_token_has_the_number_that_the_whole_vocabulary_gives_it() -> None:
    chance = _chance("acme")
    whole = chance.uniforms([1, 2, 3, 4], np.arange(1000))

    assert [chance.uniforms([1, 2, 3, 4], np.array([token]))[0] for token in (0, 3, 4, 999)] == [
        whole[token] for token in (0, 3, 4, 999)
    ]


def test_a_key_does_not_show() -> None:
    assert "acme" not in repr(_chance("acme"))
    assert _chance("acme").key.hex() not in repr(_chance("acme"))


@pytest.mark.parametrize("tokens", [[-1] * 9, [2**40] * 9])
def test_numbers_that_no_token_has_are_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="a token's number"):
        find_text([tokens], _chance("acme"))


def test_text_shorter_than_a_context_says_nothing() -> None:
    assert find_text([[1, 2, 3]], _chance("acme")).log10_p == 0.0


def test_the_gamma_tail_is_scipys_where_scipy_has_one() -> None:
    for count, score in ((1, 3.0), (10, 25.0), (400, 900.0), (50, 20.0)):
        assert log10_gamma_tail(score, count) == pytest.approx(gamma.logsf(score, count) / np.log(10), rel=1e-9)
    assert log10_gamma_tail(1e7, 10_000) < -4e6
