"""Rounds of sites in Flower's simulation, in an environment of its own: WAY (ours or flower) SITES SIZE ROUNDS.

Prints JSON: seconds of every round but the first, in which processes start, and bytes that the server gets of a site.
`flower` is Flower's own federated averaging, without masks or noise.
"""

import importlib
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from palladion.keys import Ed25519Signer
from palladion.private.federated import Site, Terms, flower
from palladion.private.federated.rounds import Rounds, mean_step

BACKEND = {
    "init_args": {"num_cpus": 2, "include_dashboard": False},
    "client_resources": {"num_cpus": 1, "num_gpus": 0},
}


def _signer(number: int) -> Ed25519Signer:
    return Ed25519Signer((number + 1).to_bytes(2, "big") * 16)


def _update(size: int) -> Any:
    return np.full(size, 0.9 / size**0.5)


def ours(sites: int, size: int, rounds: int) -> tuple[Any, Any, dict[str, Any]]:
    """A ServerApp, a ClientApp, and where the server puts what it measured."""
    keys = {f"site-{number}": _signer(number).public_key for number in range(sites)}
    terms = Terms("bench", keys, size, rounds, sites * 7 // 10, 1.0, noise_multiplier=1.0)
    found: dict[str, Any] = {"ends": []}

    def site_of(context: Any) -> Site:
        number = int(context.node_config["partition-id"])
        journal = Path(os.environ["JOURNALS"]) / str(number)
        return Site(terms, f"site-{number}", _signer(number), lambda _model, _round: _update(size), journal=journal)

    server = importlib.import_module("flwr.serverapp").ServerApp()

    @server.main()  # type: ignore[untyped-decorator]
    def main(grid: Any, _context: Any) -> None:
        _wait(grid, sites)
        nodes, ask = flower.nodes_of(grid), flower.asker(grid, timeout_s=120)

        def ended(round_: Any) -> None:
            found["ends"].append(time.perf_counter())
            found["bytes"] = max(round_.summed.received.values())

        Rounds(terms, nodes, ask, mean_step, ended=ended).run(np.zeros(size, np.float32), rounds)

    return server, flower.client_app(site_of), found


def theirs(sites: int, size: int, rounds: int) -> tuple[Any, Any, dict[str, Any]]:
    """The same of Flower's own strategy."""
    app, client = importlib.import_module("flwr.app"), importlib.import_module("flwr.clientapp").ClientApp()
    found: dict[str, Any] = {"ends": [], "bytes": 4 * size}

    @client.train()  # type: ignore[untyped-decorator]
    def train(message: Any, _context: Any) -> Any:
        model = message.content["arrays"].to_numpy_ndarrays()[0]
        arrays = app.ArrayRecord([(model + _update(size)).astype(np.float32)])
        metrics = app.MetricRecord({"num-examples": 1})
        return app.Message(content=app.RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    server = importlib.import_module("flwr.serverapp").ServerApp()

    @server.main()  # type: ignore[untyped-decorator]
    def main(grid: Any, _context: Any) -> None:
        _wait(grid, sites)
        average = importlib.import_module("flwr.serverapp.strategy").FedAvg
        strategy = average(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        start = app.ArrayRecord([np.zeros(size, np.float32)])

        def ended(number: int, _arrays: Any) -> None:
            if number:
                found["ends"].append(time.perf_counter())

        strategy.start(grid=grid, initial_arrays=start, num_rounds=rounds, evaluate_fn=ended)

    return server, client, found


def _wait(grid: Any, sites: int) -> None:
    while len(list(grid.get_node_ids())) < sites:
        time.sleep(0.1)


def main(way: str, sites: int, size: int, rounds: int) -> None:
    """Run it, and print what was measured."""
    server, client, found = {"ours": ours, "flower": theirs}[way](sites, size, rounds)
    run = importlib.import_module("flwr.simulation").run_simulation
    run(server_app=server, client_app=client, num_supernodes=sites, backend_config=BACKEND)
    ends = found["ends"]
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    print(json.dumps({"seconds": seconds, "bytes": found["bytes"]}))


if __name__ == "__main__":
    os.environ["FLWR_TELEMETRY_ENABLED"] = os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["JOURNALS"] = folder
        main(sys.argv[1], *map(int, sys.argv[2:5]))
