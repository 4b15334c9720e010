"""What does it cost to load sealed weights into PyTorch, beside plain safetensors, all of them or one tensor?"""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy

import palladion.torch
from bench.report import SEED, Report, Timing, interleaved, main, peak_bytes
from palladion.clock import ManualClock
from palladion.host.host import Host
from palladion.keys import Ed25519Signer
from palladion.seal.header import new_header
from palladion.seal.recipients import FileIdentity
from palladion.seal.sign import publisher_id
from palladion.seal.writer import seal_files

if TYPE_CHECKING:
    import torch

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SIGNER = Ed25519Signer(bytes(range(32)))
# fixed, so that the process that measures memory has the same
IDENTITY = FileIdentity(bytes(range(32, 64)))
COLUMNS = 4096
# Beyond glibc's largest mmap threshold (32 MiB): every copy gets fresh pages, as in a process that has just begun.
LAYER_BYTES = 63 * 2**20
MEMORY_ALLOWANCE = 64 * 2**20


def measure(report: Report) -> None:
    """Fill the report."""
    if find_spec("torch") is None:
        report.add("PyTorch is not installed: nothing measured", 0, "s", reference="pip install 'palladion[torch]'")
        return
    repeats = 2 if report.smoke else 3 if report.quick else 5
    with tempfile.TemporaryDirectory() as folder:
        plain, sealed = write_plain_and_sealed(Path(folder), "model", 1 if report.smoke else 2 if report.quick else 16)
        size = plain.stat().st_size
        _whole(report, plain, sealed, size, repeats)
        _parts(report, plain, sealed, repeats)
        _space(report, Path(folder), plain, sealed, size)


def write_plain_and_sealed(folder: Path, name: str, layers: int, layer_bytes: int = LAYER_BYTES) -> tuple[Path, Path]:
    """A plain and a sealed file of large tensors, and of one that has 1 % of the bytes, to be asked for."""
    generator = np.random.default_rng(SEED)
    rows = layer_bytes // COLUMNS // 4
    arrays = {f"layers.{n}.weight": generator.random((rows, COLUMNS), np.float32) for n in range(layers)}
    arrays["asked.weight"] = generator.random((max(layers * rows // 99, 1), COLUMNS), np.float32)
    plain, sealed = folder / f"{name}.safetensors", folder / f"{name}.sealed"
    safetensors.numpy.save_file(arrays, plain)
    fields: dict[str, Any] = {"kind": "safetensors", "purpose": "served", "model": "bench", "version": 1}
    header = new_header(publisher=publisher_id(SIGNER.public_key), created=NOW, **fields)
    seal_files([(plain.name, plain)], header, [IDENTITY.recipient], SIGNER, sealed)
    return plain, sealed


def _whole(report: Report, plain: Path, sealed: Path, size: int, repeats: int) -> None:
    module = module_of(plain)
    runs: dict[str, Callable[[], object]] = {
        "load_file, load_state_dict": lambda: _plain_into(module, plain),
        "load_into": lambda: _sealed_into(module, sealed),
        "load_file, clone": lambda: _plain_clone(plain),
        "load": lambda: palladion.torch.load(sealed, host=ready_host(sealed)),
    }
    cpu = interleaved(runs, repeats=repeats)
    wall = interleaved(runs, repeats=repeats, wall=True)
    best = f"best of {repeats}"
    plain_name, what = "load_file, clone", "the plain file loaded and copied"
    _throughput(report, "load: file to new tensors", size, cpu["load"], cpu[plain_name], what)
    report.at_most(f"load, CPU beside {what}", cpu["load"].best / cpu[plain_name].best, "x", 1.6, reference=best)
    report.at_most(
        f"load, wall time beside {what}", wall["load"].best / wall[plain_name].best, "x", 1.35, reference=best
    )
    # no bar: the plain way is one copy out of the page cache, and no decryption is as fast as that
    plain_name, what = "load_file, load_state_dict", "a module filled from the plain file"
    _throughput(report, "load_into: file to a module", size, cpu["load_into"], cpu[plain_name], what)
    ratio = wall["load_into"].best / wall[plain_name].best
    report.add(f"load_into, wall time beside {what}", ratio, "x", reference=best)


def _parts(report: Report, plain: Path, sealed: Path, repeats: int) -> None:
    runs: dict[str, Callable[[], object]] = {
        "load": lambda: palladion.torch.load(sealed, host=ready_host(sealed)),
        "one": lambda: _one(sealed),
        "half": lambda: _halves(sealed),
        "each": lambda: _each(sealed),
        "plain one": lambda: _plain_one(plain),
    }
    times = interleaved(runs, repeats=repeats)
    whole = times["load"]
    share = 100 * times["one"].median / whole.median
    beside = times["one"].beside(times["plain one"], "the same out of the mapped plain file")
    report.at_most("lazy: one tensor of 1 %, beside the whole", share, "%", 3, reference=beside)
    report.add("lazy: each tensor in turn, beside all at once", times["each"].median / whole.median, "x")
    share = 100 * times["half"].median / times["each"].median
    report.add("lazy: half of each tensor's rows, beside each tensor", share, "%", reference=times["half"].noise)


def _space(report: Report, folder: Path, plain: Path, sealed: Path, size: int) -> None:
    small_plain, small_sealed = write_plain_and_sealed(folder, "small", 1, 64 * 1024)
    for name, run, reference in (
        ("load", _load, _plain_clone),
        ("load_into a new module", _into_new, _plain_into_new),
    ):
        beyond = (peak_bytes(run, sealed, warm=small_sealed) - size) / 2**20
        other = (peak_bytes(reference, plain, warm=small_plain) - size) / 2**20
        told = f"plain: {other:.0f} MiB, mapped file included"
        bar = MEMORY_ALLOWANCE / 2**20
        report.at_most(f"{name}: peak memory beyond the weights", beyond, "MiB", bar, reference=told)


def _throughput(report: Report, name: str, size: int, timing: Timing, reference: Timing, what: str) -> None:
    report.add(name, size / timing.median / 1e9, "GB/s CPU", reference=timing.beside(reference, what))


def ready_host(sealed: Path) -> Host:
    """A host that opens what `write_plain_and_sealed` sealed."""
    folder = sealed.with_name("host")
    return Host(folder, ManualClock(NOW), identities=[IDENTITY], publishers=[SIGNER.public_key])


def module_of(plain: Path) -> "torch.nn.Module":
    """A module with the tensors of a file, on pages that are there."""
    import torch
    from safetensors import safe_open

    module = torch.nn.Module()
    with safe_open(plain, framework="pt") as file:
        names = list(file.keys())
        module.layers = torch.nn.ModuleList(torch.nn.Module() for _ in names[1:])
        module.asked = torch.nn.Module()
        for name in names:
            owner, _, last = name.rpartition(".")
            shape = file.get_slice(name).get_shape()
            module.get_submodule(owner).register_buffer(last, torch.ones(shape))
    return module


def _plain_into(module: "torch.nn.Module", plain: Path) -> None:
    from safetensors.torch import load_file

    module.load_state_dict(load_file(plain))


def _sealed_into(module: "torch.nn.Module", sealed: Path) -> None:
    palladion.torch.load_into(module, sealed, host=ready_host(sealed))


def _plain_clone(plain: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(plain).items()}


def _load(sealed: Path) -> "dict[str, torch.Tensor]":
    return palladion.torch.load(sealed, host=ready_host(sealed))


def _into_new(sealed: Path) -> "torch.nn.Module":
    module = module_of(sealed.with_suffix(".safetensors"))
    _sealed_into(module, sealed)
    return module


def _plain_into_new(plain: Path) -> "torch.nn.Module":
    module = module_of(plain)
    _plain_into(module, plain)
    return module


def _one(sealed: Path) -> "torch.Tensor":
    with palladion.torch.lazy(sealed, host=ready_host(sealed)) as weights:
        return weights["asked.weight"]


def _each(sealed: Path) -> None:
    with palladion.torch.lazy(sealed, host=ready_host(sealed)) as weights:
        for name in weights:
            weights[name]


def _halves(sealed: Path) -> None:
    """What one of two tensor parallel ranks reads."""
    with palladion.torch.lazy(sealed, host=ready_host(sealed)) as weights:
        for name in weights:
            weights.rows(name, 0, weights.shape(name)[0] // 2)


def _plain_one(plain: Path) -> "torch.Tensor":
    from safetensors import safe_open

    with safe_open(plain, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor("asked.weight").clone()
        return tensor


if __name__ == "__main__":
    main("loading", __doc__ or "", measure)
