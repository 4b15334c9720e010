"""How much memory do marks take beside the models? A part of `bench.marks`."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, peak_bytes
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import stamp_rows
from palladion.mark.places import Place, Rows, Survey
from palladion.mark.weights import OwnershipKey, find_ownership, mark_rows
from palladion.model.read import read_file
from palladion.model.rewrite import rewritten
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor

KEY = derive(bytes(32), "bench")
OWNERSHIP = OwnershipKey(KEY, bytes(range(16)))


def measure_memory(report: Report) -> None:
    """Peaks for one tensor of 128 MiB (32 in the quick form): weights of four bytes, and of two."""
    side = 2048 if report.quick else 4096
    with tempfile.TemporaryDirectory() as folder:
        small, wide, narrow = (Path(folder) / name for name in ("small", "wide", "narrow"))
        _save(small, 64, 64, "float32")
        _save(wide, 2 * side, side, "float32")
        _save(narrow, 4 * side, side, "bfloat16")
        for name, run, path, models in (
            ("find it: memory beyond both models", find_in_itself, wide, 2),
            ("find it, bf16: memory beyond both models", find_in_itself, narrow, 2),
            ("put it in, bf16: memory beyond the model", mark_all, narrow, 1),
            ("stamp a copy, bf16: memory beyond the model", stamp_all, narrow, 1),
        ):
            size = path.stat().st_size
            beyond = peak_bytes(run, path, warm=small) - models * size
            reference = f"{beyond / size:.2f}x the tensor, beside {models * size / 2**20:.0f} MiB of models"
            report.at_most(name, beyond / 2**20, "MiB", 2 * size / 2**20 + 200, reference=reference)


def find_in_itself(path: Path) -> None:
    """Look for the mark in the original."""
    find_ownership(read_file(path), read_file(path), OWNERSHIP)


def mark_all(path: Path) -> None:
    """Go through the bytes of the marked model, as whoever writes it does."""
    _write(path, lambda place: mark_rows(place, OWNERSHIP))


def stamp_all(path: Path) -> None:
    """The same for a recipient's copy."""
    _write(path, lambda place: stamp_rows(place, OWNERSHIP, KEY))


def _write(path: Path, change: Callable[[Place], Rows]) -> None:
    model = read_file(path)
    survey = Survey(model)

    def numbers(tensor: Tensor) -> NDArray[Any] | None:
        place = survey.place_of(tensor)
        return None if place is None else place.stored(change(place), KEY)

    for file in rewritten(model, numbers).files:
        for _ in file.pieces():
            pass


def _save(path: Path, rows: int, columns: int, dtype: str) -> None:
    numbers = np.random.default_rng(SEED).standard_normal((rows, columns), np.float32)
    held = numbers.astype(getattr(ml_dtypes, dtype, dtype))
    path.write_bytes(serialise([Tensor("w", DTYPES[dtype], held.shape, held)], {}))
