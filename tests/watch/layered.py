"""Honest clients, thieves and a calibration of a model whose layers are looked at; as small as in `factories`."""

from functools import cache

import numpy as np

from palladion.watch.activations import digest
from palladion.watch.calibration import Calibration, calibrate
from palladion.watch.instruments import Episode, Instruments
from palladion.watch.rows import Rows

from . import factories

LAYERS = ("/first/Relu", "/second/Tanh")
_FIXED = np.random.default_rng(77)
_FIRST = _FIXED.standard_normal((factories.INPUTS, 120))
_SECOND = _FIXED.standard_normal((120, 24)) / 11


def shown(inputs: Rows) -> Rows:
    """What the layers show of rows."""
    with np.errstate(all="ignore"):
        first = np.maximum(inputs @ _FIRST, 0)
        second = np.tanh(first @ _SECOND)
    return digest([first, second], len(inputs))


def with_layers(episode: Episode) -> Episode:
    """The same queries, with what the layers show of them behind the class scores."""
    return Episode(episode.inputs, np.concatenate([episode.scores, shown(episode.inputs)], axis=1))


def honest(generator: np.random.Generator, queries: int = factories.HORIZON) -> Episode:
    """One honest client."""
    return with_layers(factories.honest(generator, queries))


@cache
def calibration(clients: int = 99, organisations: int = 19) -> Calibration:
    """A calibration on honest clients; always the same for the same arguments."""
    generator = np.random.default_rng(5)
    fitting = [honest(generator) for _ in range(60)]
    chain = Instruments.fit(fitting, generator, layers=LAYERS)
    measured = (honest(generator) for _ in range(clients))
    groups = ([with_layers(one) for one in factories.organisation(generator)] for _ in range(organisations))
    return calibrate(factories.ABOUT, fitting, measured, groups, generator, instruments=chain)
