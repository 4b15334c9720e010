"""A model that shows its layers: to the watch alone, and only where policy and calibration agree on it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import FormatError, PolicyError
from palladion.gate.contract import make_contract
from palladion.gate.disclosure import Terms, disclose_to
from palladion.gate.sources import layered as module
from palladion.gate.sources.embedded import Embedded
from palladion.gate.sources.layered import (
    ROWS_AT_ONCE,
    SHOWN,
    Layered,
    find_layers,
    layers_for,
    open_layered,
    require_layers,
    run_shown,
    seen,
    taken,
    warn_of_layers,
    with_layers,
)
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.policy import RoutePolicy, WatchPolicy
from palladion.watch.activations import LAYERS_MAX, digest
from tests.mark.classifiers import linear, network, trees
from tests.mark.classifiers import rows as numbers
from tests.model.factories import helper, make_model, value, weights
from tests.watch import factories
from tests.watch import layered as layered_watch

MODEL = network((64, 32))
LAYERS = ("r0", "r1")
ON, OFF = WatchPolicy(activations=True), WatchPolicy()


def opened(model: Model = MODEL, layers: tuple[str, ...] = LAYERS) -> Layered:
    session = open_layered(model, layers)
    assert isinstance(session, Layered)
    return session


def graph(*nodes: object, rows: str | int = "N", sizes: tuple[str | int, ...] = (4,)) -> Model:
    """A model of these nodes, from "x" to "y", with weights "w" (4, 4)."""
    made = helper.make_graph(
        list(nodes),
        "graph",
        [value("x", [rows, *sizes])],
        [value("y", [rows, *sizes])],
        [weights("w", np.eye(4, dtype=np.float32))],
    )
    return read_memory({"model.onnx": memoryview(make_model(made).SerializeToString())})


def chain(*inner: object, **shape: Any) -> Model:
    return graph(*inner, helper.make_node("MatMul", ["r", "w"], ["y"]), **shape)


def test_the_layers_of_a_network_are_found_and_trees_and_linear_models_have_none() -> None:
    assert find_layers(MODEL) == LAYERS
    assert find_layers(trees()) == find_layers(linear()) == ()


def test_of_a_deep_network_as_many_layers_as_are_looked_at_are_found() -> None:
    found = find_layers(network((16,) * 20))

    assert len(found) == LAYERS_MAX
    assert (found[0], found[-1]) == ("r0", "r19")


_COMPARED = graph(
    helper.make_node("Relu", ["x"], ["r"]),
    helper.make_node("ReduceMax", ["r"], ["s"], keepdims=0),
    helper.make_node("Sub", ["r", "s"], ["d"]),
    helper.make_node("MatMul", ["d", "w"], ["y"]),
)


@pytest.mark.parametrize(
    ("why", "model"),
    [
        ("rows of open size", chain(helper.make_node("Relu", ["x"], ["r"]), sizes=("S", 4))),
        ("a fixed number of rows", chain(helper.make_node("Relu", ["x"], ["r"]), rows=2)),
        ("an unknown operator", chain(helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Odd", ["x"], ["o"]))),
        ("rows that are compared", _COMPARED),
    ],
)
def test_models_of_which_nothing_can_be_said_by_the_row_have_none(why: str, model: Model) -> None:
    assert find_layers(model) == (), why


def test_a_layer_in_which_rows_look_at_each_other_is_left_out() -> None:
    model = graph(
        helper.make_node("Softmax", ["x"], ["p"], axis=0),
        helper.make_node("Relu", ["p"], ["mixed"]),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    )

    assert find_layers(model) == ("r",)


def test_a_layer_that_is_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VALUES_MAX", 40)

    assert find_layers(MODEL) == ("r1",)


def test_outputs_are_those_of_the_model_as_it_was_and_no_layer_is_among_them() -> None:
    plain, session, feeds = open_layered(MODEL, ()), opened(), {"x": numbers(40)}

    found = run_shown(session, feeds)

    assert session.outputs == plain.outputs
    assert session.inputs == plain.inputs
    assert session.run(feeds).keys() == plain.run(feeds).keys() == {"probabilities"}
    np.testing.assert_allclose(session.run(feeds)["probabilities"], plain.run(feeds)["probabilities"], atol=1e-6)
    assert found.keys() == {"probabilities", SHOWN}
    assert run_shown(plain, feeds).keys() == {"probabilities"}


def test_what_is_shown_is_the_digest_of_the_layers() -> None:
    session, feeds = opened(), {"x": numbers(5)}
    _, values = session.run_with_layers(feeds)

    outputs, shown = taken(session.run_shown(feeds))

    assert outputs.keys() == {"probabilities"}
    np.testing.assert_array_equal(shown, digest(values, 5))
    assert [array.shape for array in values] == [(5, 64), (5, 32)]


def test_many_rows_are_run_in_parts_and_show_what_each_shows_alone() -> None:
    session, rows = opened(), numbers(2 * ROWS_AT_ONCE + 3)
    sizes: list[int] = []
    run = session.run_with_layers

    def counted(feeds: Mapping[str, NDArray[Any]]) -> Any:
        sizes.append(len(feeds["x"]))
        return run(feeds)

    session.run_with_layers = counted  # type: ignore[method-assign]
    whole = session.run_shown({"x": rows})

    assert sizes == [ROWS_AT_ONCE, ROWS_AT_ONCE, 3]
    for row in (0, ROWS_AT_ONCE, len(rows) - 1):
        alone = session.run_shown({"x": rows[row : row + 1]})
        np.testing.assert_allclose(whole[SHOWN][row], alone[SHOWN][0], atol=1e-4)
        np.testing.assert_allclose(whole["probabilities"][row], alone["probabilities"][0], atol=1e-6)


@pytest.mark.parametrize("layers", [("nowhere",), ("probabilities",), ("r0", "r0")])
def test_a_model_without_the_layers_of_its_calibration_is_refused(layers: tuple[str, ...]) -> None:
    with pytest.raises(FormatError, match="does not have the layers that its calibration names"):
        open_layered(MODEL, layers)


def test_requests_that_run_together_each_get_their_own_outputs_and_what_was_shown_of_them() -> None:
    session, rows = opened(), numbers(9)
    source = Embedded(session, threads=1, together=True)
    cuts = [slice(0, 1), slice(1, 4), slice(4, 9)]

    async def ask() -> list[Any]:
        try:
            asked = [source.infer({"x": rows[cut]}, cut.stop - cut.start) for cut in cuts]
            return list(await asyncio.gather(*asked))
        finally:
            await source.close()

    found = asyncio.run(ask())

    assert source.layers == LAYERS
    assert [port.name for port in source.outputs] == ["probabilities"]
    for cut, outputs in zip(cuts, found, strict=True):
        own, shown = taken(outputs)
        alone = session.run_shown({"x": rows[cut]})
        assert own.keys() == {"probabilities"}
        assert shown is not None
        np.testing.assert_allclose(own["probabilities"], alone["probabilities"], atol=1e-6)
        np.testing.assert_allclose(shown, alone[SHOWN], atol=1e-4)


def test_no_contract_names_what_is_shown_and_nothing_of_it_is_disclosed() -> None:
    session = opened()
    contract = make_contract(RoutePolicy(model="m"), session.outputs)
    outputs = session.run_shown({"x": numbers(2)})

    assert contract.names == ("probabilities",)
    assert disclose_to(Terms(contract, "contract"), outputs).keys() == {"probabilities"}


def test_the_watch_sees_class_scores_first_and_what_is_shown_behind_them() -> None:
    scores, shown = np.ones((2, 3)), np.zeros((2, 5))

    assert seen(scores, None) is scores
    assert seen(scores, shown).tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]] * 2
    assert taken({"y": scores}) == ({"y": scores}, None)


def test_a_calibration_with_layers_is_not_used_where_the_policy_forbids_it() -> None:
    calibration = layered_watch.calibration()

    assert layers_for(ON, "fraud@3", calibration) == layered_watch.LAYERS
    with pytest.raises(PolicyError, match="was calibrated with activations, and watch"):
        layers_for(OFF, "fraud@3", calibration)


def test_a_calibration_without_layers_counts_whatever_the_policy_says_and_nothing_is_looked_at() -> None:
    calibration = factories.calibration(clients=20, organisations=3)

    for policy in (ON, OFF):
        assert layers_for(policy, "fraud@3", calibration) == ()
        assert layers_for(policy, "fraud@3", None) == ()
        require_layers(policy, "fraud@3", calibration, object())


def test_what_answers_has_to_show_the_layers_of_the_calibration() -> None:
    calibration = layered_watch.calibration()
    source = Embedded(opened(), threads=1)

    with pytest.raises(PolicyError, match="what answers shows others or none"):
        require_layers(ON, "fraud@3", calibration, source)
    with pytest.raises(PolicyError, match="what answers shows others or none"):
        require_layers(ON, "fraud@3", factories.calibration(clients=20, organisations=3), source)
    with pytest.raises(PolicyError, match="activations is off"):
        require_layers(OFF, "fraud@3", calibration, source)
    source.layers = layered_watch.LAYERS
    require_layers(ON, "fraud@3", calibration, source)


def test_a_gate_says_what_it_looks_at() -> None:
    with_, without = layered_watch.calibration(), factories.calibration(clients=20, organisations=3)

    assert with_layers(with_) == " with activations of 2 layers"
    assert with_layers(without) == ""
    assert warn_of_layers(OFF, "fraud@3", without) is None
    assert warn_of_layers(ON, "fraud@3", with_) is None
    assert warn_of_layers(ON, "fraud@3", None) is None
    assert "fraud@3 was calibrated without" in (warn_of_layers(ON, "fraud@3", without) or "")
