"""An installation with a version that is marked, and one that is only sealed, and their files as they would leak."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palladion.lifecycle.protect import protect
from palladion.lifecycle.seal import seal
from palladion.lifecycle.unseal import unseal
from tests.lifecycle.installations import ACTOR, OWNER, Made, make

MODEL = "fraud"


def weights_bytes(seed: int = 5, rows: int = 96) -> bytes:
    """Tensors large enough for marks, one that carries none, and one of ones."""
    from safetensors.numpy import save

    generator = np.random.default_rng(seed)
    tensors = {
        "layer1.weight": generator.standard_normal((rows, 64)).astype(np.float32),
        "layer1.bias": generator.standard_normal(rows).astype(np.float32),
        "layer2.weight": generator.standard_normal((64, rows)).astype(np.float32),
        "norm.weight": np.ones(128, np.float32),
    }
    saved: bytes = save(tensors)
    return saved


@dataclass(frozen=True)
class House:
    """An installation, the unmarked original that was protected, and the marked plaintext of version 1."""

    made: Made
    original: bytes
    marked: bytes


def build(folder: Path) -> House:
    """Make it: fraud@1, and data@1, which is opaque."""
    from palladion.lifecycle.open import open_version

    made = make(folder)
    source = folder / "w.safetensors"
    source.write_bytes(weights_bytes())
    protect(made.installation, made.owner, source, MODEL, actor=ACTOR)
    table = folder / "table.bin"
    table.write_bytes(bytes(range(256)) * 9)
    seal(made.installation, made.owner, table, "data", [], actor=ACTOR, opaque=True)
    with open_version(made.installation, MODEL + "@1") as opened:
        marked = bytes(opened.model.files[0].data)
    return House(made, source.read_bytes(), marked)


__all__ = ["ACTOR", "MODEL", "OWNER", "House", "build", "unseal", "weights_bytes"]
