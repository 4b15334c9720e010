"""A gate that answered with marks, what it keeps of its clients, and students of what one of them was told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.access.pseudonyms import pseudonym
from palladion.ledger.bodies import FOLDER, BodyWriter
from palladion.ledger.body import Body
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.protect import protect
from palladion.lifecycle.student import Ask
from palladion.mark.answers.noise import HASH_BYTES, client_key, mark_scores
from palladion.model.read import read_memory
from palladion.model.run import open_session
from tests.models import onnx_bytes, write

from .installations import ACTOR, Made, make

SEED = 20261126
MODEL = "fraud"
QUERIES, STRENGTH = 800, 0.4
SHORT = 200  # queries of beta to version 2
ROWS = np.random.default_rng(SEED).standard_normal((QUERIES, 4)).astype(np.float32)
NAMES = ("acme", "beta")


def answered(folder: Path) -> Made:
    """Two clients, of whom one asked two versions, and a third whose queries nobody kept."""
    made = make(folder)
    for seed in (1, 2):
        protect(made.installation, made.owner, write(folder / f"{seed}.onnx", onnx_bytes(seed)), MODEL, actor=ACTOR)
    gate = made.installation.open_gate_root()
    writer = BodyWriter(made.installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=5000)
    for name in (*NAMES, "crow"):
        client, _, _ = add_client(
            made.installation, name, name, models=[], environment="test", expires=None, actor=ACTOR
        )
        if name in NAMES:
            who = pseudonym(gate.derive("pseudonyms"), client.id)
            writer.append(who, f"{MODEL}@1", bodies())
            if name == "beta":
                writer.append(who, f"{MODEL}@2", bodies()[:SHORT])
    writer.close()
    return made


def bodies() -> list[Body]:
    """What is kept of queries."""
    return [
        Body("r", 0, {"x": row}, scores, number.to_bytes(HASH_BYTES, "big"), STRENGTH, "label")
        for number, (row, scores) in enumerate(zip(ROWS, unmarked(), strict=True))
    ]


def unmarked() -> NDArray[np.float32]:
    """What the model says to them (rows, classes)."""
    session = open_session(read_memory({"m.onnx": onnx_bytes(1)}))
    found: NDArray[np.float32] = session.run({"x": ROWS})["probabilities"]
    return found


def client_id(made: Made, name: str) -> str:
    """The client of this name."""
    with made.installation.open_registry() as registry, registry.read() as records:
        return records.clients.named(name, name).id


def marked(made: Made, client: str, scores: NDArray[np.floating], version: int = 1) -> NDArray[np.int64]:
    """The labels that a client was told (rows,)."""
    root = made.installation.open_gate_root().derive("answer-marks")
    hashes = [row.to_bytes(HASH_BYTES, "big") for row in range(len(scores))]
    everywhere = np.ones(len(scores), np.bool_)
    key = client_key(root, client, MODEL, version)
    strengths = np.full(len(scores), STRENGTH)
    return mark_scores(scores, key, hashes, strengths=strengths, probabilities=everywhere).labels


def learned(labels: NDArray[Any]) -> Ask:
    """A suspect that learned these labels by heart."""
    known = recalled(labels)
    return lambda feeds: np.array([known(row) for row in feeds["x"]])


def recalled(labels: NDArray[Any]) -> Callable[[Any], Any]:
    """The same for one row, which may be a list of numbers."""
    known = dict(zip(map(np.ndarray.tobytes, ROWS), labels.tolist(), strict=True))
    return lambda row: known[np.asarray(row, np.float32).tobytes()]
