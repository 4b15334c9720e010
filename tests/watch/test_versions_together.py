"""Two versions of a model at once: evidence under either counts for the client, and neither hides the other's."""

from dataclasses import replace

import numpy as np
import pytest

from palladion.policy import WatchPolicy
from palladion.watch.calibration import Calibration
from palladion.watch.instruments import Episode
from palladion.watch.watch import Asker, Observation, Watch

from . import factories

SEED = 31
NOW = 1_780_000_000.0
OLD, NEW = "fraud", "fraud@2"
CALIBRATION = factories.calibration()
REAL = replace(CALIBRATION, about=replace(CALIBRATION.about, simulated=False))
POLICY = WatchPolicy(alpha_watched=0.05, alpha_suspected=0.004, alpha_campaign=0.01, degrade_after=25, suspend_after=60)


def _watch(new: Calibration | None = REAL, *, joined: bool = True) -> Watch:
    watch = Watch(POLICY)
    watch.watch_model(OLD, REAL, {})
    watch.watch_model(NEW, new, {})
    if joined:
        watch.join(OLD, NEW)
    return watch


def _ask(watch: Watch, model: str, episode: Episode, *, client: str = "c1", now: float = NOW) -> Observation:
    return watch.observe(Asker(client, f"of {client}"), model, episode.inputs, episode.scores, now=now)


def _honest(queries: int = 20) -> Episode:
    return factories.honest(np.random.default_rng(SEED), queries)


def _stolen(queries: int = 20, seed: int = SEED) -> Episode:
    return factories.foreign(np.random.default_rng(seed), queries)


@pytest.mark.parametrize("new", [REAL, None], ids=["calibrated", "uncalibrated"])
def test_who_is_moved_to_another_version_has_not_got_away(new: Calibration | None) -> None:
    watch = _watch(new)
    suspected = _ask(watch, OLD, _stolen())
    moved = _ask(watch, NEW, _honest())
    assert suspected.verdict.standing == "throttled"
    assert moved.verdict.standing == "throttled"
    assert moved.quiet_hours == 0


def test_and_who_is_moved_back_has_not_either() -> None:
    watch = _watch()
    _ask(watch, NEW, _stolen())
    assert _ask(watch, OLD, _honest()).verdict.standing == "throttled"


def test_suspicious_queries_of_both_versions_add_up() -> None:
    watch = _watch()
    alone = _ask(watch, OLD, _stolen())
    both = _ask(watch, NEW, _stolen(seed=SEED + 1))
    assert alone.evidence.suspected < POLICY.degrade_after <= both.evidence.suspected
    assert (alone.verdict.standing, both.verdict.standing) == ("throttled", "degraded")


def test_the_p_value_that_is_told_is_that_of_the_version_that_was_asked() -> None:
    watch = _watch()
    _ask(watch, OLD, _stolen())
    apart = _ask(_watch(joined=False), NEW, _honest())
    assert _ask(watch, NEW, _honest()).p_value == apart.p_value


def test_quiet_is_who_is_quiet_under_both() -> None:
    watch = _watch()
    _ask(watch, OLD, _stolen())
    _ask(watch, NEW, _honest(), now=NOW + 3600)
    assert _ask(watch, NEW, _honest(), now=NOW + 7200).quiet_hours == 2


def test_others_are_judged_as_before() -> None:
    watch = _watch()
    _ask(watch, OLD, _stolen(), client="thief")
    assert _ask(watch, NEW, _honest()).verdict.standing == "trusted"


def test_a_person_who_raises_a_standing_forgives_both() -> None:
    watch = _watch()
    _ask(watch, OLD, _stolen())
    watch.forgive("c1")
    assert _ask(watch, NEW, _honest()).verdict.standing == "trusted"


def test_a_campaign_has_its_members_on_both_versions() -> None:
    watch = _watch()
    for client, model in (("c1", OLD), ("c2", OLD), ("c1", NEW), ("c3", NEW)):
        episode = _honest()
        watch.observe(Asker(client, "one"), model, episode.inputs, episode.scores, now=NOW)
    assert watch.members("c1", NEW) == {"c1", "c2", "c3"}
    assert watch.members("c3", NEW) == {"c1", "c3"}


def test_parted_versions_are_two_models_again() -> None:
    watch = _watch()
    _ask(watch, OLD, _stolen())
    watch.part(NEW)
    assert _ask(watch, NEW, _honest()).verdict.standing == "trusted"
    # a second time does no harm
    watch.part(NEW)
