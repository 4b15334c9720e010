"""What does a question over gRPC cost at the gate, beside a bare gRPC server and beside the same question over HTTP?

Full protection: API key, limits, calibrated watch, disclosure, and a record that is on the disk before the answer; the
model runs in the gate, as it does for HTTP. The bare server sends each message back. A figure is CPU time of the whole
process tree for each request, of clients in processes of their own; all take turns. TLS is in no row.
"""

import asyncio
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvloop

from bench.gate_house import House, Load, cpu_seconds, honest_rows, http_request, load, make_house
from bench.report import Report, main

MODELS = {"pixels": 784, "table": 30}
BODIES = 256  # different ones: a repeat would be cheaper for the watch
CALLS = 64  # at once, as HTTP has connections
CHANNELS = 8  # connections that they share, as clients do
HONEST_SMOKE = 40  # clients that calibrate each model
SERVICE = "inference.GRPCInferenceService"


def measure(report: Report) -> None:
    """Fill the report."""
    with tempfile.TemporaryDirectory() as folder:
        honest = dict.fromkeys(MODELS, HONEST_SMOKE) if report.smoke else None
        house = make_house(Path(folder), MODELS, report.seed, honest=honest)
        house.configure(
            [{"model": name, "mode": "enforce", "protocol": "open-inference"} for name in MODELS],
            gate={"listen": "127.0.0.1:0", "grpc_listen": "127.0.0.1:0"},
        )
        with _gate(house) as (pid, port, grpc_port), _echo() as (echo_pid, echo_port):
            runs: dict[str, Callable[[float], Load]] = {}
            for name, inputs in MODELS.items():
                rows = honest_rows(inputs, BODIES, house.generator)
                raw, typed = ([_message(name, row, raw=raw) for row in rows] for raw in (True, False))
                runs[f"echo {name}"] = _calling(echo_pid, echo_port, raw, house)
                runs[f"gRPC {name}"] = _calling(pid, grpc_port, raw, house)
                runs[f"typed {name}"] = _calling(pid, grpc_port, typed, house)
                runs[f"HTTP {name}"] = _asking(pid, port, name, rows, house)
            rounds, seconds = (1, 0.2) if report.smoke else (2, 0.6) if report.quick else (9, 3.0)
            found = _in_turns(runs, rounds=rounds, seconds=seconds)
        for name, inputs in MODELS.items():
            _add_rows(report, name, inputs, found)


def _add_rows(report: Report, name: str, inputs: int, found: Mapping[str, Sequence[Load]]) -> None:
    what = {
        "echo": "bare gRPC server, which sends the message back",
        "HTTP": "gate over HTTP, in bytes",
        "gRPC": "gate over gRPC, in raw bytes",
        "typed": "gate over gRPC, in numbers",
    }
    us = {}
    for kind, text in what.items():
        loads = found[f"{kind} {name}"]
        us[kind] = statistics.median(item.cpu_us for item in loads)
        report.add(f"{text}, {inputs} numbers", us[kind], "us CPU", reference=_beside(loads))
    report.add(f"gate over gRPC / bare gRPC server, {inputs} numbers", us["gRPC"] / us["echo"], "x")
    report.add(f"what the gate adds to a bare gRPC server, {inputs} numbers", us["gRPC"] - us["echo"], "us CPU")
    report.add(f"gate over gRPC / over HTTP, {inputs} numbers", us["gRPC"] / us["HTTP"], "x")


def _in_turns(runs: Mapping[str, Callable[[float], Load]], *, rounds: int, seconds: float) -> dict[str, list[Load]]:
    """The loads of each, in turns, after one round that warms up."""
    found: dict[str, list[Load]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            brought = run(seconds)
            if brought.wrong:
                raise RuntimeError(f"{brought.wrong} of {brought.requests} requests failed: {name}")
            if number:
                found[name].append(brought)
    return found


def _message(model: str, row: Any, *, raw: bool) -> bytes:
    from palladion.gate.grpc.messages import load_messages

    request = load_messages()["ModelInferRequest"](model_name=model)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, len(row)])
    if raw:
        request.raw_input_contents.append(row.astype("<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend(row.tolist())
    return bytes(request.SerializeToString())


def _asking(pid: int, port: int, model: str, rows: Any, house: House) -> Callable[[float], Load]:
    """The same questions over HTTP, in bytes both ways."""
    requests = []
    for number, row in enumerate(rows):
        data = row.astype("<f4").tobytes()
        tensor = {
            "name": "x", "shape": [1, len(row)], "datatype": "FP32", "parameters": {"binary_data_size": len(data)},
        }  # fmt: skip
        text = msgspec.json.encode({"inputs": [tensor], "parameters": {"binary_data_output": True}})
        headers = {
            "Authorization": f"Bearer {house.keys[number % len(house.keys)]}",
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(text)),
        }
        requests.append(http_request(f"/v2/models/{model}/infer", text + data, headers))
    return lambda seconds: load(pid, port, requests, seconds=seconds, connections=CALLS)


def _calling(pid: int, port: int, messages: Sequence[bytes], house: House) -> Callable[[float], Load]:
    """Calls from a process of their own; CPU time is that of the process `pid`."""
    options = {"port": port, "messages": [item.hex() for item in messages], "keys": list(house.keys)}

    def run(seconds: float) -> Load:
        before = cpu_seconds(pid)
        found = json.loads(_run("call", json.dumps({**options, "seconds": seconds})))
        return Load(cpu_us=1e6 * (cpu_seconds(pid) - before) / found["requests"], resident_bytes=0, **found)

    return run


def _run(task: str, options: str) -> str:
    command = [sys.executable, "-m", "bench.gate_grpc", task]
    return subprocess.run(command, input=options, stdout=subprocess.PIPE, text=True, check=True).stdout


@contextmanager
def _gate(house: House) -> Iterator[tuple[int, int, int]]:
    """The gate as users start it: its process, and its ports for HTTP and gRPC."""
    command = [sys.executable, "-m", "palladion", "--home", str(house.home), "serve"]
    with _started(command) as (process, lines):
        ports = {}
        for line in lines:
            if found := re.search(r"(over gRPC|serving) on \w+://[^:]+:(\d+)", line):
                ports[found[1]] = int(found[2])
            if "serving" in ports:
                break
        yield process.pid, ports["serving"], ports["over gRPC"]


@contextmanager
def _echo() -> Iterator[tuple[int, int]]:
    """A bare server: its process and port."""
    with _started([sys.executable, "-m", "bench.gate_grpc", "echo"]) as (process, lines):
        yield process.pid, int(next(lines))


@contextmanager
def _started(command: Sequence[str]) -> Iterator[tuple["subprocess.Popen[str]", Iterator[str]]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, iter(process.stdout.readline, "")
    finally:
        process.terminate()
        process.communicate(timeout=60)


async def _serve_echo() -> None:
    import grpc

    async def echo(message: bytes, context: object) -> bytes:
        return message

    server = grpc.aio.server()
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def _call(options: Mapping[str, Any]) -> None:
    """Ask again as soon as an answer is there, until the time is over."""
    import grpc

    messages = [bytes.fromhex(item) for item in options["messages"]]
    keys = options["keys"]
    own = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{options['port']}", options=own) for _ in range(CHANNELS)]
    calls = [channel.unary_unary(f"/{SERVICE}/ModelInfer") for channel in channels]
    seconds: list[float] = []
    until = time.perf_counter() + options["seconds"]
    wrong = 0

    async def ask(first: int) -> None:
        nonlocal wrong
        place = first * len(messages) // CALLS
        while (began := time.perf_counter()) < until:
            number = place % len(messages)
            metadata = (("authorization", f"Bearer {keys[number % len(keys)]}"),)
            try:
                await calls[first % CHANNELS](messages[number], metadata=metadata)
            except grpc.aio.AioRpcError:
                wrong += 1
            seconds.append(time.perf_counter() - began)
            place += 1

    await asyncio.gather(*map(ask, range(CALLS)))
    for channel in channels:
        await channel.close()
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    print(json.dumps({"requests": len(seconds), "wrong": wrong, "parts": 0, "p50_ms": p50, "p99_ms": p99}))


def _beside(loads: Sequence[Load]) -> str:
    requests = sum(item.requests for item in loads)
    p50, p99 = (statistics.median(getattr(item, name) for item in loads) for name in ("p50_ms", "p99_ms"))
    return f"{requests:,} requests; p50 {p50:.1f} ms, p99 {p99:.1f} ms"


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["echo"]:
            uvloop.run(_serve_echo())
        case ["call"]:
            uvloop.run(_call(json.load(sys.stdin)))
        case _:
            main("gate_grpc", __doc__.split("\n", maxsplit=1)[0], measure)
