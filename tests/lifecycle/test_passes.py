"""A watched model is the same model, and tells whoever asks how far reading through it has come."""

from palladion.lifecycle.passes import watched
from palladion.model.digest import model_digest
from palladion.model.model import Model
from tests.mark.suspects import matrix, saved

Told = list[tuple[str, int, int]]
MODEL = saved({"a": matrix(16, 8), "b": matrix(16, 24)})
TOTAL = 4 * 16 * (8 + 24)


def _watched() -> tuple[Model, Told]:
    told: Told = []
    return watched(MODEL, lambda *step: told.append(step), during="compare", between="align"), told


def test_a_watched_model_is_the_same_model() -> None:
    model, told = _watched()
    assert model_digest(model) == model_digest(MODEL)
    assert list(model.tensors.items()) == list(MODEL.tensors.items())
    assert list(model.tensors.values()) == list(MODEL.tensors.values())
    assert (len(model.tensors), "a" in model.tensors, "c" in model.tensors) == (2, True, False)
    assert told  # of the pass over its values


def test_each_pass_tells_the_bytes_that_are_done_and_its_end() -> None:
    model, told = _watched()
    assert told == []
    for _ in range(2):
        told.clear()
        for _tensor in model.tensors.values():
            pass
        assert told == [("compare", 0, TOTAL), ("compare", 4 * 16 * 8, TOTAL), ("align", 0, 0)]


def test_a_pass_that_stops_early_ends_too() -> None:
    model, told = _watched()
    assert any(tensor.name == "a" for tensor in model.tensors.values())
    assert told == [("compare", 0, TOTAL), ("align", 0, 0)]
