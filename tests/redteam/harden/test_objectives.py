"""Fine-tuning: each objective does what it says, and leaves the task."""

from typing import Any

import pytest

from palladion.redteam.harden import objectives
from palladion.redteam.harden.network import Network
from palladion.redteam.harden.objectives import METHODS, Lesson, Method, tune
from tests.redteam.harden.networks import network, read, table

torch: Any = pytest.importorskip("torch", reason="hardening needs the torch extra")
pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _soon_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A student of three clouds needs few steps."""
    monkeypatch.setattr(objectives, "STUDENT_STEPS", 150)


def tuned(method: Method, strength: float, *, steps: int = 60, seed: int = 1) -> Network:
    found = Network(read(network()), "probabilities", is_logits=False)
    rows, labels = table(400)
    tune(found, rows, labels, method, strength, seed=seed, steps=steps)
    return found


def scores(found: Network, rows: Any) -> Any:
    with torch.no_grad():
        return found.logits(torch.from_numpy(rows))


@pytest.mark.parametrize("method", list(METHODS))
def test_the_task_stays_at_the_least_strength(method: Method) -> None:
    rows, labels = table(300, seed=5)
    found = tuned(method, METHODS[method].strengths[0])
    assert (scores(found, rows).argmax(1).numpy() == labels).mean() > 0.85


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    one, same, other = (tuned("nasty", 0.02, steps=10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.trained["last"], same.trained["last"])
    assert not torch.equal(one.trained["last"], other.trained["last"])


def test_fine_tuning_begins_at_the_numbers_of_the_file() -> None:
    found = tuned("steering", 1.0, steps=10)
    first = found.trained["last"].detach().clone()
    rows, labels = table(400)
    tune(found, rows, labels, "steering", 1.0, seed=1, steps=10)
    assert torch.equal(found.trained["last"], first)


def test_a_nasty_teacher_answers_less_like_a_student() -> None:
    rows, labels = (torch.from_numpy(item) for item in table(300, seed=5))
    right = Network(read(network()), "probabilities", is_logits=False)

    def divergence(strength: float) -> float:
        lesson = Lesson(tuned("nasty", strength, steps=150), right.logits, torch.ones(6))
        with torch.no_grad():
            one, other = (float(METHODS["nasty"].loss(lesson, rows, labels, weight)) for weight in (0.0, 1.0))
        return one - other

    assert divergence(0.08) > 1.5 * divergence(0.0)


def test_steering_turns_the_slopes_of_a_student_away() -> None:
    rows, labels = (torch.from_numpy(item) for item in table(300, seed=5))

    def turned(strength: float) -> float:
        found = tuned("steering", strength)
        lesson = Lesson(found, lambda given: torch.zeros(len(given), 3), torch.ones(6))
        with torch.no_grad():
            return float(METHODS["steering"].loss(lesson, rows, labels, 1.0)) - float(
                METHODS["steering"].loss(lesson, rows, labels, 0.0)
            )

    assert turned(4.0) < turned(0.0) - 0.01


def test_adversarial_training_withstands_moved_rows() -> None:
    rows, labels = (torch.from_numpy(item) for item in table(300, seed=5))

    def lost(found: Network, strength: float = 0.6) -> float:
        lesson = Lesson(found, lambda given: given, torch.ones(6))
        return float(METHODS["adversarial"].loss(lesson, rows, labels, strength).detach())

    untouched = Network(read(network()), "probabilities", is_logits=False)
    # where rows are moved to, the model errs more
    assert lost(untouched) > lost(untouched, 0.0) + 0.02
    assert lost(tuned("adversarial", 0.6)) < lost(untouched) - 0.02
