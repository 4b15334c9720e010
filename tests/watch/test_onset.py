"""Steps of suspicion begin later than their threshold, by what nobody outside can foretell, and never sooner."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.policy import WatchPolicy
from palladion.watch.onset import AT_ONCE, Onsets, delay, delay_max
from palladion.watch.response import Evidence, judge, rank
from palladion.watch.watch import Asker, Watch

from . import factories

SEED = 20261126
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
POLICY = WatchPolicy(degrade_after=8, suspend_after=16, onset_spread=0.5, simulated_may_enforce=True)
WORDS = st.integers(0, 2**64 - 1)
STEPS = {"throttled": 1, "degraded": POLICY.degrade_after, "suspended": POLICY.suspend_after}  # where none is put off


def begun(onset: int, policy: WatchPolicy, standing: str) -> int:
    """The suspicious query with which a step begins."""
    wanted = list(STEPS).index(standing) + rank("throttled")
    evidence = Evidence(1e-6, simulated=False, onset=onset)
    counts = range(1, 100)
    return next(count for count in counts if rank(judge(replace(evidence, suspected=count), policy).standing) >= wanted)


def test_an_onset_is_the_same_each_time_and_another_for_each_account_model_epoch_and_key() -> None:
    first = Onsets(KEY).of_account("fraud", "acme", 0)
    assert first == Onsets(KEY).of_account("fraud", "acme", 0)
    others = [
        Onsets(KEY).of_account("fraud", "globex", 0),
        Onsets(KEY).of_account("loans", "acme", 0),
        Onsets(KEY).of_account("fraud", "acme", 1),
        Onsets(KEY).of_group("fraud", "acme"),
        Onsets(OTHER_KEY).of_account("fraud", "acme", 0),
    ]
    assert len({first, *others}) == 6


@given(onset=WORDS)
def test_all_steps_of_one_account_are_put_off_by_the_same_number(onset: int) -> None:
    assert len({begun(onset, POLICY, standing) - first for standing, first in STEPS.items()}) == 1


def test_names_that_run_into_each_other_are_told_apart() -> None:
    assert Onsets(KEY).of_account("fraud", '1","a', 1) != Onsets(KEY).of_account('fraud","1', "a", 1)


def test_without_a_key_everything_begins_at_once() -> None:
    assert Onsets().of_account("fraud", "acme", 0) == Onsets().of_group("fraud", "acme") == AT_ONCE


def test_the_key_is_not_shown() -> None:
    assert "kkk" not in repr(Onsets(KEY))


@given(onset=WORDS, degrade_after=st.integers(1, 10**6), spread=st.floats(0, 1))
def test_nothing_is_put_off_by_more_than_the_policy_says(onset: int, degrade_after: int, spread: float) -> None:
    assert 0 <= delay(onset, degrade_after, spread) <= delay_max(degrade_after, spread) <= degrade_after * spread


def test_both_ends_are_reached() -> None:
    assert (delay(0, 8, 0.5), delay(2**64 - 1, 8, 0.5), delay(2**64 - 1, 8, 0)) == (0, 4, 0)


def test_every_delay_is_as_likely_as_the_others() -> None:
    onsets = Onsets(KEY)
    found = Counter(delay(onsets.of_account("fraud", str(number), 0), 8, 0.5) for number in range(5000))
    expected = 5000 / 5
    chi_squared = sum((found[value] - expected) ** 2 / expected for value in range(5))
    # of 4 degrees of freedom: above in one of a thousand such keys, and this one is fixed
    assert set(found) == set(range(5))
    assert chi_squared < 18.5


def test_each_step_begins_with_its_own_count_or_up_to_half_of_degrade_after_later() -> None:
    onsets = [Onsets(KEY).of_account("fraud", str(number), 0) for number in range(300)]
    for standing, first, last in (("throttled", 1, 5), ("degraded", 8, 12), ("suspended", 16, 20)):
        found = {begun(onset, POLICY, standing) for onset in onsets}
        assert found == set(range(first, last + 1)), standing


@given(
    onset=WORDS,
    suspected=st.integers(0, 60),
    p_value=st.sampled_from([0.5, 0.009, 0.0009]),
    degrade_after=st.integers(1, 30),
    suspend_after=st.integers(1, 30),
    spread=st.floats(0, 1),
    campaign=st.booleans(),
)
def test_nobody_stands_worse_for_a_step_that_is_put_off(
    *,
    onset: int,
    suspected: int,
    p_value: float,
    degrade_after: int,
    suspend_after: int,
    spread: float,
    campaign: bool,
) -> None:
    policy = WatchPolicy(
        degrade_after=degrade_after, suspend_after=suspend_after, onset_spread=spread, suspend_campaigns=True
    )
    if campaign:
        at_once = Evidence(campaign_p_value=p_value, campaign_suspected=suspected, simulated=False)
        later = replace(at_once, campaign_onset=onset)
    else:
        at_once = Evidence(p_value, suspected, simulated=False)
        later = replace(at_once, onset=onset)

    assert rank(judge(later, policy).standing) <= rank(judge(at_once, policy).standing)
    # and nobody who was to be seen is not: that changes no answer
    assert (judge(later, policy).standing == "trusted") == (judge(at_once, policy).standing == "trusted")


def test_a_budget_that_is_spent_is_not_put_off() -> None:
    evidence = Evidence(1e-6, 1, budget_spent=True, simulated=False, onset=2**64 - 1)
    assert judge(evidence, POLICY).standing == "throttled"
    assert judge(replace(evidence, budget_spent=False), POLICY).standing == "watched"


@pytest.mark.slow
@pytest.mark.parametrize("accounts", [1, 2, 5])
def test_who_probes_with_several_accounts_learns_no_more_than_the_docs_say(accounts: int) -> None:
    """All cross at the same query; they see each step of each. Where it was, is any of the places left."""
    trials, most = 2000, delay_max(POLICY.degrade_after, POLICY.onset_spread)
    onsets, left, place = Onsets(KEY), [], []
    for trial in range(trials):
        names = [f"{trial}-{number}" for number in range(accounts)]
        drawn = [onsets.of_account("fraud", name, 0) for name in names]
        late = [begun(onset, POLICY, standing) - first for onset in drawn for standing, first in STEPS.items()]
        left.append(most + 1 - (max(late) - min(late)))
        place.append(min(late))  # the truth lies so many below the first that was seen; what is known is 0 to left - 1
    # 1. so many places are left on average: D + 1 less the expected range of k draws from 0 to D
    values = np.arange(most + 1)
    expected_max = most - (((values[:-1] + 1) / (most + 1)) ** accounts).sum()
    expected = most + 1 - (2 * expected_max - most)
    assert np.mean(left) == pytest.approx(expected, abs=0.1), "places left"
    # 2. none of them is more likely than another: the best guess is right once in as many times
    for count in range(2, most + 2):
        among = [guess for guess, known in zip(place, left, strict=True) if known == count]
        if len(among) >= 100:
            share = max(Counter(among).values()) / len(among)
            assert share == pytest.approx(1 / count, abs=4 / len(among) ** 0.5), f"{count} places left"


def watch_with(key: bytes | None) -> Watch:
    policy = WatchPolicy(
        alpha_watched=0.05,
        alpha_suspected=0.02,
        alpha_campaign=0.02,
        degrade_after=8,
        suspend_after=16,
        onset_spread=1.0,
        simulated_may_enforce=True,
    )
    watch = Watch(policy)
    if key is not None:
        watch.draw_onsets(key)
    watch.watch_model("fraud", factories.calibration(), {})
    return watch


def standings(watch: Watch, client: str, *, queries: int = 40, start: int = 0) -> list[str]:
    """What the watch asks for after each query of a thief; the thief is the same each time."""
    thief = factories.foreign(np.random.default_rng(SEED), 40)
    asker = Asker(client, client)
    return [
        watch.observe(
            asker, "fraud", thief.inputs[at : at + 1], thief.scores[at : at + 1], now=float(at)
        ).verdict.standing
        for at in range(start, queries)
    ]


def disturbed_at(seen: list[str]) -> int:
    """The first query after which it stands worse than watched."""
    return next(place for place, standing in enumerate(seen) if standing not in {"trusted", "watched"})


@pytest.mark.slow
def test_two_accounts_that_ask_the_same_are_throttled_after_different_numbers_of_queries() -> None:
    watch = watch_with(KEY)
    begins = {disturbed_at(standings(watch, f"thief-{number}")) for number in range(8)}
    at_once = disturbed_at(standings(watch_with(None), "thief-0"))
    assert len(begins) > 3
    assert at_once <= min(begins)
    assert max(begins) <= at_once + 8


def test_a_step_begins_where_it_would_have_after_a_restart() -> None:
    whole = standings(watch_with(KEY), "thief")
    first = watch_with(KEY)
    standings(first, "thief", queries=9)
    again = watch_with(KEY)
    again.watch_model("fraud", factories.calibration(), first.changes("fraud"))
    assert standings(again, "thief", start=9) == whole[9:]
    assert len(set(whole)) > 3, f"{set(whole)}: nothing changes, so that a restart cannot either"


@pytest.mark.slow
def test_an_account_whose_evidence_begins_anew_is_put_off_by_another_number() -> None:
    found = set()
    for number in range(12):
        watch = watch_with(KEY)
        before = disturbed_at(standings(watch, f"thief-{number}"))
        watch.forgive(f"thief-{number}")
        state = watch.explain(f"thief-{number}")[0]
        assert state.p_value == 1
        # other queries of the same thief, as repeats are not counted
        thief = factories.foreign(np.random.default_rng(SEED + 1), 40)
        asker = Asker(f"thief-{number}", f"thief-{number}")
        after = [
            watch.observe(asker, "fraud", thief.inputs[at : at + 1], thief.scores[at : at + 1], now=float(at))
            for at in range(40)
        ]
        found.add(disturbed_at([observation.verdict.standing for observation in after]) - before)
    assert len(found) > 3


def test_linked_accounts_have_one_onset_whoever_of_them_asks() -> None:
    watch = watch_with(KEY)
    thief = factories.foreign(np.random.default_rng(SEED), 60)
    seen = []
    for at in range(60):
        asker = Asker(f"member-{at % 3}", "ring")
        observation = watch.observe(asker, "fraud", thief.inputs[at : at + 1], thief.scores[at : at + 1], now=float(at))
        seen.append(observation.evidence)
    drawn = {evidence.campaign_onset for evidence in seen if evidence.campaign_p_value <= 0.02}
    assert drawn == {Onsets(KEY).of_group("fraud", "member-0")}
