"""Calibrations of real models for tests of marked answers: their margins are the models' own."""

import numpy as np

from palladion.model.run import Session
from palladion.watch.calibration import About, Calibration, calibrate
from palladion.watch.instruments import Episode
from tests.lifecycle.installations import NOW

from .gates import MODEL

SEED = 20261126


def calibration_of(session: Session, content: str, *, model: str = MODEL) -> Calibration:
    """A calibration whose margins are those of the model on normal rows: too small to be of other use."""
    generator = np.random.default_rng(SEED)
    (port,) = session.inputs
    scores = next(item.name for item in session.outputs if item.dtype.startswith("float"))

    def episode() -> Episode:
        inputs = generator.standard_normal((16, int(str(port.shape[1]))))
        return Episode(inputs, session.run({port.name: inputs.astype(np.float32)})[scores].astype(np.float64))

    about = About(model, 1, content, simulated=True, horizon=16, group_horizon=16, seed=SEED, created=NOW)
    organisations = [[episode(), episode()] for _ in range(20)]
    return calibrate(about, [episode() for _ in range(20)], [episode() for _ in range(40)], organisations, generator)
