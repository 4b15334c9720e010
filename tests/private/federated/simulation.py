"""Ten sites in Flower's simulation, in the peer environment: one crashes, one learns NaN. Prints JSON of what came."""

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from palladion.errors import PalladionError
from palladion.private.federated import Site, flower
from palladion.private.federated.rounds import Rounds, mean_step
from tests.private.federated.house import fixed, name_of, signer_of, terms_of, update_of

SITES = 10


def main(rounds: int, crashing: int) -> dict[str, Any]:
    """What came of it; the sites from 0 on crash, and site 9 learns NaN."""
    terms = terms_of(SITES)
    found: dict[str, Any] = {"rounds": []}

    def site_of(context: Any) -> Site:
        number = int(context.node_config["partition-id"])
        if number < crashing:
            raise RuntimeError("this site is broken")
        train = fixed(update_of(number) * (np.nan if number == 9 else 1))
        journal = Path(os.environ["FOUND"]).with_name(f"journal-{number}")
        return Site(terms, name_of(number), signer_of(number), train, journal=journal)

    server = importlib.import_module("flwr.serverapp").ServerApp()

    @server.main()  # type: ignore[untyped-decorator]
    def serve(grid: Any, _context: Any) -> None:
        while len(list(grid.get_node_ids())) < SITES:
            time.sleep(0.1)
        on = Rounds(
            terms,
            flower.nodes_of(grid),
            flower.asker(grid, timeout_s=40),
            mean_step,
            ended=lambda ended: found["rounds"].append([ended.summed.survivors, ended.summed.dropped]),
        )
        try:
            last = on.run(np.zeros(terms.size, np.float32), rounds)
        except PalladionError as error:
            found["error"] = error.message
            raise
        found["model"] = last.model.tolist()

    run = importlib.import_module("flwr.simulation").run_simulation
    backend = {"init_args": {"num_cpus": 2, "include_dashboard": False}, "client_resources": {"num_cpus": 1}}
    try:
        run(server_app=server, client_app=flower.client_app(site_of), num_supernodes=SITES, backend_config=backend)
    except PalladionError:
        found["raised"] = True
    return found


if __name__ == "__main__":
    os.environ["FLWR_TELEMETRY_ENABLED"] = os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    print(json.dumps(main(*map(int, sys.argv[1:3]))))
