"""The respondent: simulated rows are answered as the gate would answer them, whatever shape they come in."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from palladion.errors import PalladionError
from palladion.gate.contract import make_contract
from palladion.gate.decode import numbers
from palladion.gate.sources.layered import Layered, open_layered
from palladion.model.read import read_memory
from palladion.model.run import Session, open_session
from palladion.policy import RoutePolicy
from palladion.redteam import respondent as module
from palladion.redteam.respondent import Respondent
from palladion.redteam.validation import Validation
from palladion.watch.activations import SHOWN, digest
from tests.mark.classifiers import network

SEED = 13
Shape = list[int | str | None]


def session(shape: Shape, *, kind: int = TensorProto.FLOAT, outputs: int = 3) -> Session:
    """A model that adds up each row, times one number for each class; `shape` is that of its input."""
    nodes = [
        helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["real"], ["flat"], axis=1),
        helper.make_node("ReduceSum", ["flat", "axis"], ["sum"], keepdims=1),
        helper.make_node("MatMul", ["sum", "weights"], ["logits"]),
        helper.make_node("Softmax" if outputs > 1 else "Identity", ["logits"], ["scores"]),
    ]
    weights = np.linspace(-0.02, 0.03, outputs).astype(np.float32)[None]
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], outputs])],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(np.array([1]), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return open_session(read_memory({"model.onnx": memoryview(model.SerializeToString())}))


def respond(opened: Session, rows: NDArray[np.float32], *, channels_first: bool = False) -> Respondent:
    return Respondent(
        opened,
        make_contract(RoutePolicy(model="m"), opened.outputs),
        Validation(rows, None, None, None, channels_first),
    )


def made(*shape: int, count: int = 10) -> NDArray[np.float32]:
    return np.random.default_rng(SEED).integers(0, 9, (count, *shape)).astype(np.float32)


def test_episodes_hold_what_the_gate_would_have_shown_the_watch() -> None:
    opened, rows = session([None, 5]), made(5)
    contract = make_contract(RoutePolicy(model="m"), opened.outputs)

    (episode,) = respond(opened, rows).episodes([rows])

    np.testing.assert_array_equal(episode.inputs, numbers({"x": rows}, len(rows)))
    np.testing.assert_allclose(episode.scores, contract.class_scores(opened.run({"x": rows}), len(rows)), rtol=1e-6)
    assert episode.scores.shape == (10, 3)
    assert episode.inputs.dtype == episode.scores.dtype == np.float64


def test_clients_that_are_asked_for_together_get_their_own_answers() -> None:
    opened, rows = session([None, 5]), made(5)
    respondent = respond(opened, rows)

    together = respondent.episodes([rows[:3], rows[3:4], rows[4:]])

    for episode, part in zip(together, (rows[:3], rows[3:4], rows[4:]), strict=True):
        np.testing.assert_array_equal(episode.inputs, part)
        np.testing.assert_allclose(episode.scores, respondent.episodes([part])[0].scores, rtol=1e-6)


def test_many_rows_are_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, rows = session([None, 5]), made(5)
    at_once = respond(opened, rows).episodes([rows])[0].scores
    monkeypatch.setattr(module, "BATCH_ROWS", 4)

    np.testing.assert_allclose(respond(opened, rows).episodes([rows])[0].scores, at_once, rtol=1e-6)


@pytest.mark.parametrize(
    ("takes", "row"),
    [
        ([None, 12], (12,)),
        ([None, 12], (3, 4)),
        ([None, 3, 4], (12,)),
        (["batch", 3, 4], (3, 4)),
        ([None, "height", "width"], (3, 4)),
        ([None, None, 4], (3, 4)),
        ([None, 3, 4, 1], (3, 4)),
    ],
    ids=str,
)
def test_rows_take_the_shape_that_the_model_takes(takes: Shape, row: tuple[int, ...]) -> None:
    rows = made(*row)

    (episode,) = respond(session(takes), rows).episodes([rows])

    np.testing.assert_array_equal(episode.inputs, rows.reshape(10, -1))


@pytest.mark.parametrize("takes", [[None, 3, 4, 5], [None, "channels", "height", "width"], [None, 60]], ids=str)
def test_pictures_of_models_with_channels_first_are_turned_back(takes: Shape) -> None:
    first = made(3, 4, 5)
    last = np.ascontiguousarray(np.moveaxis(first, 1, -1))

    (episode,) = respond(session(takes), last, channels_first=True).episodes([last])

    np.testing.assert_array_equal(episode.inputs, first.reshape(10, -1))


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.FLOAT16, TensorProto.UINT8], ids=str)
def test_rows_take_the_type_that_the_model_takes(kind: int) -> None:
    rows = made(5)

    (episode,) = respond(session([None, 5], kind=kind), rows).episodes([rows])

    np.testing.assert_array_equal(episode.inputs, rows)


@pytest.mark.parametrize(
    ("takes", "row"),
    [([None, 12], (13,)), ([None, 3, 4], (4, 4)), ([None, "h", 4], (3, 5)), ([None, 3, "w"], (12,))],
    ids=str,
)
def test_rows_that_fit_no_shape_of_the_model_are_refused(takes: Shape, row: tuple[int, ...]) -> None:
    with pytest.raises(PalladionError, match="a row of the data has the shape"):
        respond(session(takes), made(*row))


def test_a_model_that_takes_one_row_at_a_time_is_asked_one_by_one() -> None:
    rows = made(5)

    (episode,) = respond(session([1, 5]), rows).episodes([rows])

    np.testing.assert_allclose(episode.scores, respond(session([None, 5]), rows).episodes([rows])[0].scores, rtol=1e-6)


def test_a_model_that_takes_several_rows_at_a_time_and_no_fewer_is_refused() -> None:
    rows = made(5)

    with pytest.raises(PalladionError, match="the model takes exactly 4 rows at once"):
        respond(session([4, 5]), rows).episodes([rows])


def test_a_model_with_inputs_of_text_is_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["label"])],
        "echo",
        [helper.make_tensor_value_info("x", TensorProto.STRING, [None, 1])],
        [helper.make_tensor_value_info("label", TensorProto.STRING, [None, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    opened = open_session(read_memory({"model.onnx": memoryview(model.SerializeToString())}))

    with pytest.raises(PalladionError, match="only models with one input of numbers"):
        respond(opened, made(1))


def test_labels_are_the_classes_that_the_model_names() -> None:
    rows = np.array([[9, 9], [0, 0], [-9, -9]], np.float32)

    labels = respond(session([None, 2]), rows).labels(rows)

    assert labels.tolist() == [2, 0, 0]
    assert labels.dtype == np.int64


def test_where_no_class_is_named_all_rows_are_of_one_class() -> None:
    rows = made(5)
    respondent = respond(session([None, 5], outputs=1), rows)

    assert respondent.episodes([rows])[0].scores.shape == (10, 0)
    assert respondent.labels(rows).tolist() == [0] * 10


def test_what_layers_show_follows_the_class_scores_and_labels_are_the_classes_still() -> None:
    layered, plain = (open_layered(network((24, 16), features=4, classes=3), names) for names in (("r0", "r1"), ()))
    rows = np.random.default_rng(5).standard_normal((70, 4)).astype(np.float32)
    validation = Validation(rows, None, None, None, False)
    shows, without = (
        Respondent(session, make_contract(RoutePolicy(model="m"), session.outputs), validation)
        for session in (layered, plain)
    )

    first, second = shows.episodes([rows[:30], rows[30:]])

    assert (shows.layers, without.layers) == (("r0", "r1"), ())
    assert first.scores.shape == (30, 3 + 2 * SHOWN)
    assert second.scores.shape == (40, 3 + 2 * SHOWN)
    np.testing.assert_allclose(first.scores[:, :3], without.episodes([rows[:30]])[0].scores, atol=1e-6)
    assert isinstance(layered, Layered)
    _, values = layered.run_with_layers({"x": rows[30:]})
    np.testing.assert_allclose(second.scores[:, 3:], digest(values, 40), atol=1e-4)
    np.testing.assert_array_equal(shows.labels(rows), without.labels(rows))
