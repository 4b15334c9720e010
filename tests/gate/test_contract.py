"""Contracts: which outputs are scores and which are labels, found without being told, or refused in a sentence."""

from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError, PolicyError
from palladion.gate.contract import Contract, as_probabilities, make_contract
from palladion.model.run import Port
from palladion.policy import RoutePolicy

PROBABILITIES = Port("probabilities", "float32", (None, 3))
NUMBER = Port("price", "float32", ("n", 1))
FLAT_NUMBER = Port("price", "float64", (None,))
LABEL = Port("label", "int64", (None,))
TEXT_LABEL = Port("class", "string", (None, 1))
HIDDEN = Port("hidden", "float32", (None, 8, 8))
FLAGS = Port("flags", "bool", (None,))


def _route(**changes: Any) -> RoutePolicy:
    return RoutePolicy(**{"model": "fraud", **changes})


@pytest.mark.parametrize(
    ("ports", "scores", "label", "kind"),
    [
        ((PROBABILITIES,), "probabilities", None, "classes"),
        ((LABEL, PROBABILITIES), "probabilities", "label", "classes"),
        ((TEXT_LABEL, PROBABILITIES), "probabilities", "class", "classes"),
        ((LABEL,), None, "label", "classes"),
        ((NUMBER,), "price", None, "numbers"),
        ((FLAT_NUMBER,), "price", None, "numbers"),
        ((HIDDEN, FLAGS, PROBABILITIES), "probabilities", None, "classes"),
        ((Port("logits", "float16", (None, None)),), "logits", None, "classes"),
    ],
    ids=lambda value: "+".join(port.name for port in value) if isinstance(value, tuple) else None,
)
def test_outputs_are_found_by_their_type_and_shape(
    ports: tuple[Port, ...], scores: str | None, label: str | None, kind: str
) -> None:
    found = make_contract(_route(), ports)
    assert (found.scores, found.label, found.kind) == (scores, label, kind)


def test_what_clients_were_promised_comes_from_the_route() -> None:
    found = make_contract(_route(answer="label", decimals=3, top_k=2), (PROBABILITIES,))
    assert (found.answer, found.decimals, found.top_k) == ("label", 3, 2)


def test_the_route_can_name_the_outputs() -> None:
    other = Port("second", "float32", (None, 5))
    found = make_contract(_route(scores_output="second"), (PROBABILITIES, other, LABEL))
    assert (found.scores, found.label) == ("second", "label")


@pytest.mark.parametrize(
    ("route", "ports", "message"),
    [
        ({"scores_output": "nothing"}, (PROBABILITIES,), "scores_output is 'nothing', which is no such output"),
        ({"scores_output": "label"}, (PROBABILITIES, LABEL), "scores_output is 'label'"),
        ({"label_output": "probabilities"}, (PROBABILITIES, LABEL), "label_output is 'probabilities'"),
        ({"label_output": "flags"}, (FLAGS,), "label_output is 'flags'"),
        ({}, (HIDDEN, FLAGS), r"none of the outputs \(hidden, flags\) is a score or a label"),
        ({}, (), "none of the outputs"),
        ({"answer": "label"}, (NUMBER,), "the model predicts numbers"),
    ],
)
def test_a_route_that_does_not_fit_the_model_is_refused_by_name(
    route: dict[str, str], ports: tuple[Port, ...], message: str
) -> None:
    with pytest.raises(PolicyError, match=f"route /v1/models/fraud/predict: .*{message}"):
        make_contract(_route(**route), ports)


def _contract(**changes: Any) -> Contract:
    values = {"scores": "s", "label": "l", "kind": "classes", "answer": "scores", "decimals": 17, "top_k": 0}
    return Contract(**{**values, **changes})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_holds_no_finite_number_is_no_answer(value: float) -> None:
    contract = make_contract(_route(), (PROBABILITIES,))
    with pytest.raises(FormatError, match="probabilities has a value that is no finite number"):
        contract.verify_outputs({"probabilities": np.array([[0.5, 0.5, value]], np.float32)}, 1)


def test_outputs_with_a_value_for_each_row_are_handed_on() -> None:
    outputs = {"s": np.ones((2, 3)), "l": np.zeros(2), "other": np.zeros(7)}
    assert _contract().verify_outputs(outputs, 2) is outputs


@pytest.mark.parametrize(
    ("scores", "label"),
    [((1, 3), (2,)), ((3, 3), (2,)), ((2, 3), (1,)), ((6,), (2,)), ((2, 3, 1), (2,)), ((2, 3), ()), ((2, 0), (2,))],
)
def test_a_model_that_does_not_answer_each_row_is_refused(scores: tuple[int, ...], label: tuple[int, ...]) -> None:
    outputs = {"s": np.zeros(scores), "l": np.zeros(label)}
    with pytest.raises(FormatError, match="for 2 rows"):
        _contract().verify_outputs(outputs, 2)


def test_probabilities_are_taken_as_they_are_and_logits_become_some() -> None:
    rows = np.array([[0.2, 0.8], [3.0, 1.0], [-1.0, 2.0]])
    found = as_probabilities(rows)
    assert found[0].tolist() == [0.2, 0.8]
    assert found[1:] == pytest.approx(np.exp(rows[1:]) / np.exp(rows[1:]).sum(axis=1, keepdims=True))
    assert as_probabilities(rows[:1]).tolist() == [[0.2, 0.8]]


def test_huge_logits_overflow_nothing() -> None:
    found = as_probabilities(np.array([[1e30, -1e30, 0.0]]))
    assert found.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("changes", [{"scores": None}, {"kind": "numbers"}])
def test_where_there_are_no_class_scores_the_watch_gets_no_columns(changes: dict[str, Any]) -> None:
    found = _contract(**changes).class_scores({"s": np.ones((4, 1)), "l": np.ones(4)}, 4)
    assert found.shape == (4, 0)


def test_class_scores_come_in_double_precision() -> None:
    found = _contract().class_scores({"s": np.array([[0.25, 0.75]], np.float32)}, 1)
    assert found.dtype == np.float64
    assert found.tolist() == [[0.25, 0.75]]


VECTORS = Port("vectors", "float32", (None, 384))
TOKENS = Port("tokens", "float32", (None, None, 9))
BOXES = Port("boxes", "float32", (None, "n", 4))
BOX_SCORES = Port("scores", "float32", (None, "n"))
BOX_CLASSES = Port("classes", "int64", (None, "n"))
FLAT_BOXES = Port("boxes", "float32", ("n", 4))
FLAT_SCORES = Port("scores", "float32", ("n",))
SEGMENTS = Port("segments", "float32", (None, 21, 64, 64))
LAST_SEGMENTS = Port("segments", "float32", (None, 64, 64, 21))
PAINTED = Port("painted", "int64", (None, 64, 64))


@pytest.mark.parametrize(
    ("kind", "ports", "names"),
    [
        ("embedding", (LABEL, VECTORS), (None, "vectors", "label")),
        ("classes", (TOKENS,), (None, "tokens", None)),
        ("numbers", (PROBABILITIES,), (None, "probabilities", None)),
        ("numbers", (HIDDEN,), (None, "hidden", None)),
        ("boxes", (BOX_CLASSES, BOX_SCORES, BOXES), ("boxes", "scores", "classes")),
        ("boxes", (FLAT_BOXES, FLAT_SCORES), ("boxes", "scores", None)),
        ("mask", (SEGMENTS,), (None, "segments", None)),
        ("mask", (PAINTED,), (None, None, "painted")),
    ],
)
def test_outputs_of_a_declared_kind_are_found_by_it(
    kind: str, ports: tuple[Port, ...], names: tuple[str | None, ...]
) -> None:
    found = make_contract(_route(kind=kind, grid=8.0), ports)
    assert found.kind == kind
    assert (found.boxes, found.scores, found.label) == names
    assert [*found.names] == [name for name in names if name]


def test_the_classes_of_a_mask_are_found_first_or_last() -> None:
    axes = [make_contract(_route(kind="mask", grid=8.0), (port,)).class_axis for port in (SEGMENTS, LAST_SEGMENTS)]
    assert axes == [1, 3]


@pytest.mark.parametrize(
    ("route", "ports", "message"),
    [
        ({"kind": "embedding"}, (LABEL,), 'none of the outputs .label. fits kind = "embedding"'),
        ({"kind": "boxes", "grid": 8.0}, (BOX_SCORES,), 'fits kind = "boxes"'),
        ({"kind": "boxes"}, (BOXES,), "needs a grid"),
        ({"kind": "mask"}, (SEGMENTS,), "needs a grid"),
        ({"kind": "mask", "grid": 8.0, "answer": "label"}, (SEGMENTS,), "the model answers with mask"),
        ({"kind": "embedding", "answer": "label"}, (LABEL, VECTORS), 'answer = "label"'),
        ({"kind": "classes", "flipped": 0.03}, (TOKENS,), "answers of 3 dimensions cannot be marked"),
        ({"threshold": float("nan")}, (NUMBER,), "threshold is no number"),
        ({"threshold": 0.7, "flipped": 0.03}, (PROBABILITIES,), "turn decisions at the threshold 0.7"),
        ({"perturbation": "reverse-sigmoid"}, (NUMBER,), "no class scores to perturb"),
        ({"perturbation": "reverse-sigmoid", "kind": "boxes", "grid": 8.0}, (BOXES,), "no class scores to perturb"),
        ({"perturbation": "modelguard-w"}, (Port("p", "float32", (None, 33)),), "at most 32 classes, .* has 33"),
        ({"perturbation": "modelguard-w"}, (Port("p", "float32", (None, "c")),), "an open number"),
    ],
)
def test_a_kind_that_does_not_fit_is_refused(route: dict[str, Any], ports: tuple[Port, ...], message: str) -> None:
    with pytest.raises(PolicyError, match=f"route /v1/models/fraud/predict: .*{message}"):
        make_contract(_route(**route), ports)


@pytest.mark.parametrize(
    ("boxes", "scores", "rows"),
    [((2, 5, 4), (2, 5), 2), ((2, 5, 4), (2, 5, 3), 2), ((5, 4), (5,), 1), ((2, 0, 4), (2, 0), 2), ((0, 4), (0,), 1)],
)
def test_boxes_may_be_many_or_none(boxes: tuple[int, ...], scores: tuple[int, ...], rows: int) -> None:
    outputs = {"b": np.zeros(boxes), "s": np.zeros(scores)}
    assert _contract(kind="boxes", boxes="b", label=None, rank=3).verify_outputs(outputs, rows) is outputs


@pytest.mark.parametrize(
    ("boxes", "scores", "rows"),
    [
        ((5, 4), (5,), 2),
        ((3, 5, 4), (3, 5), 2),
        ((2, 5, 5), (2, 5), 2),
        ((2, 5, 4), (2, 6), 2),
        ((2, 5, 4), (5,), 2),
        ((2, 5, 4), (2, 5, 0), 2),
        ((), (2, 5), 2),
    ],
)
def test_boxes_that_belong_to_no_row_are_refused(boxes: tuple[int, ...], scores: tuple[int, ...], rows: int) -> None:
    outputs = {"b": np.zeros(boxes), "s": np.zeros(scores)}
    with pytest.raises(FormatError, match="the shape"):
        _contract(kind="boxes", boxes="b", label=None, rank=3).verify_outputs(outputs, rows)


def test_more_dimensions_are_taken_where_the_route_declared_them() -> None:
    outputs = {"s": np.ones((2, 3, 5))}
    contract = _contract(label=None, rank=3)
    assert contract.verify_outputs(outputs, 2) is outputs
    assert contract.class_scores(outputs, 2).shape == (2, 0)
    with pytest.raises(FormatError, match="for 2 rows"):
        contract.verify_outputs({"s": np.ones((2, 3))}, 2)


@pytest.mark.parametrize(("protocol", "typed"), [("predict", False), ("open-inference", True)])
def test_answers_have_the_types_of_the_model_where_the_protocol_says_so(protocol: str, typed: bool) -> None:
    assert make_contract(_route(protocol=protocol), (PROBABILITIES,)).typed is typed
    assert make_contract(_route(protocol=protocol, kind="mask", grid=8.0), (PAINTED,)).typed is typed


@pytest.mark.filterwarnings("error")
def test_the_largest_logits_overflow_nothing() -> None:
    assert as_probabilities(np.array([[1.7e308, -1.7e308], [1.7e308, 1.7e308]])).tolist() == [[1, 0], [0.5, 0.5]]
