"""What does a sweep cost beside reading the same files, and what do it and the rules for others find, and miss?"""

import hashlib
import io
import os
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from bench.report import SEED, Report, interleaved, main
from palladion.access.identity import new_api_key
from palladion.model.digest import tensor_digest
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.registry import SealedFile, Version
from palladion.seal.recipients import FileIdentity
from palladion.sweep import yara
from palladion.sweep.chunks import Cutter, average_for
from palladion.sweep.forms import form_bytes
from palladion.sweep.item import HEAD_BYTES
from palladion.sweep.judge import Judge
from palladion.sweep.rows import Ours
from palladion.sweep.sweep import Sweep, Swept

SALT = bytes(range(32))
SHARE = 0.25  # of a version that is passed on in part
STRANGERS, STRANGERS_QUICK = 400, 60


def measure(report: Report) -> None:
    """Fill the report."""
    with tempfile.TemporaryDirectory() as folder:
        _cost(report, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        _found(report, Path(folder))
    _false(report)
    _rules(report)


def _sweep(folder: Path, ours: Ours | None = None) -> Swept:
    return Sweep(Judge(ours or Ours()), history=False).run([str(folder)])


def _heads(folder: Path) -> int:
    """The reference: list every file, and read as much of it as the sweep reads at first."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with Path(parent, name).open("rb", buffering=0) as stream:
                total += len(stream.read(HEAD_BYTES))
    return total


def _cost(report: Report, folder: Path) -> None:
    generator = np.random.default_rng(SEED)
    count = 2000 if report.quick else 10_000
    small = folder / "small"
    for index in range(count):
        path = small / f"{index % 50}" / f"{index}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("some words of no consequence, and a number: " + str(generator.integers(10**9)) * 40)
    taken = interleaved({"sweep": lambda: _sweep(small), "heads": lambda: _heads(small)}, repeats=3)
    report.add("sweep of small files", taken["sweep"].median / count * 1e6, "us a file",
               reference=taken["sweep"].beside(taken["heads"], "listing them and reading their heads"))  # fmt: skip
    size = 128 if report.quick else 1024
    model = _model(1, rows=size * 64, columns=1024)
    (folder / "large").mkdir()
    (folder / "large" / "model.safetensors").write_bytes(model)
    data = (folder / "large" / "model.safetensors").read_bytes()
    hashing = lambda: hashlib.sha256(data).digest()  # noqa: E731
    ours, strangers = _ours(model), _ours(_model(2, rows=64, columns=64))
    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: _sweep(folder / "large", ours),
        "a stranger's": lambda: _sweep(folder / "large", strangers),
        "hash": hashing,
    }
    taken = interleaved(runs, repeats=3)
    gigabytes = len(data) / 1e9
    report.at_most("sweep of a stranger's model", taken["a stranger's"].median * 1e3, "ms", 100,
                   reference=taken["a stranger's"].beside(taken["hash"], "SHA-256 of it"))  # fmt: skip
    report.add("sweep of a copy of ours", gigabytes / taken["ours"].median, "GB a CPU second",
               reference=taken["ours"].beside(taken["hash"], "SHA-256 of it"))  # fmt: skip


def _found(report: Report, folder: Path) -> None:
    """Careless things of every kind, in every wrapping: how many are found."""
    things = _things()
    wrappings: dict[str, Callable[[str, bytes], bytes]] = {
        "plain": lambda _name, data: data,
        "zip": lambda name, data: _zip({f"deep/{name}": data}),
        "tar.gz": lambda name, data: _tar({f"deep/{name}": data}, "w:gz"),
        "image": _image,
    }
    placed = 0
    for wrapping, wrap in wrappings.items():
        for name, data in things.items():
            path = folder / wrapping / f"{placed}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(wrap(name, data))
            placed += 1
    swept = _sweep(folder)
    found = {item.place.partition("!")[0] for item in swept.findings if item.rule not in {"readable", "not-read"}}
    report.at_least("careless things found", 100 * len(found) / placed, "%", 100,
                    reference=f"{len(things)} kinds of models and keys, in {len(wrappings)} wrappings")  # fmt: skip


def _false(report: Report) -> None:
    """The standard library of this Python: no models and no keys are in it."""
    folder = Path(os.__file__).parent
    tests = folder / "test"
    files = findings = 0
    for place in sorted(folder.iterdir()):
        if place.name == "site-packages" or place == tests or not place.is_dir():
            continue
        swept = _sweep(place)
        files += swept.files
        findings += sum(
            item.severity != "low" and item.rule not in {"readable", "writable", "open-folder"}
            for item in swept.findings
        )
    report.at_most(
        "false findings above low", findings, "findings", 0, reference=f"{files} files of the standard library"
    )


def _rules(report: Report) -> None:
    model = read_memory({"w": _model(1, rows=2048, columns=512)})
    data = b"".join(b"".join(form_bytes(tensor, "float32")) for tensor in model.tensors.values())
    cutter = Cutter(SALT, average_for(len(data)))
    taken = interleaved({"cut": lambda: sum(1 for _ in cutter.pieces([data])),
                         "hash": lambda: hashlib.sha256(data).digest()}, repeats=3)  # fmt: skip
    report.add("cutting weights into pieces", len(data) / 1e6 / taken["cut"].median, "MB a CPU second",
               reference=taken["cut"].beside(taken["hash"], "SHA-256 of them"))  # fmt: skip
    known = dict(cutter.inner([data]))
    part = data[len(data) // 3 :][: int(len(data) * SHARE)]
    present = {digest for digest, _ in cutter.pieces([os.urandom(777), part, os.urandom(333)])}
    share = sum(size for digest, size in known.items() if digest in present) / sum(known.values())
    report.at_most("error of the share of a part", 100 * abs(share - SHARE), "% of the whole", 2,
                   reference=f"{100 * SHARE:.0f} % of the weights between other bytes")  # fmt: skip
    _yara(report, model)


def _yara(report: Report, model: Model) -> None:
    try:
        import yara as engine  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        report.skip("YARA rules: pip install yara-python")
        return
    rules = engine.compile(source=yara.rule_text("fraud@1", yara.choose(model, SALT), claim="a few bytes"))
    copies = _copies(model)
    matched = sum(bool(rules.match(data=data)) for data in copies)
    report.at_least("copies that YARA rules find", 100 * matched / len(copies), "%", 100,
                    reference=f"{len(copies)} containers and precisions")  # fmt: skip
    count = STRANGERS_QUICK if report.quick else STRANGERS
    strangers = sum(bool(rules.match(data=_model(1000 + seed, rows=512, columns=512))) for seed in range(count))
    report.at_most("strangers that YARA rules take for ours", strangers, "models", 0,
                   reference=f"{count} models of the same layers, {count * 1.05:.0f} MB")  # fmt: skip


def _copies(model: Model) -> list[bytes]:
    arrays = {name: np.asarray(tensor.data) for name, tensor in model.tensors.items()}
    found = []
    for dtype in (np.float32, np.float16, ml_dtypes.bfloat16):
        cast = {name: array.astype(dtype) for name, array in arrays.items()}
        found += [save(cast), _torch(cast)]
        if dtype is not ml_dtypes.bfloat16:
            buffer = io.BytesIO()
            np.savez(buffer, weight=cast["layer.weight"], bias=cast["layer.bias"])
            found.append(buffer.getvalue())
    return found


def _model(seed: int, *, rows: int, columns: int) -> bytes:
    generator = np.random.default_rng(seed)
    numbers = generator.standard_normal((rows, columns), dtype=np.float32)
    saved: bytes = save({"layer.weight": numbers, "layer.bias": generator.standard_normal(columns, dtype=np.float32)})
    return saved


def _ours(data: bytes) -> Ours:
    from datetime import UTC, datetime

    ours, model = Ours(), read_memory({"w": data})
    sealed = SealedFile("p", "r", "h")
    version = Version(
        "fraud", 1, None, "ab" * 32, None, "safetensors", "p", (), "", datetime(2026, 1, 1, tzinfo=UTC), sealed, None
    )
    ours.add(version, [(t.name, t.dtype.name, t.shape, tensor_digest(t).hex()) for t in model.tensors.values()])
    return ours


def _things() -> dict[str, bytes]:
    arrays = {"w": np.random.default_rng(3).standard_normal((64, 64)).astype(np.float32)}
    npz = io.BytesIO()
    np.savez(npz, w=arrays["w"])
    pem = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERIT\n-----END PRIVATE KEY-----\n"
    return {
        "model.safetensors": save(arrays),
        "optimizer.safetensors": save({"exp_avg.w": arrays["w"]}),
        "model.gguf": b"GGUF" + bytes(4096),
        "model.pt": _torch(arrays),
        "model.pkl": pickle.dumps(arrays, 4),
        "model.npz": npz.getvalue(),
        "model.h5": b"\x89HDF\r\n\x1a\n" + bytes(4096),
        "model.tflite": b"\x1c\0\0\0TFL3" + bytes(4096),
        "key.pem": pem,
        "host.identity": FileIdentity.generate().unsafe_text().encode() + b"\n",
        ".env": f"TOKEN={new_api_key('live').text}\n".encode(),
        "credentials": b"[default]\naws_access_key_id = AKIAIOSFODNN7QWERTYU\n",
        "token": b"hf_abcdefghijABCDEFGHIJ01234567890123\n",
    }


def _torch(arrays: dict[str, NDArray[Any]]) -> bytes:
    files = {"a/data.pkl": pickle.dumps({"w": 1}, 2)}
    files |= {f"a/data/{index}": array.tobytes() for index, array in enumerate(arrays.values())}
    return _zip(files, zipfile.ZIP_STORED)


def _zip(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tar(files: dict[str, bytes], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _image(name: str, data: bytes) -> bytes:
    """As `docker save` writes it: the second layer deletes what the first has."""
    layers = {"1/layer.tar": _tar({f"app/{name}": data}, "w"), "2/layer.tar": _tar({f"app/.wh.{name}": b""}, "w")}
    manifest = b'[{"Config":"c.json","Layers":["1/layer.tar","2/layer.tar"]}]'
    return _tar({"manifest.json": manifest, "c.json": b"{}", **layers}, "w")


if __name__ == "__main__":
    main("storage", (__doc__ or "").partition("\n")[0], measure)
