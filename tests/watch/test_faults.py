"""Faults and foul play: restarts within an attack, clocks that jump, and clients that send what nobody should.

What one client sends can neither stop the watch, nor take it long, nor change anything that it says of others, to the
last bit. A restart of a whole gate is in tests/gate/test_server.py.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from palladion.policy import WatchPolicy
from palladion.watch.instruments import Episode
from palladion.watch.response import next_standing
from palladion.watch.text.query import Query
from palladion.watch.watch import AnyAsked, Asked, AskedTexts, Asker, Observation, Watch

from . import factories, talkers
from .factories import CLASSES, INPUTS

SEED = 113
NOW = 1_780_000_000.0
YEAR = 365 * 86_400.0
SETTINGS: dict[str, Any] = {
    "alpha_watched": 0.05, "alpha_suspected": 0.004, "alpha_campaign": 0.02, "simulated_may_enforce": True,
}  # fmt: skip
OTHERS = ("honest", "thief", "colleague")
TEXT_BYTES = 10_000_000


def make(saved: Mapping[str, bytes] | None = None) -> Watch:
    watch = Watch(WatchPolicy(**SETTINGS))
    watch.watch_model("fraud", factories.calibration(), saved or {})
    return watch


def asker(client: str) -> Asker:
    return Asker(client, "acme" if client in {"honest", "colleague"} else client, "198.51.100.7", None, None)


def one(episode: Episode, at: int) -> tuple[Any, Any]:
    return episode.inputs[at : at + 1], episode.scores[at : at + 1]


def stolen(queries: int = 30) -> Episode:
    return factories.noise(np.random.default_rng(SEED), queries)


def others() -> dict[str, Episode]:
    generator = np.random.default_rng(SEED)
    return {name: stolen() if name == "thief" else factories.honest(generator, 30) for name in OTHERS}


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 4, 5, 11, 12, 20, 29])
def test_a_restart_in_the_middle_of_an_attack_keeps_the_suspicion(after: int) -> None:
    running, episode = make(), stolen()
    for at in range(after):
        running.observe(asker("thief"), "fraud", *one(episode, at), now=NOW)

    restarted = make(saved=running.changes("fraud"))

    for at in range(after, 30):
        again, last = (
            watch.observe(asker("thief"), "fraud", *one(episode, at), now=NOW) for watch in (restarted, running)
        )
        assert again == last
    assert again.verdict.standing == "suspended"


JUMPS = {
    "forth": [NOW, NOW + 50 * YEAR, NOW],
    "back": [NOW, NOW - 50 * YEAR, NOW],
    "to 1970": [NOW, 0.0, NOW + YEAR, 1.0],
    "before 1970": [NOW, -YEAR, NOW - YEAR, NOW],
}


@pytest.mark.slow
@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_jumps_changes_no_evidence(jump: str) -> None:
    times, jumping, steady, episode = JUMPS[jump], make(), make(), stolen()
    linked = Asker("thief", "thief", "198.51.100.7", None, None, "t13d1516h2_8daaf6152771_b186095e22b6")

    for at in range(30):
        now = times[at * len(times) // 30]
        jumped = jumping.observe(linked, "fraud", *one(episode, at), now=now)
        expected = steady.observe(linked, "fraud", *one(episode, at), now=NOW)
        assert (jumped.evidence, jumped.verdict) == (expected.evidence, expected.verdict)

    assert jumped.verdict.standing == "suspended"


@pytest.mark.parametrize(("jump", "throttled"), [(50 * YEAR, "watched"), (-50 * YEAR, "throttled")])
def test_a_clock_that_jumps_raises_nobody_by_more_than_a_step_and_no_suspended_one(jump: float, throttled: str) -> None:
    watch, policy = make(), WatchPolicy(**SETTINGS)
    for at in range(20):
        watch.observe(asker("thief"), "fraud", *one(stolen(), at), now=NOW)
    watch.forgive("thief")

    seen = watch.observe(asker("thief"), "fraud", *one(others()["honest"], 0), now=NOW + jump)

    assert seen.verdict.standing == "trusted"
    after = {
        standing: next_standing(standing, seen.verdict, quiet_hours=seen.quiet_hours, policy=policy)
        for standing in ("throttled", "suspended")
    }
    assert after == {"throttled": throttled, "suspended": "suspended"}


def foul_rows(rows: int) -> dict[str, tuple[Any, Any]]:
    """What a client may send and a model answer, by defect."""
    fine = np.full((rows, CLASSES), 1 / CLASSES)
    found = {
        f"rows: {name}": (np.resize(inputs, (rows, inputs.shape[1])), fine)
        for name, inputs in factories.hostile().items()
    }
    inputs = factories.honest_rows(np.random.default_rng(SEED), rows)
    sides = np.where(np.arange(rows)[:, None] % 2, np.inf, -np.inf)
    return found | {
        "rows: both infinities": (inputs * sides, fine),
        "scores: not numbers": (inputs, np.full((rows, CLASSES), np.nan)),
        "scores: infinite": (inputs, np.full((rows, CLASSES), np.inf)),
        "scores: below 0": (inputs, np.full((rows, CLASSES), -1e308)),
        "scores: of no class": (inputs, fine[:, :0]),
        "rows: 4,096 numbers": (np.full((rows, 4096), 1e308), fine),
    }


@pytest.mark.slow
@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize("defect", foul_rows(1))
def test_what_one_client_sends_changes_nothing_that_is_said_of_others(defect: str, together: bool) -> None:
    inputs, scores = foul_rows(6)[defect]
    foul = Asked(Asker("foul", "foul"), inputs, scores)

    with np.errstate(all="ignore"):
        disturbed, alone = (said_of_others(extra, together=together) for extra in (foul, None))

    assert disturbed == alone


def said_of_others(foul: Asked | None, *, together: bool) -> tuple[list[Observation], dict[str, bytes], list[Any]]:
    """What a watch says of three clients, and knows of them, of which none is linked with the foul one."""
    watch, episodes, said = make(), others(), list[Observation]()
    for at in range(30):
        batch: list[AnyAsked] = [Asked(asker(name), *one(episode, at)) for name, episode in episodes.items()]
        if foul is not None:
            batch.insert(at % 4, foul)
        for part in [batch] if together else [[item] for item in batch]:
            seen = watch.observe_all("fraud", part, now=NOW + at)
            said += [answer for item, answer in zip(part, seen, strict=True) if item is not foul]
    states = watch.changes("fraud")
    return said, {name: states[name] for name in OTHERS}, [watch.explain(name) for name in OTHERS]


@pytest.mark.slow
@pytest.mark.parametrize("defect", foul_rows(1))
def test_what_one_client_sends_takes_no_longer_than_honest_rows(defect: str) -> None:
    rows, watch = 2000, make()
    honest = factories.honest(np.random.default_rng(SEED), rows)
    inputs, scores = foul_rows(rows)[defect]
    inputs = inputs[:, :INPUTS]  # of wide ones nothing is looked at, and hashing them takes as long as reading them

    with np.errstate(all="ignore"):
        usual = seconds(lambda: watch.observe(asker("honest"), "fraud", honest.inputs, honest.scores, now=NOW))
        taken = seconds(lambda: watch.observe(Asker("foul", "foul"), "fraud", inputs, scores, now=NOW))

    assert taken < 10 * usual + 0.1


def seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


FOUL_TEXTS = {
    "one letter": "a" * TEXT_BYTES,
    "letters of four bytes": "\U0001f600" * (TEXT_BYTES // 4),
    "nulls": "\0" * TEXT_BYTES,
    "half a letter": "\ud800" * (TEXT_BYTES // 3),
    "one long word and lines": ("b" * 100_000 + "\n") * 100,
    "marks on one letter": "e" + "\u0301" * (TEXT_BYTES // 2),
    "brackets": "(" * TEXT_BYTES,
    "nothing": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("defect", FOUL_TEXTS)
def test_a_text_of_ten_megabytes_takes_no_time_and_changes_nothing_that_is_said_of_others(defect: str) -> None:
    foul = AskedTexts(Asker("foul", "foul"), [Query(FOUL_TEXTS[defect]), Query(FOUL_TEXTS[defect] + "!")])
    episodes = {"honest": talkers.honest(1), "thief": talkers.harvest()}

    def said(extra: AskedTexts | None) -> tuple[list[Observation], dict[str, bytes], float]:
        watch, found, taken = Watch(WatchPolicy(**SETTINGS)), list[Observation](), 0.0
        watch.watch_model(talkers.MODEL, talkers.untimed(), {})
        for at in range(talkers.HORIZON):
            for name, queries in episodes.items():
                request = AskedTexts(asker(name), [queries[at]])
                found += watch.observe_all(talkers.MODEL, [request], now=NOW + at)
            if extra is not None and at % 8 == 0:
                taken += seconds(lambda: watch.observe_all(talkers.MODEL, [extra], now=NOW))
        states = watch.changes(talkers.MODEL)
        return found, {name: states[name] for name in episodes}, taken

    alone, disturbed = said(None), said(foul)

    assert disturbed[:2] == alone[:2]
    assert disturbed[2] < 1.0  # of CPU, for six such texts
    assert alone[0][-1].evidence.p_value < 0.02
