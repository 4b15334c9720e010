"""What does a protected request cost at the gate, stage by stage, beside servers that only forward it?

Full protection: API key, limits, calibrated watch, disclosure, answer marks, and a record that is on the disk before
the answer. A figure is CPU time of the whole process tree for each request; gate and peers take turns. The model's own
run is in the rows of models that run here, and in no other; TLS is in the rows that say so.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.gate_house import (
    CLASSES,
    HONEST,
    House,
    Load,
    certificate,
    honest_rows,
    http_answer,
    http_request,
    load,
    make_house,
    predict_body,
    serving,
    upstream,
)
from bench.gate_peers import forwarding, peers
from bench.gate_stages import add_stages
from bench.report import Report, main

MODELS = {"pixels": 784, "picture": 3072, "table": 30}
WIDEST = "picture"
NAME = "pixels"  # whose stages, peers and memory are looked at more closely
BODIES = 256  # different ones: a repeat would be cheaper for the watch
BARS_US = {"pixels": 180.0, "picture": 280.0}
RATIO_MAX = 2.5
RESIDENT_MB_MAX = 120.0
GROWTH_PERCENT_MAX = 2.0
CONNECTIONS = 64
ENOUGH = 1000  # requests for each second of a round
MARKED, FLIPPED = "/marked", 0.03  # the path before routes that mark answers, and the share of labels that they turn
HONEST_QUICK = 40  # of the widest model: its calibration would take the quick form's minute
HONEST_SMOKE = 40  # of each
Run = Callable[[float], Load]


def measure(report: Report) -> None:
    """Fill the report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        honest = {WIDEST: HONEST_QUICK if report.quick else HONEST}
        if report.smoke:
            honest = dict.fromkeys(MODELS, HONEST_SMOKE)
        house = make_house(folder, MODELS, report.seed, honest=honest)
        with upstream(_model_server()) as model_port:
            address = f"http://127.0.0.1:{model_port}"
            marked_us = _measure_upstream(report, house, address, folder)
            _measure_tls(report, house, address, folder, marked_us)
            house.configure([_route(NAME, address, marked=True)])
            add_stages(report, house, requests=_asked(house, NAME, MARKED), total_us=marked_us)
        _measure_here(report, house)


def _measure_upstream(report: Report, house: House, address: str, folder: Path) -> float:
    """Models at a server of their own, behind the gate and behind servers that only forward; returns the marked one."""
    with ExitStack() as stack:
        house.configure([_route(name, address, marked=marked) for name in MODELS for marked in (False, True)])
        pid, port = stack.enter_context(serving(house))
        runs: dict[str, Run] = {}
        for name in MODELS:
            runs[f"gate {name}"] = _loading(pid, port, _asked(house, name))
            runs[f"marked {name}"] = _loading(pid, port, _asked(house, name, MARKED))
        for peer in peers():
            room = folder / peer
            room.mkdir()
            peer_pid, peer_port = stack.enter_context(forwarding(peer, room, _port(address)))
            for name in MODELS if peer == "Envoy" else [NAME]:
                runs[f"{peer} {name}"] = _loading(peer_pid, peer_port, _asked(house, name))
        found = _in_turns(runs, report)
        _add_rows(report, found)
        _add_memory(report, "models at upstreams", found[f"gate {NAME}"], runs[f"gate {NAME}"])
        return _median_us(found[f"marked {NAME}"])


def _measure_tls(report: Report, house: House, address: str, folder: Path, marked_us: float) -> None:
    """The same marked requests over TLS, on connections that stay: what it adds, to the gate and to Envoy."""
    pair = certificate(folder)
    with ExitStack() as stack:
        settings = {"listen": "127.0.0.1:0", "tls_certificate": str(pair[0]), "tls_key": str(pair[1])}
        house.configure([_route(NAME, address, marked=True)], gate=settings)
        runs = {"gate": _loading(*stack.enter_context(serving(house)), _asked(house, NAME, MARKED), tls=True)}
        if "Envoy" in peers():
            for name, tls in (("Envoy", None), ("Envoy over TLS", pair)):
                room = folder / f"{name} beside"
                room.mkdir()
                found = stack.enter_context(forwarding("Envoy", room, _port(address), tls=tls))
                runs[name] = _loading(*found, _asked(house, NAME), tls=tls is not None)
        loads = _in_turns(runs, report)
    us = {name: _median_us(found) for name, found in loads.items()}
    row = f"over TLS, marked, {MODELS[NAME]} numbers"
    report.add(row, us["gate"], "us CPU", reference=_beside(loads["gate"]))
    report.add("what TLS adds to the gate", us["gate"] - marked_us, "us CPU", reference="to the marked row")
    if "Envoy" in us:
        name = "Envoy over TLS"
        report.add(f"only forwarded by {name}", us[name], "us CPU", reference=_beside(loads[name]))
        added = us[name] - us["Envoy"]
        report.add("what TLS adds to Envoy", added, "us CPU", reference=f"to {us['Envoy']:.1f} us in the same turns")
        report.add("gate / Envoy, both over TLS", us["gate"] / us[name], "x")


def _measure_here(report: Report, house: House) -> None:
    """The same models in the gate's own process, without marks."""
    house.configure([{"model": name, "mode": "enforce"} for name in MODELS])
    with serving(house) as (pid, port):
        runs = {name: _loading(pid, port, _asked_here(house, name)) for name in MODELS}
        found = _in_turns(runs, report)
        for name, inputs in MODELS.items():
            row = f"model run here, {inputs} numbers, with its run"
            report.add(row, _median_us(found[name]), "us CPU", reference=_beside(found[name]))
        _add_memory(report, "small models here", found[NAME], runs[NAME])


def _route(name: str, address: str, *, marked: bool) -> dict[str, object]:
    route: dict[str, object] = {"model": name, "mode": "enforce", "protocol": "open-inference", "upstream": address}
    return {**route, "path": MARKED, "flipped": FLIPPED} if marked else route


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _model_server() -> dict[str, list[bytes]]:
    """What a model server answers by the Open Inference Protocol, by path: the same to everybody."""
    answers = {
        "*": [http_answer(b"{}")],
        "/v2": [http_answer(msgspec.json.encode({"name": "bench", "extensions": ["binary_tensor_data"]}))],
    }
    for name, inputs in MODELS.items():
        described = {
            "name": name,
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, inputs]}],
            "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, CLASSES]}],
        }
        output = {"name": "probabilities", "datatype": "FP32", "shape": [1, CLASSES], "data": [1 / CLASSES] * CLASSES}
        answers[f"/v2/models/{name}"] = [http_answer(msgspec.json.encode(described))]
        answers[f"/v2/models/{name}/infer"] = [
            http_answer(msgspec.json.encode({"model_name": name, "outputs": [output]}))
        ]
    return answers


def _asked(house: House, name: str, prefix: str = "") -> list[bytes]:
    """Requests by the Open Inference Protocol in JSON, which the peers forward as they are."""
    bodies = []
    for row in honest_rows(MODELS[name], BODIES, house.generator):
        data = [round(float(value), 6) for value in row]
        tensor = {"name": "x", "shape": [1, len(data)], "datatype": "FP32", "data": data}
        bodies.append(msgspec.json.encode({"inputs": [tensor]}))
    return _requests(house, f"{prefix}/v2/models/{name}/infer", bodies)


def _asked_here(house: House, name: str) -> list[bytes]:
    bodies = [predict_body(row) for row in honest_rows(MODELS[name], BODIES, house.generator)]
    return _requests(house, f"/v1/models/{name}/predict", bodies)


def _requests(house: House, path: str, bodies: Sequence[bytes]) -> list[bytes]:
    return [
        http_request(path, body, {"Authorization": f"Bearer {house.keys[number % len(house.keys)]}"})
        for number, body in enumerate(bodies)
    ]


def _loading(pid: int, port: int, requests: Sequence[bytes], *, tls: bool = False) -> Run:
    return lambda seconds: load(
        pid, port, requests, seconds=seconds, connections=CONNECTIONS, tls=tls, enough=round(seconds * ENOUGH)
    )


def _in_turns(runs: Mapping[str, Run], report: Report) -> dict[str, list[Load]]:
    """The loads of each, in turns, after one round that warms up."""
    rounds, seconds = (1, 0.1) if report.smoke else (1, 0.5) if report.quick else (5, 2.0)
    found: dict[str, list[Load]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            brought = run(seconds if number else seconds / 2)
            if number:
                found[name].append(brought)
    return found


def _add_rows(report: Report, found: dict[str, list[Load]]) -> None:
    us = {name: _median_us(loads) for name, loads in found.items()}
    for name, inputs in MODELS.items():
        plain, marked = found[f"gate {name}"], found[f"marked {name}"]
        row = f"model at an upstream, {inputs} numbers in JSON, marked"
        if name in BARS_US:
            report.at_most(row, us[f"marked {name}"], "us CPU", BARS_US[name], reference=_beside(marked))
        else:
            report.add(row, us[f"marked {name}"], "us CPU", reference=_beside(marked))
        report.add(f"the same without marks, {inputs} numbers", us[f"gate {name}"], "us CPU", reference=_beside(plain))
        for peer in ("Envoy", "HAProxy", "nginx"):
            if (run := f"{peer} {name}") in us:
                report.add(
                    f"only forwarded by {peer}, {inputs} numbers", us[run], "us CPU", reference=_beside(found[run])
                )
        if f"Envoy {name}" in us:
            envoy = us[f"Envoy {name}"]
            report.at_most(f"gate / Envoy, {inputs} numbers, marked", us[f"marked {name}"] / envoy, "x", RATIO_MAX)
            report.add(f"gate / Envoy, {inputs} numbers, without marks", us[f"gate {name}"] / envoy, "x")


def _add_memory(report: Report, what: str, before: Sequence[Load], run: Run) -> None:
    """Resident memory, and how it grows over requests."""
    after, requests = before[-1], 0
    for _ in range(2 if report.quick else 20):
        after = run(0.1 if report.smoke else 0.6 if report.quick else 10.0)
        requests += after.requests
    report.at_most(f"resident memory, {what}", after.resident_bytes / 1e6, "MB", RESIDENT_MB_MAX)
    growth = after.resident_bytes / before[-1].resident_bytes - 1
    report.at_most(
        f"its growth, {what}", 100 * growth, "%", GROWTH_PERCENT_MAX, reference=f"over {requests:,} requests"
    )


def _median_us(loads: Sequence[Load]) -> float:
    return statistics.median(brought.cpu_us for brought in loads)


def _beside(loads: Sequence[Load]) -> str:
    requests, wrong = sum(item.requests for item in loads), sum(item.wrong for item in loads)
    p50, p99 = (statistics.median(getattr(item, name) for item in loads) for name in ("p50_ms", "p99_ms"))
    return f"{requests:,} requests{f', {wrong} wrong' if wrong else ''}; p50 {p50:.1f} ms, p99 {p99:.1f} ms"


if __name__ == "__main__":
    main("gate", __doc__.split("\n")[0], measure)
