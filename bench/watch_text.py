"""Whom does the watch of language models disturb, how soon does it see a harvest, and what does it cost?

Talkers and distillers of docs/traffic.md over prompts of public data sets. All that was chosen was chosen on one half
of the data sets; these rows are of the other half: honest clients have some of the sources, a harvest goes over all.
Neither times nor sizes of answers are told, because a thief imitates these for nothing. Who calibrates and who is
judged have the same tasks and no text in common.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from bench.mark_subjects import DATA
from bench.report import SEED, Report, Row, interleaved, main
from bench.watch_text_encoder import compare_encoder
from bench.watch_text_mmd import compare
from palladion.redteam.distillers import FAMILIES, distiller
from palladion.redteam.manners import FRONT_END_TASKS, front_end
from palladion.redteam.prompts import Prompts, read_prompts
from palladion.redteam.talk import honest_talkers, talker
from palladion.watch.calibration import About
from palladion.watch.client import QUERIES_MIN, STATE_BYTES_MAX
from palladion.watch.coverage import BITS
from palladion.watch.rows import Rows
from palladion.watch.text.calibration import TextCalibration, calibrate_texts, client_statistics
from palladion.watch.text.instruments import SCORES, TextInstruments
from palladion.watch.text.memory import TextMemory
from palladion.watch.text.memory import measure as measured
from palladion.watch.text.query import Conversation, Query

FILE = "prompts_200_tasks.jsonl.gz"
SPLIT_SEED = 11  # of the halves that were developed on and are reported
ALPHAS = (0.01, 0.005)
WITHIN = (20, 50, 100, 200, 500)
MIXES = (1.0, 0.5, 0.3, 0.1)
MEDIAN_BAR, COST_BAR_US = 100, 150
FRONT_ENDS = 0.02  # share of broad accounts in a calibration that counts them as honest
UNSEEN = "narrow"  # nothing in its texts gives it away, on purpose
HEAD_BYTES = 128  # counts, times and sizes beside sums, memory and bitmap
TOGETHER = 32
NEVER = float("inf")


@dataclass(frozen=True)
class _Size:
    queries: int
    fitted: int
    clients: int
    judged: int
    broad: int
    thieves: int


LONG, SHORT = _Size(500, 120, 600, 400, 100, 25), _Size(100, 60, 220, 60, 20, 6)
SMOKE = _Size(60, 60, 120, 10, 5, 2)


def measure(report: Report) -> None:
    """Fill the report."""
    if not (DATA / FILE).exists():
        report.skip(f"all rows: they need {FILE}, prompts of many tasks")
        return
    size = SMOKE if report.smoke else SHORT if report.quick else LONG
    _, prompts = read_prompts(DATA / FILE).split(np.random.default_rng(SPLIT_SEED))
    generator = np.random.default_rng(SEED)
    home, _ = prompts.split(generator)
    before, later = home.halves()
    calibration = _calibrated(before, size, generator)
    _honest(report, calibration, later, size, generator)
    _harvests(report, calibration, prompts.halves()[1], later, size, generator)
    _front_ends(report, (before, later), prompts.halves()[1], size, generator)
    _cost(report, calibration.instruments, later, generator)
    compare(report, prompts, generator, quick=report.quick, smoke=report.smoke)
    compare_encoder(report, prompts, quick=report.quick, smoke=report.smoke)


def _calibrated(
    prompts: Prompts, size: _Size, generator: np.random.Generator, *, front_ends: float = 0.0
) -> TextCalibration:
    created = datetime(2026, 1, 1, tzinfo=UTC)
    about = About("bench", 1, "00" * 32, True, size.queries, size.queries, SEED, created)
    fitting, clients = (
        (_told(made.conversation) for made in honest_talkers(prompts, count, size.queries, generator, front_ends=share))
        for count, share in ((size.fitted, 0.0), (size.clients, front_ends))
    )
    return calibrate_texts(about, list(fitting), clients, [], generator)


def _honest(
    report: Report, calibration: TextCalibration, prompts: Prompts, size: _Size, generator: np.random.Generator
) -> None:
    made = honest_talkers(prompts, size.judged, size.queries, generator)
    kinds: dict[str, Iterable[Conversation]] = {
        "honest clients": (each.conversation for each in made),
        f"broad honest clients ({FRONT_END_TASKS[0]} to {FRONT_END_TASKS[1]} tasks)": _broad(prompts, size, generator),
    }
    for kind, conversations in kinds.items():
        firsts = [_caught(calibration, conversation) for conversation in conversations]
        for alpha in ALPHAS:
            disturbed = [first[alpha] < NEVER for first in firsts]
            low, high = _wilson(sum(disturbed), len(disturbed))
            reference = (
                f"{sum(disturbed)} of {len(disturbed)}, {size.queries} queries; 95 % interval {low:.1%} to {high:.1%}"
            )
            reference += f"; {calibration.about.clients} calibrate"
            name, rate = f"{kind} with p ≤ {100 * alpha:g} %", 100 * sum(disturbed) / len(disturbed)
            if kind.startswith("broad"):
                report.add(name, rate, "%", reference=reference)
            else:
                bar = f"interval reaches {100 * alpha:g} % or less"
                report.rows.append(Row(name, rate, "%", reference, bar, low <= alpha))


def _broad(prompts: Prompts, size: _Size, generator: np.random.Generator) -> Iterable[Conversation]:
    for number in range(size.broad):
        name, manner = f"broad-{number}", front_end(prompts, generator)
        yield talker(prompts, manner, size.queries, generator, name=name, organisation=name).conversation


def _front_ends(
    report: Report,
    homes: tuple[Prompts, Prompts],
    prompts: Prompts,
    size: _Size,
    generator: np.random.Generator,
) -> None:
    """What it would cost to count broad accounts among the honest clients that are calibrated on."""
    before, later = homes
    calibration, alpha = _calibrated(before, size, generator, front_ends=FRONT_ENDS), ALPHAS[0]
    kind = f"with {100 * FRONT_ENDS:g} % of such accounts among those calibrated on"
    disturbed = [_caught(calibration, each)[alpha] < NEVER for each in _broad(later, size, generator)]
    report.add(f"{kind}: broad honest clients with p ≤ {100 * alpha:g} %", 100 * float(np.mean(disturbed)), "%")
    for family in FAMILIES:
        thieves = [
            distiller(family, prompts, size.queries, generator, cover=later).conversation for _ in range(size.thieves)
        ]
        caught = [_caught(calibration, each)[alpha] < NEVER for each in thieves]
        report.add(f"{kind}: {family}, 100 % harvest: caught", 100 * float(np.mean(caught)), "%")


def _harvests(
    report: Report,
    calibration: TextCalibration,
    prompts: Prompts,
    cover: Prompts,
    size: _Size,
    generator: np.random.Generator,
) -> None:
    alpha = ALPHAS[0]
    for family in FAMILIES:
        for mix in MIXES:
            firsts = np.array(
                [
                    _caught(
                        calibration,
                        distiller(family, prompts, size.queries, generator, cover=cover, mix=mix).conversation,
                    )[alpha]
                    for _ in range(size.thieves)
                ]
            )
            within = [at for at in WITHIN if at <= size.queries]
            shares = ", ".join(f"{at}: {100 * np.mean(firsts <= at):.0f}" for at in within)
            name = f"{family}, {100 * mix:.0f} % harvest"
            reference = f"% caught within {shares}; {size.thieves} accounts, p ≤ {100 * alpha:g} %"
            report.add(f"{name}: caught", 100 * float(np.mean(firsts < NEVER)), "%", reference=reference)
            if mix == 1.0:
                _median(report, name, family, firsts.tolist(), size.queries)


def _median(report: Report, name: str, family: str, firsts: Sequence[float], queries: int) -> None:
    found = float(np.median(firsts))
    reference = "" if found < NEVER else f"or more: fewer than half were caught within {queries}"
    value = min(found, queries + 1.0)
    if family == UNSEEN:
        parts = (reference, "on purpose nothing gives it away")
        report.add(f"{name}: median", value, "queries", reference="; ".join(part for part in parts if part))
    else:
        report.at_most(f"{name}: median", value, "queries", MEDIAN_BAR, reference=reference)


def _caught(calibration: TextCalibration, conversation: Conversation) -> dict[float, float]:
    """After how many distinct queries the p-value is at most each of `ALPHAS`; never is infinity."""
    (scores,) = calibration.instruments.score([_told(conversation)])
    found = client_statistics(calibration.instruments.effects, scores[: calibration.about.horizon])[QUERIES_MIN - 1 :]
    p_values = calibration.p_values(np.maximum.accumulate(found, axis=0))
    return {
        alpha: float(np.argmax(p_values <= alpha)) + QUERIES_MIN if (p_values <= alpha).any() else NEVER
        for alpha in ALPHAS
    }


def _told(conversation: Conversation) -> Conversation:
    return Conversation([Query(query.text, query.parameters) for query in conversation.queries])


def _cost(report: Report, instruments: TextInstruments, prompts: Prompts, generator: np.random.Generator) -> None:
    features = instruments.features
    repeats = 5 if report.quick else 9
    clients = [TextMemory(features.kept) for _ in range(4 * TOGETHER)]
    rounds = 3 * (repeats + 1) + 70
    texts = [
        list(_told(made.conversation).queries) for made in honest_talkers(prompts, len(clients), rounds, generator)
    ]
    for memory, queries in zip(clients, texts, strict=True):
        memory.measure(features, queries[:70])
    left = iter(range(70, rounds))

    def asked(size: int) -> None:
        at = next(left)
        for start in range(0, len(clients), size):
            requests = [(clients[place], texts[place][at : at + 1]) for place in range(start, start + size)]
            _weigh(instruments, measured(features, requests).features)

    def vectors() -> None:
        at = next(left)
        looked = [features.hashing.looked_at(queries[at].text) for queries in texts]
        features.hashing.vectors(looked) @ features.directions

    runs: dict[str, Callable[[], object]] = {"1": lambda: asked(1), "32": lambda: asked(TOGETHER), "reference": vectors}
    times = interleaved(runs, repeats=repeats)
    for number, name in (("1", "a request alone"), ("32", f"{TOGETHER} requests together")):
        beside = f"{times[number].beside(times['reference'], 'n-grams and their directions')}"
        value = times[number].median / len(clients) * 1e6
        reference = f"{beside}; best {times[number].best / len(clients) * 1e6:.0f}"
        if number == "32":
            report.at_most(name, value, "µs CPU a query", COST_BAR_US, reference=reference)
        else:
            report.add(name, value, "µs CPU a query", reference=reference)
    saved = max(len(memory.to_bytes()) for memory in clients)
    state = saved + 2 * SCORES * 8 + 2**BITS // 8 + HEAD_BYTES
    reference = f"memory {saved:,}, bitmap {2**BITS // 8:,}, sums of its own and of its group, head"
    report.at_most("state of a client, saved", state, "bytes", STATE_BYTES_MAX, reference=reference)


def _weigh(instruments: TextInstruments, features: Rows) -> Sequence[float]:
    if not len(features):
        return []
    scores = instruments.score_features(features)
    counts = np.full(len(scores), 70)
    weighed: list[float] = instruments.effects.statistics(scores * 70, counts).max(axis=1).tolist()
    return weighed


def _wilson(count: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson 1927)."""
    z = 1.96
    middle, scale = (count + z * z / 2) / (trials + z * z), z / (trials + z * z)
    half = scale * np.sqrt(count * (trials - count) / trials + z * z / 4)
    return max(0.0, float(middle - half)), float(middle + half)


if __name__ == "__main__":
    main("watch_text", (__doc__ or "").partition("\n")[0], measure)
