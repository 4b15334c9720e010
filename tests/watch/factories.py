"""Honest clients, thieves and a calibration for tests: eight inputs, four classes, nothing to train and nothing slow.

Honest rows lie near a plane of four dimensions; each client has a centre of its own on it. Thieves leave the plane.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from palladion.watch.calibration import MEMBER_SIZES, About, Calibration, calibrate
from palladion.watch.client import ClientState
from palladion.watch.instruments import Episode
from palladion.watch.rows import Rows

INPUTS, CLASSES, LATENTS = 8, 4, 4
HORIZON, GROUP_HORIZON = 40, 12
ABOUT = About(
    model="fraud",
    version=3,
    content="ab" * 32,
    simulated=True,
    horizon=HORIZON,
    group_horizon=GROUP_HORIZON,
    seed=1,
    created=datetime(2026, 6, 1, 12, tzinfo=UTC),
)
_FIXED = np.random.default_rng(1234)
_PLANE = _FIXED.standard_normal((LATENTS, INPUTS))
_MODEL = _FIXED.standard_normal((INPUTS, CLASSES))


def answers(inputs: Rows) -> Rows:
    """The model: class probabilities (rows, CLASSES)."""
    with np.errstate(all="ignore"):
        logits = inputs @ _MODEL
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def asked(inputs: Rows) -> Episode:
    """Queries with the model's answers."""
    return Episode(inputs, answers(inputs))


def honest_rows(generator: np.random.Generator, queries: int, centre: Rows | None = None) -> Rows:
    """What one honest client asks: near the plane, around an own centre (LATENTS,) on it."""
    centre = 0.4 * generator.standard_normal(LATENTS) if centre is None else centre
    latents = centre + generator.standard_normal((queries, LATENTS))
    return np.asarray(latents @ _PLANE + 0.3 * generator.standard_normal((queries, INPUTS)))


def honest(generator: np.random.Generator, queries: int = HORIZON) -> Episode:
    """One honest client."""
    return asked(honest_rows(generator, queries))


def organisation(
    generator: np.random.Generator, members: int = max(MEMBER_SIZES), queries: int = GROUP_HORIZON
) -> list[Episode]:
    """Honest clients whose centres have a fifth of their variance in common."""
    own, common = generator.standard_normal((members, LATENTS)), generator.standard_normal(LATENTS)
    centres = 0.4 * (np.sqrt(0.2) * common + np.sqrt(0.8) * own)
    return [asked(honest_rows(generator, queries, centre)) for centre in centres]


def foreign(generator: np.random.Generator, queries: int = HORIZON) -> Episode:
    """A thief with rows of another kind: honest in every column on its own, and off the plane."""
    rows = honest_rows(generator, 8 * queries)
    return asked(np.stack([generator.permutation(column)[:queries] for column in rows.T], axis=1))


def noise(generator: np.random.Generator, queries: int = HORIZON) -> Episode:
    """A thief who asks uniform noise over the range."""
    return asked(generator.uniform(-6, 6, (queries, INPUTS)))


def mixing(generator: np.random.Generator, queries: int, share: float) -> Episode:
    """A thief of whose queries that share is foreign, at random places."""
    rows = honest_rows(generator, queries)
    stolen = generator.random(queries) < share
    rows[stolen] = foreign(generator, int(stolen.sum())).inputs if stolen.any() else rows[:0]
    return asked(rows)


@cache
def calibration(clients: int = 299, organisations: int = 149, seed: int = 1) -> Calibration:
    """A calibration on honest clients; always the same for the same arguments."""
    generator = np.random.default_rng(seed)
    fitting = [honest(generator) for _ in range(80)]
    measured = (honest(generator) for _ in range(clients))
    groups = (organisation(generator) for _ in range(organisations))
    return calibrate(replace(ABOUT, seed=seed), fitting, measured, groups, generator)


def read(
    state: ClientState, episode: Episode, cuts: Sequence[int] = (), *, horizon: int = HORIZON, threshold: float = np.inf
) -> ClientState:
    """The state after the queries of an episode, cut into requests before the given places."""
    for part in pieces(len(episode.inputs), cuts):
        state.read(
            calibration().instruments, episode.inputs[part], episode.scores[part], horizon=horizon, threshold=threshold
        )
    return state


def pieces(length: int, cuts: Sequence[int]) -> list[slice]:
    """Slices that together make up `length`, cut at the given places; none of them empty."""
    edges = sorted({0, length, *(cut for cut in cuts if 0 < cut < length)})
    return [slice(start, end) for start, end in pairwise(edges)]


def hostile() -> dict[str, NDArray[np.float64]]:
    """Rows that nobody honest sends, by their defect."""
    return {
        "not a number": np.full((6, INPUTS), np.nan),
        "infinite": np.full((6, INPUTS), -np.inf),
        "huge": np.full((6, INPUTS), 1e308) * np.array([[1], [-1]] * 3),
        "tiny": np.full((6, INPUTS), 5e-324),
        "constant": np.full((6, INPUTS), 3.5),
        "nothing": np.zeros((6, INPUTS)),
        "narrow": np.ones((6, 1)),
        "wide": np.ones((6, 3 * INPUTS)),
        "empty": np.ones((6, 0)),
    }
