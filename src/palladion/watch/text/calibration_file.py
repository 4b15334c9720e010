"""Calibrations for language models as files: safetensors, with what they are of as canonical JSON (docs/watch.md).

The same calibration always gives the same bytes.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError
from palladion.model import safetensors
from palladion.model.tensors import DTYPES, Tensor
from palladion.watch.atypical import Atypical
from palladion.watch.calibration import HORIZON_MAX, MEMBER_SIZES, About
from palladion.watch.conformal import Conformal
from palladion.watch.coverage import BITS, Coverage
from palladion.watch.drift import CLIENTS_MIN, Reference
from palladion.watch.rows import Rows
from palladion.watch.scores import KNOTS, NormalScores
from palladion.watch.suspicion import RandomEffects
from palladion.watch.text.calibration import TextCalibration, TextThresholds
from palladion.watch.text.encoder import WIDTH_MAX, WIDTH_MIN, Digests, NotOpened
from palladion.watch.text.features import HOURS, KEPT, TEXT_FEATURES, TextFeatures
from palladion.watch.text.instruments import SCORES, TextInstruments
from palladion.watch.text.ngrams import CELLS, SALT_MAX
from palladion.watch.text.panels import STATISTICS, Leaning, Panels

CALIBRATION_BYTES_MAX = 32 * 1024 * 1024  # directions take 256 KiB, and a million clients 8 MiB
METADATA_BYTES_MAX = 16 * 1024
_KEY = "palladion"
_FORMAT = "text-calibration-1"
_ADDED = frozenset({"fitted_recorded"})
_ENCODER = "encoder"
_Names = Literal["encoder", "tokenizer"]
_Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
_WHOLE = ("mean", "basis", "between", "spread", "centre", "width")


def encode_text_calibration(calibration: TextCalibration) -> bytes:
    """The file's bytes."""
    parts, about = calibration.instruments, calibration.about
    effects, encoder = parts.effects, calibration.encoder
    arrays: dict[str, Rows] = {
        **{f"features.{name}": array for name, array in parts.features.arrays.items()},
        "scores.quantiles": parts.scores.quantiles,
        "atypical.mean": parts.atypical.mean,
        "atypical.whitening": parts.atypical.whitening,
        "atypical.limit": np.array([parts.atypical.limit]),
        **{f"whole.{name}": getattr(effects.whole, name) for name in _WHOLE},
        "leaning.centre": effects.leaning.centre,
        "leaning.width": effects.leaning.width,
        "coverage.planes": parts.coverage.planes,
        **_written_drift(calibration.drift),
        "clients": _written(calibration.clients),
        **{f"groups.{size}": _written(known) for size, known in calibration.groups.items()},
    }
    document = {
        "format": _FORMAT,
        "features": list(TEXT_FEATURES),
        **{name: getattr(about, name) for name in About.__dataclass_fields__ if name not in _ADDED | {"created"}},
        # what came later is written where there is something to say, so that older files stay what they are
        **{name: getattr(about, name) for name in _ADDED if getattr(about, name)},
        **({} if encoder is None else {_ENCODER: encoder.digests._asdict()}),
        "created": timestamp(about.created),
    }
    tensors = [
        Tensor(name, DTYPES["float64"], array.shape, np.ascontiguousarray(array, "<f8"))
        for name, array in arrays.items()
    ]
    return safetensors.serialise(tensors, {_KEY: canonical.encode(document).decode()})


def decode_text_calibration(data: bytes, *, what: str) -> TextCalibration:
    """The calibration of `encode_text_calibration`; an encoder that it names is not opened.

    Raises FormatError, naming `what`, where anything does not fit.
    """
    if len(data) > CALIBRATION_BYTES_MAX:
        raise FormatError(f"{what} has {len(data)} bytes, more than the {CALIBRATION_BYTES_MAX} allowed")
    tensors, metadata = safetensors.parse(memoryview(data), what=what)
    (about, named), arrays = _about(metadata, what), _Arrays(tensors, what)
    kept = len(arrays.take("features.deviations", None))
    if kept > KEPT:
        raise FormatError(f"{what} keeps {kept} directions, more than the {KEPT} allowed")
    width = CELLS if named is None else len(arrays.take("features.centre", None))
    if named is not None and not CELLS + WIDTH_MIN <= width <= CELLS + WIDTH_MAX:
        raise FormatError(f"{what} has vectors of {width} numbers, which no encoder gives")
    features = TextFeatures(
        arrays.take("features.salt", 1),
        arrays.take("features.centre", width),
        arrays.take("features.directions", width, kept),
        arrays.positive("features.deviations", kept),
        arrays.positive("features.hours", HOURS),
        None if named is None else NotOpened(named, width - CELLS),
    )
    salt = float(features.salt[0])
    if not (0 <= salt < SALT_MAX and salt.is_integer()):
        raise FormatError(f"{what} has a salt that is not a whole number below 2**53")
    size = SCORES - 2  # without cohesion, and without what is made of the others
    scores = NormalScores(arrays.take("scores.quantiles", len(TEXT_FEATURES), KNOTS))
    if (np.diff(scores.quantiles) < 0).any():
        raise FormatError(f"{what} has quantiles that do not ascend")
    atypical = Atypical(
        arrays.take("atypical.mean", size),
        arrays.take("atypical.whitening", size, size),
        float(arrays.take("atypical.limit", 1)[0]),
    )
    whole = RandomEffects(
        arrays.take("whole.mean", size + 1),
        arrays.take("whole.basis", size + 1, size + 1),
        arrays.take("whole.between", size + 1),
        arrays.positive("whole.spread", size + 1),
        arrays.take("whole.centre", None),
        arrays.positive("whole.width", None),
    )
    leaning = Leaning(arrays.take("leaning.centre", None), arrays.positive("leaning.width", None))
    if (whole.between < 0).any() or len(whole.centre) != len(whole.width) or len(leaning.centre) != len(leaning.width):
        raise FormatError(f"{what} has a variance below zero, or means without deviations")
    clients = arrays.thresholds("clients")
    if clients.count != about.clients:
        raise FormatError(f"{what} claims {about.clients} clients, and holds {clients.count}")
    groups = {size: arrays.thresholds(f"groups.{size}") for size in MEMBER_SIZES if f"groups.{size}" in tensors}
    coverage = Coverage(arrays.take("coverage.planes", kept, BITS))
    instruments = TextInstruments(features, scores, atypical, Panels(whole, leaning), coverage)
    calibration = TextCalibration(about, instruments, clients, groups, arrays.drift())
    if encode_text_calibration(calibration) != data:
        raise FormatError(f"{what} is not written the way calibrations are")
    return calibration


class _Arrays:
    """The arrays of a file by name, checked as they are taken."""

    def __init__(self, tensors: Mapping[str, Tensor], what: str) -> None:
        self._tensors = tensors
        self._what = what

    def take(self, name: str, *shape: int | None) -> Rows:
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

    def positive(self, name: str, *shape: int | None) -> Rows:
        """The same of values above zero."""
        array = self.take(name, *shape)
        if (array <= 0).any():
            raise FormatError(f"{self._what}: {name!r} has a value that is not positive")
        return array

    def drift(self) -> Reference | None:
        """What the drift test holds clients against; None in files of before, or where too few asked enough."""
        if not self._tensors.keys() & {"drift.statistics", "drift.scores"}:
            return None
        statistics = self.take("drift.statistics", None)
        scores = self.take("drift.scores", SCORES, len(statistics))
        if len(statistics) < CLIENTS_MIN or (np.diff(statistics) < 0).any() or (np.diff(scores, axis=1) < 0).any():
            raise FormatError(f"{self._what} has too few clients for a drift test, or some that do not ascend")
        return Reference(statistics, scores)

    def thresholds(self, name: str) -> TextThresholds:
        """Those of `_written`."""
        array = self.take(name, STATISTICS, None)
        if (np.diff(array) < 0).any():
            raise FormatError(f"{self._what}: {name!r} does not ascend")
        return TextThresholds(tuple(Conformal(np.ascontiguousarray(row)) for row in array))


def _written(thresholds: TextThresholds) -> Rows:
    """Largest values (STATISTICS, clients), ascending; where they came together from is not kept."""
    return np.stack([known.suprema for known in thresholds.each])


def _written_drift(drift: Reference | None) -> dict[str, Rows]:
    return {} if drift is None else {"drift.statistics": drift.statistics, "drift.scores": drift.scores}


def _about(metadata: Mapping[str, str], what: str) -> tuple[About, Digests | None]:
    """What it is of, and the encoder that it names."""
    if metadata.keys() != {_KEY}:
        raise FormatError(f"{what} is not a calibration of Palladion")
    document = canonical.decode(metadata[_KEY].encode(errors="surrogatepass"), size_max=METADATA_BYTES_MAX, what=what)
    if not isinstance(document, dict) or document.pop("format", None) != _FORMAT:
        raise FormatError(f"{what} is not a calibration for texts of a format that is known here")
    if document.pop("features", None) != list(TEXT_FEATURES):
        raise FormatError(f"{what} was made for other features", "calibrate again: palladion watch calibrate")
    encoder = document.pop(_ENCODER, None)
    try:
        named = None if encoder is None else Digests(**msgspec.convert(encoder, dict[_Names, _Digest]))
    except (msgspec.ValidationError, TypeError):
        raise FormatError(f"{what} does not say by which encoder it was made") from None
    try:
        created: object = parse_timestamp(str(document.pop("created", "")))
        about = msgspec.convert({**document, "created": created}, About, strict=True)
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} does not say what it is of: {error}") from None
    if not (0 < about.horizon <= HORIZON_MAX and 0 < about.group_horizon <= HORIZON_MAX):
        raise FormatError(f"{what} has a horizon outside 1 to {HORIZON_MAX}")
    return about, named
