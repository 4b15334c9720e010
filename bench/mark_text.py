"""Marked text: how strong after how many tokens, after replacement, by mistake, and what an engine's generators add."""

import statistics
import time

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report
from palladion.mark.carriers import derive
from palladion.mark.text.engines import MurmurChance, PhiloxChance
from palladion.mark.text.gumbel import Chance, KeyedChance, find_text

VOCABULARY = 3000
SPREAD = 4.0  # of the toy model's logits; its entropy, which is printed, is more than large models have


def measure_text(report: Report, *, texts: int) -> None:
    """Rows for our own sampler and for those of two engines, on a toy model whose next token depends on the last."""
    chance, other = (KeyedChance(derive(bytes(32), name)) for name in ("text", "another"))
    written = [_written(chance, 400, seed) for seed in range(texts)]
    clean = [_written(None, 400, SEED + seed) for seed in range(texts)]
    generator = np.random.default_rng(SEED)
    report.add("text: entropy of the toy model", _entropy(), "bit/token", reference="large models have 0.5 to 1.5")
    for count in (50, 100, 200, 400):
        found = [find_text([text[: count + 4]], chance).log10_p for text in written]
        wrong = min(find_text([text[: count + 4]], other).log10_p for text in written)
        unmarked = min(find_text([text[: count + 4]], chance).log10_p for text in clean)
        controls = f"{texts} texts; strongest by a wrong key {wrong:.1f}, of unmarked text {unmarked:.1f}"
        report.add(f"text: {count} tokens, median", statistics.median(found), "log10 p", reference=controls)
    for share in (0.3, 0.5):
        found = [find_text([_replaced(text, share, generator)], chance).log10_p for text in written]
        name = f"text: 400 tokens, {share:.0%} of them replaced, median"
        report.add(name, statistics.median(found), "log10 p", reference=f"weakest {max(found):.1f}")
    _null(report, clean)
    for name, engine in (("vLLM's generator", PhiloxChance(42)), ("SGLang's generator", MurmurChance(42))):
        texts_of_engine = [_written(engine, 200, seed) for seed in range(max(3, texts // 5))]
        found = [find_text([text], engine).log10_p for text in texts_of_engine]
        report.add(f"text: 200 tokens, {name}, median", statistics.median(found), "log10 p")
    _cost(report, chance)


def _null(report: Report, clean: list[list[int]]) -> None:
    keys = [derive(bytes(32), f"null {index}") for index in range(40)]
    found = [find_text([text], KeyedChance(key)).log10_p for text in clean for key in keys]
    share = float(np.mean(np.array(found) <= -2))
    reference = f"{len(found):,} texts and keys; p is exact, so 1 % is expected"
    # three standard errors above what is expected
    bar = 100 * (0.01 + 3 * (0.01 / len(found)) ** 0.5)
    report.at_most("text: false positives at p = 0.01", 100 * share, "%", bar, reference=reference)


def _cost(report: Report, chance: Chance) -> None:
    tokens = np.arange(128_000)
    started = time.process_time()
    for index in range(20):
        chance.uniforms([index, 2, 3, 4], tokens)
    each = (time.process_time() - started) / 20
    report.add("text: chance for a vocabulary of 128,000", 1000 * each, "ms CPU", reference="for each token generated")


def _written(chance: Chance | None, count: int, seed: int) -> list[int]:
    rng = np.random.default_rng([SEED, seed])
    tokens = [int(token) for token in rng.integers(VOCABULARY, size=4)]
    everything = np.arange(VOCABULARY)
    for _ in range(count):
        uniform = rng.random(VOCABULARY) if chance is None else chance.uniforms(tokens[-4:], everything) + 2.0**-33
        tokens.append(int(np.argmax(_logits(tokens[-1]) - np.log(-np.log(uniform)))))
    return tokens


def _logits(token: int) -> NDArray[np.float64]:
    return SPREAD * np.random.default_rng(token).standard_normal(VOCABULARY)


def _entropy() -> float:
    bits: list[float] = []
    for token in range(50):
        logits = _logits(token)
        logs = logits - logits.max()
        logs -= np.log(np.exp(logs).sum())
        bits.append(-float((np.exp(logs) * logs).sum()) / np.log(2))
    return statistics.mean(bits)


def _replaced(text: list[int], share: float, generator: np.random.Generator) -> list[int]:
    changed = np.array(text)
    chosen = generator.random(len(text)) < share
    changed[chosen] = generator.integers(VOCABULARY, size=int(chosen.sum()))
    return [int(token) for token in changed]
