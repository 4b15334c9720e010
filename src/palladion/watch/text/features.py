"""What is looked at in a request to a language model: numbers of its text, its parameters, and what came of it.

Fitted on texts that honest clients sent. What needs a client's earlier requests is left to `memory`. The table of
docs/watch.md says what each number is good for.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows
from palladion.watch.text.encoder import Encoder
from palladion.watch.text.ngrams import AT_ONCE, CELLS, FOUR_BITS, SALT_MAX, NgramHash, folded
from palladion.watch.text.query import Query
from palladion.watch.text.rules import LETTERS, RULES, applied
from palladion.watch.text.template import SIGNATURE, Signatures, signatures

COMPONENTS = 16
_COMPONENTS = {
    f"component-{number}": f"the mix of texts is shifted (direction {number} of honest variation)"
    for number in range(1, COMPONENTS + 1)
}
# Names in the order of the columns, and what an unusual value means to a person who asks why.
TEXT_FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "length": "texts are longer or shorter than honest ones",
        "capitals": "texts have more or fewer capital letters than honest ones",
        "digits": "texts have more or fewer digits than honest ones",
        "marks": "texts have more or fewer punctuation marks than honest ones",
        "lines": "texts have more or fewer line breaks than honest ones",
        "script": "texts have more or fewer letters beyond ASCII than honest ones",
        "energy": "texts lie far out along directions in which honest ones vary",
        "residual": "texts are made of n-grams that honest ones do not use",
        **_COMPONENTS,
        **{name: f"the client {rule.sentence} more often than honest ones" for name, rule in RULES.items()},
        "repeats": "texts are closer to, or further from, the nearest of the client's own earlier ones than is usual",
        "template": "texts fit fewer, or more, of the client's own templates than is usual",
        "sweep": "parameters change more often than those of honest clients",
        "pace": "requests follow each other faster or slower than those of honest clients",
        "regularity": "requests follow each other at more equal times than those of honest clients",
        "hour": "requests come at hours at which honest clients rarely ask",
        "answers": "answers are longer or shorter for their texts than is usual",
        "failures": "more requests fail than those of honest clients",
        "cohesion": "the client's texts have less in common with each other than those of one honest client",
    }
)
_PLACES = {name: place for place, name in enumerate(TEXT_FEATURES)}
_RULES = _PLACES["reasoning"]
REPEATS, TEMPLATE, SWEEP, PACE, REGULARITY, COHESION = (
    _PLACES[name] for name in ("repeats", "template", "sweep", "pace", "regularity", "cohesion")
)
_HOUR, _ANSWERS, _FAILURES = (_PLACES[name] for name in ("hour", "answers", "failures"))
TEXTS_MIN = 64  # fewer texts give directions that mean nothing
KEPT = 32  # principal directions: 64 of them tell no more harvests, and do not fit into a client's 16 KiB
HOURS = 48  # of a working day, and of a day of the weekend
HOUR_S, DAY_S, WEEK_DAYS, WORKDAYS = 3600, 86_400, 7, 5
_MONDAY_S = 4 * DAY_S  # 1970 began on a Thursday
_TINY = 1e-9
# kinds of bytes: other, capital, digit, mark, line break, beyond ASCII
_KINDS = bytes(
    1 if 65 <= byte <= 90 else 2 if 48 <= byte <= 57 else 4 if byte == 10 else 5 if byte >= 128
    else 3 if 33 <= byte <= 126 and not 97 <= byte <= 122 else 0
    for byte in range(256)
)  # fmt: skip
_STYLES = (1, 2, 3, 4, 5)
_NOT_SHOWN = [math.nan] * COMPONENTS  # of components, where fewer coordinates are kept
_NOT_KNOWN = [math.nan] * (_HOUR - REPEATS)  # without earlier requests; and cohesion


@dataclass(frozen=True, eq=False)
class Looks:
    """What requests were seen to be: `found` (n, features), `coordinates` (n, kept), `signatures` (n, SIGNATURE)."""

    found: Rows
    coordinates: NDArray[np.float32]
    signatures: Signatures


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """The fitted reference. Arrays: `salt` (1,), `centre` (width,), `directions` (width, kept), `deviations` (kept,),
    and the share of honest requests in each hour, `hours` (HOURS,).

    A text's vector has its n-grams (CELLS,), and behind these, where there is an `encoder`, that one's. Then half of
    the directions are of n-grams and half of the other, in turn, so that the first ones are the strongest of both.
    """

    salt: Rows
    centre: Rows
    directions: Rows
    deviations: Rows
    hours: Rows
    encoder: Encoder | None = None

    @classmethod
    def fit(
        cls, queries: Sequence[Query], generator: np.random.Generator, encoder: Encoder | None = None
    ) -> "TextFeatures":
        """Fit to what honest clients asked. Raises ValueError on fewer than `TEXTS_MIN` queries."""
        if len(queries) < TEXTS_MIN:
            raise ValueError(f"{len(queries)} texts cannot be a reference, at least {TEXTS_MIN} are needed")
        salt = int(generator.integers(0, SALT_MAX))
        hashing = NgramHash(salt)
        looked = [hashing.looked_at(query.text) for query in queries]
        vectors = hashing.vectors([folded(text) for text in looked])
        if encoder is None:
            centre, kept, deviations = _principal(vectors, KEPT)
        else:
            grams, said = _principal(vectors, KEPT // 2), _principal(_encoded(encoder, queries, looked), KEPT // 2)
            centre, deviations = np.concatenate((grams[0], said[0])), np.empty(KEPT)
            kept = np.zeros((len(centre), KEPT))
            kept[:CELLS, 0::2], deviations[0::2] = grams[1:]
            kept[CELLS:, 1::2], deviations[1::2] = said[1:]
        counts = np.bincount([hour_of_week(query.at) for query in queries if math.isfinite(query.at)], minlength=HOURS)
        shares = (counts + 1) / (counts.sum() + HOURS)
        return cls(np.array([float(salt)]), centre, np.ascontiguousarray(kept), deviations, shares, encoder)

    @property
    def names(self) -> Mapping[str, str]:
        """The features in the order of the columns, in words."""
        return TEXT_FEATURES

    @property
    def arrays(self) -> Mapping[str, Rows]:
        """Everything that was fitted, by the names above."""
        return {name: getattr(self, name) for name in ("salt", "centre", "directions", "deviations", "hours")}

    def words(self, text: str) -> str:
        """The part of a text that is looked at, for an encoder."""
        return _words(self.hashing.looked_at(text))

    @property
    def kept(self) -> int:
        """How many coordinates a text has."""
        return len(self.deviations)

    @cached_property
    def _directions(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(self.directions, np.float32)

    @cached_property
    def _shares(self) -> NDArray[np.float32]:
        return (1 / self.deviations).astype(np.float32)

    @cached_property
    def hashing(self) -> NgramHash:
        """The keyed hash that the reference was fitted with."""
        return NgramHash(int(self.salt[0]))

    def look(self, queries: Sequence[Query]) -> Looks:
        """Everything about requests that can be said without their clients' earlier ones; the rest is NaN.

        What is said of one does not depend on the others, to the last bit.
        """
        parts = [self._look(queries[start : start + AT_ONCE]) for start in range(0, len(queries), AT_ONCE)]
        if len(parts) == 1:
            return parts[0]
        return Looks(
            np.concatenate([np.empty((0, len(TEXT_FEATURES))), *(part.found for part in parts)]),
            np.concatenate([np.empty((0, self.kept), np.float32), *(part.coordinates for part in parts)]),
            np.concatenate([np.empty((0, SIGNATURE), np.uint16), *(part.signatures for part in parts)]),
        )

    def _look(self, queries: Sequence[Query]) -> Looks:
        looked = [self.hashing.looked_at(query.text) for query in queries]
        plain = [folded(text) for text in looked]
        vectors, fours = self.hashing.hashed(plain)
        if self.encoder is not None:
            vectors = np.hstack((vectors, _encoded(self.encoder, queries, looked)))
        vectors -= self.centre
        # in half the precision, because the directions then fill half the cache; a coordinate is kept in no more
        # row by row, as `rows.product`
        along = np.matmul(vectors.astype(np.float32)[:, None, :], self._directions)[:, 0]
        coordinates = along * self._shares
        energy = np.vecdot(coordinates, coordinates).tolist()
        # of n-grams alone: what they leave is how texts of another kind are known, whatever these say
        grams, own = vectors[:, :CELLS], along[:, :: 1 if self.encoder is None else 2]
        rest = (np.vecdot(grams, grams) - np.vecdot(own, own)).tolist()
        shown = coordinates[:, :COMPONENTS].tolist()
        possible = self._possible(fours, plain)
        # logarithms one by one: NumPy's may differ in the last bit by where in an array they are taken
        found = [
            [
                math.log(len(query.text) + 1),
                *_styles(looked[place]),
                math.log(energy[place] + _TINY),
                math.log(max(rest[place], _TINY)),
                *shown[place],
                *_NOT_SHOWN[self.kept :],
                *applied(plain[place], query.parameters, possible[place]),
                *_NOT_KNOWN,
                *self._circumstances(query),
                math.nan,
            ]
            for place, query in enumerate(queries)
        ]
        return Looks(np.array(found), coordinates, signatures(plain))

    def _circumstances(self, query: Query) -> tuple[float, float, float]:
        """`hour`, `answers` and `failures` of a request."""
        hour = answers = math.nan
        if math.isfinite(query.at):
            hour = self._rarity[hour_of_week(query.at)]
        if query.answer_chars >= 0 and not query.failed:
            answers = math.log((query.answer_chars + 1) / (len(query.text) + 1))
        return hour, answers, float(query.failed)

    def _possible(self, fours: NDArray[np.uint16], plain: Sequence[bytes]) -> list[int]:
        """For each text the rules on words that may apply to it, by the hashes of its letters: a bit for each."""
        possible = [0] * len(plain)
        marks = self._marks.take(fours)
        places = np.flatnonzero(marks)
        if len(places):
            ends = list(accumulate(map(len, plain)))
            for place, mark in zip(places.tolist(), marks[places].tolist(), strict=True):
                possible[bisect_right(ends, place)] |= mark
        return possible

    @cached_property
    def _marks(self) -> NDArray[np.uint8]:
        """The rules that letters are a sign of, by the hash of these (2 ** FOUR_BITS,): a bit for each."""
        marks = np.zeros(1 << FOUR_BITS, np.uint8)
        for number, groups in enumerate(LETTERS):
            for letters in groups:
                marks[self.hashing.four(letters)] |= 1 << number
        return marks

    @cached_property
    def _rarity(self) -> list[float]:
        return [-math.log(share) for share in self.hours.tolist()]


def _principal(vectors: Rows, count: int) -> tuple[Rows, Rows, Rows]:
    """The centre (width,) of vectors (n, width), which they lose, their directions (width, count) and deviations."""
    centre = vectors.mean(axis=0)
    vectors -= centre
    variances, directions = np.linalg.eigh(vectors.T @ vectors / len(vectors))
    deviations = np.sqrt(np.maximum(variances[::-1][:count], _TINY))
    return centre, directions[:, ::-1][:, :count], deviations


def _encoded(encoder: Encoder, queries: Sequence[Query], looked: Sequence[bytes]) -> Rows:
    """The encoder's vectors (n, width) of texts, but for those that are worked out already."""
    left = [place for place, query in enumerate(queries) if query.vector is None]
    made = dict(zip(left, encoder.vectors([_words(looked[place]) for place in left]), strict=True))
    vectors = [made[place] if query.vector is None else query.vector for place, query in enumerate(queries)]
    return np.array(vectors, np.float64).reshape(len(queries), encoder.width)


def _words(looked: bytes) -> str:
    return looked.decode(errors="replace")  # a part may end within a character


def _styles(looked: bytes) -> list[float]:
    """The share of each kind of bytes."""
    kinds, size = looked.translate(_KINDS), len(looked) + 1
    return [kinds.count(kind) / size for kind in _STYLES]


def hour_of_week(at: float) -> int:
    """The hour (of `HOURS`) of a moment in seconds since 1970, UTC."""
    day, second = divmod(int(at) - _MONDAY_S, DAY_S)
    return second // HOUR_S + (0 if day % WEEK_DAYS < WORKDAYS else HOURS // 2)
