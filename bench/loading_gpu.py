"""What does it cost to bring sealed weights onto a GPU, beside plain safetensors?

Wall time, because GPU and CPU work side by side.
"""

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import palladion.torch
from bench.loading import module_of, ready_host, write_plain_and_sealed
from bench.report import Report, interleaved, main

if TYPE_CHECKING:
    import torch


def measure(report: Report) -> None:
    """Fill the report."""
    if find_spec("torch") is None:
        report.add("GPUs", 0, "that can be used", reference="PyTorch is not installed: nothing is measured")
        return
    import torch

    if not torch.cuda.is_available():
        report.add("GPUs", 0, "that can be used", reference="nothing is measured")
        return
    report.add("GPUs", torch.cuda.device_count(), "that can be used", reference=torch.cuda.get_device_name(0))
    with tempfile.TemporaryDirectory() as folder:
        plain, sealed = write_plain_and_sealed(Path(folder), "model", 2 if report.quick else 64)
        size = plain.stat().st_size
        module = module_of(plain).to("cuda")
        runs: dict[str, Callable[[], object]] = {
            "load_file(device)": lambda: _plain(plain),
            "load(device)": lambda: _sealed(sealed),
            "load on the CPU": lambda: palladion.torch.load(sealed, host=ready_host(sealed)),
            "load_into": lambda: _into(module, sealed),
        }
        wall = interleaved(runs, repeats=3 if report.quick else 7, wall=True)
        reference = wall["load_file(device)"]
        for name, timing in wall.items():
            beside = timing.beside(reference, "load_file")
            report.add(f"{size / 2**20:,.0f} MiB, {name}", size / timing.median / 1e9, "GB/s wall", reference=beside)
        report.add("what a GPU holds is what the plain file says", float(_same(plain, sealed)), "of 1")


def _plain(plain: Path) -> "dict[str, torch.Tensor]":
    import torch
    from safetensors.torch import load_file

    tensors = load_file(plain, device="cuda")
    torch.cuda.synchronize()
    return tensors


def _sealed(sealed: Path) -> "palladion.torch.Weights":
    import torch

    weights = palladion.torch.load(sealed, host=ready_host(sealed), device="cuda")
    torch.cuda.synchronize()
    return weights


def _into(module: "torch.nn.Module", sealed: Path) -> None:
    import torch

    palladion.torch.load_into(module, sealed, host=ready_host(sealed))
    torch.cuda.synchronize()


def _same(plain: Path, sealed: Path) -> bool:
    import torch

    expected, got = _plain(plain), _sealed(sealed)
    return expected.keys() == got.keys() and all(torch.equal(got[name], expected[name]) for name in expected)


if __name__ == "__main__":
    main("loading_gpu", (__doc__ or "").partition("\n")[0], measure)
