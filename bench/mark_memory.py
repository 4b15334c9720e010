"""How much memory do marks take beside the models? A part of `bench.marks`."""

import json
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, peak_bytes
from palladion.clock import SystemClock
from palladion.lifecycle.create import Plan, create_installation
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.protect import protect
from palladion.lifecycle.prove import prove
from palladion.lifecycle.recipients import add_recipient
from palladion.lifecycle.unseal import unseal
from palladion.mark.carriers import derive
from palladion.mark.fingerprints import stamp_rows
from palladion.mark.places import Place, Rows, Survey
from palladion.mark.weights import OwnershipKey, find_ownership, mark_rows
from palladion.model.read import read_file, read_weights
from palladion.model.rewrite import rewritten
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor
from palladion.seal.recipients import FileIdentity

SHARDS, TENSORS, ROWS, COLUMNS = 3, 8, 4096, 8192  # of the large model: 1.5 GiB in bf16, tensors of 64 MiB
LARGEST_BYTES = 2 * ROWS * COLUMNS
MODEL_BYTES = SHARDS * TENSORS * LARGEST_BYTES
COPIES = 6  # of the model on disk at most: plain, sealed twice, delivered, opened, and room
ACTOR, NAME = "user:bench", "large@1"
OWNER, RECIPIENT = FileIdentity(b"\x11" * 32), FileIdentity(b"\x33" * 32)
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
    if not report.quick:
        measure_large(report)


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


def measure_large(report: Report) -> None:
    """Anonymous memory of whole steps, at their peak, on a model of many tensors: mapped pages may be dropped."""
    with tempfile.TemporaryDirectory() as folder:
        for what, there, needed in (
            ("for temporary files", shutil.disk_usage(folder).free, COPIES * MODEL_BYTES),
            ("of memory", _kibibytes("/proc/meminfo", "MemAvailable") * 1024, 2 * MODEL_BYTES),
        ):
            if there < needed:
                sentence = "memory on a large model: it needs {:.0f} GiB {}, {:.0f} GiB are free."
                report.skip(sentence.format(needed / 2**30, what, there / 2**30))
                return
        home = Path(folder) / "home"
        _large(home)
        bar = (2 * LARGEST_BYTES + 200e6) / 2**20
        for name, step in _STEPS.items():
            # a process for each, as a command has it; its interpreter and imports count
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                peak, before, said = pool.submit(_peak_anonymous, step, home).result()
            about = f"{before / 2**20:.0f} MiB before; model {MODEL_BYTES / 2**30:.2g} GiB bf16, {SHARDS} files"
            reference = f"{about}, {SHARDS * TENSORS} tensors of {LARGEST_BYTES / 2**20:.0f} MiB{said}"
            if step == "unseal":
                report.add(f"large model: {name}, RssAnon", peak / 2**20, "MiB", reference=reference)
            else:
                report.at_most(f"large model: {name}, RssAnon", peak / 2**20, "MiB", bar, reference=reference)


_STEPS = {
    "protect": "protect",
    "deliver a copy": "deliver",
    "open the copy, which holds it decrypted": "unseal",
    "prove that it is ours": "mine",
    "prove whose it is, of one recipient": "copy",
}


def _large(home: Path) -> None:
    """An installation, a recipient, and the model in the folder beside them."""
    (home.parent / "model").mkdir()
    home.mkdir()
    (home.parent / "model" / "config.json").write_text("{}")
    random = np.random.default_rng(SEED)
    weight_map: dict[str, str] = {}
    for shard in range(SHARDS):
        name = f"model-{shard}.safetensors"
        shape, kind = (ROWS, COLUMNS), DTYPES["bfloat16"]
        made = {}
        for index in range(TENSORS):
            made[f"{shard}.{index}"] = random.standard_normal(shape, np.float32).astype(ml_dtypes.bfloat16)
        tensors = [Tensor(tensor, kind, shape, numbers) for tensor, numbers in made.items()]
        (home.parent / "model" / name).write_bytes(serialise(tensors, {}))
        weight_map |= dict.fromkeys(made, name)
    index_file = home.parent / "model" / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {"total_size": MODEL_BYTES}, "weight_map": weight_map}))
    plan = Plan(home, str(home.parent / "host.identity"))
    installation = create_installation(plan, [OWNER.recipient], [], actor=ACTOR, clock=SystemClock())
    add_recipient(installation, "acme", str(RECIPIENT.recipient), note="", actor=ACTOR)


def _peak_anonymous(step: str, home: Path) -> tuple[int, int, str]:
    """Runs a step: RssAnon at its peak and before, in bytes, and what it said. For a process of its own."""
    installation = Installation.find(home, SystemClock())
    peaks, stopped = [_anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not stopped.wait(0.02):
            peaks.append(_anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        said = _run(installation, step, home.parent)
    finally:
        stopped.set()
        watcher.join()
    return max(peaks), peaks[0], said


def _run(installation: Installation, step: str, folder: Path) -> str:
    owner = installation.open_owner_root([OWNER])
    sealed, leaked = folder / "copy.sealed", folder / "leaked"
    if step == "protect":
        protect(installation, owner, folder / "model", NAME.partition("@")[0], actor=ACTOR)
    elif step == "deliver":
        deliver(installation, owner, NAME, "acme", sealed, actor=ACTOR)
    elif step == "unseal":
        unseal(installation, sealed, RECIPIENT, leaked, reason="bench", actor=ACTOR)
    else:
        suspect, copies = read_weights(leaked), step == "copy"
        (found,) = prove(installation, owner, suspect, [NAME], copies=copies, actor=ACTOR)
        named = ", ".join(item.recipient for item in found.accused) or "nobody"
        return f"; named: {named}" if copies else f"; ours: {'yes' if found.ours else 'no'}"
    return ""


def _anonymous_bytes() -> int:
    return _kibibytes("/proc/self/status", "RssAnon") * 1024


def _kibibytes(path: str, name: str) -> int:
    lines = Path(path).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
