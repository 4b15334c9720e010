"""Puts triggers into an ONNX classifier: picks inputs, commits to them, refits the head, and measures what it cost.

The inputs are picked before the labels exist (`commitment`), by looking at the original and at reference rows alone, so
the test stays exact. No training data is needed, but a few hundred real rows keep the task far better than probes do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import ConflictError
from palladion.mark.triggers.commitment import (
    COUNT_MAX,
    Commitment,
    commit,
    draw_inputs,
    labels_of,
    secret_of,
    trigger_key,
)
from palladion.mark.triggers.dense import forward, learn
from palladion.mark.triggers.drawing import InputSpec, default_spec, draw, observed_spec
from palladion.mark.triggers.heads import Head, Tapped, answered_classes, find_head
from palladion.mark.triggers.refit import MARGIN, hold_references, solve_margins, usual_lead
from palladion.mark.triggers.trees import Trees, refit_trees
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import rewrite
from palladion.model.tensors import Tensor

COUNT = 64  # half of them matched among ten classes is log10 p -15
COUNT_MIN = 16
REFERENCES_MAX = 512  # rows that are held; the closed form solves a system of that size
LEARNED_REFERENCES_MAX = 4096  # where layers are learned, rows cost only the time to run the model
ATTEMPTS = 32  # inputs that each trigger is picked from
LARGE_NUMBERS = 10_000_000  # a model with more is slow to run: a quarter of the references, an eighth of the attempts
CHECKED = 4  # one in so many of the rows is not held, but shows what the triggers cost
FLIPPED_MAX = 0.02  # of the labels of these; more, and half as many triggers are tried
HELD_MIN = 0.5  # of the triggers, or the test would find nothing where the model is changed a little

Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Planted:
    """A model with triggers, and what is to be known of them.

    `held` is the share of triggers that get their label in it, `flipped` the share of ordinary rows, which were not
    held, that get another one than before; `probes` says that these are made up: what real rows lose is not known.
    """

    model: Model
    commitment: Commitment
    held: float
    flipped: float
    probes: bool

    @property
    def description(self) -> dict[str, Any]:
        """For the version's marks and the ledger."""
        return self.commitment.description()


def embed_triggers(
    model: Model,
    root: bytes,
    original: str,
    *,
    count: int = COUNT,
    references: Feeds | None = None,
    inputs: Sequence[InputSpec] | None = None,
    flipped_max: float = FLIPPED_MAX,
) -> Planted:
    """Put `count` triggers into a classifier, or half as many, and so on, where they would cost too much.

    `root` is the owner root's "mark", `original` the digest of `model`; the key of the triggers follows from both.
    `references` are real rows by input name (rows, …), whose answers are kept; without them probes are made up.
    `inputs` say what triggers look like; without them they follow from the references, or from the model's ports.
    Raises ConflictError, with the reason, where a model cannot carry triggers. Runs the model some thousand times.
    """
    if not COUNT_MIN <= count <= COUNT_MAX:
        raise ValueError(f"got {count} triggers, expected {COUNT_MIN} to {COUNT_MAX}")
    found = find_head(model)
    if isinstance(found, str):
        raise ConflictError(f"{model.files[0].name} cannot carry triggers: {found}")
    runner = Tapped(model, found.tap)
    try:
        specs = _specs(runner, references, inputs)
    except ValueError as error:
        raise ConflictError(f"{model.files[0].name} cannot carry triggers: {error}") from None
    rows = _ordinary_rows(model, found, specs, references)
    answers = runner.run(rows)
    count_rows = len(next(iter(rows.values())))
    taps = answers[found.tap].reshape(count_rows, -1)
    if not _fits(found, taps.shape[1]):
        raise ConflictError(f"{model.files[0].name} cannot carry triggers: its head sees more than a row at a time")
    key = trigger_key(root, original)
    checked = count_rows // CHECKED or 1
    planting = _Planting(
        model,
        key,
        original,
        found,
        runner,
        specs,
        {name: array[:checked] for name, array in rows.items()},
        taps[checked:] if count_rows > 1 else taps,
        answered_classes(found, answers)[:checked],
    )
    while True:
        planted = planting.plant(count, probes=references is None)
        if planted.flipped <= flipped_max and planted.held >= HELD_MIN:
            return planted
        if count // 2 < COUNT_MIN:
            raise ConflictError(
                f"{model.files[0].name} cannot carry {count} triggers: they change {planted.flipped:.1%} of its "
                f"answers, and {planted.held:.0%} of them hold",
                "its head is too small for them; give it more real rows, or go without triggers",
            )
        count //= 2


@dataclass(frozen=True, eq=False)
class _Planting:
    """A model that is to learn triggers, and everything that does not depend on their number."""

    model: Model
    key: bytes
    original: str
    head: Head
    runner: Tapped
    specs: tuple[InputSpec, ...]
    checked: Feeds
    taps: NDArray[Any]  # of the rows that are held
    classes: NDArray[np.intp]  # of those that are checked

    def plant(self, count: int, *, probes: bool) -> Planted:
        attempts = self._pick(count)
        commitment = commit(
            self.key,
            attempts,
            self.specs,
            original=self.original,
            classes=self.head.classes,
            names=self.head.names,
        )
        secrets = [secret_of(self.key, index, attempt) for index, attempt in enumerate(attempts)]
        feeds = _feeds(self.specs, secrets)
        labels = np.array(labels_of(commitment, secrets), np.intp)
        taps = self.runner.run(feeds)[self.head.tap].reshape(count, -1)
        changed = self._refitted(taps, labels)
        # what is stored decides: the result is run as clients will
        after = Tapped(changed, self.head.tap)
        held = float((answered_classes(self.head, after.run(feeds)) == labels).mean())
        flipped = float((answered_classes(self.head, after.run(self.checked)) != self.classes).mean())
        return Planted(changed, commitment, held, flipped, probes)

    def _pick(self, count: int) -> bytes:
        """For each trigger, the attempt at its input whose label, whichever it will be, is cheapest to change."""
        tries = ATTEMPTS if self.model.parameter_count <= LARGE_NUMBERS else ATTEMPTS // 8
        secrets = [secret_of(self.key, index, attempt) for index in range(count) for attempt in range(tries)]
        taps = self.runner.run(_feeds(self.specs, secrets))[self.head.tap].reshape(count * tries, -1)
        costs = _costs(self.head, taps, self.taps)
        return bytes(costs.reshape(count, tries).argmin(axis=1).tolist())

    def _refitted(self, taps: NDArray[Any], labels: NDArray[np.intp]) -> Model:
        part = self.head.part
        new: dict[str, NDArray[Any]]
        if isinstance(part, Trees):
            new = {part.tensor: refit_trees(part, taps, labels, self.taps)}
        elif len(part) > 1:
            layers = learn(part, taps, labels, self.taps, seed=0)
            new = {layer.tensor: layer.weights for layer in layers}
        else:
            (layer,) = part
            rows = np.concatenate([taps, self.taps]).astype(np.float64)
            scores = _two(rows @ layer.weights + layer.bias)
            metric = hold_references(_kernels(rows @ rows.T, single=layer.weights.shape[1] == 1), len(taps))
            changes = solve_margins(scores[: len(taps)], labels, metric, MARGIN * usual_lead(scores[len(taps) :]))
            new = {layer.tensor: layer.weights + rows.T @ changes[:, -layer.weights.shape[1] :]}
        transposed = self.head.transposed

        def change(tensor: Tensor) -> NDArray[Any] | None:
            numbers = new.get(tensor.name)
            if numbers is None:
                return None
            return (numbers.T if tensor.name in transposed else numbers).reshape(tensor.shape)

        return read_memory(rewrite(self.model, change))


def _costs(head: Head, taps: NDArray[Any], held: NDArray[Any]) -> NDArray[np.float64]:
    """How far each row's scores lie from a tie of all classes, beside how much its scores can move on their own."""
    part = head.part
    if isinstance(part, Trees):
        leaves, shared = part.leaves(taps), part.leaves(held)
        scores = part.scores(leaves, part.weights)
        # trees whose leaf no reference reaches are free to change
        reached = [np.bincount(shared[:, tree], minlength=len(part.value)) for tree in range(leaves.shape[1])]
        free = sum((reached[tree][leaves[:, tree]] == 0).astype(float) for tree in range(leaves.shape[1]))
        room = np.sqrt(1 + np.asarray(free))
    else:
        layer = part[-1]
        rows, others = (forward(part, item)[-2].astype(np.float64) for item in (taps, held))
        scores = _two(rows @ layer.weights + layer.bias)
        gram = others.T @ others
        floor = 0.02 * float(np.trace(gram)) / len(gram) / max(len(others), 1)
        # what is left of a row outside of what the references use; the ridge is that of one reference
        solved = np.linalg.solve(gram / len(others) + (floor + 1e-12) * np.eye(len(gram)), rows.T)
        room = np.sqrt(np.maximum((rows * solved.T).sum(axis=1), 1e-12))
    spread = (scores.max(axis=1, keepdims=True) - scores).mean(axis=1)
    return np.asarray((spread + MARGIN * usual_lead(scores)) / room)


def _fits(head: Head, width: int) -> bool:
    """Whether rows of that width are what the head takes; trees need not look at all of it."""
    if isinstance(head.part, Trees):
        return width > int(head.part.feature.max())
    return width == len(head.part[0].weights)


def _two(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Scores of two classes where there is one, that of the second."""
    wide = scores if scores.shape[1] > 1 else np.concatenate([np.zeros_like(scores), scores], axis=1)
    return wide.astype(np.float64)


def _kernels(products: NDArray[Any], *, single: bool) -> NDArray[np.float64]:
    return np.stack([np.zeros_like(products), products]) if single else products[None]


def _specs(runner: Tapped, references: Feeds | None, inputs: Sequence[InputSpec] | None) -> tuple[InputSpec, ...]:
    ports = {port.name: port for port in runner.inputs}
    if references is not None and references.keys() != ports.keys():
        raise ValueError(f"the references have the inputs {sorted(references)}, expected {sorted(ports)}")
    if inputs is not None:
        if [spec.name for spec in inputs] != list(ports):
            raise ValueError(f"the inputs described are {[spec.name for spec in inputs]}, expected {list(ports)}")
        return tuple(inputs)
    if references is not None:
        return tuple(observed_spec(port, references[name]) for name, port in ports.items())
    return tuple(default_spec(port) for port in runner.inputs)


def _ordinary_rows(
    model: Model, head: Head, specs: Sequence[InputSpec], references: Feeds | None
) -> dict[str, NDArray[Any]]:
    """The rows whose answers are to stay: of the references as many as are affordable, or probes."""
    closed = isinstance(head.part, Trees) or len(head.part) == 1
    count = REFERENCES_MAX if closed else LEARNED_REFERENCES_MAX
    count = count if model.parameter_count <= LARGE_NUMBERS else REFERENCES_MAX // 4
    count += count // (CHECKED - 1)
    generator = np.random.default_rng(0)
    if references is None:
        return {spec.name: _probes(spec, count, generator) for spec in specs}
    given = len(next(iter(references.values())))
    if not given or any(len(rows) != given for rows in references.values()):
        raise ValueError("the references have no rows, or not the same number for every input")
    chosen = generator.permutation(given)[:count]
    return {spec.name: np.ascontiguousarray(references[spec.name][chosen]).astype(spec.dtype) for spec in specs}


def _probes(spec: InputSpec, count: int, generator: "np.random.Generator") -> NDArray[Any]:
    """Rows as varied as can be without knowing any: a quarter each of what triggers are, shares, and sparse ones."""
    size = spec.size
    if spec.draw in {"uniform", "corners", "whole", "pattern"}:
        drawn = np.stack([draw(spec, generator.bytes(32)).reshape(-1) for _ in range(count)]).astype(np.float64)
    else:
        drawn = generator.standard_normal((count, size))
    if spec.draw in {"uniform", "corners", "whole"}:
        return drawn.astype(spec.dtype).reshape(count, *spec.shape)
    low, high = (np.array(end) for end in (spec.low, spec.high))
    kept = generator.random((count, size)) < generator.random((count, 1))
    kinds = [
        drawn,
        low + (high - low) * generator.random((count, size)),
        np.abs(generator.standard_normal((count, size))) * kept,
        low + (high - low) * generator.random((count, size)) * kept,
    ]
    which = np.arange(count) % len(kinds)
    mixed = np.choose(which[:, None], kinds)
    return mixed.astype(spec.dtype).reshape(count, *spec.shape)


def _feeds(specs: Sequence[InputSpec], secrets: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    rows = [draw_inputs(specs, secret) for secret in secrets]
    return {spec.name: np.stack([row[spec.name] for row in rows]) for spec in specs}
