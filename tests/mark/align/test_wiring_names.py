"""The wiring of a network without a graph: chains of layers, and blocks with shortcuts, by names and shapes."""

import numpy as np

from bench.permute_networks import resnet
from palladion.mark.align.wiring import FIXED, Block
from palladion.mark.align.wiring_names import wire_names
from tests.mark.suspects import saved


def wired(shapes: dict[str, tuple[int, ...]]) -> dict[str, Block] | None:
    model = saved({name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()})
    blocks = wire_names(model.tensors)
    return None if blocks is None else {block.tensor: block for block in blocks}


def test_numbers_in_names_are_counted() -> None:
    found = wired({"net.10.weight": (3, 5), "net.9.weight": (5, 7), "net.2.weight": (7, 4), "net.2.bias": (7,)})

    assert found is not None
    assert list(found) == ["net.2.weight", "net.9.weight", "net.10.weight"]
    assert found["net.2.weight"].into.space == found["net.10.weight"].out.space == FIXED
    assert found["net.2.weight"].out.space == found["net.9.weight"].into.space


def test_a_head_that_comes_first_by_name_is_read_last() -> None:
    found = wired({"classifier.weight": (10, 32), "features.0.weight": (4, 3, 3, 3), "features.2.weight": (8, 4, 3, 3)})

    assert found is not None
    assert list(found) == ["features.0.weight", "features.2.weight", "classifier.weight"]
    assert (found["classifier.weight"].into.units, found["classifier.weight"].into.repeat) == (8, 4)


def test_matrices_of_inputs_by_outputs_with_biases_in_a_row_are_understood() -> None:
    found = wired({"coefs": (6, 5), "coefs1": (5, 4), "intercepts": (1, 5), "intercepts1": (1, 4)})

    assert found is not None
    assert list(found) == ["coefs", "coefs1"]
    assert (found["coefs"].out.axis, found["coefs"].out.units) == (1, 5)


def test_a_shortcut_reads_what_its_block_reads_and_gives_what_it_gives() -> None:
    found = wired({name: numbers.shape for name, numbers in resnet(14).items()})

    assert found is not None
    shortcut, first = found["layer2.0.downsample.0.weight"], found["layer2.0.conv1.weight"]
    assert shortcut.into.space == first.into.space == found["layer1.1.conv2.weight"].out.space
    assert shortcut.out.space == found["layer2.0.conv2.weight"].out.space == found["layer2.1.conv1.weight"].into.space
    assert found["fc.weight"].out.space == FIXED


def test_wide_residual_networks_have_other_names() -> None:
    found = wired(
        {
            "conv1.weight": (4, 3, 3, 3),
            "block1.layer.0.conv1.weight": (8, 4, 3, 3),
            "block1.layer.0.conv2.weight": (8, 8, 3, 3),
            "block1.layer.0.convShortcut.weight": (8, 4, 1, 1),
            "fc.weight": (10, 8),
        }
    )

    assert found is not None
    shortcut = found["block1.layer.0.convShortcut.weight"]
    assert shortcut.into.space == found["conv1.weight"].out.space
    assert shortcut.out.space == found["fc.weight"].into.space


def test_a_depthwise_convolution_gives_the_units_that_it_takes() -> None:
    found = wired({"0.weight": (8, 3, 3, 3), "1.weight": (8, 1, 3, 3), "2.weight": (16, 8, 1, 1)})

    assert found is not None
    assert found["1.weight"].out.space == found["0.weight"].out.space == found["2.weight"].into.space


def test_layers_that_do_not_follow_each_other_are_no_network() -> None:
    assert wired({"0.weight": (8, 3), "1.weight": (5, 7)}) is None


def test_one_matrix_is_no_network() -> None:
    assert wired({"0.weight": (8, 3)}) is None
