"""The watch of language models with a sentence encoder beside its n-grams: the same windows with and without, and cost.

Windows and the two-sample test are those of `watch_text_mmd`. The encoder is all-MiniLM-L6-v2, on one core.
"""

import itertools

import numpy as np

from bench.report import SEED, Report, interleaved
from bench.watch_text_mini_lm import mini_lm, missing
from bench.watch_text_mmd import Bench
from palladion.redteam.prompts import Prompts
from palladion.watch.rows import Rows
from palladion.watch.text.encoder import SentenceEncoder
from palladion.watch.text.ngrams import NgramHash, folded
from palladion.watch.text.wordpiece import WordPiece

WINDOWS = (20, 50, 100)
KNOWN = 20_000  # vectors that are kept, so that each text is encoded once
COST_TEXTS = 20


def compare_encoder(report: Report, prompts: Prompts, *, quick: bool, smoke: bool) -> None:
    """A row for each length of window and each share, and one of cost."""
    absent = missing()
    if absent is not None:
        report.skip(f"rows with a sentence encoder: {absent}")
        return
    encoder = SentenceEncoder(*mini_lm(), known=KNOWN)
    windows: tuple[int, ...]
    each, splits, windows, limiting, judged = (4, 1, (20, 50), 200, 40) if quick else (40, 3, WINDOWS, 500, 150)
    if smoke:
        windows, limiting, judged = (20,), 60, 20
    prompts = Prompts({name: prompts.tasks[name][:each] for name in prompts.names})
    _cost(report, prompts, repeats=3 if quick else 9)
    found: dict[tuple[int, float], list[Rows]] = {}
    for split in range(splits):
        # from the same seed come the same tasks, windows and limits
        benches = [Bench.draw(prompts, np.random.default_rng([SEED, split]), by) for by in (None, encoder)]
        for window in windows:
            seen = [
                bench.caught(window, limiting, judged, np.random.default_rng([SEED, split, window]))
                for bench in benches
            ]
            for mix in seen[0]:
                found.setdefault((window, mix), []).append(np.hstack([np.array(by[mix], float) for by in seen]))
    for (window, mix), parts in found.items():
        _row(report, window, mix, np.concatenate(parts))


def _row(report: Report, window: int, mix: float, caught: Rows) -> None:
    """Of windows (n, 4): seen by n-grams, by MMD on these, with the encoder, and by MMD on the coordinates with it."""
    plain, plain_mmd, encoded, encoded_mmd = 100 * caught.mean(axis=0)
    reference = f"n-grams alone {plain:.1f} %; MMD {plain_mmd:.1f} % on n-grams, {encoded_mmd:.1f} % with the encoder"
    if not mix:
        name = f"windows of {window} honest texts, with an encoder: taken for a harvest"
        report.add(name, encoded, "%", reference=f"{reference}; {len(caught)} windows")
        return
    differences = 100 * (caught[:, 2] - caught[:, 0])
    error = 1.96 * differences.std(ddof=1) / np.sqrt(len(differences))
    low, high = differences.mean() - error, differences.mean() + error
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference seen"
    name = f"windows of {window}, {100 * mix:.0f} % harvest, with an encoder: caught"
    report.add(name, encoded, "%", reference=f"{reference}; with − without {low:+.1f} to {high:+.1f} points: {verdict}")


def _cost(report: Report, prompts: Prompts, *, repeats: int) -> None:
    encoder, tokens = SentenceEncoder(*mini_lm(), known=0), WordPiece.read(mini_lm()[1], what="its tokenizer")
    texts = list(itertools.islice((text for name in prompts.names for text in prompts.tasks[name]), COST_TEXTS))
    hashing = NgramHash(1)

    def vectors() -> None:
        hashing.vectors([folded(hashing.looked_at(text)) for text in texts])

    def encoded() -> None:
        encoder.vectors(texts)

    times = interleaved({"encoder": encoded, "reference": vectors}, repeats=repeats)
    count = np.mean([len(tokens.numbers(text)) for text in texts])
    reference = f"{times['encoder'].beside(times['reference'], 'n-grams')}; {count:.0f} tokens a text"
    report.add(
        "a text's vector by the encoder", times["encoder"].median / len(texts) * 1e6, "µs CPU", reference=reference
    )
