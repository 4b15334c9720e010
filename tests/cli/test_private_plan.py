"""`palladion private plan`: what it prints of a budget, with rows and without."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from palladion.cli.private_plan import default_delta, plan, read_training
from palladion.errors import FormatError, NotFoundError
from palladion.registry.privacy import PrivacySpent
from tests.lifecycle.installations import make


def said(*arguments: str, obj: Any = Path()) -> Any:
    result = CliRunner().invoke(plan, [*arguments, "--json"], obj=obj, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def blobs(path: Path) -> Path:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 240)
    np.savez(path, x=np.eye(3)[labels] + 0.3 * generator.standard_normal((240, 3)), y=labels)
    return path


def test_less_noise_is_needed_for_more_epsilon_and_more_answers_are_paid_for_less() -> None:
    found = said("--rows", "5000", "--classes", "10")
    assert found["delta"] == 2e-5
    assert [item["noise"] for item in found["training"]] == sorted(
        (i["noise"] for i in found["training"]), reverse=True
    )
    answers = {item["epsilon"]: item for item in found["answers"]}
    assert answers[8.0]["answers"] == 1
    assert answers[0.1]["answers"] > 80
    assert answers[0.1]["right"]["0.9"] == pytest.approx(0.104, abs=1e-3)
    assert answers[8.0]["right"]["0.9"] > 0.8


def test_an_assumed_sensitivity_makes_answers_better_and_is_told() -> None:
    found = said("--rows", "5000", "--classes", "10", "--sensitivity", "0.05")
    assert next(item for item in found["answers"] if item["epsilon"] == 1.0)["right"]["0.5"] > 0.9
    result = CliRunner().invoke(plan, ["--rows", "5000", "--sensitivity", "0.05"])
    assert "assuming that one row moves no score by more than 0.05" in result.output
    assert "assuming nothing" in CliRunner().invoke(plan, ["--rows", "5000"]).output


@pytest.mark.slow
def test_accuracy_is_measured_on_rows(tmp_path: Path) -> None:
    found = said("--data", str(blobs(tmp_path / "rows.npz")), "--classes", "3")
    assert (found["rows"], found["classes"]) == (240, 3)
    reached = {item["epsilon"]: item["accuracy"] for item in found["accuracy"]}
    assert set(reached) == {0.5, 1.0, 2.0, 4.0, 8.0, None}
    assert reached[8.0] > 0.9
    assert reached[None] > 0.9


def test_rows_are_wanted() -> None:
    result = CliRunner().invoke(plan, [])
    assert result.exit_code == 2
    assert "--rows says how many rows there are" in result.output


def test_classes_of_rows_are_said_and_not_counted(tmp_path: Path) -> None:
    result = CliRunner().invoke(plan, ["--data", str(blobs(tmp_path / "rows.npz"))])
    assert (result.exit_code, "--classes says how many" in result.output) == (2, True)


def test_a_file_without_classes_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=np.zeros((200, 3)))
    with pytest.raises(FormatError, match="no array 'y'"):
        read_training(tmp_path / "rows.npz", 3)


def test_one_row_numbers_no_other_class_anew(tmp_path: Path) -> None:
    path, labels = tmp_path / "rows.npz", np.full(200, 2)
    np.savez(path, x=np.zeros((200, 3)), y=labels)
    assert read_training(path, 3)[1].tolist() == labels.tolist()
    np.savez(path, x=np.zeros((200, 3)), y=np.append(labels[1:], 0))
    assert read_training(path, 3)[1].tolist() == [*labels[1:], 0]


@pytest.mark.parametrize(
    ("label", "told"),
    [(3, "is not one of 0 to 2"), (-1, "is not one of 0 to 2"), (0.5, "y is float64"), ("a", "y is <U")],
)
def test_a_class_that_was_not_said_is_refused(tmp_path: Path, label: Any, told: str) -> None:
    labels = np.array([label] * 2 if isinstance(label, str) else [0, label])
    np.savez(tmp_path / "rows.npz", x=np.zeros((200, 3)), y=np.repeat(labels, 100))
    with pytest.raises(FormatError, match=told):
        read_training(tmp_path / "rows.npz", 3)


def test_what_a_model_has_spent_is_told(tmp_path: Path) -> None:
    made = make(tmp_path)
    with pytest.raises(NotFoundError, match="no route answers privately"):
        said("--rows", "100", "--model", "fraud", obj=made.home)
    policy = made.installation.paths.policy
    route = '[[route]]\nmodel = "fraud"\nprivacy = { mechanism = "noisy-max", epsilon = 0.5 }\n'
    policy.write_text(policy.read_text() + route)
    with made.installation.open_registry() as registry, registry.write() as records:
        records.privacy.spend("fraud", "acme", PrivacySpent(3, 1.5, 0.1), lambda _own, _all: True)
    found = said("--rows", "100", "--model", "fraud", obj=made.home)["model"]
    assert (found["answers"], found["spent"], found["epsilon_total"]) == (3, 1.5, 64.0)


def test_delta_is_a_chance_in_ten_times_the_rows() -> None:
    assert default_delta(1797) == 5.6e-5
