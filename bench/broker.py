"""What does it cost to release a file's key, beside a plain request to the same server?

Broker and client share this process, over real TLS on the loopback: CPU time is that of both. A release is two
requests, of which each has a handshake and the first draws the nonce; it is in the ledger before its answer.
"""

import http.client
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from bench.report import Report, interleaved, main
from palladion.host.broker import BrokerClient
from palladion.host.broker_messages import KEYS_PATH
from tests.broker.serving import Served, built, guest, serving

RELEASE_MS_MAX = 250


def measure(report: Report) -> None:
    """Fill the report."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("plain", "attested")]
        for folder in folders:
            folder.mkdir()
        plain, attested = (built(folder, attested=folder.name == "attested") for folder in folders)
        with serving(*plain) as first, serving(*attested) as second:
            runs = {
                "get": _get(first, first.client()),
                "release": _release(first, first.client()),
                "attested": _release(second, second.client(attest=guest())),
            }
            for wall in (False, True):
                _time(report, runs, wall=wall)


def _time(report: Report, runs: dict[str, Callable[[], object]], *, wall: bool) -> None:
    unit = "ms wall" if wall else "ms CPU"
    times = interleaved(runs, repeats=10 if report.quick else 50, wall=wall)
    get = times["get"]
    report.add("a GET with a client certificate", get.median * 1e3, unit, reference=get.noise)
    for name, what in (("release", "a release, without evidence"), ("attested", "a release, with SEV-SNP evidence")):
        value, beside = times[name].median * 1e3, times[name].beside(get, "such a GET")
        if wall:
            # a busy disk has its say in this one
            report.add(what, value, unit, reference=beside)
        else:
            report.at_most(what, value, unit, RELEASE_MS_MAX, reference=beside)


def _get(served: Served, client: BrokerClient) -> Callable[[], object]:
    def run() -> None:
        connection = http.client.HTTPSConnection(urlsplit(served.url).netloc, timeout=30, context=client.context)
        connection.request("GET", KEYS_PATH)
        if connection.getresponse().status != http.client.OK:
            raise RuntimeError("the broker does not answer")
        connection.close()

    return run


def _release(served: Served, client: BrokerClient) -> Callable[[], object]:
    structure = served.setting.structure()
    return lambda: client.release(structure, purpose="exec")


if __name__ == "__main__":
    main("broker", (__doc__ or "").partition("\n")[0], measure)
