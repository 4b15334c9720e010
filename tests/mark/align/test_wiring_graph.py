"""Which axes belong to one space of units, as an ONNX graph says it."""

import numpy as np
import pytest

from palladion.mark.align.wiring import FIXED, Block
from palladion.mark.align.wiring_graph import wire_graph
from palladion.model.model import Model

from .networks import Node, Tensors, cnn, cnn_nodes, exported, mlp, mlp_nodes, resnet_nodes

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


def wired(model: Model) -> dict[str, list[Block]]:
    assert model.graph is not None
    found: dict[str, list[Block]] = {}
    for block in wire_graph(model.graph, model.tensors) or ():
        found.setdefault(block.tensor, []).append(block)
    return found


def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    return {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("turned", [False, True])
def test_layers_of_an_mlp_share_the_units_between_them(turned: bool) -> None:
    tensors = mlp((6, 5, 4, 3), turned=turned)

    first, second, third = (
        blocks[0] for blocks in wired(exported(tensors, mlp_nodes(tensors, turned=turned), (6,))).values()
    )

    assert first.into.space == third.out.space == FIXED
    assert first.out.space == second.into.space != FIXED
    assert second.out.space == third.into.space not in {FIXED, first.out.space}
    assert (first.out.units, second.out.units) == (5, 4)


def test_a_flattened_channel_has_several_inputs_and_a_depthwise_convolution_gives_what_it_takes() -> None:
    tensors = cnn()

    found = {name: blocks[0] for name, blocks in wired(exported(tensors, cnn_nodes(tensors), (3, 8, 8))).items()}

    assert found["dw.weight"].out.space == found["c1.weight"].out.space == found["c2.weight"].into.space
    assert found["f1.weight"].into.space == found["c2.weight"].out.space
    assert (found["f1.weight"].into.units, found["f1.weight"].into.repeat) == (32, 16)


def test_a_residual_sum_unites_the_spaces_of_its_terms() -> None:
    from bench.permute_networks import resnet

    tensors = resnet(14)

    found = {name: blocks[0] for name, blocks in wired(exported(tensors, resnet_nodes(tensors), (3, 16, 16))).items()}

    first = found["conv1.weight"].out.space
    assert found["layer1.0.conv2.weight"].out.space == found["layer1.1.conv2.weight"].out.space == first
    assert found["layer1.1.conv1.weight"].into.space == found["layer2.0.downsample.0.weight"].into.space == first
    assert found["layer2.0.downsample.0.weight"].out.space == found["layer2.1.conv2.weight"].out.space != first
    assert found["layer1.0.conv1.weight"].out.space not in {first, found["layer1.1.conv1.weight"].out.space}


def test_joined_values_are_read_in_parts() -> None:
    tensors = weights(a=(4, 3, 1, 1), b=(5, 3, 1, 1), c=(2, 9, 1, 1))
    nodes: list[Node] = [
        ("Conv", ("input", "a"), "x", {}),
        ("Conv", ("input", "b"), "y", {}),
        ("Concat", ("x", "y"), "z", {"axis": 1}),
        ("Conv", ("z", "c"), "output", {}),
    ]

    found = wired(exported(tensors, nodes, (3, 2, 2)))

    assert [(block.into.space, block.into.start, block.into.units) for block in found["c"]] == [
        (found["a"][0].out.space, 0, 4),
        (found["b"][0].out.space, 4, 5),
    ]


def test_weights_that_are_stored_in_integers_are_followed() -> None:
    integers: Tensors = {"w": np.ones((3, 4), np.int8), "scale": np.ones((), np.float32)}
    tensors: Tensors = {**integers, **weights(v=(4, 2))}
    nodes: list[Node] = [
        ("DequantizeLinear", ("w", "scale"), "real", {}),
        ("MatMul", ("input", "real"), "x", {}),
        ("MatMul", ("x", "v"), "output", {}),
    ]

    found = wired(exported(tensors, nodes, (3,)))

    assert found["w"][0].out.space == found["v"][0].into.space != FIXED


def test_a_depthwise_convolution_may_give_several_channels_for_each() -> None:
    tensors = weights(a=(4, 3, 1, 1), deep=(8, 1, 3, 3), b=(5, 8, 1, 1))
    nodes: list[Node] = [
        ("Conv", ("input", "a"), "x", {}),
        ("Conv", ("x", "deep"), "y", {"group": 4}),
        ("Conv", ("y", "b"), "output", {}),
    ]

    found = wired(exported(tensors, nodes, (3, 8, 8)))

    assert found["deep"][0].out.space == found["b"][0].into.space == found["a"][0].out.space
    assert (found["deep"][0].out.units, found["deep"][0].out.repeat) == (4, 2)
    assert (found["b"][0].into.units, found["b"][0].into.repeat) == (4, 2)


def test_an_operator_that_is_not_known_ends_a_space() -> None:
    tensors = weights(a=(4, 4), b=(4, 4))
    nodes: list[Node] = [
        ("MatMul", ("input", "a"), "x", {}),
        ("CumSum", ("x", "axis"), "y", {}),
        ("MatMul", ("y", "b"), "output", {}),
    ]

    found = wired(exported({**tensors, "axis": np.array(1, np.int64)}, nodes, (4,)))

    assert found["a"][0].out.space != found["b"][0].into.space


def test_a_graph_that_grows_without_end_is_not_followed() -> None:
    tensors = weights(a=(4, 3, 1, 1), b=(4, 1024, 1, 1))
    join: Node = ("Concat", ("x",) * 256, "z", {"axis": 1})
    many: list[Node] = [("Conv", ("z", "b"), f"y{index}", {}) for index in range(100)]
    model = exported(tensors, [("Conv", ("input", "a"), "x", {}), join, *many], (3, 2, 2))

    assert model.graph is not None
    assert wire_graph(model.graph, model.tensors) is None


def test_a_graph_without_weights_has_no_wiring() -> None:
    model = exported({}, [("Relu", ("input",), "output", {})], (4,))

    assert wired(model) == {}
