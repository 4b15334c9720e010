"""Models by name."""

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import ModelRow, Registry


def test_a_model_is_kept_with_owner_format_and_time(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        records.models.add("digits", owner="Ada Lovelace", model_format="onnx")
    with registry.read() as records:
        assert records.models.get("digits") == ModelRow("digits", "Ada Lovelace", "onnx", clock.now())


def test_models_are_listed_by_name(registry: Registry) -> None:
    with registry.write() as records:
        for name in ("b", "a", "c"):
            records.models.add(name, owner="Ada", model_format="onnx")
        assert [model.name for model in records.models.all()] == ["a", "b", "c"]


def test_a_taken_name_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        records.models.add("digits", owner="Ada", model_format="onnx")
        with pytest.raises(ConflictError, match="a model 'digits' already"):
            records.models.add("digits", owner="Grace", model_format="onnx")


@pytest.mark.parametrize(
    ("name", "owner", "model_format"), [("A b", "Ada", "onnx"), ("a", "", "onnx"), ("a", "Ada", "")]
)
def test_a_wrong_name_owner_or_format_is_refused(registry: Registry, name: str, owner: str, model_format: str) -> None:
    with registry.write() as records, pytest.raises(PalladionError):
        records.models.add(name, owner=owner, model_format=model_format)


def test_an_unknown_model_comes_with_a_suggestion(registry: Registry) -> None:
    with registry.write() as records:
        records.models.add("digits", owner="Ada", model_format="onnx")
        with pytest.raises(NotFoundError) as caught:
            records.models.get("digist")
        assert caught.value.hints == ("did you mean digits?",)
        with pytest.raises(NotFoundError):
            records.models.lock("digist")
        assert records.models.find("digist") is None
