"""What is looked at in a query: a dozen numbers from its input and its output, whatever the model computes.

Fitted on rows that honest clients sent, so that every number says how far a query is from what honest rows look like.
Needs no access to the model's inside; where the policy turns that on, what layers show comes behind the model's class
scores, and five numbers of each layer behind the others (`activations`). Source: the score list of docs/watch.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from palladion.watch.activations import SHOWN, Activations
from palladion.watch.rows import Rows, constant, product

# Names in the order of the columns, and what a high or low value means to a person who asks why.
FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "level": "the inputs are brighter or larger on average than honest ones",
        "outside": "inputs hold values that honest rows never take",
        "contrast": "the inputs vary more or less within themselves than honest ones",
        "roughness": "neighbouring values jump more or less than in honest rows",
        "energy": "inputs lie far out along directions in which honest rows vary",
        "residual": "inputs vary in directions in which honest rows do not",
        "spectrum": "the last directions in which honest rows vary are used more than usual",
        "confidence": "the model is surer or less sure than on honest rows",
        "margin": "the two best classes are closer or further apart than on honest rows",
        "entropy": "the answers are spread over more or fewer classes than on honest rows",
        "fit": "inputs lie far from the honest rows of the class that the model names",
        "agreement": "the class named is not the one whose honest rows are nearest",
        "repeats": "inputs lie closer to, or further from, the client's own earlier ones than honest ones",
        "component-1": "the mix of inputs is shifted (first direction of honest variation)",
        "component-2": "the mix of inputs is shifted (second direction of honest variation)",
        "component-3": "the mix of inputs is shifted (third direction of honest variation)",
        "component-4": "the mix of inputs is shifted (fourth direction of honest variation)",
    }
)
ATYPICAL = "atypical"  # made of all the others together (`atypical`): the last score, and no feature
SCORES: Mapping[str, str] = MappingProxyType(
    {**FEATURES, ATYPICAL: "queries unlike 98 of 100 honest ones in all of this together are more frequent"}
)
COMPONENTS = 4  # shown as features of their own; more of them cost power and told nothing new on digits
REPEATS = list(FEATURES).index("repeats")  # filled in per client: it needs the client's earlier queries
_SCALES = slice(list(FEATURES).index("contrast"), list(FEATURES).index("spectrum") + 1)  # compared in logarithms
_ANSWERS = slice(list(FEATURES).index("confidence"), list(FEATURES).index("agreement") + 1)  # need the model's scores
_FIRST_COMPONENT = len(FEATURES) - COMPONENTS
DIRECTIONS_MAX = 32  # principal directions kept; images of 8x8 to 32x32 hold 90 % of their variance in fewer
VARIANCE_KEPT = 0.95
ROWS_MIN = 32  # fewer rows than directions give covariances that mean nothing
INPUTS_MAX = 4096  # 64x64 pixels: the covariance takes 128 MiB, and its directions half a minute
_CACHED_BYTES = 128 * 1024  # of inputs that are looked at together: a core's cache holds them some times over
VALUE_MAX = 1e12  # inputs are clipped here: a client that sends 1e300 must not turn a score into infinity
_TINY = constant(1e-9)
_NEAR = constant(1e-3)  # added to squared distances from classes
_ZERO, _ONE = constant(0), constant(1)
_FLOORS = np.array([1e-9, 1e-9, 1e-9, 1e-6, 1e-9])  # of scales: what is smaller counts as nothing


@dataclass(frozen=True, eq=False)
class Features:
    """The fitted reference: ranges, principal directions, and the honest rows of each class in those directions.

    Arrays: `centre`, `scale`, `low`, `high` (inputs,), `directions` (inputs, kept), `deviations` (kept,), `class_means`
    (classes, kept); a class without honest rows has the overall mean. `activations` are None where no layer is looked
    at.
    """

    centre: Rows
    scale: Rows
    low: Rows
    high: Rows
    directions: Rows
    deviations: Rows
    class_means: Rows
    activations: Activations | None = None

    @classmethod
    def fit(cls, inputs: Rows, scores: Rows, layers: Sequence[str] = ()) -> "Features":
        """Fit to honest rows: `inputs` (rows, inputs) and the model's class scores for them (rows, classes).

        `scores` has no columns for a model that names no classes. With `layers`, what these show follows the class
        scores (rows, classes + layers * SHOWN). Raises ValueError on fewer than `ROWS_MIN` rows, on rows without inputs
        or with more than `INPUTS_MAX`, or without what the layers show.
        """
        if len(inputs) < ROWS_MIN:
            raise ValueError(f"{len(inputs)} rows cannot be a reference, at least {ROWS_MIN} are needed")
        if not 1 <= inputs.shape[1] <= INPUTS_MAX:
            raise ValueError(f"rows have {inputs.shape[1]} inputs, expected 1 to {INPUTS_MAX}")
        classes = scores.shape[1] - len(layers) * SHOWN
        if classes < 0:
            raise ValueError(f"scores of the shape {scores.shape} do not hold what {len(layers)} layers show")
        activations = Activations.fit(layers, scores[:, classes:]) if layers else None
        inputs, scores = clean(inputs), scores[:, :classes]
        centre, deviation = inputs.mean(axis=0), inputs.std(axis=0)
        # a column that never varies must not make every later difference infinite
        scale = np.maximum(deviation, max(float(np.median(deviation)) * 1e-2, float(_TINY)))
        standard = (inputs - centre) / scale
        variances, directions = np.linalg.eigh(standard.T @ standard / len(standard))
        variances, directions = variances[::-1], directions[:, ::-1]
        kept = int(np.searchsorted(np.cumsum(variances) / max(variances.sum(), float(_TINY)), VARIANCE_KEPT)) + 1
        kept = min(max(kept, 1), DIRECTIONS_MAX, inputs.shape[1])
        deviations = np.sqrt(np.maximum(variances[:kept], _TINY))
        return cls(
            centre,
            scale,
            inputs.min(axis=0),
            inputs.max(axis=0),
            np.ascontiguousarray(directions[:, :kept]),
            deviations,
            _class_means(standard @ directions[:, :kept] / deviations, scores),
            activations,
        )

    @cached_property
    def words(self) -> Mapping[str, str]:
        """The features by name, in the order of the columns, and what each means."""
        return FEATURES if self.activations is None else MappingProxyType({**FEATURES, **self.activations.words})

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that are looked at."""
        return () if self.activations is None else self.activations.names

    def measure(self, inputs: Rows, scores: Rows) -> tuple[Rows, Rows]:
        """The features (rows, features) of queries, and their coordinates (rows, kept) along the kept directions.

        A coordinate of 1 is the standard deviation of honest rows. "repeats" is left at 0. Inputs of another size than
        the honest ones count as unlike them in everything. Of scores that are not numbers, or not one for each class,
        nothing is made: these features are NaN. So are those of layers where what they show does not follow the scores.
        """
        inputs, scores = self.comparable(inputs, scores)
        inputs = np.asarray(inputs, np.float64)
        found, coordinates = np.zeros((len(inputs), len(self.words))), np.empty((len(inputs), len(self.deviations)))
        if self.activations is not None:
            found[:, len(FEATURES) :] = self.activations.measure(scores[:, self._classes :])
            scores = scores[:, : self._classes]
        for part in _parts(inputs):
            self._look(inputs[part], found[part], coordinates[part])
        # in single precision before anything is computed from them: what is saved is what was used
        coordinates /= self.deviations
        coordinates = coordinates.astype(np.float32).astype(np.float64)
        energy, inside, tail = product(np.square(coordinates), self._weights).T
        found[:, 4] = energy
        np.subtract(found[:, 2], inside, out=found[:, 5])
        found[:, 6] = tail
        found[:, : _SCALES.stop] /= self._sizes
        scales, contrast = found[:, _SCALES], found[:, 2]
        contrast -= np.square(found[:, 0])
        np.maximum(scales, _ZERO, out=scales)
        np.sqrt(contrast, out=contrast)
        scales += _FLOORS
        np.log(scales, out=scales)
        if scores.shape[1] >= 2:
            self._answers(coordinates, energy, scores, found[:, _ANSWERS])
        shown = min(COMPONENTS, coordinates.shape[1])
        found[:, _FIRST_COMPONENT : _FIRST_COMPONENT + shown] = coordinates[:, :shown]
        return found, coordinates

    def comparable(self, inputs: Rows, scores: Rows) -> tuple[Rows, Rows]:
        """The same with as many columns as honest ones: `VALUE_MAX`, and NaN, where there were others."""
        rows, size, classes = len(inputs), len(self.centre), self._classes
        if inputs.shape[1] != size:
            inputs = np.full((rows, size), VALUE_MAX)
        width = classes if self.activations is None else classes + self.activations.width
        if not width:
            scores = np.empty((rows, 0))
        elif scores.shape[1] != width:
            whole = np.full((rows, width), np.nan)
            if scores.shape[1] == classes:  # without what layers show
                whole[:, :classes] = scores
            scores = whole
        return inputs, scores

    def named(self, scores: Rows) -> list[int]:
        """The class (rows,) that the model names by its scores (rows, classes); -1 where it names none."""
        classes = self._classes
        if not classes or scores.shape[1] < classes:
            return [-1] * len(scores)
        found: list[int] = scores[:, :classes].argmax(axis=1).tolist()
        return found

    @cached_property
    def _classes(self) -> int:
        """How many classes the model names; 0 where it names none."""
        return len(self.class_means) if len(self.class_means) > 1 else 0

    def _look(self, inputs: Rows, found: Rows, coordinates: Rows) -> None:
        """Look at every input: writes coordinates, and for level, outside, contrast and roughness sums over inputs."""
        standard = np.abs(inputs)
        if not np.maximum.reduce(standard, axis=None, initial=0.0) <= VALUE_MAX:
            inputs = clean(inputs)
        standard = np.subtract(inputs, self.centre, out=standard)
        standard /= self.scale
        coordinates[:] = product(standard, self.directions)
        found[:, 0] = np.add.reduce(standard, axis=1)
        found[:, 2] = np.add.reduce(np.square(standard, out=standard), axis=1)
        beyond = inputs < self.low
        beyond |= inputs > self.high
        # row by row, because NumPy counts a whole array with vector instructions, and along an axis without
        found[:, 1] = [np.count_nonzero(row) for row in beyond]
        steps = np.subtract(inputs[:, 1:], inputs[:, :-1], out=standard[:, 1:])
        found[:, 3] = np.add.reduce(np.abs(steps, out=steps), axis=1)

    def _answers(self, coordinates: Rows, energy: Rows, scores: Rows, answers: Rows) -> None:
        """Write what the model's scores say into `answers` (rows, 5)."""
        probabilities = np.minimum(np.maximum(scores, _TINY), _ONE)
        probabilities.sort(axis=1)
        logarithms = np.log(probabilities)
        best = logarithms[:, -1]
        answers[:, 0] = best - np.log(np.maximum(_ONE - probabilities[:, -1], _TINY))
        answers[:, 1] = best - logarithms[:, -2]
        probabilities *= logarithms
        answers[:, 2] = np.log(_TINY - np.add.reduce(probabilities, axis=1))
        # distances to the honest rows of each class (rows, classes), without a (rows, classes, kept) array
        distances = product(coordinates, self._class_directions)
        distances += energy[:, None]
        distances += self._class_squares
        distances = np.log(np.maximum(distances, _ZERO, out=distances) + _NEAR)
        rows, named = np.arange(len(scores)), scores.argmax(axis=1)
        answers[:, 3] = fit = distances[rows, named]
        distances[rows, named] = np.inf
        answers[:, 4] = fit - np.minimum.reduce(distances, axis=1)
        if math.isnan(np.add.reduce(answers[:, 2])):
            answers[np.isnan(answers[:, 2])] = np.nan

    @cached_property
    def _weights(self) -> Rows:
        """For sums of squared coordinates (kept, 3): of all, of all in units of inputs, mean of the last half."""
        kept = len(self.deviations)
        last = np.arange(kept) >= kept - max(1, kept // 2)
        return np.stack([np.ones(kept), np.square(self.deviations), last / last.sum()], axis=1)

    @cached_property
    def _sizes(self) -> Rows:
        """What makes sums over inputs or coordinates means, for the features from level to spectrum."""
        size, steps = len(self.centre), max(1, len(self.centre) - 1) * float(self.scale.mean())
        return np.array([size, size, size, steps, len(self.deviations), size, 1])

    @cached_property
    def _class_directions(self) -> Rows:
        """(kept, classes)"""
        return -2 * self.class_means.T

    @cached_property
    def _class_squares(self) -> Rows:
        return np.asarray(np.square(self.class_means).sum(axis=1))


def _parts(inputs: Rows) -> list[slice]:
    """Parts of the rows that are looked at together; one at least."""
    size = max(1, _CACHED_BYTES // max(1, 8 * inputs.shape[1]))
    return [slice(start, start + size) for start in range(0, max(1, len(inputs)), size)]


def clean(inputs: Rows) -> Rows:
    """Inputs without what no statistic survives: not-a-number becomes 0, and huge values are clipped."""
    cleaned: Rows = np.minimum(np.maximum(inputs, -VALUE_MAX), VALUE_MAX)
    if math.isnan(np.add.reduce(cleaned, axis=None)):
        cleaned[np.isnan(cleaned)] = 0.0
    return cleaned


def _class_means(coordinates: Rows, scores: Rows) -> Rows:
    means = np.zeros((max(scores.shape[1], 1), coordinates.shape[1]))
    if scores.shape[1] >= 2:
        named = scores.argmax(axis=1)
        for label in np.unique(named):
            means[label] = coordinates[named == label].mean(axis=0)
    return means
