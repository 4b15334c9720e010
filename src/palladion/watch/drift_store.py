"""What is known of drift, by calibration, and where it is kept over a restart: a small file for each calibration.

Apart from the registry, which keeps states of clients: this is of all clients together. Backups do not hold it; without
it the test begins anew, and what was told before is in the ledger.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from palladion import files
from palladion.clock import timestamp
from palladion.errors import FormatError
from palladion.watch.calibration import About
from palladion.watch.drift import BETS, Drift, Reference
from palladion.watch.kinds import AnyCalibration
from palladion.watch.newcomers import Alarm, Newcomers, NewcomersReference

FOLDER = "drift"
BYTES_MAX = 256 * 1024  # some 80 panels of five bets, written out, are 8 KiB, and 256 newcomers 30 to 160 KiB
_FORMAT = "drift-1"
_NUMBER_BYTES = 4
_HINT = "remove it: then the drift test of this calibration begins anew"


class Watched(NamedTuple):
    """One calibration in use: what it is of, the words for its scores, and the drift; None where it has no test."""

    about: About
    words: Mapping[str, str]
    drift: Drift | None

    @property
    def subject(self) -> str:
        """The version that was calibrated, as records name it; of a language model, which has none, its name."""
        return f"{self.about.model}@{self.about.version}" if self.about.version else self.about.model

    @property
    def left(self) -> Drift | None:
        """The drift, if traffic has left the calibration; then nothing is promised by it any more."""
        return self.drift if self.drift is not None and self.drift.left else None

    @property
    def newcomers(self) -> Newcomers | None:
        """What is known of newcomers together; None where they are not weighed."""
        return None if self.drift is None else self.drift.newcomers

    def figures(self) -> dict[str, Any]:
        """The same for people and programs: since when (None for never), by how many clients, what has moved most."""
        if self.drift is None:
            return {"tested": False, "left_at": None, "clients": 0, "moved": []}
        left = timestamp(datetime.fromtimestamp(self.drift.left_at, UTC)) if self.drift.left else None
        moved = self.drift.moved(self.words) if left else []
        return {"tested": True, "left_at": left, "clients": self.drift.clients, "moved": moved}


@dataclass(frozen=True, eq=False)
class Saved:
    """A state that is to be written, and of which revision it is."""

    path: Path
    data: bytes
    drift: Drift
    revision: int


class _Block(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    clients: list[str]
    means: bytes
    since: float
    until: float
    told: bool
    finished: Alarm | None


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    reference: str
    clients: int
    left_at: float
    told: bool
    capital: list[list[float]]
    recent: list[float]
    newcomers: _Block | None = None


@dataclass(eq=False)
class DriftStore:
    """The drift from every calibration that was watched by. Without the installation's `directory` nothing is kept.

    All files are read at once, so that nothing can fail later, while a version takes the place of another. Raises
    FormatError on one that was not written here, StorageError on one that cannot be read.
    """

    directory: Path | None = None
    _read: dict[str, _State] = field(default_factory=dict)  # by reference
    _known: dict[str, Drift] = field(default_factory=dict)  # by reference
    _written: dict[str, int] = field(default_factory=dict)  # revisions
    _watched: dict[str, Watched] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in sorted((self.directory / FOLDER).glob("*.json")) if self.directory is not None else ():
            state = _read_state(path)
            self._read[state.reference] = state

    @property
    def watched(self) -> Mapping[str, Watched]:
        """The calibrations in use, by the names under which the watch knows models."""
        return MappingProxyType(self._watched)

    def watch(self, model: str, calibration: AnyCalibration | None) -> Drift | None:
        """What is known of a calibration, by which a model is watched from now on; None where it has no test."""
        self._watched.pop(model, None)
        if calibration is None:
            return None
        drift, reference = None, calibration.drift
        if reference is not None:
            if reference.digest not in self._known:
                # a state that does not fit is no state: what was known of it means nothing here
                known = _drift_of(self._read.pop(reference.digest, None), reference)
                self._known[reference.digest] = known or Drift(reference)
                self._written[reference.digest] = 0
            drift = self._known[reference.digest]
        self._watched[model] = Watched(calibration.about, calibration.words, drift)
        return drift

    def changes(self) -> list[Saved]:
        """What has changed since it was last written."""
        if self.directory is None:
            return []
        return [
            Saved(_path(self.directory, drift.reference), _encode(drift), drift, drift.revision)
            for digest, drift in self._known.items()
            if self._written[digest] != drift.revision
        ]

    def write(self, changes: Sequence[Saved]) -> None:
        """Write them; in any thread. Raises StorageError, and what was not written stays a change."""
        for saved in changes:
            files.make_private_directory(saved.path.parent)
            files.write_atomically(saved.path, saved.data)
            self._written[saved.drift.reference.digest] = saved.revision


def load_drift(directory: Path, reference: Reference) -> Drift:
    """What an installation's directory has of a calibration, or the beginning. Raises FormatError, StorageError."""
    path = _path(directory, reference)
    if not path.exists():
        return Drift(reference)
    drift = _drift_of(_read_state(path), reference)
    if drift is None:
        raise FormatError(f"{path} holds the drift test of another calibration", _HINT)
    return drift


def _read_state(path: Path) -> _State:
    data = files.read_limited(path, size_max=BYTES_MAX, what=str(path))
    try:
        state = msgspec.json.decode(data, type=_State)
    except msgspec.DecodeError as error:
        raise FormatError(f"{path} does not hold the state of a drift test: {error}", _HINT) from None
    sizes = {len(row) for row in state.capital}
    if state.format != _FORMAT or len(state.capital) != len(state.recent) or sizes != {len(BETS)}:
        raise FormatError(f"{path} holds the drift test of another release", _HINT)
    figures = [state.left_at, state.clients, *state.recent, *(value for row in state.capital for value in row)]
    if not all(math.isfinite(figure) and figure >= 0 for figure in figures):
        raise FormatError(f"{path} holds a figure that no drift test has", _HINT)
    return state


def _drift_of(state: _State | None, reference: Reference) -> Drift | None:
    """None where the state is not one by this reference."""
    if state is None or state.reference != reference.digest or len(state.recent) != len(reference.panels):
        return None
    capital, recent = np.array(state.capital), np.array(state.recent)
    newcomers = _newcomers_of(state.newcomers, reference.newcomers)
    return Drift(reference, state.clients, state.left_at, state.told, capital, recent, newcomers=newcomers)


def _newcomers_of(block: _Block | None, reference: NewcomersReference | None) -> Newcomers | None:
    """None where it is not one by this reference: then a block begins anew."""
    if block is None or reference is None:
        return None
    scores = len(reference.mean)
    if len(block.clients) > reference.size or len(block.means) != len(block.clients) * scores * _NUMBER_BYTES:
        return None
    means = np.frombuffer(block.means, np.float32).reshape(-1, scores)
    times = [block.since, block.until, *((block.finished.since, block.finished.until) if block.finished else ())]
    if not np.isfinite(means).all() or not all(map(math.isfinite, times)):
        return None
    return Newcomers(
        reference, block.clients, [row.copy() for row in means], block.since, block.until, block.told, block.finished
    )


def _encode(drift: Drift) -> bytes:
    figures: dict[str, Any] = {"clients": drift.clients, "left_at": drift.left_at, "told": drift.told}
    arrays = {"capital": drift.capital.tolist(), "recent": drift.recent.tolist()}
    block = None if drift.newcomers is None else _block_of(drift.newcomers)
    state = _State(format=_FORMAT, reference=drift.reference.digest, **figures, **arrays, newcomers=block)
    return msgspec.json.encode(state)


def _block_of(newcomers: Newcomers) -> _Block:
    means = b"".join(row.tobytes() for row in newcomers.means)
    told = newcomers.told, newcomers.finished
    return _Block(newcomers.clients, means, newcomers.since, newcomers.until, *told)


def _path(directory: Path, reference: Reference) -> Path:
    return directory / FOLDER / f"{reference.digest[:32]}.json"
