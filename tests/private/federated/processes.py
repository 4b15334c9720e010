"""Three sites that are processes of their own, in the peer environment: what Flower's SuperLink and SuperNodes run.

The third site kills its own SuperNode, and everything that this started, while it trains; the others wait for that.
"""

import importlib
import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from palladion.private.federated import Site, Terms, flower
from palladion.private.federated.rounds import Rounds, mean_step
from tests.private.federated.house import name_of, signer_of, terms_of, update_of

SITES, KILLED = 3, 2
KILLED_S = 30.0  # the others wait so long for the kill
ROUND_S = 50.0


def _folder() -> Path:
    return Path(os.environ["FOUND"]).parent


def _terms() -> Terms:
    return terms_of(SITES, threshold=2)


def _train(number: int) -> np.ndarray:
    marker = _folder() / "killed"
    if number == KILLED:
        marker.touch()
        os.killpg(0, signal.SIGKILL)
    until = time.monotonic() + KILLED_S
    while not marker.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return update_of(number)


def _site_of(context: Any) -> Site:
    number = int(context.node_config["partition-id"])
    journal = _folder() / f"journal-{number}"
    return Site(_terms(), name_of(number), signer_of(number), lambda _model, _round: _train(number), journal=journal)


def _serve(grid: Any, _context: Any) -> None:
    while len(list(grid.get_node_ids())) < SITES:
        time.sleep(0.1)
    # whoever is slow to start is waited for, and who was killed is not
    patient = flower.asker(grid, timeout_s=ROUND_S)
    brisk = flower.asker(grid, timeout_s=ROUND_S, enough=SITES - 1, late_s=0.5)
    found: dict[str, Any] = {"asked": []}

    def ask(bodies: Mapping[str, bytes]) -> Mapping[str, bytes]:
        found["asked"].append(len(bodies))
        return brisk(bodies) if len(found["asked"]) == 3 else patient(bodies)

    last = Rounds(_terms(), flower.nodes_of(grid), ask, mean_step).run(np.zeros(_terms().size, np.float32), 1)
    found |= {
        "survivors": last.summed.survivors,
        "dropped": last.summed.dropped,
        "model": last.model.tolist(),
    }
    Path(os.environ["FOUND"]).write_text(json.dumps(found))


client = flower.client_app(_site_of)
server = importlib.import_module("flwr.serverapp").ServerApp()
server.main()(_serve)
