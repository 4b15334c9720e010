"""Calibrations as files: safetensors, with what they are of as canonical JSON in the metadata (docs/watch.md).

The same calibration always gives the same bytes, so that the registry and the ledger can name it by its SHA-256.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError
from palladion.model import safetensors
from palladion.model.inner import is_layer_name
from palladion.model.tensors import DTYPES, Tensor
from palladion.watch.abstention import LIMITS, Abstention
from palladion.watch.activations import DIRECTIONS_MAX as LAYER_DIRECTIONS
from palladion.watch.activations import LAYERS_MAX, SKETCH, Activations, layer_words
from palladion.watch.atypical import Atypical
from palladion.watch.calibration import HORIZON_MAX, MEMBER_SIZES, About, Calibration, Organisations
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import BITS, Coverage
from palladion.watch.drift import CLIENTS_MIN, Reference
from palladion.watch.features import ATYPICAL, DIRECTIONS_MAX, FEATURES, Features
from palladion.watch.instruments import Instruments
from palladion.watch.manner import MANNERS, MannerTest
from palladion.watch.newcomers import CLIENTS_MIN as NEWCOMERS_FROM
from palladion.watch.newcomers import NewcomersReference
from palladion.watch.own_past import CLIENTS_MIN as PAST_CLIENTS_MIN
from palladion.watch.own_past import KEPT, OwnPast
from palladion.watch.own_tests import TESTS, OwnTests
from palladion.watch.scores import KNOTS, NormalScores
from palladion.watch.shares import Shares
from palladion.watch.suspicion import RandomEffects
from palladion.watch.text.features import HOURS

CALIBRATION_BYTES_MAX = 512 * 1024 * 1024  # 32 directions of a megapixel in doubles are 256 MiB
METADATA_BYTES_MAX = 16 * 1024
_KEY = "palladion"
_FORMAT = "calibration-1"


def encode_calibration(calibration: Calibration) -> bytes:
    """The file's bytes."""
    instruments = calibration.instruments
    arrays: dict[str, NDArray[np.float64]] = {
        **{f"features.{name}": getattr(instruments.features, name) for name in _FEATURE_ARRAYS},
        **_written_activations(instruments.features.activations),
        **{f"effects.{name}": getattr(instruments.effects, name) for name in _EFFECT_ARRAYS},
        **{f"pooled.{name}": getattr(instruments.pooled, name) for name in _EFFECT_ARRAYS},
        "scores.quantiles": instruments.scores.quantiles,
        "atypical.mean": instruments.atypical.mean,
        "atypical.whitening": instruments.atypical.whitening,
        "atypical.limit": np.array([instruments.atypical.limit]),
        "shares": np.array([getattr(instruments.shares, name) for name in _SHARE_FIELDS]),
        **_written_own(instruments.own),
        "coverage.planes": instruments.coverage.planes,
        "abstention.limits": calibration.abstention.limits,
        "abstention.rows": np.array([float(calibration.abstention.rows)]),
        "clients": calibration.clients.suprema,
        **_written_drift(calibration.drift),
        **_written_past(calibration.past),
        **{f"groups.{size}": group.pooled.suprema for size, group in calibration.groups.items()},
        **{f"groups.{size}.shares": group.shares.suprema for size, group in calibration.groups.items()},
    }
    about = calibration.about
    document = {
        "format": _FORMAT,
        "features": list(instruments.words),
        **({"layers": list(instruments.features.layers)} if instruments.features.layers else {}),
        **{name: getattr(about, name) for name in About.__dataclass_fields__ if name != "created"},
        "created": timestamp(about.created),
    }
    tensors = [
        Tensor(name, DTYPES["float64"], array.shape, np.ascontiguousarray(array, "<f8"))
        for name, array in arrays.items()
    ]
    return safetensors.serialise(tensors, {_KEY: canonical.encode(document).decode()})


def decode_calibration(data: bytes, *, what: str) -> Calibration:
    """The calibration of `encode_calibration`. Raises FormatError, naming `what`, where anything does not fit."""
    if len(data) > CALIBRATION_BYTES_MAX:
        raise FormatError(f"{what} has {len(data)} bytes, more than the {CALIBRATION_BYTES_MAX} allowed")
    tensors, metadata = safetensors.parse(memoryview(data), what=what)
    about, layers = _about(metadata, what)
    arrays = _Arrays(tensors, what)
    inputs = arrays.take("features.centre", (None,)).shape[0]
    kept = arrays.take("features.deviations", (None,)).shape[0]
    if kept > DIRECTIONS_MAX:
        raise FormatError(f"{what} keeps {kept} directions, more than the {DIRECTIONS_MAX} allowed")
    features = Features(
        arrays.take("features.centre", (inputs,)),
        arrays.take("features.scale", (inputs,)),
        arrays.take("features.low", (inputs,)),
        arrays.take("features.high", (inputs,)),
        arrays.take("features.directions", (inputs, kept)),
        arrays.take("features.deviations", (kept,)),
        arrays.take("features.class_means", (None, kept)),
        arrays.activations(layers),
    )
    size = len(features.words)
    effects, pooled = arrays.effects("effects", size + 1), arrays.effects("pooled", size)
    scores = NormalScores(arrays.take("scores.quantiles", (size, KNOTS)))
    limit = float(arrays.take("atypical.limit", (1,))[0])
    atypical = Atypical(arrays.take("atypical.mean", (size,)), arrays.take("atypical.whitening", (size, size)), limit)
    shares = Shares(*arrays.take("shares", (len(_SHARE_FIELDS),)).tolist())
    if any((array <= 0).any() for array in (features.scale, features.deviations)):
        raise FormatError(f"{what} has a scale that is not positive")
    if shares.between <= 0 or shares.within < 0:
        raise FormatError(f"{what} has a variance that is not positive")
    if (np.diff(scores.quantiles) < 0).any():
        raise FormatError(f"{what} has quantiles that do not ascend")
    clients = Conformal(arrays.suprema("clients"))
    if len(clients.suprema) != about.clients:
        raise FormatError(f"{what} claims {about.clients} clients, and holds {len(clients.suprema)}")
    groups = {
        size: Organisations(
            Conformal(arrays.suprema(f"groups.{size}")), Conformal(arrays.suprema(f"groups.{size}.shares"))
        )
        for size in MEMBER_SIZES
        if f"groups.{size}" in tensors
    }
    if any(len(group.pooled.suprema) != len(group.shares.suprema) for group in groups.values()):
        raise FormatError(f"{what} has organisations that were weighed by one of two tests")
    coverage = Coverage(arrays.take("coverage.planes", (kept, BITS)))
    instruments = Instruments(features, scores, atypical, effects, pooled, shares, coverage, arrays.own())
    drift = arrays.drift(len(instruments.words))
    calibration = Calibration(about, instruments, clients, groups, arrays.abstention(), drift, arrays.past())
    if encode_calibration(calibration) != data:
        raise FormatError(f"{what} is not written the way calibrations are")
    return calibration


_FEATURE_ARRAYS = ("centre", "scale", "low", "high", "directions", "deviations", "class_means")
_EFFECT_ARRAYS = ("mean", "basis", "between", "spread", "centre", "width")
_ACTIVATION_ARRAYS = ("centre", "scale", "directions", "deviations")
_NEWCOMER_ARRAYS = ("mean", "deviations", "whitening", "centre", "pooled", "shares")
_SHARE_FIELDS = ("mean", "between", "within")


class _Arrays:
    """The arrays of a file by name, checked as they are taken."""

    def __init__(self, tensors: Mapping[str, Tensor], what: str) -> None:
        self._tensors = tensors
        self._what = what

    def take(self, name: str, shape: tuple[int | None, ...]) -> NDArray[np.float64]:
        """The array of that name, not empty, finite and of that shape; None stands for any size."""
        tensor = self._tensors.get(name)
        if tensor is None or tensor.dtype.name != "float64":
            raise FormatError(f"{self._what} has no float64 tensor {name!r}")
        fits = len(tensor.shape) == len(shape) and all(
            want in {None, got} for want, got in zip(shape, tensor.shape, strict=True)
        )
        if not fits or not tensor.data.size:
            raise FormatError(f"{self._what}: {name!r} has the shape {tensor.shape}, which does not fit")
        array = np.array(tensor.data, np.float64)
        if not np.isfinite(array).all():
            raise FormatError(f"{self._what}: {name!r} has a value that is not finite")
        return array

    def effects(self, name: str, size: int) -> RandomEffects:
        """The random effects of that name, of so many scores."""
        counts = self.take(f"{name}.centre", (None,)).shape[0]
        shapes = ((size,), (size, size), (size,), (size,), (counts,), (counts,))
        found = RandomEffects(
            *(self.take(f"{name}.{part}", shape) for part, shape in zip(_EFFECT_ARRAYS, shapes, strict=True))
        )
        if any((array <= 0).any() for array in (found.spread, found.width)) or (found.between < 0).any():
            raise FormatError(f"{self._what} has a scale that is not positive")
        return found

    def abstention(self) -> Abstention:
        """How far the strangest honest queries lie out."""
        limits, rows = self.take("abstention.limits", (LIMITS,)), float(self.take("abstention.rows", (1,))[0])
        if (np.diff(limits) > 0).any() or not (rows >= 1 and rows.is_integer()):
            raise FormatError(f"{self._what} has limits of strange queries that do not descend, or of no queries")
        return Abstention(limits, int(rows))

    def activations(self, layers: tuple[str, ...]) -> Activations | None:
        """How those layers respond to honest rows; None where none is looked at."""
        if not layers:
            return None
        count = len(layers)
        found = Activations(
            layers,
            self.take("activations.centre", (count, SKETCH)),
            self.take("activations.scale", (count, SKETCH)),
            self.take("activations.directions", (count, SKETCH, LAYER_DIRECTIONS)),
            self.take("activations.deviations", (count, LAYER_DIRECTIONS)),
        )
        if (found.scale <= 0).any() or (found.deviations <= 0).any() or not found.directions.any(axis=(1, 2)).all():
            raise FormatError(f"{self._what} has a scale that is not positive, or a layer without directions")
        return found

    def drift(self, size: int) -> Reference | None:
        """What the drift test holds clients against; None where too few calibration clients asked enough."""
        if not self._tensors.keys() & {"drift.statistics", "drift.scores"}:
            return None
        statistics = self.suprema("drift.statistics")
        scores = self.take("drift.scores", (size, len(statistics)))
        if len(statistics) < CLIENTS_MIN or (np.diff(scores, axis=1) < 0).any():
            raise FormatError(f"{self._what} has too few clients for a drift test, or scores that do not ascend")
        return Reference(statistics, scores, self.newcomers(size, len(statistics)))

    def newcomers(self, size: int, clients: int) -> NewcomersReference | None:
        """What newcomers together are held against; None in calibrations that were made without, or from few."""
        if "newcomers.mean" not in self._tensors:
            return None
        shapes = ((size,), (size,), (size - 1, size - 1), (size,))
        mean, deviations, whitening, centre = (
            self.take(f"newcomers.{name}", shape) for name, shape in zip(_NEWCOMER_ARRAYS[:4], shapes, strict=True)
        )
        limit = float(self.take("newcomers.limit", (1,))[0])
        pooled, shares = (self.suprema(f"newcomers.{name}") for name in _NEWCOMER_ARRAYS[4:])
        if (deviations <= 0).any() or limit <= 0 or clients < NEWCOMERS_FROM or len(pooled) != len(shares):
            raise FormatError(f"{self._what} has a scale of newcomers that is not positive, or too few clients")
        return NewcomersReference(clients, mean, deviations, whitening, limit, centre, pooled, shares)

    def past(self) -> OwnPast | None:
        """What a client's new queries are held against beside its own past; None where that is not done."""
        if "past.clients" not in self._tensors:
            return None
        clients = self.suprema("past.clients")
        if len(clients) < PAST_CLIENTS_MIN:
            raise FormatError(f"{self._what} has {len(clients)} clients with a past, fewer than {PAST_CLIENTS_MIN}")
        return OwnPast(self.effects("past", len(KEPT)), Conformal(clients))

    def own(self) -> OwnTests | None:
        """The further tests of a client; None in calibrations that were made without."""
        if not self._tensors.keys() & {"own.near", "own.scales"}:
            return None
        near, manner = Shares(*self.take("own.near", (len(_SHARE_FIELDS),)).tolist()), self.manner()
        scales = self.take("own.scales", (TESTS + (manner is not None), 2))
        if near.between <= 0 or near.within < 0 or (scales[:, 1] <= 0).any():
            raise FormatError(f"{self._what} has a variance or a scale that is not positive")
        return OwnTests(near, scales, manner)

    def manner(self) -> MannerTest | None:
        """How the manner of a client is weighed; None where the clients fitted to had no moments."""
        if "manner.hours" not in self._tensors:
            return None
        hours, quantiles = self.take("manner.hours", (HOURS,)), self.take("manner.quantiles", (len(MANNERS), KNOTS))
        if (hours <= 0).any() or (np.diff(quantiles) < 0).any():
            raise FormatError(f"{self._what} has an hour in which nobody asks, or quantiles that do not ascend")
        return MannerTest(hours, NormalScores(quantiles), self.effects("manner", len(MANNERS)))

    def suprema(self, name: str) -> NDArray[np.float64]:
        """The largest statistics of honest clients or groups, ascending."""
        values = self.take(name, (None,))
        if (np.diff(values) < 0).any():
            raise FormatError(f"{self._what}: {name!r} does not ascend")
        return values


def _written_activations(activations: Activations | None) -> dict[str, NDArray[np.float64]]:
    if activations is None:
        return {}
    return {f"activations.{name}": getattr(activations, name) for name in _ACTIVATION_ARRAYS}


def _written_own(own: OwnTests | None) -> dict[str, NDArray[np.float64]]:
    if own is None:
        return {}
    near = np.array([getattr(own.near, name) for name in _SHARE_FIELDS])
    return {"own.near": near, "own.scales": own.scales, **_written_manner(own.manner)}


def _written_manner(manner: MannerTest | None) -> dict[str, NDArray[np.float64]]:
    if manner is None:
        return {}
    effects = {f"manner.{name}": getattr(manner.effects, name) for name in _EFFECT_ARRAYS}
    return {"manner.hours": manner.hours, "manner.quantiles": manner.scores.quantiles, **effects}


def _written_drift(drift: Reference | None) -> dict[str, NDArray[np.float64]]:
    if drift is None:
        return {}
    arrays = {"drift.statistics": drift.statistics, "drift.scores": drift.scores}
    if (newcomers := drift.newcomers) is None:
        return arrays
    arrays |= {f"newcomers.{name}": getattr(newcomers, name) for name in _NEWCOMER_ARRAYS}
    return {**arrays, "newcomers.limit": np.array([newcomers.limit])}


def _written_past(past: OwnPast | None) -> dict[str, NDArray[np.float64]]:
    if past is None:
        return {}
    effects = {f"past.{name}": getattr(past.effects, name) for name in _EFFECT_ARRAYS}
    return {**effects, "past.clients": past.clients.suprema}


def _about(metadata: Mapping[str, str], what: str) -> tuple[About, tuple[str, ...]]:
    """What it is of, and the names of the layers that are looked at."""
    if metadata.keys() != {_KEY}:
        raise FormatError(f"{what} is not a calibration of Palladion")
    document = canonical.decode(metadata[_KEY].encode(errors="surrogatepass"), size_max=METADATA_BYTES_MAX, what=what)
    if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
        raise FormatError(f"{what} is not a calibration of a format that is known here")
    layers = document.pop("layers", [])
    if not _are_names(layers) or document.pop("features", None) != [*FEATURES, *layer_words(len(layers)), ATYPICAL]:
        raise FormatError(f"{what} was made for other features", "calibrate again: palladion watch calibrate")
    try:
        created: Any = parse_timestamp(str(document.pop("created", "")))
        about = msgspec.convert({**document, "created": created}, About, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} does not say what it is of: {error}") from None
    if not (0 < about.horizon <= HORIZON_MAX and 0 < about.group_horizon <= HORIZON_MAX):
        raise FormatError(f"{what} has a horizon outside 1 to {HORIZON_MAX}")
    return about, tuple(layers)


def _are_names(layers: Any) -> bool:
    """Whether these are names of layers: a few different texts."""
    return (
        isinstance(layers, list)
        and len(layers) <= LAYERS_MAX
        and all(isinstance(name, str) and is_layer_name(name) for name in layers)
        and len(set(layers)) == len(layers)
    )
