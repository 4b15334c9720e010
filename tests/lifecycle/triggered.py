"""An installation with a version that carries triggers, and suspects that answer as a model does."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from palladion.lifecycle.installation import Installation
from palladion.mark.triggers.planting import Planted, embed_triggers
from palladion.model.model import Model
from palladion.model.run import open_session
from palladion.registry import NewVersion, SealedFile, VersionTensor
from tests.lifecycle.apis import Answering
from tests.lifecycle.installations import Made, make
from tests.mark.classifiers import ORIGINAL, network, rows

MODEL = "fraud"


@dataclass(frozen=True, eq=False)
class Triggered:
    """The installation, and the model with triggers that its registry lists."""

    made: Made
    planted: Planted
    original: Model

    def copy(self, folder: Path) -> "Triggered":
        """The same in a folder of its own, for tests that write to it."""
        home = folder / "home"
        shutil.copytree(self.made.home, home)
        installation = Installation.find(home, self.made.clock, exact=True)
        return replace(self, made=replace(self.made, installation=installation))

    def add_version(self, planted: Planted | None = None) -> None:
        """Register another version, with the same triggers unless others are given."""
        marks = (planted or self.planted).description
        with self.made.installation.open_registry() as registry, registry.write() as records:
            number = len(records.versions.all(MODEL)) + 1
            digest = f"{number:064x}"
            file = SealedFile(f"{MODEL}/{number}.sealed", digest, digest)
            tensors = (VersionTensor("w", "float32", (1,), digest, 4),)
            records.versions.add(NewVersion(MODEL, digest, digest, "onnx", "publisher", file, tensors, marks=(marks,)))


def triggered(folder: Path, *, count: int = 80) -> Triggered:
    """A linear classifier of 200 features: small enough to be quick, large enough for its triggers."""
    made = make(folder)
    original = network((), features=200, classes=8)
    references = {"x": rows(120, features=200)}
    root = made.owner.derive("mark")
    planted = embed_triggers(original, root, ORIGINAL, count=count, references=references, flipped_max=1)
    with made.installation.open_registry() as registry, registry.write() as records:
        records.models.add(MODEL, owner="us", model_format="onnx")
    found = Triggered(made, planted, original)
    found.add_version()
    return found


def answering(model: Model, *, scores: bool = False) -> Answering:
    """What an API of `model` answers: labels, or scores."""
    session = open_session(model)

    def answer(document: Any) -> Any:
        found = session.run({"x": np.array(document["inputs"], np.float32)})["probabilities"]
        if scores:
            return {"outputs": {"probabilities": found.tolist()}}
        return {"outputs": {"label": found.argmax(axis=1).tolist()}}

    return answer
