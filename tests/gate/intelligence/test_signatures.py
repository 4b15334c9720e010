"""Running signatures: what is asked comes into them soon, at powers of two they are compared, and nothing grows."""

import asyncio
from typing import Any

import numpy as np
import pytest

from palladion.gate.intelligence import signatures as module
from palladion.gate.intelligence.signatures import Seeing, Signatures
from palladion.intel.sketch import Sketch, row_element, sketch_of
from palladion.watch.text.query import Query
from palladion.watch.watch import Asked, AskedTexts, Asker

GENERATOR = np.random.default_rng(3)


def _asked(client: str, rows: Any) -> Asked:
    rows = np.asarray(rows, np.float64)
    return Asked(Asker(client, "acme"), rows, np.zeros((len(rows), 0)))


def _made() -> tuple[Signatures, list[tuple[str, Sketch]]]:
    compared: list[tuple[str, Sketch]] = []
    return Signatures(lambda client, sketch: compared.append((client, sketch))), compared


def test_a_signature_is_that_of_all_that_a_client_asked_and_compared_at_powers_of_two() -> None:
    made, compared = _made()
    rows = GENERATOR.standard_normal((300, 5))
    for start in range(0, 300, 7):
        made.saw([_asked("a", rows[start : start + 7]), _asked("b", rows[:1, :3])])
    asyncio.run(made.work())
    assert [(client, sketch.size) for client, sketch in compared if client == "a"] == [
        ("a", 64),
        ("a", 128),
        ("a", 256),
    ]
    assert compared[-1][1].places == sketch_of([row_element(row) for row in rows[:256]]).places


def test_a_large_request_is_taken_in_parts_and_none_is_lost() -> None:
    made, compared = _made()
    rows = GENERATOR.standard_normal((1024, 2))
    made.saw([_asked("a", rows)])
    asyncio.run(made.work())
    assert [sketch.size for _, sketch in compared] == [64, 128, 256, 512, 1024]
    assert compared[-1][1].places == sketch_of([row_element(row) for row in rows]).places
    assert made._bytes == 0


def test_texts_are_taken_in_as_they_are() -> None:
    made, compared = _made()
    texts = [f"prompt {number}" for number in range(64)]
    made.saw([AskedTexts(Asker("a", "acme"), [Query(text) for text in [*texts[:-1], "\ud800"]])])
    asyncio.run(made.work())
    ((_, sketch),) = compared
    assert sketch.similarity(sketch_of([text.encode() for text in texts])) > 0.9


def test_what_is_no_number_belongs_to_no_harvest_and_harms_nobody() -> None:
    made, compared = _made()
    bad = np.full((10, 2), np.nan)
    made.saw([_asked("a", bad), _asked("b", np.ones((64, 2))), _asked("c", np.zeros((3, 0)))])
    asyncio.run(made.work())
    assert [client for client, _ in compared] == ["b"]
    assert len(made) == 1


def test_where_there_is_no_room_queries_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 100)
    made, _ = _made()
    made.saw([_asked("a", np.ones((5, 2))), _asked("a", np.ones((5, 2)))])
    assert made.left_out == 5
    asyncio.run(made.work())
    made.saw([_asked("a", np.ones((5, 2)))])
    assert made.left_out == 5


def test_the_clients_who_asked_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SKETCHES_MAX", 3)
    made, _ = _made()
    for client in ("a", "b", "c", "a", "d"):
        made.saw([_asked(client, np.ones((1, 2)))])
        asyncio.run(made.work())
    assert sorted(made._sketches) == ["a", "c", "d"]
    made.clear()
    assert len(made) == 0


class _Watch:
    """What says the name of the model of each request."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def observe_all(self, model: str, asked: Any, *, now: float) -> list[Any]:
        if self.error is not None:
            raise self.error
        return [model] * len(asked)


def test_what_could_not_be_observed_is_not_taken_in_twice() -> None:
    made, _ = _made()
    watch: Any = _Watch()
    seeing: Any = Seeing(lambda: watch, made)
    watch.error = ValueError("one of them")
    with pytest.raises(ValueError, match="one of them"):
        seeing.observe_all("fraud", [_asked("a", np.ones((1, 2)))], now=0.0)
    assert not made._waiting
    watch.error = None
    assert seeing.observe_all("fraud", [_asked("a", np.ones((1, 2)))], now=0.0) == ["fraud"]
    assert len(made._waiting) == 1
