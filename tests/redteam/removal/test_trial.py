"""A marked copy on trial: what is left after every attack, and what it cost. Seeds are fixed.

Null hypothesis of every test that finds nothing: the suspect is independent of the key.
"""

from dataclasses import replace

import numpy as np
import pytest

from palladion.errors import InconclusiveError
from palladion.mark.fingerprints import stamp_place
from palladion.mark.weights import Finding
from palladion.model.rewrite import rewritten
from palladion.redteam.removal import trial as module
from palladion.redteam.removal.attacks import GRID, Attack
from palladion.redteam.removal.trial import Outcome, Trial, attacks_for, run_trial
from palladion.redteam.removal.usefulness import Usefulness
from tests.mark.suspects import KEY, OTHER_KEY, OWNERSHIP, saved, with_weights
from tests.redteam.removal.subjects import forest, held, network, transformer


def _attacks(*kinds: str) -> list[Attack]:
    return [attack for attack in GRID if attack.kind in kinds]


def _outcomes(trial: Trial, *kinds: str, usefulness: Usefulness | None = None) -> dict[str, Outcome]:
    found = run_trial(trial, usefulness, seed=1, attacks=_attacks(*kinds))
    return {item.attack.strength: item for item in found}


def test_an_exact_copy_is_proven_and_a_strangers_key_finds_nothing() -> None:
    (found,) = _outcomes(network(), "exact copy").values()
    assert found.log10_p < -400
    assert (found.payload_errors, found.changed, found.undone) == (0, 0.0, ())
    assert found.control_log10_p > -3
    assert found.found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "another mark over it", "merged adapter", "decimal digits"])
def test_more_of_an_attack_leaves_less_of_the_mark(kind: str) -> None:
    found = list(_outcomes(network(), kind).values())
    assert [item.log10_p for item in found] == sorted(item.log10_p for item in found)
    assert [item.changed for item in found] == sorted(item.changed or 0.0 for item in found)


def test_noise_is_as_large_as_it_says() -> None:
    found = _outcomes(network(), "noise")
    assert found["20 %"].changed == pytest.approx(0.2, rel=0.05)


def test_a_soup_with_the_original_leaves_the_mark() -> None:
    assert all(item.log10_p < -400 for item in _outcomes(network(), "mixed with the original").values())


@pytest.mark.slow
def test_rewiring_costs_nothing_and_is_undone() -> None:
    judge = Usefulness(network().marked, None, None, seed=1)
    found = _outcomes(network(), "rewired", usefulness=judge)
    assert found["another order"].lost == 0.0
    assert found["another order"].unaligned > -9 > found["another order"].log10_p
    assert found["another order"].undone
    # the rounding costs what rounding costs, on its own
    rounded = _outcomes(network(), "rounding", usefulness=judge)["int4"]
    assert found["another basis, int4"].lost == rounded.lost


@pytest.mark.slow
def test_what_is_lost_is_measured_on_the_altered_copy() -> None:
    judge = Usefulness(network().marked, None, None, seed=1)
    found = _outcomes(network(), "pruning", usefulness=judge)
    assert found["25 %"].lost is not None
    assert found["90 %"].lost is not None
    assert found["25 %"].lost < found["90 %"].lost
    assert not found["90 %"].useful
    unmeasured = _outcomes(network(), "pruning")["90 %"]
    assert unmeasured.lost is None
    assert unmeasured.useful


@pytest.mark.slow
def test_a_thief_of_a_part_is_found_by_it_and_counted_apart() -> None:
    found = _outcomes(transformer(), "a part, int4")
    assert set(found) == {"half of the tensors", "a quarter", "the largest alone"}
    assert found["half of the tensors"].log10_p < found["the largest alone"].log10_p
    assert not any(item.whole for item in found.values())


def test_of_few_tensors_parts_that_are_the_same_are_one() -> None:
    assert [item.strength for item in attacks_for(network().marked) if item.kind == "a part, int4"] == [
        "the largest alone"
    ]


def test_leaves_that_are_left_out_or_reordered_hide_no_mark_of_trees() -> None:
    found = _outcomes(forest(), "leaves reordered", "exact copy")
    whole = found["as it is"].log10_p
    assert whole < -50
    assert all(item.log10_p == pytest.approx(whole) for item in found.values())
    assert found["all"].unaligned > -9
    assert found["all"].undone == ("leaves in another order",)
    assert all(item.lost == 0 for strength, item in found.items() if strength != "as it is")
    dropped = _outcomes(forest(), "trees dropped")
    assert dropped["20 %"].log10_p / whole == pytest.approx(0.8, abs=0.1)
    assert dropped["20 %"].unaligned == 0


def test_zeros_of_trees_stay_zeros() -> None:
    original = forest().original
    name = next(name for name in original.tensors if name.endswith("target_weights"))
    weights = np.array(original.tensors[name].data)
    weights[::3] = 0
    some = held(rewritten(original, lambda tensor: weights if tensor.name == name else None))
    thief = module._Thief(Trial(some, some, OWNERSHIP), None, 1)
    (attack,) = [item for item in _attacks("noise") if item.strength == "20 %"]
    after = thief._altered(attack, attack.change).tensors[name].data
    assert np.array_equal(after == 0, weights == 0)
    assert not np.allclose(after, weights)


@pytest.mark.slow
def test_a_recipients_copy_is_tested_for_his_name() -> None:
    original = transformer().original
    copy = saved(with_weights(original, lambda place: stamp_place(place, OWNERSHIP, OTHER_KEY)))
    trial = Trial(original, copy, OWNERSHIP, recipient=("acme", OTHER_KEY), issued=3)
    found = _outcomes(trial, "rounding")
    assert found["bf16"].copy_log10_p is not None
    assert found["bf16"].copy_log10_p < -100
    assert found["int4"].copy_log10_p is not None
    assert found["int4"].copy_log10_p > found["bf16"].copy_log10_p
    (innocent,) = _outcomes(replace(trial, recipient=("beta", KEY[::-1])), "exact copy").values()
    assert innocent.copy_log10_p is not None
    assert innocent.copy_log10_p > -3
    assert "acme" not in repr(trial)


@pytest.mark.slow
def test_the_same_seed_says_the_same() -> None:
    first, second = (_outcomes(network(), "noise", "another mark over it") for _ in range(2))
    assert [item.document() for item in first.values()] == [item.document() for item in second.values()]
    other = {item.attack.strength: item for item in run_trial(network(), None, seed=2, attacks=_attacks("noise"))}
    assert other["20 %"].log10_p != first["20 %"].log10_p


def test_what_is_not_held_in_memory_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    held_outcome = _outcomes(network(), "noise")["20 %"]
    monkeypatch.setattr(module, "HELD_NUMBERS_MAX", 0)
    assert _outcomes(network(), "noise")["20 %"].document() == held_outcome.document()


def test_a_test_that_finds_marks_in_anything_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Finding(-50.0, 15.0, (), 1, 1)
    monkeypatch.setattr(module, "find_ownership", lambda *_: broken)
    with pytest.raises(InconclusiveError, match="a key of nobody finds a mark"):
        _outcomes(network(), "exact copy")


def test_progress_counts_the_attacks() -> None:
    told: list[tuple[str, int, int]] = []
    list(
        run_trial(
            network(), None, seed=1, attacks=_attacks("rounding"),
            progress=lambda stage, done, total: told.append((stage, done, total)),
        )
    )  # fmt: skip
    assert [(done, total) for _, done, total in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]
