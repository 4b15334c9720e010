"""What the watch would have seen: a version answers where the line does not, and misfits are nobody's queries."""

import numpy as np
import pytest

from palladion.errors import ConflictError
from palladion.policy import RoutePolicy
from palladion.redteam import answering as answering_module
from palladion.redteam.answering import Answering, Shown, Subject, open_subject, routes_of
from palladion.watch.recorded import Recorded
from tests.gate.gates import MODEL, OTHER_MODEL, ROW, House, make_house, open_gate, session_of

from .recordings import calibrate_house

ROUTE = RoutePolicy(model=MODEL)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    made = make_house(tmp_path_factory.mktemp("answering"))
    calibrate_house(made)
    return made


@pytest.fixture(scope="module")
def subject(house: House) -> Subject:
    return open_subject(house.installation, MODEL)


def line(inputs: object, **scores: object) -> Recorded:
    return Recorded(
        3, 1.0, "c", np.array(inputs, np.float64), {name.strip("_"): np.array(item) for name, item in scores.items()}
    )


def shown(subject: Subject, *lines: Recorded, route: RoutePolicy = ROUTE) -> list[Shown]:
    return list(Answering(subject, route).shown(lines))


@pytest.mark.slow
def test_a_version_says_what_the_gate_would_have_observed(house: House, subject: Subject) -> None:
    (served,) = open_gate(house).gate.served.values()
    rows = np.array([ROW, [0.1, 0.2, 0.3, 0.4]], np.float32)
    expected = session_of(served).run({"x": rows})["probabilities"]
    found = shown(subject, line(rows[0:1]), line(rows[1]), line(rows))
    assert np.array_equal(found[2].scores, expected.astype(np.float64))
    assert np.array_equal(found[0].scores[0], found[2].scores[0])
    assert np.array_equal(found[1].inputs, rows[1:].astype(np.float64))  # a single row, in the model's precision


def test_what_was_answered_counts_where_it_is_recorded(subject: Subject) -> None:
    own, named, plain = shown(
        subject, line([ROW]), line([ROW], probabilities=[[0.2, 0.3, 0.5]]), line([ROW], _=[0.2, 0.3, 0.5])
    )
    assert named.scores.tolist() == plain.scores.tolist() == [[0.2, 0.3, 0.5]]
    assert own.scores.tolist() != named.scores.tolist()


def test_the_version_is_asked_only_where_it_has_to(subject: Subject) -> None:
    answering = Answering(subject, ROUTE)
    list(answering.shown([line([ROW, ROW]), line([ROW], _=[[0.2, 0.3, 0.5]]), line([[1, 2]])]))
    assert answering.answered == 2


def test_logits_become_probabilities(subject: Subject) -> None:
    (found,) = shown(subject, line([ROW], _=[[10.0, 0.0, -3.0]]))
    assert found.scores.sum() == pytest.approx(1)


@pytest.mark.parametrize("scores", [[[0.5, 0.5]], [[0.2, 0.3, 0.5]] * 2, [0.1, 0.9], 0.5])
def test_scores_that_cannot_be_the_models_are_named_with_their_line(subject: Subject, scores: object) -> None:
    (found,) = shown(subject, line([ROW], _=scores))
    assert not found.fits
    assert found.fault is not None
    assert found.fault.message.startswith("line 3 has scores of the shape")


def test_one_request_at_which_the_model_fails_is_no_hindrance_to_those_beside_it(subject: Subject) -> None:
    found = shown(subject, line([ROW]), line([[3e38, -3e38, 3e38, -3e38]]), line([ROW]))
    assert [item.fits for item in found] == [True, False, True]
    assert found[1].fault is None  # it got no answer where it was asked either


@pytest.mark.parametrize("inputs", [[[1, 2, 3]], [[[1, 2, 3, 4, 5]]], [1, 2], [[1e39, 0, 0, 0]]], ids=str)
def test_rows_that_the_model_does_not_take_fit_nowhere(subject: Subject, inputs: object) -> None:
    (found,) = shown(subject, line(inputs))
    assert (found.fits, found.inputs.size, found.scores.size) == (False, 0, 0)


def test_rows_are_answered_together_a_few_at_a_time_and_in_order(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering_module, "AT_ONCE", 3)
    monkeypatch.setattr(answering_module, "ROWS_AT_ONCE", 4)
    lines = [line([[number, 0, 0, 0]] * (1 + number % 3)) for number in range(10)]
    found = shown(subject, *lines)
    assert [item.request for item in found] == lines
    assert [item.inputs[0, 0] for item in found] == list(range(10))
    assert [len(item.scores) for item in found] == [len(item.inputs) for item in lines]


def test_a_version_without_a_calibration_is_said(house: House) -> None:
    with pytest.raises(ConflictError, match="spam@1 has no calibration"):
        open_subject(house.installation, OTHER_MODEL)


def test_a_model_without_a_route_has_one_with_defaults(house: House) -> None:
    policy = house.with_policy(RoutePolicy(model=OTHER_MODEL)).policy
    assert routes_of(policy, MODEL) == [ROUTE]
    assert routes_of(policy, OTHER_MODEL) == list(policy.route)
