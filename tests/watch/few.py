"""A calibration on few real clients who asked for several epochs, for tests of what is made of their past."""

from dataclasses import replace
from functools import cache

import numpy as np

from palladion.watch.calibration import Calibration, calibrate
from palladion.watch.instruments import Episode
from palladion.watch.own_past import OwnPast
from palladion.watch.rows import Rows

from . import factories
from .factories import HORIZON, LATENTS

EPOCHS = 3


def centre(generator: np.random.Generator) -> Rows:
    """Where the rows of one honest client lie."""
    return 0.4 * generator.standard_normal(LATENTS)


def whole(generator: np.random.Generator, epochs: int = EPOCHS) -> Episode:
    """An honest client who asks for several epochs, always around one centre."""
    return factories.asked(factories.honest_rows(generator, epochs * HORIZON, centre(generator)))


def taken_over(generator: np.random.Generator, epochs: int = EPOCHS) -> Episode:
    """A client whose last epoch is that of another one: an honest one, too, but on the other side of their middle."""
    own = 0.6 * np.sign(centre(generator))
    before = factories.honest_rows(generator, (epochs - 1) * HORIZON, own)
    return factories.asked(np.concatenate([before, factories.honest_rows(generator, HORIZON, -own)]))


@cache
def calibration(clients: int = 39, seed: int = 5) -> Calibration:
    """Thresholds of so many real clients; always the same for the same arguments."""
    generator = np.random.default_rng(seed)
    fitting = [whole(generator, 1) for _ in range(60)]
    lived = [whole(generator) for _ in range(clients)]
    first = [Episode(one.inputs[:HORIZON], one.scores[:HORIZON]) for one in lived]
    about = replace(factories.ABOUT, simulated=False, fitted_recorded=9)
    made = calibrate(about, fitting, first, (), generator)
    past = OwnPast.fit(made.instruments.score(fitting), made.instruments.score(lived), HORIZON)
    return replace(made, past=past)
