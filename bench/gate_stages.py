"""Where the gate's time goes: each stage of a request called on its own, in this process, many times over."""

import asyncio
import statistics
import time
from collections.abc import Callable
from itertools import count

from bench.gate_house import House, honest_rows, predict_body
from bench.report import Report
from palladion.gate.decode import numbers
from palladion.gate.directory import Directory, read_roll
from palladion.gate.recorder import Recorder
from palladion.gate.requests import Digests
from palladion.gate.served import open_route
from palladion.gate.sources.batch import joined
from palladion.gate.sources.embedded import Embedded
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.watch.watch import Asked, Asker, Watch

TOGETHER = 32  # requests that come in one moment, or are recorded at once
BODIES = 256
REPEATS = 7


def add_stages(report: Report, house: House, name: str) -> None:
    """One row for each stage of a request to a model that runs in the gate, which the house's first route serves."""
    for stage, us in _stages(house, name, 40 if report.quick else 400).items():
        report.add(f"stage of that: {stage}", us, "us CPU")


def _stages(house: House, name: str, calls: int) -> dict[str, float]:
    installation = Installation.find(house.home, house.installation.clock, exact=True)
    root = installation.open_gate_root()
    served = open_route(installation, installation.policy.route[0])
    assert isinstance(served.source, Embedded)
    session, clock, contract = served.source.session, installation.clock, served.contract
    directory = Directory(root.derive("client-key-pepper"))
    with installation.open_registry() as registry, registry.read() as records:
        directory.load(read_roll(records))
    headers = {b"authorization": b"Bearer " + house.keys[0].encode()}
    (port,) = session.inputs
    bodies = [predict_body(row) for row in honest_rows(int(port.shape[1] or 0), BODIES, house.generator)]
    asked = [served.decode(body, {}) for body in bodies]
    outputs = [session.run(item.feeds) for item in asked]
    salts = root.derive("ledger-salts")
    watch = Watch(installation.policy.watch)
    watch.watch_model(name, served.calibration, {})
    shown = [(numbers(item.feeds, 1), contract.class_scores(out, 1)) for item, out in zip(asked, outputs, strict=True)]
    number = count()

    def observe(together: int) -> None:
        first = next(number) * together
        some = [
            Asked(Asker(f"client{place % TOGETHER}", f"org{place % TOGETHER}"), *shown[place % BODIES])
            for place in range(first, first + together)
        ]
        watch.observe_all(name, some, now=1.0)

    for _ in range(BODIES):
        observe(1)
    several = [item.feeds for item in asked[:TOGETHER]]
    stages: dict[str, tuple[Callable[[], object], int]] = {
        "identify": (lambda: directory.identify(headers, clock.now()), 1),
        "decode": (lambda: served.decode(bodies[next(number) % BODIES], {}), 1),
        "the model's run, alone": (lambda: session.run(several[0]), 1),
        f"the model's run, {TOGETHER} together": (lambda: session.run(joined(several)), TOGETHER),
        "inputs and scores for the watch": (
            lambda: (numbers(several[0], 1), contract.class_scores(outputs[0], 1)),
            1,
        ),
        "observe, alone": (lambda: observe(1), 1),
        f"observe, {TOGETHER} together": (lambda: observe(TOGETHER), TOGETHER),
        "digests of both bodies": (lambda: Digests.of(salts, "0123456789abcdef", bodies[0], b"x" * 200), 1),
    }
    found = {name: _us(call, calls // requests + 1) / requests for name, (call, requests) in stages.items()}
    found[f"record and wait for it, {TOGETHER} together"] = _recording(installation, served.subject, calls) / TOGETHER
    return found


def _us(call: Callable[[], object], calls: int) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.thread_time()
        for _ in range(calls):
            call()
        times.append((time.thread_time() - began) / calls)
    return 1e6 * statistics.median(times)


def _recording(installation: Installation, subject: str, calls: int) -> float:
    """CPU time of all threads for a batch of records, which are on the disk then."""
    root = installation.open_gate_root()
    details = {
        "request": "0123456789abcdef",
        "queries": 1,
        "standing": "trusted",
        "disclosed": "contract",
        "mode": "enforce",
        "p_value": "0.123",
        "request_digest": "0" * 64,
        "answer_digest": "0" * 64,
    }

    async def work() -> float:
        recorder = Recorder(installation.lock_ledger(root))
        try:
            records = [
                Record("answer.given", installation.clock.now(), "client:0123456789abcdef0123", subject, details)
                for _ in range(TOGETHER)
            ]
            times = []
            for _ in range(max(20, calls // 4)):
                began = time.process_time()
                await asyncio.gather(*(recorder.append([record]) for record in records))
                times.append(time.process_time() - began)
            return 1e6 * statistics.median(times)
        finally:
            await recorder.close()

    return asyncio.run(work())
