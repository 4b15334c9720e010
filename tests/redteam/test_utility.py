"""What coarser answers cost an honest user, worked out by hand."""

import numpy as np
import pytest

from palladion.redteam.utility import as_distribution, cost_of_classes, cost_of_numbers, cost_of_vectors

TRUTH = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1]])
LABELS = np.array([0, 0])


def test_classes_cost_what_their_definitions_say() -> None:
    cost = cost_of_classes(TRUTH, TRUTH, LABELS)
    assert cost["accuracy"] == 0.5
    assert cost["log_loss"] == pytest.approx(-(np.log(0.7) + np.log(0.3)) / 2)
    assert cost["brier"] == pytest.approx(((0.3**2 + 0.2**2 + 0.1**2) + (0.7**2 + 0.6**2 + 0.1**2)) / 2)
    assert cost["calibration_error"] == pytest.approx((abs(0.7 - 1) + abs(0.6 - 0)) / 2)
    assert cost["change"] == 0


def test_without_labels_the_model_is_right() -> None:
    cost = cost_of_classes(TRUTH, TRUTH, None)
    assert cost["accuracy"] is None
    assert cost["log_loss"] == pytest.approx(-(np.log(0.7) + np.log(0.6)) / 2)


def test_labels_alone_have_an_accuracy_and_no_probabilities() -> None:
    cost = cost_of_classes(None, TRUTH, LABELS)
    assert cost["accuracy"] == 0.5
    assert cost["log_loss"] is cost["change"] is None


def test_a_hidden_score_costs_much_and_not_everything() -> None:
    cost = cost_of_classes(np.array([[0.7, 0.0, 0.0]]), TRUTH[:1], np.array([2]))
    assert cost["log_loss"] == pytest.approx(-np.log(1e-6))


def test_numbers_and_vectors_cost_what_they_move() -> None:
    moved = cost_of_numbers(np.array([[2.0], [4.0]]), np.array([[1.0], [4.0]]), np.array([[0.0], [4.0]]))
    assert moved == {"root_mean_square_error": pytest.approx(2**0.5), "change": 0.5}
    assert cost_of_numbers(np.zeros((2, 1)), np.zeros((2, 1)), None)["root_mean_square_error"] is None
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert cost_of_vectors(2 * vectors, vectors)["cosine"] == pytest.approx(1)
    assert cost_of_vectors(2 * vectors, vectors)["neighbours_kept"] == 1


def test_what_is_shown_adds_up_to_one() -> None:
    shown = as_distribution(np.array([[0.6, 0.2, 0.0], [0.0, 0.0, 0.0], [-1.0, 1.0, 1.0]]))
    assert shown.tolist() == pytest.approx(np.array([[0.75, 0.25, 0], [1 / 3] * 3, [0, 0.5, 0.5]]))
