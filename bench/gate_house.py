"""An installation for the gate's bench: a small model, calibrated clients, and processes whose CPU time is counted."""

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.clock import SystemClock
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.create import Plan, create_installation
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.protect import protect
from palladion.seal.recipients import FileIdentity
from palladion.watch.calibration import About, calibrate
from palladion.watch.calibration_file import encode_calibration
from palladion.watch.instruments import Episode

ACTOR = "user:bench"
CLASSES = 10
CLIENTS = 32
HONEST = 200  # clients that calibrate a model
TICKS = os.sysconf("SC_CLK_TCK")
WAIT_SECONDS_MAX = 60
# every client may ask as much as the machine carries: what is measured is the cost of a limit, not a refusal
LIMITS = {"queries_per_second": 1_000_000.0, "burst": 1_000_000}
Array = NDArray[Any]


@dataclass(frozen=True)
class House:
    """A folder with an installation, and the API keys of its clients."""

    installation: Installation
    keys: Sequence[str]
    generator: np.random.Generator

    @property
    def home(self) -> Path:
        """Where its policy is."""
        return self.installation.paths.home

    def configure(self, routes: Sequence[Mapping[str, object]], **sections: Mapping[str, object]) -> None:
        """Write routes and settings into the policy, in place of those before."""
        path = self.installation.paths.policy
        kept = path.with_suffix(".before")
        if not kept.exists():
            kept.write_bytes(path.read_bytes())
        text = kept.read_text()
        settings: dict[str, Mapping[str, object]] = {"gate": {"listen": "127.0.0.1:0"}, "limits": LIMITS, **sections}
        for section, values in settings.items():
            for key, value in values.items():
                text = re.sub(
                    rf"(?ms)(^\[{section}\]$.*?)^(# ?)?{key} = .*?$",
                    rf"\g<1>{key} = {json.dumps(value)}",
                    text,
                    count=1,
                )
        for route in routes:
            lines = [f"{key} = {json.dumps(value)}" for key, value in route.items()]
            text += "\n[[route]]\n" + "\n".join(lines) + "\n"
        path.write_text(text)


def make_house(folder: Path, models: Mapping[str, int], seed: int, *, honest: Mapping[str, int] | None = None) -> House:
    """An installation with one promoted and calibrated classifier for each name and number of inputs.

    `honest` says by how many clients a model is calibrated, if not by `HONEST`: it takes seconds where rows are wide,
    and what a request costs does not depend on it.
    """
    home = folder / "home"
    home.mkdir(parents=True)
    owner = FileIdentity(bytes(range(32)))
    plan = Plan(home, str(folder / "host.identity"), ())
    installation = create_installation(plan, [owner.recipient], [], actor=ACTOR, clock=SystemClock())
    root = installation.open_owner_root([owner])
    generator = np.random.default_rng(seed)
    for name, inputs in models.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(_classifier(inputs, generator))
        protect(installation, root, path, name, actor=ACTOR)
        _calibrate(installation, name, inputs, generator, (honest or {}).get(name, HONEST))
    keys = []
    for number in range(CLIENTS):
        _, key, _ = add_client(
            installation, f"org{number}", "app", models=[], environment="test", expires=None, actor=ACTOR
        )
        keys.append(key.text)
    return House(installation, keys, generator)


def honest_rows(inputs: int, count: int, generator: np.random.Generator) -> Array:
    """Rows (count, inputs) as honest clients send them, with six decimals."""
    return np.round(generator.standard_normal((count, inputs)), 6).astype(np.float32)


def http_request(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """One request, ready to be sent."""
    head = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def http_answer(body: bytes, media_type: str = "application/json") -> bytes:
    """One answer, ready to be sent."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def upstream(answers: Mapping[str, Sequence[bytes]]) -> Iterator[int]:
    """A server on a free port that answers at once: by path, or "*"."""
    options = {"port": 0, "answers": {path: [as_text(part) for part in parts] for path, parts in answers.items()}}
    process = _spawn([sys.executable, "-m", "bench.gate_load", "serve"], options)
    try:
        assert process.stdout is not None
        yield int(json.loads(process.stdout.readline())["port"])
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Load:
    """What a load brought: requests, wrong ones, parts of answers, latencies, CPU microseconds and resident bytes."""

    requests: int
    wrong: int
    parts: int
    p50_ms: float
    p99_ms: float
    cpu_us: float
    resident_bytes: int


def load(
    pid: int,
    port: int,
    requests: Sequence[bytes],
    *,
    seconds: float,
    connections: int = 32,
    tls: bool = False,
    enough: int = 0,
) -> Load:
    """Ask a gateway, by its process, over `connections` for so many seconds; CPU time is its process tree's.

    Where the machine is so busy that fewer than `enough` are answered, it goes on: what a gate does once a second would
    count for too few.
    """
    options = {
        "port": port,
        "requests": [as_text(item) for item in requests],
        "seconds": seconds,
        "connections": connections,
        "tls": tls,
        "enough": enough,
    }
    before = cpu_seconds(pid)
    process = _spawn([sys.executable, "-m", "bench.gate_load", "ask"], options)
    out, _ = process.communicate()
    spent = cpu_seconds(pid) - before
    found = json.loads(out)
    return Load(cpu_us=1e6 * spent / found["requests"], resident_bytes=_resident(pid), **found)


@contextmanager
def serving(house: House) -> Iterator[tuple[int, int]]:
    """The gate as users start it: its process and port."""
    command = [sys.executable, "-m", "palladion", "--home", str(house.home), "serve"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"serving on https?://[^:]+:(\d+)", line):
                yield process.pid, int(found[1])
                return
        raise RuntimeError(f"the gate ended: {process.stderr.read() if process.stderr else ''}")
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_SECONDS_MAX)


@contextmanager
def running(command: Sequence[str], port: int, **options: Any) -> Iterator[int]:
    """Somebody else's gateway: its process, once its port answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        _wait_for(port, process)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, its threads and its children."""
    own = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(own[place]) for place in (11, 12, 13, 14))  # utime, stime, and those of children that ended
    return ticks / TICKS + sum(cpu_seconds(child) for child in _children(pid))


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine, and its key (ECDSA P-256), as files."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
    )
    paths = folder / "bench.crt", folder / "bench.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return paths


def free_port() -> int:
    """A port that nobody listens on now."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
    return own + sum(_resident(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    import socket

    for _ in range(WAIT_SECONDS_MAX * 10):
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"nobody answers on port {port}")


def _spawn(command: Sequence[str], options: Mapping[str, object]) -> "subprocess.Popen[str]":
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(json.dumps(options))
    process.stdin.close()
    process.stdin = None  # communicate() would flush it
    return process


def as_text(data: bytes) -> str:
    """Bytes as the other ends of `gate_load` take them."""
    return base64.b64encode(data).decode()


def _classifier(inputs: int, generator: np.random.Generator) -> bytes:
    import onnx
    from onnx import helper

    weights = (generator.standard_normal((inputs, CLASSES)) / np.sqrt(inputs)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"]),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, inputs])],
        [helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [None, CLASSES])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def _calibrate(installation: Installation, name: str, inputs: int, generator: np.random.Generator, honest: int) -> None:
    with installation.open_registry() as registry, registry.read() as records:
        version = records.promotions.current(name)
    assert version is not None
    weights = generator.standard_normal((inputs, CLASSES)) / np.sqrt(inputs)

    def episode() -> Episode:
        rows = honest_rows(inputs, 64, generator).astype(np.float64)
        scores = np.exp(rows @ weights)
        return Episode(rows, scores / scores.sum(axis=1, keepdims=True))

    about = About(
        name, version.number, version.content_digest, simulated=True, horizon=100_000, group_horizon=100_000,
        seed=1, created=installation.clock.now(),
    )  # fmt: skip
    calibration = calibrate(
        about, [episode() for _ in range(20)], [episode() for _ in range(honest)], [[episode()]], generator
    )
    data = encode_calibration(calibration)
    digest = sha256(data).hexdigest()
    path = f"{name}/{digest[:12]}.safetensors"
    target = installation.paths.directory / "calibrations" / path
    files.make_private_directory(target.parent)
    files.write_atomically(target, data)
    with installation.open_registry() as registry, registry.write() as records:
        records.calibrations.add(name, version.number, path=path, digest=digest, simulated=True, clients=honest)


def predict_body(row: Array) -> bytes:
    """A query in the gate's own JSON."""
    return msgspec.json.encode({"inputs": [[round(float(value), 6) for value in row]]})
