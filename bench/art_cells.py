"""ART's own extraction attacks on the victims of bench.redteam, in ART's own environment: `python art_cells.py FOLDER`.

Each `*.npz` of the folder holds a network with one hidden layer and the rows that a thief owns and is judged by. Prints
JSON: the fidelity of every cell for every victim. Imports nothing of Palladion, whose environment it does not run in.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

# name: attack, queries, epochs; students are networks like the victim, which is the best that ART can be given
CELLS = {
    "100 probabilities": ("KnockoffNets", 100, 100),
    "597 probabilities": ("KnockoffNets", 597, 100),
    "597 labels": ("CopycatCNN", 597, 100),
    "20,000 noise": ("KnockoffNets", 20_000, 20),
}
BATCH_ROWS = 32


def main(folder: Path, cells: list[str]) -> dict[str, list[float]]:
    """The fidelity of `cells`, all without any, for each victim in the order of their files' names."""
    found: dict[str, list[float]] = {cell: [] for cell in cells or CELLS}
    for number, path in enumerate(sorted(folder.glob("*.npz"))):
        with np.load(path) as held:
            victim = {name: held[name].astype(np.float32) for name in held.files}
        for cell, values in found.items():
            values.append(_copied(victim, cell, number))
    return found


def _copied(victim: dict[str, Any], cell: str, seed: int) -> float:
    import torch

    extraction = importlib.import_module("art.attacks.extraction")
    attack, queries, epochs = CELLS[cell]
    np.random.seed(seed)  # ART draws from there
    torch.manual_seed(seed)
    told = _classifier(_network(victim, torch.nn.Softmax(1)))
    generator = np.random.default_rng(seed)
    pool = victim["pool"]
    noise = generator.uniform(pool.min(), pool.max(), (queries, pool.shape[1])).astype(np.float32)
    rows = noise if cell.endswith("noise") else pool
    given: dict[str, Any] = {"batch_size_fit": BATCH_ROWS, "nb_stolen": queries, "nb_epochs": epochs}
    copy = _classifier(_network(victim, None))
    if attack == "KnockoffNets":
        thief = extraction.KnockoffNets(told, sampling_strategy="random", use_probability=True, verbose=False, **given)
        copy = thief.extract(rows, np.zeros(len(rows), int), thieved_classifier=copy)
    else:
        copy = extraction.CopycatCNN(told, use_probability=False, **given).extract(rows, thieved_classifier=copy)
    held = victim["held_out"]
    return float((copy.predict(held).argmax(axis=1) == told.predict(held).argmax(axis=1)).mean())


def _network(victim: dict[str, Any], last: Any) -> Any:
    """The victim where there is a softmax at its end; else one of the same shape that knows nothing."""
    import torch

    inputs, hidden = victim["first"].shape
    outputs = victim["second"].shape[1]
    layers: list[Any] = [torch.nn.Linear(inputs, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, outputs)]
    if last is None:
        return torch.nn.Sequential(*layers)
    with torch.no_grad():
        for layer, weights, shift in ((layers[0], "first", "shift"), (layers[2], "second", "bias")):
            layer.weight.copy_(torch.from_numpy(victim[weights].T.copy()))
            layer.bias.copy_(torch.from_numpy(victim[shift]))
    return torch.nn.Sequential(*layers, last)


def _classifier(network: Any) -> Any:
    import torch

    torch.set_num_threads(1)
    classification = importlib.import_module("art.estimators.classification")
    inputs, outputs = network[0].in_features, network[2].out_features
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    return classification.PyTorchClassifier(
        network, torch.nn.CrossEntropyLoss(), (inputs,), outputs, optimizer=optimizer, device_type="cpu"
    )


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
