"""Over-admission: of a thousand requests of one key at once, exactly as many are let in as its burst has room for."""

import http.client
import threading
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.gate.gates import House, header, open_gate
from tests.gate.service import WAIT_SECONDS_MAX, configure, serving

from .counting import JSON_PATH, counting, json_route

REQUESTS = 1000
BURST = 37
MANY = 65_536


@pytest.mark.parametrize("rows", [1, 3])
def test_a_thousand_requests_at_once_get_no_more_than_the_burst(house: House, rows: int) -> None:
    limits = {"queries_per_second": 1.0, "burst": BURST}
    bench = open_gate(house, limits=limits, gate={"requests_max": MANY})
    row = [0.5, -1.0, 2.0, 0.25]
    responses = bench.ask_all([bench.request([row] * rows) for _ in range(REQUESTS)])
    statuses = Counter(response.status for response in responses)
    # a request is paid for in two parts, so that some of the last ones get the first and not the second
    admitted = sum(size for _, _, size in bench.watch.asked)
    assert statuses == {200: statuses[200], 429: REQUESTS - statuses[200]}
    assert admitted == statuses[200] * rows
    assert statuses[200] == BURST if rows == 1 else 0 < admitted <= BURST
    assert bench.gate.stages.answered == admitted
    assert all(header(response, b"retry-after") for response in responses if response.status == 429)


@pytest.mark.service
@pytest.mark.slow
def test_over_real_connections_neither(house: House, tmp_path: Path) -> None:
    mine, threads = house.copy(tmp_path), 50
    with counting() as model:
        limits = {"queries_per_second": 1e-4, "burst": BURST}
        configure(mine, json_route(model.address), limits=limits, gate={"requests_max": MANY})
        with serving(mine) as service:
            statuses: Counter[int] = Counter()
            ready = threading.Barrier(threads)

            def ask() -> None:
                peer = http.client.HTTPConnection(service.host, service.port, timeout=WAIT_SECONDS_MAX)
                headers = {"x-api-key": mine.keys["acme"], "content-type": "application/json"}
                ready.wait(WAIT_SECONDS_MAX)
                for _ in range(REQUESTS // threads):
                    peer.request("POST", JSON_PATH, msgspec.json.encode({"rows": [[1, 2]]}), headers)
                    response = peer.getresponse()
                    response.read()
                    statuses[response.status] += 1
                peer.close()

            asking = [threading.Thread(target=ask) for _ in range(threads)]
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
    assert statuses == {200: BURST, 429: REQUESTS - BURST}
    assert len(model.asked) == BURST
