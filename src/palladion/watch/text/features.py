"""What is looked at in a request to a language model: numbers of its text, its parameters, and what came of it.

Fitted on texts that honest clients sent. What needs a client's earlier requests is left to `memory`. The table of
docs/watch.md says what each number is good for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows
from palladion.watch.text.ngrams import SALT_MAX, NgramHash, folded
from palladion.watch.text.query import Query
from palladion.watch.text.rules import RULES, applied
from palladion.watch.text.template import Signature, signature

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
_KINDS = np.array(
    [
        1 if 65 <= byte <= 90 else 2 if 48 <= byte <= 57 else 4 if byte == 10 else 5 if byte >= 128
        else 3 if 33 <= byte <= 126 and not 97 <= byte <= 122 else 0
        for byte in range(256)
    ],
    np.uint8,
)  # fmt: skip
_STYLES = 5


@dataclass(frozen=True, eq=False)
class Look:
    """What one request was seen to be: `found` (features,), `coordinates` (kept,) and the template's `signature`."""

    found: Rows
    coordinates: NDArray[np.float32]
    signature: Signature


@dataclass(frozen=True, eq=False)
class TextFeatures:
    """The fitted reference. Arrays: `salt` (1,), `centre` (CELLS,), `directions` (CELLS, kept), `deviations` (kept,),
    and the share of honest requests in each hour, `hours` (HOURS,).
    """

    salt: Rows
    centre: Rows
    directions: Rows
    deviations: Rows
    hours: Rows

    @classmethod
    def fit(cls, queries: Sequence[Query], generator: np.random.Generator) -> "TextFeatures":
        """Fit to what honest clients asked. Raises ValueError on fewer than `TEXTS_MIN` queries."""
        if len(queries) < TEXTS_MIN:
            raise ValueError(f"{len(queries)} texts cannot be a reference, at least {TEXTS_MIN} are needed")
        salt = int(generator.integers(0, SALT_MAX))
        hashing = NgramHash(salt)
        vectors = hashing.vectors([folded(hashing.looked_at(query.text)) for query in queries])
        centre = vectors.mean(axis=0)
        vectors -= centre
        variances, directions = np.linalg.eigh(vectors.T @ vectors / len(vectors))
        kept = directions[:, ::-1][:, :KEPT]
        deviations = np.sqrt(np.maximum(variances[::-1][:KEPT], _TINY))
        counts = np.bincount([hour_of_week(query.at) for query in queries if math.isfinite(query.at)], minlength=HOURS)
        shares = (counts + 1) / (counts.sum() + HOURS)
        return cls(np.array([float(salt)]), centre, np.ascontiguousarray(kept), deviations, shares)

    @property
    def names(self) -> Mapping[str, str]:
        """The features in the order of the columns, in words."""
        return TEXT_FEATURES

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

    def look(self, query: Query) -> Look:
        """Everything about a request that can be said without its client's earlier ones; the rest is NaN."""
        looked = self.hashing.looked_at(query.text)
        plain = folded(looked)
        found = np.full(len(TEXT_FEATURES), np.nan)
        found[0] = math.log(len(query.text) + 1)
        size = len(looked) + 1
        counts = np.bincount(_KINDS.take(np.frombuffer(looked, np.uint8)), minlength=_STYLES + 1).tolist()
        found[1 : 1 + _STYLES] = [count / size for count in counts[1:]]
        vector = self.hashing.vector(plain)
        vector -= self.centre
        # in half the precision, because the directions then fill half the cache; a coordinate is kept in no more
        along = vector.astype(np.float32).dot(self._directions)
        found[7] = math.log(max(float(vector.dot(vector)) - float(along.dot(along)), _TINY))
        coordinates: NDArray[np.float32] = along * self._shares
        found[6] = math.log(float(coordinates.dot(coordinates)) + _TINY)
        shown = min(COMPONENTS, len(coordinates))
        found[8 : 8 + shown] = coordinates[:shown]
        found[_RULES : _RULES + len(RULES)] = applied(plain, query.parameters)
        found[_FAILURES] = query.failed
        if query.answer_chars >= 0 and not query.failed:
            found[_ANSWERS] = math.log((query.answer_chars + 1) / (len(query.text) + 1))
        if math.isfinite(query.at):
            found[_HOUR] = -math.log(float(self.hours[hour_of_week(query.at)]))
        return Look(found, coordinates, signature(plain))


def hour_of_week(at: float) -> int:
    """The hour (of `HOURS`) of a moment in seconds since 1970, UTC."""
    day, second = divmod(int(at) - _MONDAY_S, DAY_S)
    return second // HOUR_S + (0 if day % WEEK_DAYS < WORKDAYS else HOURS // 2)
