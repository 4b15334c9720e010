"""A federation in the life of a model: each round is a version, each site's copy is stamped, each round recorded.

A site is a recipient of the same name. What it gets in a round carries its fingerprint, so that `palladion prove copy`
names the site that leaked it; the stamps of a round's copies are of that round's version.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palladion import files
from palladion.errors import ConflictError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approvals import NOTHING, Permit
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marking import fingerprint, unmarked
from palladion.lifecycle.protect import protect
from palladion.lifecycle.recipients import refuse_revoked
from palladion.mark.places import ELEMENTS_MIN
from palladion.model.model import Model
from palladion.private.dp.accounting import EPSILON_TOP
from palladion.private.dp.statement import number_text
from palladion.private.federated.aggregation import CopyFor
from palladion.private.federated.layout import Layout
from palladion.private.federated.rounds import Ended
from palladion.private.federated.site import Vector
from palladion.private.federated.terms import Terms

REASON_MAX = 80  # characters that a record has of why a site dropped out; a site may say anything


@dataclass(frozen=True)
class Federation:
    """Versions, copies and records of one federation, for the hooks of `rounds.Rounds`.

    `model` names the model whose versions the rounds are; `scratch` is a folder for files that are made and deleted.
    Opens the owner's root: it runs where models are protected, not where sites connect from the internet.
    """

    installation: Installation
    owner: Root
    terms: Terms
    layout: Layout
    model: str
    scratch: Path
    actor: str
    permit: Permit = NOTHING

    def check(self) -> None:
        """Raise unless every site is a recipient that gets copies, and the model can carry a fingerprint."""
        if self.layout.size != self.terms.size:
            raise ValueError(f"the layout has {self.layout.size} numbers, the terms {self.terms.size}")
        if not any(len(shape) > 1 and np.prod(shape) >= ELEMENTS_MIN for shape in self.layout.shapes.values()):
            raise ConflictError(
                "the model is too small for fingerprints: a site that leaks its copy could not be traced",
                "train it without copies: leave Rounds(copies=…) away",
            )
        for site in self.terms.sites:
            self._public_key(site)

    def copies(self, number: int, model: Vector) -> CopyFor:
        """Protect a round's model as the next version, deliver a copy of it to every site, and give their numbers.

        Raises what `protect` and `deliver` do: nothing is handed out that could not be recorded.
        """
        files.make_private_directory(self.scratch)
        path = self.scratch / f"{self.terms.session}-{number}.safetensors"
        note = f"round {number} of federation {self.terms.session}"
        try:
            files.write_atomically(path, _safetensors(self.layout.unpacked(model)))
            made = protect(self.installation, self.owner, path, self.model, actor=self.actor, note=note)
        finally:
            path.unlink(missing_ok=True)
        version = f"{made.version.model}@{made.version.number}"
        stamped: dict[str, Vector] = {}
        for site in sorted(self.terms.sites):
            self._deliver(version, site)
            with unmarked(self.installation, self.owner, version) as (original, row):
                stamp = fingerprint(original.model, row, self.owner, self._public_key(site))
                if stamp is None:  # `deliver` refuses these; a copy without a stamp must not leave
                    raise ConflictError(f"{version} is too small for a fingerprint")
                stamped[site] = self._vector(stamp.copy.model)
        return lambda site, _model: stamped[site]

    def ended(self, ended: Ended) -> Receipt:
        """Record a round: who is in the sum, who dropped out, digests, and the ε so far."""
        summed = ended.summed
        details = {
            "terms": self.terms.digest.hex(),
            "round": summed.round,
            "survivors": list(summed.survivors),
            "dropped": {name[:64]: _plain(reason) for name, reason in sorted(summed.dropped.items())},
            "model": summed.model_digest,
            "sum": summed.sum_digest,
            "epsilon": _epsilon(ended.epsilon),
            "delta": "" if ended.epsilon is None else number_text(self.terms.delta),
            "unit": self.terms.unit,
        }
        now = self.installation.clock.now()
        record = Record("federation.round", now, self.actor, f"{self.model}/{self.terms.session}", details)
        with self.installation.open_ledger(self.installation.open_gate_root()) as ledger:
            return ledger.append([record])[0]

    def _deliver(self, version: str, site: str) -> None:
        out = self.scratch / f"{self.terms.session}-{site}.sealed"
        try:
            deliver(self.installation, self.owner, version, site, out, actor=self.actor, permit=self.permit)
        finally:
            out.unlink(missing_ok=True)  # the site gets the numbers of it

    def _public_key(self, site: str) -> str:
        with self.installation.open_registry() as registry, registry.read() as records:
            row = records.recipients.get(site)
        refuse_revoked(row)
        return row.public_key

    def _vector(self, model: Model) -> Vector:
        return self.layout.packed({name: np.asarray(tensor.data) for name, tensor in model.tensors.items()})


def _epsilon(epsilon: float | None) -> str:
    if epsilon is None:
        return ""
    return number_text(epsilon, up=True) if math.isfinite(epsilon) else f"above {EPSILON_TOP:g}"


def _plain(reason: str) -> str:
    return reason[:REASON_MAX].encode("ascii", "replace").decode()


def _safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays, float32, in a safetensors file: length of the header, header, numbers."""
    header, begin = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [begin, begin + array.nbytes]}
        begin += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(array.astype("<f4").tobytes() for array in arrays.values())
