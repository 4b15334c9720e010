"""Teaching a network of quadratics what the original answers: distillation on the calibration rows. Needs torch.

Weights, biases and quadratics all move. The original's outputs are the only teacher, so no labels are needed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import MissingExtraError
from palladion.private.homomorphic.polynomial import PolynomialNetwork, Quadratics, decisions
from palladion.private.homomorphic.program import Layer

HELD_OUT = 5  # one row of so many is not trained on, and says which epoch is kept
BATCH = 128
LEARNING_RATE = 2e-3
EPOCHS = 60
STEPS_MAX = 3000  # of all epochs together: of more rows, each is seen fewer times
ROWS_MIN = 50


def retrained(
    network: PolynomialNetwork,
    rows: NDArray[np.float64],
    wanted: NDArray[np.float64],
    *,
    epochs: int | None = None,
    seed: int = 0,
) -> PolynomialNetwork:
    """The network after training on rows (rows, features) towards outputs (rows, outputs) of the original.

    Of all epochs the one is kept that agrees best on rows that were held out, the network as it came among them. Takes
    some seconds for thousands of rows. Raises MissingExtraError.
    """
    epochs = epochs or max(1, min(EPOCHS, STEPS_MAX * BATCH // len(rows)))
    try:
        import torch
    except ImportError:
        raise MissingExtraError("retraining a network needs torch", "pip install 'palladion[torch]'") from None
    torch.manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    held, kept = order[::HELD_OUT], np.delete(order, np.arange(0, len(order), HELD_OUT))
    centre, size = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    parts = _parameters(torch, network, centre, size)
    inputs = torch.tensor((rows - centre) / size, dtype=torch.float64)
    targets = torch.tensor(wanted, dtype=torch.float64)
    optimiser = torch.optim.Adam([item for part in parts for item in part], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=epochs * -(-len(kept) // BATCH)
    )
    generator = torch.Generator().manual_seed(seed)
    best, best_score = [[item.detach().clone() for item in part] for part in parts], _score(parts, inputs, wanted, held)
    for _ in range(epochs):
        order_now: Any = torch.randperm(len(kept), generator=generator)
        for chosen in order_now.split(BATCH):
            places = kept[chosen.numpy()]
            optimiser.zero_grad()
            loss = _loss(torch, _run(parts, inputs[places]), targets[places])
            loss.backward()
            torch.nn.utils.clip_grad_norm_([item for part in parts for item in part], 1.0)
            optimiser.step()
            schedule.step()
        score = _score(parts, inputs, wanted, held)
        if score > best_score:
            best, best_score = [[item.detach().clone() for item in part] for part in parts], score
    return _network(best, centre, size)


def _parameters(torch: Any, network: PolynomialNetwork, centre: Any, size: Any) -> list[list[Any]]:
    """Weights and bias of each layer, and its quadratics; the first layer's are those for normalised rows."""
    found = []
    for index, layer in enumerate(network.layers):
        weights, bias = layer.weights, layer.bias
        if index == 0:
            weights, bias = weights * size, bias + weights @ centre
        arrays = [weights, bias]
        if index < len(network.activations):
            quadratics = network.activations[index]
            arrays += [quadratics.square, quadratics.linear, quadratics.constant]
        found.append([torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays])
    return found


def _run(parts: list[list[Any]], values: Any) -> Any:
    for part in parts:
        values = values @ part[0].T + part[1]
        if len(part) > 2:
            values = part[2] * values**2 + part[3] * values + part[4]
    return values


def _loss(torch: Any, got: Any, wanted: Any) -> Any:
    """How far outputs are from the original's: as distributions, or as a number where there is one."""
    scale = wanted.std() + 1e-6
    squares = torch.nn.functional.mse_loss(got / scale, wanted / scale)
    if wanted.shape[1] == 1:
        return squares
    divergence = torch.nn.functional.kl_div(
        torch.log_softmax(got, -1), torch.log_softmax(wanted, -1), reduction="batchmean", log_target=True
    )
    return divergence + 0.1 * squares


def _score(
    parts: list[list[Any]], inputs: Any, wanted: NDArray[np.float64], held: NDArray[np.int64]
) -> tuple[float, float]:
    got = _run(parts, inputs[held]).detach().numpy()
    agreement = float((decisions(got) == decisions(wanted[held])).mean())
    return agreement, -float(np.abs(got - wanted[held]).mean())


def _network(parts: list[list[Any]], centre: Any, size: Any) -> PolynomialNetwork:
    layers, activations = [], []
    for index, part in enumerate(parts):
        arrays = [item.detach().numpy().copy() for item in part]
        weights, bias = arrays[:2]
        if index == 0:
            weights = weights / size
            bias = bias - weights @ centre
        layers.append(Layer(weights, bias))
        if len(arrays) > 2:
            activations.append(Quadratics(*arrays[2:]))
    return PolynomialNetwork(tuple(layers), tuple(activations))
