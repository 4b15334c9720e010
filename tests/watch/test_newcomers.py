"""Newcomers together: how often honest ones are told of, that a ring without links is, and that one account decides
nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.policy import WatchPolicy
from palladion.watch.calibration_file import decode_calibration, encode_calibration
from palladion.watch.drift import DRIFT_QUERIES, Drift
from palladion.watch.drift_store import DriftStore
from palladion.watch.newcomers import (
    BLOCK_MAX,
    BLOCK_MIN,
    CLIENTS_MIN,
    ID_MAX,
    NAMED,
    Newcomers,
    NewcomersReference,
)
from palladion.watch.rows import Rows
from palladion.watch.watch import Asker, Watch

from . import factories

SEED = 61
SCORES = 18
RATE = 0.01


def clients(generator: np.random.Generator, count: int, *, shifted: float = 0.0) -> Rows:
    """The mean scores (count, SCORES) of clients with long tails; of a ring, `shifted` by that many deviations."""
    means = 0.4 * generator.standard_t(4, (count, SCORES)).clip(-4, 4)
    odd = generator.binomial(DRIFT_QUERIES, (0.02 * generator.exponential(size=count)).clip(0, 1))
    means[:, -1] = 7 * odd / DRIFT_QUERIES - 0.14
    means[:, :3] += 0.5 * shifted
    means[:, -1] += 0.3 * shifted
    return means


def reference(generator: np.random.Generator, count: int = 600) -> NewcomersReference:
    """Of so many calibration clients."""
    found = NewcomersReference.fit(clients(generator, count))
    assert found is not None
    return found


def taken(known: NewcomersReference, means: Rows, names: Sequence[str] = ()) -> Newcomers:
    """After these newcomers."""
    found = Newcomers(known)
    for place, mean in enumerate(means):
        found.take(names[place] if names else f"c{place}", mean, now=float(place + 1))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("count", [CLIENTS_MIN, 1050])
def test_honest_newcomers_are_told_of_no_more_often_than_stated(count: int) -> None:
    generator, p_values = np.random.default_rng(SEED), []
    for _ in range(25):
        known = reference(generator, count)
        p_values += [taken(known, clients(generator, known.size)).p_value for _ in range(16)]

    for rate in (0.05, 0.1):
        # blocks against one calibration depend on each other: as many again in variance as if they did not
        deviation = (2 * rate * (1 - rate) / len(p_values)) ** 0.5
        assert np.mean(np.array(p_values) <= rate) <= rate + 2 * deviation, f"seed {SEED}"


def test_a_third_of_newcomers_that_nothing_links_are_told_of_and_named() -> None:
    generator = np.random.default_rng(SEED)
    known = reference(generator)
    told = named = 0
    for _ in range(20):
        ring = generator.random(known.size) < 0.3
        means = clients(generator, known.size)
        means[ring] = clients(generator, int(ring.sum()), shifted=1.5)
        alarm = taken(known, means).alarm(RATE)
        told += alarm is not None
        named += 0 if alarm is None else sum(bool(ring[int(name[1:])]) for name in alarm.named)

    assert told >= 18
    assert named >= 0.7 * NAMED * told


def test_one_newcomer_decides_nothing_however_odd_it_is() -> None:
    generator = np.random.default_rng(SEED)
    known = reference(generator)
    means = clients(generator, BLOCK_MIN)
    before = known.weigh(known.look(means))
    means[3] = 1e6
    after = known.weigh(known.look(means))

    # a sum of 16 moves by what two may differ by at most
    assert np.sqrt(after[0]) - np.sqrt(before[0]) <= 2 * known.limit / np.sqrt(BLOCK_MIN)
    assert after[1] - before[1] <= 6 / np.sqrt(BLOCK_MIN)
    assert taken(known, means).alarm(RATE) is None


def test_few_newcomers_are_not_weighed() -> None:
    generator = np.random.default_rng(SEED)
    found = taken(reference(generator), clients(generator, BLOCK_MIN - 1, shifted=20))

    assert found.p_value == 1
    assert found.alarm(RATE) is None


@pytest.mark.slow
def test_few_calibration_clients_are_no_reference() -> None:
    generator = np.random.default_rng(SEED)
    assert NewcomersReference.fit(clients(generator, CLIENTS_MIN - 1)) is None
    assert reference(generator, CLIENTS_MIN).size == CLIENTS_MIN // 4
    assert reference(generator, 5 * BLOCK_MAX).size == BLOCK_MAX


def test_people_are_told_of_a_block_once_and_of_the_next_one_again() -> None:
    generator = np.random.default_rng(SEED)
    known = reference(generator, CLIENTS_MIN)
    found = taken(known, clients(generator, known.size, shifted=3))
    alarm = found.alarm(RATE)
    assert alarm is not None
    found.tell(alarm)

    assert (alarm.p_value, alarm.newcomers) == (known.rate_min, known.size)
    assert (alarm.since, alarm.until) == (1, known.size)
    assert found.alarm(RATE) is None
    for place, mean in enumerate(clients(generator, BLOCK_MIN, shifted=3)):
        found.take(f"d{place}", mean, now=1000.0 + place)
    again = found.alarm(RATE)
    assert again is not None
    assert (again.newcomers, again.since) == (BLOCK_MIN, 1000)
    assert all(name.startswith("d") for name in again.named)


def test_a_block_that_ended_before_anybody_looked_is_told_of() -> None:
    generator = np.random.default_rng(SEED)
    known = reference(generator, CLIENTS_MIN)
    found = taken(known, clients(generator, known.size, shifted=3))
    found.take("next", clients(generator, 1)[0], now=99.0)
    alarm = found.alarm(RATE)

    assert alarm is not None
    assert alarm.newcomers == known.size
    assert found.clients == ["next"]
    found.tell(alarm)
    assert found.alarm(1.0 - 1e-9) is None


def test_what_moved_is_said_in_words() -> None:
    generator = np.random.default_rng(SEED)
    alarm = taken(reference(generator), clients(generator, 100, shifted=3)).alarm(RATE)
    assert alarm is not None
    said = alarm.moved({f"score-{column}": f"meaning {column}" for column in range(SCORES)})

    assert said
    assert all(sentence.startswith("score-") and "+" in sentence and "meaning" in sentence for sentence in said)
    assert alarm.moved({}) == []


def test_ids_that_are_kept_are_bounded() -> None:
    generator = np.random.default_rng(SEED)
    assert taken(reference(generator), clients(generator, 1), ["x" * 10_000]).clients == ["x" * ID_MAX]


# in the watch


def observed(watch: Watch, asker: Asker, generator: np.random.Generator) -> None:
    """As many queries of one client as count."""
    episode = factories.honest(generator)
    watch.observe(asker, "fraud", episode.inputs, episode.scores, now=5.0)


def newcomers(watch: Watch) -> Newcomers:
    """Those of the model."""
    found = watch.drifts.watched["fraud"].newcomers
    assert found is not None
    return found


def test_each_client_counts_once_and_one_of_those_that_are_linked() -> None:
    watch, generator = Watch(WatchPolicy()), np.random.default_rng(SEED)
    watch.watch_model("fraud", factories.calibration(), {})
    for asker in (Asker("a", "a"), Asker("a", "a"), Asker("b", "shop"), Asker("c", "shop"), Asker("d", "d")):
        observed(watch, asker, generator)

    assert newcomers(watch).clients == ["a", "b", "d"]
    assert newcomers(watch).since == 5.0


def test_a_block_survives_a_restart_to_the_last_bit(tmp_path: Path) -> None:
    generator, drifts = np.random.default_rng(SEED), DriftStore(tmp_path)
    watch = Watch(WatchPolicy(), drifts=drifts)
    watch.watch_model("fraud", factories.calibration(), {})
    for number in range(20):
        observed(watch, Asker(f"c{number}", f"c{number}"), generator)
    drifts.write(drifts.changes())
    again = Watch(WatchPolicy(), drifts=DriftStore(tmp_path))
    again.watch_model("fraud", factories.calibration(), {})

    assert newcomers(again).clients == newcomers(watch).clients
    assert newcomers(again).p_value == newcomers(watch).p_value < 1
    np.testing.assert_array_equal(newcomers(again).means, newcomers(watch).means)


def test_a_block_by_another_reference_begins_anew(tmp_path: Path) -> None:
    drifts, known = DriftStore(tmp_path), factories.calibration().drift
    assert known is not None
    drift = drifts.watch("fraud", factories.calibration())
    assert drift is not None
    drift.count(factories.calibration().beginnings, np.zeros(SCORES), now=1.0, client="a")
    drifts.write(drifts.changes())
    without = replace(factories.calibration(), drift=replace(known, newcomers=None))
    later = DriftStore(tmp_path)
    assert later.watch("fraud", without) is not None

    assert later.watched["fraud"].newcomers is None
    assert later.watched["fraud"].drift.clients == 1  # type: ignore[union-attr]


def test_that_people_were_told_is_a_change(tmp_path: Path) -> None:
    drifts, generator = DriftStore(tmp_path), np.random.default_rng(SEED)
    drift = drifts.watch("fraud", factories.calibration())
    assert drift is not None
    assert drift.newcomers is not None
    for number in range(40):
        strange = 2 + 0.1 * generator.standard_normal(SCORES)
        drift.count(factories.calibration().beginnings, DRIFT_QUERIES * strange, now=1.0, client=f"c{number}")
    drifts.write(drifts.changes())
    alarm = drift.newcomers.alarm(RATE)
    assert alarm is not None
    drift.tell_newcomers(alarm)

    (saved,) = drifts.changes()
    drifts.write([saved])
    again = DriftStore(tmp_path).watch("fraud", factories.calibration())
    assert again is not None
    assert again.newcomers is not None
    assert again.newcomers.told
    assert again.newcomers.alarm(RATE) is None


def test_a_calibration_holds_what_newcomers_are_held_against() -> None:
    data = encode_calibration(factories.calibration())
    again = decode_calibration(data, what="it")
    few = encode_calibration(factories.calibration(clients=40, organisations=3))

    assert again.drift is not None
    assert again.drift.newcomers is not None
    assert encode_calibration(again) == data
    read = decode_calibration(few, what="it").drift
    assert read is not None
    assert read.newcomers is None


@pytest.mark.parametrize("change", [{"limit": -1.0}, {"deviations": np.zeros(SCORES)}, {"pooled": np.ones(7)}], ids=str)
def test_a_reference_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    calibration = factories.calibration()
    assert calibration.drift is not None
    assert calibration.drift.newcomers is not None
    broken = replace(calibration.drift, newcomers=replace(calibration.drift.newcomers, **change))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="newcomers"):
        decode_calibration(encode_calibration(replace(calibration, drift=broken)), what="it")


def test_without_a_reference_nobody_is_weighed() -> None:
    known = factories.calibration().drift
    assert known is not None
    assert Drift(replace(known, newcomers=None)).newcomers is None
