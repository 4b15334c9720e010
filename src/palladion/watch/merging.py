"""One client as two places saw it, each its own part of the queries, under one calibration: what the whole comes to.

Sums and counts add up to the last bit, bitmaps are united. What depends on the order of queries is not known of the
whole: memories hold the newest of both, and the last queries are taken to have been like all. Nothing of it makes an
honest client more unusual than the whole would: docs/watch.md says why.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from palladion.watch import coverage
from palladion.watch.calibration import Calibration
from palladion.watch.client import QUERIES_MIN, ClientState, Past
from palladion.watch.memory import Memory
from palladion.watch.own_tests import NEAR, WHOLE
from palladion.watch.recent import Recent, Run
from palladion.watch.rows import Rows

ORDERLESS = [WHOLE, NEAR]  # of the tests of a client: those that do not look at the order of queries


@dataclass(frozen=True)
class Together:
    """A client of whom both places know something: the p-values of either part, that of the whole, and buckets.

    `queries` and `united` buckets are those of the whole, `epoch` is how many either part has finished.
    """

    client: str
    p_values: tuple[float, float]
    p_value: float
    queries: int
    buckets: tuple[int, int]
    united: int
    epoch: int


def merged(calibration: Calibration, first: ClientState, second: ClientState) -> ClientState:
    """The state of a client whose queries were dealt to two places; neither of theirs changes, and either comes first.

    Its statistic, and so far its largest, is that of the queries of both epochs. Raises ValueError where one is not of
    this calibration.
    """
    if not (calibration.fits(first) and calibration.fits(second)):
        raise ValueError("only states of this calibration can be merged")
    found = ClientState(
        first.sums + second.sums,
        first.count + second.count,
        epoch=first.epoch + second.epoch,
        queries=first.queries + second.queries,
        suspected=first.suspected + second.suspected,
        alarmed_at=max(first.alarmed_at, second.alarmed_at),
        pooled_sums=first.pooled_sums + second.pooled_sums,
        pooled_count=first.pooled_count + second.pooled_count,
        pooled_suspected=first.pooled_suspected + second.pooled_suspected,
        memory=cast("Memory", first.memory).merge(cast("Memory", second.memory)),
        bitmap=first.bitmap | second.bitmap,
        past=_past(first.past, second.past),
    )
    if first.recent is not None and second.recent is not None:
        found.recent = Recent.evenly(found.sums, first.recent.near + second.recent.near, found.count)
    if first.habits is not None and second.habits is not None:
        found.habits = first.habits.merge(second.habits)
    found.statistic = found.supremum = _statistic(calibration, found)
    return found


def together(
    calibration: Calibration, here: Mapping[str, ClientState], there: Mapping[str, ClientState]
) -> list[Together]:
    """All clients of whom both places know something, the most unusual as a whole first. Raises as `merged`."""
    found = []
    for client in here.keys() & there.keys():
        parts = here[client], there[client]
        whole = merged(calibration, *parts)
        found.append(
            Together(
                client,
                (calibration.p_value(parts[0].supremum), calibration.p_value(parts[1].supremum)),
                calibration.p_value(whole.supremum),
                whole.queries,
                (coverage.count(parts[0].bitmap), coverage.count(parts[1].bitmap)),
                coverage.count(whole.bitmap),
                whole.epoch,
            )
        )
    return sorted(found, key=lambda item: (item.p_value, -item.united, item.client))


def _statistic(calibration: Calibration, state: ClientState) -> float:
    """That of all queries of both epochs, by the tests that do not look at their order; -inf before `QUERIES_MIN`.

    Of more than an epoch it is that of as many queries as an epoch has, with the same mean: a mean of more spreads
    less, and thresholds are of no more.
    """
    if state.count < QUERIES_MIN:
        return -math.inf
    count = min(state.count, calibration.about.horizon)
    share = count / state.count
    sums, own = (state.sums * share)[None], calibration.instruments.own
    if own is None or state.recent is None:
        return float(calibration.statistic(sums, np.array([count]))[0])
    near = int(state.recent.near * share)
    run = Run(np.concatenate([sums, sums]), np.array([count, count]), np.array([near, near]))
    each: Rows = own.each(calibration.instruments.effects, run)[0]
    return float(each[ORDERLESS].max())


def _past(first: Past | None, second: Past | None) -> Past | None:
    if first is None or second is None:
        return first or second
    return Past(first.sums + second.sums, first.count + second.count)
