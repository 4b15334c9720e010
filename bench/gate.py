"""What does a protected request cost at the gate, stage by stage, beside servers that only forward it?

Full protection: API key, limits, calibrated watch, disclosure, and a record that is on the disk before the answer. A
figure is CPU time of the whole process tree for each request; gate and peers take turns. The model's own run is in the
rows of models that run here, and in no other; TLS is in none.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.gate_house import (
    CLASSES,
    House,
    Load,
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


def measure(report: Report) -> None:
    """Fill the report."""
    with tempfile.TemporaryDirectory() as folder:
        # the quick form has 60 s, and the widest model's calibration takes its share
        models = {name: inputs for name, inputs in MODELS.items() if not (report.quick and name == WIDEST)}
        house = make_house(Path(folder), models, report.seed)
        _measure_upstream(report, house, models, Path(folder))
        _measure_here(report, house, models)
        add_stages(report, house, NAME)


def _measure_upstream(report: Report, house: House, models: Mapping[str, int], folder: Path) -> None:
    """Models at a server of their own, behind the gate and behind servers that only forward."""
    with ExitStack() as stack:
        model_port = stack.enter_context(upstream(_model_server()))
        address = f"http://127.0.0.1:{model_port}"
        house.configure(
            [{"model": name, "mode": "enforce", "protocol": "open-inference", "upstream": address} for name in models]
        )
        pid, port = stack.enter_context(serving(house))
        runs = {f"gate {name}": _loading(pid, port, _asked(house, name)) for name in models}
        for peer in peers():
            room = folder / peer
            room.mkdir()
            peer_pid, peer_port = stack.enter_context(forwarding(peer, room, model_port))
            for name in models if peer == "Envoy" else [NAME]:
                runs[f"{peer} {name}"] = _loading(peer_pid, peer_port, _asked(house, name))
        found = _in_turns(runs, rounds=1 if report.quick else 7, seconds=0.8 if report.quick else 3.0)
        _add_rows(report, models, found)
        _add_memory(report, "models at upstreams", found[f"gate {NAME}"], runs[f"gate {NAME}"])


def _measure_here(report: Report, house: House, models: Mapping[str, int]) -> None:
    """The same models in the gate's own process."""
    house.configure([{"model": name, "mode": "enforce"} for name in models])
    with serving(house) as (pid, port):
        runs = {name: _loading(pid, port, _asked_here(house, name)) for name in models}
        found = _in_turns(runs, rounds=1 if report.quick else 7, seconds=0.8 if report.quick else 3.0)
        for name, inputs in models.items():
            row = f"model run here, {inputs} numbers, with its run"
            report.add(row, _median_us(found[name]), "us CPU", reference=_beside(found[name]))
        _add_memory(report, "small models here", found[NAME], runs[NAME])


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


def _asked(house: House, name: str) -> list[bytes]:
    """Requests by the Open Inference Protocol in JSON, which the peers forward as they are."""
    bodies = []
    for row in honest_rows(MODELS[name], BODIES, house.generator):
        data = [round(float(value), 6) for value in row]
        tensor = {"name": "x", "shape": [1, len(data)], "datatype": "FP32", "data": data}
        bodies.append(msgspec.json.encode({"inputs": [tensor]}))
    return _requests(house, f"/v2/models/{name}/infer", bodies)


def _asked_here(house: House, name: str) -> list[bytes]:
    bodies = [predict_body(row) for row in honest_rows(MODELS[name], BODIES, house.generator)]
    return _requests(house, f"/v1/models/{name}/predict", bodies)


def _requests(house: House, path: str, bodies: Sequence[bytes]) -> list[bytes]:
    return [
        http_request(path, body, {"Authorization": f"Bearer {house.keys[number % len(house.keys)]}"})
        for number, body in enumerate(bodies)
    ]


def _loading(pid: int, port: int, requests: Sequence[bytes]) -> Callable[[float], Load]:
    return lambda seconds: load(pid, port, requests, seconds=seconds, connections=CONNECTIONS)


def _in_turns(runs: dict[str, Callable[[float], Load]], *, rounds: int, seconds: float) -> dict[str, list[Load]]:
    """The loads of each, in turns, after one round that warms up."""
    found: dict[str, list[Load]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            brought = run(seconds if number else seconds / 2)
            if number:
                found[name].append(brought)
    return found


def _add_rows(report: Report, models: Mapping[str, int], found: dict[str, list[Load]]) -> None:
    us = {name: _median_us(loads) for name, loads in found.items()}
    for name, inputs in models.items():
        row, beside = f"model at an upstream, {inputs} numbers in JSON", _beside(found[f"gate {name}"])
        if name in BARS_US:
            report.at_most(row, us[f"gate {name}"], "us CPU", BARS_US[name], reference=beside)
        else:
            report.add(row, us[f"gate {name}"], "us CPU", reference=beside)
        for peer in ("Envoy", "HAProxy", "nginx"):
            if (run := f"{peer} {name}") in us:
                report.add(
                    f"only forwarded by {peer}, {inputs} numbers", us[run], "us CPU", reference=_beside(found[run])
                )
        if f"Envoy {name}" in us:
            report.at_most(f"gate / Envoy, {inputs} numbers", us[f"gate {name}"] / us[f"Envoy {name}"], "x", RATIO_MAX)


def _add_memory(report: Report, what: str, before: Sequence[Load], run: Callable[[float], Load]) -> None:
    """Resident memory, and how it grows over requests."""
    after, requests = before[-1], 0
    for _ in range(2 if report.quick else 20):
        after = run(1.0 if report.quick else 10.0)
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
