"""Mark removal as a stage: the weakest useful attack is the figure of the bar, and without keys it is skipped."""

import pytest

from palladion.policy import RedteamPolicy
from palladion.redteam.audit.bars import judge
from palladion.redteam.audit.removal import NO_KEYS, REMOVAL, WEAKEST, removal_bars, result_of, with_trial
from palladion.redteam.audit.result import parse_result
from palladion.redteam.audit.rules import RULES
from palladion.redteam.audit.run import run_stages
from palladion.redteam.audit.sarif import findings
from palladion.redteam.audit.stage import Plan
from palladion.redteam.removal.attacks import GRID
from palladion.redteam.removal.trial import Outcome
from tests.redteam.audit.subjects import subject
from tests.redteam.removal.subjects import network


def _outcome(kind: str, strength: str, log10_p: float, lost: float | None) -> Outcome:
    attack = next(item for item in GRID if (item.kind, item.strength) == (kind, strength))
    return Outcome(attack, log10_p, log10_p, (), 0, None, 0.0, lost, 0.1)


FOUND = [
    _outcome("rounding", "int8", -800.0, 0.0),
    _outcome("rounding", "int4", -20.0, 1.0),
    _outcome("noise", "50 %", -0.1, 60.0),
    _outcome("a part, int4", "a quarter", -1.0, None),
]


def test_the_weakest_is_of_copies_that_are_whole_and_useful() -> None:
    result = result_of(FOUND, None)
    assert (result.figures[0].key, result.figures[0].value) == (WEAKEST, -20.0)
    assert "rounding, int4" in result.figures[0].words
    assert [item.key for item in result.figures[1:]] == [
        "removal.rounding.int8", "removal.rounding.int4", "removal.noise.50-%", "removal.a-part-int4.a-quarter",
    ]  # fmt: skip
    assert result.observations == ()
    assert parse_result(result.document()) == parse_result(parse_result(result.document()).document())


def test_an_attack_that_removes_the_mark_for_nothing_is_said() -> None:
    result = result_of([*FOUND, _outcome("noise", "20 %", -3.0, 2.5)], None)
    (seen,) = result.observations
    assert (seen.rule, seen.level, seen.where) == ("removal", "warning", "noise.20-%")
    assert "log10 p -3.0" in seen.text
    assert "costs 2.5 points" in seen.text
    assert seen.rule in RULES


def test_the_bar_is_on_the_weakest() -> None:
    assert removal_bars(RedteamPolicy()) == ()
    for limit, verdict in ((-9.0, "pass"), (-50.0, "fail")):
        bars = removal_bars(RedteamPolicy(removal_log10_p=limit))
        (judged,) = judge(bars, [result_of(FOUND, None)])
        assert judged.verdict == verdict
        document = {"bars": [judged.document()], "regressions": [], "stages": []}
        assert [item.rule for item in findings(document)] == ([] if verdict == "pass" else ["removal"])


@pytest.mark.slow
def test_without_the_owners_keys_it_is_skipped_and_with_them_run() -> None:
    (skipped,) = run_stages(subject(), [REMOVAL], Plan(), progress=lambda *_: None)
    assert (skipped.outcome, skipped.reasons) == ("skipped", (NO_KEYS,))
    stages: list[str] = []
    ready = with_trial(REMOVAL, network(), None)
    (run,) = run_stages(subject(), [ready], Plan(), progress=lambda _done, _total, stage="": stages.append(stage))
    assert (run.outcome, run.queries) == ("done", 0)
    assert len(run.details["attacks"]) == len(run.figures) - 1 > 30
    assert "removal, noise, 5 %" in stages
    assert "not measured" in run.details["usefulness"]
