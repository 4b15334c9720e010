"""A model that runs here and shows what its layers do, in few numbers: for the watch, and for nobody else.

What layers give is digested as soon as the model has run (`watch.activations`), and comes beside the outputs under a
name that no output can have; `taken` takes it out again. Layers are looked at only where the policy turns that on and
the calibration was made with them (docs/watch.md, "Activations").
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, PolicyError
from palladion.gate.contract import Outputs
from palladion.gate.sources import batch
from palladion.model.inner import candidates, spread, with_outputs
from palladion.model.model import Model
from palladion.model.run import Session, open_session
from palladion.policy import WatchPolicy
from palladion.watch.activations import LAYERS_MAX, VALUES_MAX, digest
from palladion.watch.calibration import Calibration
from palladion.watch.rows import Rows

SHOWN = "\x00layers"  # graphs whose outputs are called so are left without
ROWS_AT_ONCE = 64  # whose layers are held at once: at most 128 MiB of them, however many rows are asked


class Layered(Session):
    """A session whose model gives the values of `layers` too: `run` and `outputs` are those of the model as it was."""

    def __init__(self, whole: Session, layers: Sequence[str]) -> None:
        super().__init__(None, whole.inputs, tuple(port for port in whole.outputs if port.name not in layers))
        self.layers = tuple(layers)
        self._whole = whole

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The model's own outputs by name. Raises as `Session.run` does."""
        return self.run_with_layers(feeds)[0]

    def run_with_layers(self, feeds: Mapping[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], list[NDArray[Any]]]:
        """The model's own outputs by name, and the values of each layer. Raises as `Session.run` does."""
        outputs = self._whole.run(feeds)
        values = [outputs.pop(name) for name in self.layers]
        return outputs, values

    def run_shown(self, feeds: Mapping[str, NDArray[Any]]) -> Outputs:
        """The outputs, and under `SHOWN` what the layers show (rows, layers * SHOWN). Raises as `run` does.

        Many rows are run in parts of `ROWS_AT_ONCE`: for models whose rows stand alone.
        """
        rows = len(next(iter(feeds.values())))
        parts = [self._part(feeds, start) for start in range(0, max(1, rows), ROWS_AT_ONCE)]
        return (
            parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        )

    def _part(self, feeds: Mapping[str, NDArray[Any]], start: int) -> dict[str, NDArray[Any]]:
        some = {name: array[start : start + ROWS_AT_ONCE] for name, array in feeds.items()}
        rows = len(next(iter(some.values())))
        outputs, values = self.run_with_layers(some)
        if rows == ROWS_AT_ONCE and any(not array.ndim or len(array) != rows for array in outputs.values()):
            raise FormatError(f"an output does not have the {rows} rows of the inputs")
        return {**outputs, SHOWN: digest(values, rows)}


def open_layered(model: Model, layers: Sequence[str]) -> Session:
    """`model.run.open_session`, with these layers beside where there are some: then what is returned is a `Layered`.

    Raises FormatError where the graph does not have them, does not load with them, or gives no values of numbers.
    """
    if not layers:
        return open_session(model)
    try:
        session = open_session(with_outputs(model, layers))
    except ValueError as error:
        raise FormatError(f"the model does not have the layers that its calibration names: {error}") from None
    return Layered(session, layers)


def find_layers(model: Model) -> tuple[str, ...]:
    """The layers that are looked at in a model: at most `LAYERS_MAX`, from the first to the last; none where none do.

    Each is tried on noise. None for models whose rows are of open size or do not stand alone, and for graphs that do
    not run with more outputs. Costs two sessions, one after the other, and a few runs.
    """
    names = candidates(model)
    if not names:
        return ()
    try:
        session = open_layered(model, names)
    except FormatError:
        return ()
    if not isinstance(session, Layered) or SHOWN in {port.name for port in (*session.inputs, *session.outputs)}:
        return ()
    if len(session.inputs) != 1 or not all(isinstance(size, int) for size in session.inputs[0].shape[1:]):
        return ()
    if not batch.rows_stand_alone(session.run, session.inputs, session.outputs):
        return ()
    feeds = batch.noise(session.inputs)
    _, together = session.run_with_layers(feeds)
    _, alone = session.run_with_layers({name: array[:1] for name, array in feeds.items()})
    fitting = [name for name, *values in zip(names, together, alone, strict=True) if _fits(*values)]
    return spread(fitting, LAYERS_MAX)


def run_shown(session: Session, feeds: Mapping[str, NDArray[Any]]) -> Outputs:
    """What a session gives, and under `SHOWN` what its layers show where it is a `Layered`. Raises as `run` does."""
    return session.run_shown(feeds) if isinstance(session, Layered) else session.run(feeds)


def layers_of(session: object) -> tuple[str, ...]:
    """The layers that a session, or what answers on a route, shows; none of whatever shows none."""
    layers: tuple[str, ...] = getattr(session, "layers", ())
    return layers


def taken(outputs: Outputs) -> tuple[Outputs, Rows | None]:
    """A model's own outputs, and what its layers show; None where nothing is shown."""
    if SHOWN not in outputs:
        return outputs, None
    return {name: array for name, array in outputs.items() if name != SHOWN}, outputs[SHOWN]


def seen(scores: Rows, shown: Rows | None) -> Rows:
    """What the watch sees of answers: class scores (rows, classes), and what layers show behind them."""
    return scores if shown is None else np.concatenate([scores, shown], axis=1)


def layers_for(policy: WatchPolicy, subject: str, calibration: Calibration | None) -> tuple[str, ...]:
    """The layers that a version is opened with. Raises PolicyError where it was calibrated with some, and none may be.

    Without what it was calibrated with, its thresholds would mean nothing.
    """
    layers = () if calibration is None else calibration.instruments.features.layers
    if layers and not policy.activations:
        raise PolicyError(
            f"{subject} was calibrated with activations, and watch.activations is off",
            f"calibrate it again without: palladion watch calibrate {subject}",
            "or set activations = true in [watch], after reading docs/watch.md, Activations",
        )
    return layers


def require_layers(policy: WatchPolicy, subject: str, calibration: Calibration | None, source: object) -> None:
    """Raise PolicyError where what answers does not show the layers that a version was calibrated with."""
    layers = layers_for(policy, subject, calibration)
    if layers != layers_of(source):
        raise PolicyError(
            f"{subject} was calibrated with activations of {len(layers)} layers, and what answers shows others or none",
            f"calibrate it again: palladion watch calibrate {subject}",
            "models at an upstream show no layers",
        )


def with_layers(calibration: Calibration) -> str:
    """What a gate says behind a version that it calls calibrated; empty where no layers are looked at."""
    layers = len(calibration.instruments.features.layers)
    return f" with activations of {layers} layer{'s' if layers > 1 else ''}" if layers else ""


def warn_of_layers(policy: WatchPolicy, subject: str, calibration: Calibration | None) -> str | None:
    """What a gate warns of at its start where layers should be looked at and are not; None where nothing is amiss."""
    if not policy.activations or calibration is None or calibration.instruments.features.layers:
        return None
    return (
        f"watch.activations is on, and {subject} was calibrated without: its layers are not looked at "
        "(calibrate it again; palladion watch calibrate says so where it has none)"
    )


def _fits(together: NDArray[Any], alone: NDArray[Any]) -> bool:
    """Whether a layer can be looked at: its values for `ROWS_TRIED` rows, and for the first of them alone."""
    return (
        together.dtype.kind in "fiu"
        and together.ndim >= 2
        and len(together) == batch.ROWS_TRIED
        and 2 <= together[0].size <= VALUES_MAX
        and together[:1].shape == alone.shape
        and batch.is_close(together[:1], alone)
    )
