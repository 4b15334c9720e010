"""Recorded traffic as clients to calibrate on: each its own rows in time, as the model takes them, within limits."""

from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError, PalladionError
from palladion.model.run import Port
from palladion.policy import Policy, RoutePolicy
from palladion.redteam import recorded_clients as module
from palladion.redteam.chosen import Choice, LeftOut
from palladion.redteam.recorded_clients import for_model, recorded_clients, rows_of
from palladion.watch.own_past import EPOCHS_MAX
from palladion.watch.recorded import Recorded

from .test_chosen import CLIENTS, KEY

FLAT = Port("x", "float32", ("batch", 4))
NOBODY = Choice([], KEY, set())


def request(line: int, client: str, rows: int = 1, **more: Any) -> Recorded:
    inputs = np.full((rows, 4), float(line)) + np.arange(rows)[:, None] / 100
    return Recorded(line, float(line), client, inputs, **more)


def test_each_client_has_its_rows_in_time_and_no_more_than_are_looked_at() -> None:
    requests = [request(line, "ab"[line % 2], 3) for line in range(80)]

    found = recorded_clients(requests, FLAT, Choice([], KEY, set()), horizon=16)

    first, second = found.validation.by_client()
    assert (len(first), len(second)) == (EPOCHS_MAX * 16, EPOCHS_MAX * 16)
    assert first[:4, 0].tolist() == pytest.approx([0, 0.01, 0.02, 2])
    assert second[:4, 0].tolist() == pytest.approx([1, 1.01, 1.02, 3])
    assert (found.requests, found.unfit, found.left_out) == (80, 0, LeftOut(2, 0, 0))
    moments, _ = found.validation.moments()
    assert moments is not None
    assert len(moments) == len(first)
    assert moments[:4].tolist() == [0, 0, 0, 2]


def test_a_client_under_several_of_its_names_is_one_and_who_may_be_a_thief_is_none() -> None:
    names = [CLIENTS[0].id, "c1/it", "c3/it", "stranger"]
    requests = [request(line, names[line % 4], 2) for line in range(200)]

    found = recorded_clients(requests, FLAT, Choice(CLIENTS, KEY, set(), ["stranger"]), horizon=40)

    assert [len(rows) for rows in found.validation.by_client()] == [200]
    assert found.left_out.details() == {"left_out": 1, "without": 1}


@pytest.mark.parametrize(
    ("port", "inputs", "shape"),
    [
        (FLAT, [[1, 2, 3, 4]], (1, 4)),
        (FLAT, [1, 2, 3, 4], (1, 4)),
        (FLAT, [[1, 2, 3]], None),
        (FLAT, [[1e39, 0, 0, 0]], None),
        (Port("x", "int64", ("batch", 4)), [[1, 2, 3, 4]], (1, 4)),
        (Port("x", "int64", ("batch", 4)), [[1, 2, 3, 4.5]], None),
        (Port("x", "float32", ("batch", 1, 2, 2)), [[1, 2, 3, 4]], (1, 1, 2, 2)),
        (Port("x", "float32", ("batch", 1, 2, 2)), [[[1, 2], [3, 4]]], (1, 1, 2, 2)),
        (Port("x", "float32", ("batch", None)), [[1, 2, 3]], (1, 3)),
    ],
)
def test_rows_are_taken_as_the_gate_takes_them(port: Port, inputs: object, shape: tuple[int, ...] | None) -> None:
    found = rows_of(Recorded(1, 0.0, "a", np.array(inputs, np.float64)), port)

    assert (None if found is None else found.shape) == shape


def test_queries_that_the_model_does_not_take_are_counted_and_nobody_is_made_of_nothing() -> None:
    unfit = [Recorded(line, 1.0, "a", np.ones((5, 3))) for line in range(9)]
    asked = [request(line, "b", 10) for line in range(10)]

    found = recorded_clients([*unfit, *asked], FLAT, Choice([], KEY, set()), horizon=100)

    assert (found.unfit, len(list(found.validation.by_client()))) == (45, 1)
    with pytest.raises(PalladionError, match="0 rows of 0 clients are left"):
        recorded_clients(unfit, FLAT, Choice([], KEY, set()), horizon=100)


def test_what_a_file_can_make_it_hold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [request(line, f"c{line}", 10) for line in range(40)]
    with pytest.raises(PalladionError, match="up to line 20 there are more than 800 numbers"):
        recorded_clients(requests, FLAT, Choice([], KEY, set()), horizon=16, values_max=800)
    monkeypatch.setattr(module, "CLIENTS_MAX", 30)
    with pytest.raises(FormatError, match="line 30 has one client too many"):
        recorded_clients(requests, FLAT, Choice([], KEY, set()), horizon=16)


def test_requests_to_other_models_are_none_of_this_one() -> None:
    policy = Policy(route=(RoutePolicy(model="fraud"), RoutePolicy(model="spam")))
    others = policy.route[1].route
    requests = [request(1, "a"), request(2, "a", model="fraud@3"), request(3, "a", model="spam")]
    requests += [request(4, "a", route=others), request(5, "a", route="/elsewhere")]

    assert [item.line for item in for_model(requests, "fraud", policy)] == [1, 2, 5]
