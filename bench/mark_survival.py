"""What of a mark is left after every attack; in every row stand a wrong key and an unmarked derivative as controls."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.mark_attacks import GRID, INT4, Attack, one_layer
from bench.mark_baselines import Baseline, emmark, invariants, uchida
from bench.mark_subjects import HEADS, Array, Subject, Weights, as_model, as_weights, cnn, gpt, mini_lm
from bench.permute_networks import permute, rescale, resnet_spaces
from bench.report import SEED, Report
from palladion.mark.align.realign import realign
from palladion.mark.blind import find_blind, shapes_of
from palladion.mark.carriers import derive, normals, signs
from palladion.mark.match import matches
from palladion.mark.places import places
from palladion.mark.stats import log10_p_binomial, log10_p_signs, log10_p_subgaussian
from palladion.mark.weights import AMPLITUDE, Finding, OwnershipKey, find_ownership, mark_place
from palladion.model.model import Model
from palladion.redteam.removal.reparametrise import reparametrise, split_neurons

PAYLOAD = bytes(range(16))
KEY, WRONG_KEY = (OwnershipKey(derive(bytes(32), name), PAYLOAD) for name in ("bench", "another"))
# The bars of log10 p are those of MiniLM's 22.3 M weights; the evidence grows with their number.
BAR_WEIGHTS = 22.3e6
KIND_BAR, HARD_BAR, RUINED_BAR = -10_000, -5_000, -100
RUINED = {"prune 90 %", "half the rank"}
POINTS_MAX = 5.0  # an attack that costs more is hard
BLIND_BAR = -200
NULL_LAYER = "layer.2.attention.self.query.weight"


@dataclass(frozen=True)
class Rewiring:
    """An attack on the order and the basis of a network's units, which changes no output; it needs alignment."""

    name: str
    change: Callable[[Weights], Weights]


def marked(subject: Subject) -> Weights:
    """The subject's weights with our mark."""
    changed = dict(subject.weights)
    for place in places(as_model(subject.weights)):
        changed[place.name] = mark_place(place, KEY).reshape(place.shape).astype(np.float32)
    return changed


def measure_survival(report: Report, subject: Subject, rewirings: list[Rewiring]) -> None:
    """Every row of one subject: utility, blind, the grid, and what needs alignment."""
    original, ours = as_model(subject.weights), marked(subject)
    before, carrying = subject.points(subject.weights), list(places(original))
    count = sum(place.size for place in carrying)
    name = subject.name
    about = f"{count:,} of {original.parameter_count:,} weights marked"
    lost = 1 - subject.cosine(ours)
    report.at_most(f"{name}: 1 - cosine of outputs after marking", lost, "of 1", 0.001, reference=about)
    points = subject.points(ours)
    report.at_least(
        f"{name}: the task after marking", points, "points", before - 0.5, reference=f"{before:.2f} unmarked"
    )
    blind = find_blind(as_model(ours), KEY, shapes_of(original))
    wrong = find_blind(as_model(ours), WRONG_KEY, shapes_of(original))
    formula = log10_p_signs(math.sqrt(count) * AMPLITUDE)
    reference = f"formula {formula:,.0f}; wrong key {wrong.log10_p:.1f}; {_bits(blind)}"
    bar = BLIND_BAR if count >= 10e6 else formula / 2
    report.at_most(f"{name}: blind", blind.log10_p, "log10 p", bar, reference=reference)
    for attack in GRID.values():
        _attacked(report, subject, original, ours, attack, before)
    _stolen(report, subject, original, ours)
    for rewiring in rewirings:
        _rewired(report, subject, original, ours, rewiring)


def _attacked(report: Report, subject: Subject, original: Model, ours: Weights, attack: Attack, before: float) -> None:
    suspect, control = attack.change(ours, subject), attack.change(subject.weights, subject)
    cost = before - subject.points(suspect)
    formula = _formula(subject.weights, control, original)
    found = find_ownership(original, as_model(suspect), KEY)
    hard = attack.hard or cost > POINTS_MAX
    bar = _bar(subject, attack.name, formula, hard=hard)
    _row(report, f"{subject.name}: {attack.name}", original, found, suspect, control, bar, f"costs {cost:.1f} points")


def _bar(subject: Subject, attack: str, formula: float, *, hard: bool) -> float:
    if subject.name != "MiniLM":
        return formula / 2
    return RUINED_BAR if attack in RUINED else HARD_BAR if hard else KIND_BAR


def _stolen(report: Report, subject: Subject, original: Model, ours: Weights) -> None:
    """The largest inner tensors of one layer in int4, among strangers' weights."""
    inner = [
        name
        for name, item in ours.items()
        if item.ndim > 1 and ("layer.3." in name or "h.2." in name or "layer3." in name)
    ]
    change = one_layer(lambda name: name in inner)
    suspect, control = change(ours, subject), change(subject.weights, subject)
    count = sum(ours[name].size for name in inner)
    found = find_ownership(original, as_model(suspect), KEY)
    formula = _formula({name: subject.weights[name] for name in inner}, control, original)
    bar = -1000 if subject.name == "MiniLM" else formula / 2
    _row(
        report, f"{subject.name}: one layer stolen, int4", original, found, suspect, control, bar, f"{count:,} weights"
    )


def _rewired(report: Report, subject: Subject, original: Model, ours: Weights, rewiring: Rewiring) -> None:
    suspect, control = rewiring.change(ours), rewiring.change(subject.weights)
    unaligned = find_ownership(original, as_model(suspect), KEY)
    started = time.process_time()
    aligned = realign(original, as_model(suspect))
    taken = time.process_time() - started
    found = find_ownership(original, aligned.model, KEY)
    clean = realign(original, as_model(control)).model
    note = f"{unaligned.log10_p:.0f} unaligned; {taken:.0f} s of CPU; {'; '.join(aligned.needed)}"
    bar = KIND_BAR if subject.name == "MiniLM" else _formula(subject.weights, as_weights(clean), original) / 2
    name = f"{subject.name}: {rewiring.name}"
    _row(report, name, original, found, as_weights(aligned.model), as_weights(clean), bar, note)


def _row(
    report: Report,
    name: str,
    original: Model,
    found: Finding,
    suspect: Weights,
    control: Weights,
    bar: float,
    note: str,
) -> None:
    wrong = find_ownership(original, as_model(suspect), WRONG_KEY)
    clean = find_ownership(original, as_model(control), KEY)
    controls = f"wrong key {wrong.log10_p:.1f}, unmarked {clean.log10_p:.1f}"
    report.at_most(name, found.log10_p, "log10 p", bar, reference=f"{_bits(found)}; {controls}; {note}")


def _bits(found: Finding) -> str:
    return "no payload read" if found.payload_errors is None else f"{found.payload_errors} of 128 bits wrong"


def _formula(weights: Weights, control: Weights, original: Model) -> float:
    """What the prediction says, with the change of each unmarked weight as the noise, in units of its row's RMS."""
    information = 0.0
    for place in places(original):
        if place.name not in weights or place.name not in control:
            continue
        change: Array = control[place.name].reshape(place.weights.shape) - place.weights
        rows = place.scale[:, 0] > 0
        # the lower quartile, because what was changed a lot is cut off, and not the mean, which it would drown
        added = np.square(np.median(np.abs(change[rows]), axis=1) / 0.6745 / place.scale[rows, 0])
        information += float((place.weights.shape[1] * AMPLITUDE**2 / (AMPLITUDE**2 + added)).sum())
    return log10_p_signs(math.sqrt(information))


def measure_subjects(report: Report) -> None:
    """MiniLM, the CNN and the GPT, where what they need is installed; says which were left out."""
    for make, rewired in ((mini_lm, _bert_rewirings), (cnn, _cnn_rewirings), (gpt, _gpt_rewirings)):
        subject = make()
        if subject is None:
            report.add(f"{make.__name__}: left out", 0, "rows", reference="torch, its weights or its data are not here")
            continue
        measure_survival(report, subject, rewired(subject))
        if subject.name == "MiniLM":
            measure_baselines(report, subject)
            measure_null(report, subject)


def _bert_rewirings(subject: Subject) -> list[Rewiring]:
    heads = 12

    def all_of_it(weights: Weights) -> Weights:
        return reparametrise(weights, SEED, heads=heads)

    def after_tuning(weights: Weights) -> Weights:
        return INT4(all_of_it(subject.tuned(weights)), subject)

    def split(weights: Weights) -> Weights:
        return INT4(split_neurons(all_of_it(weights), SEED, split=0.25, dead=0.25, cliques=0.1), subject)

    return [
        Rewiring("permuted, heads and bases changed", all_of_it),
        Rewiring("fine-tuned, then all of that, then int4", after_tuning),
        Rewiring("all of that, neurons split and dead ones added, int4", split),
    ]


def _gpt_rewirings(subject: Subject) -> list[Rewiring]:
    def rotated(weights: Weights) -> Weights:
        # the head is tied: what the last norm shifts by cannot be folded into it
        plain = {**weights, "transformer.ln_f.bias": np.zeros_like(weights["transformer.ln_f.bias"])}
        return reparametrise(plain, SEED, heads=HEADS, residual="permuted")

    return [
        Rewiring("permuted, heads and bases changed", rotated),
        Rewiring("that, then int4", lambda weights: INT4(rotated(weights), subject)),
    ]


def _cnn_rewirings(subject: Subject) -> list[Rewiring]:
    spaces = resnet_spaces(subject.weights)

    def rewire(weights: Weights) -> Weights:
        return rescale(permute(weights, spaces, SEED), spaces, SEED)

    return [
        Rewiring("channels permuted and rescaled", rewire),
        Rewiring("that, then int4", lambda weights: INT4(rewire(weights), subject)),
    ]


def measure_baselines(report: Report, subject: Subject) -> None:
    """Other people's marks on the same weights, through a few of the same attacks."""
    layers = [f"encoder.layer.{index}" for index in range(6)]
    neurons = [
        (f"{name}.intermediate.dense.weight", f"{name}.intermediate.dense.bias", f"{name}.output.dense.weight")
        for name in layers
    ]
    attacks = {
        name: GRID[name].change for name in ("exact copy", "int8", "int4, groups of 32", "prune 50 %", "noise of 20 %")
    }
    attacks["permuted, heads and bases changed"] = lambda weights, _subject: reparametrise(weights, SEED, heads=12)
    makers: list[Callable[[int], Baseline]] = [
        lambda seed: uchida(subject.weights, seed),
        lambda seed: emmark(subject.weights, seed),
        lambda seed: invariants(subject.weights, neurons, seed),
    ]
    for make in makers:
        baseline, another = make(SEED), make(SEED + 1)
        points = subject.points(baseline.marked)
        report.add(f"{baseline.name}: the task after marking", points, "points", reference=baseline.source)
        for name, change in attacks.items():
            suspect, control = change(baseline.marked, subject), change(subject.weights, subject)
            right = baseline.read(suspect)
            reference = (
                f"{len(right) - int(right.sum())} of {len(right)} bits wrong; "
                f"wrong key {_of_bits(another.read(suspect)):.1f}, unmarked {_of_bits(baseline.read(control)):.1f}"
            )
            report.add(f"{baseline.name}: {name}", _of_bits(right), "log10 p", reference=reference)


def _of_bits(right: NDArray[np.bool_]) -> float:
    return log10_p_binomial(int(right.sum()), len(right), 2)


def measure_null(report: Report, subject: Subject, *, keys: int = 10_000) -> None:
    """False positives of both kinds of carrier on one layer of unmarked derivatives: rounded; rewired, and aligned."""
    layer = {name: item for name, item in subject.weights.items() if NULL_LAYER in name}
    _null(report, "int4 of an unmarked layer", as_model(layer), as_model(INT4(layer, subject)), keys)
    original = as_model(subject.weights)
    rewired = INT4(reparametrise(subject.weights, SEED, heads=12), subject)
    aligned = as_weights(realign(original, as_model(rewired)).model)
    found = as_model({name: item for name, item in aligned.items() if name in layer})
    _null(report, "an unmarked model rewired, rounded to int4 and aligned, that layer", as_model(layer), found, keys)


def _null(report: Report, what: str, original: Model, suspect: Model, keys: int) -> None:
    (found,) = [match for _, match in matches(original, suspect) if match is not None]
    residual = found.residual.reshape(-1).astype(np.float64)
    length, count = float(np.linalg.norm(residual)), len(residual)
    drawn: dict[Callable[[bytes, int], Array], list[float]] = {signs: [], normals: []}
    for kind, statistics in drawn.items():
        for index in range(keys):
            statistics.append(float(residual @ kind(derive(bytes(32), f"null {index}"), count)) / length)
    reference = f"{keys:,} keys, {count:,} weights; deviation {np.std(drawn[signs]):.3f}"
    rate = float(np.mean([log10_p_signs(t) <= -3 for t in drawn[signs]]))
    report.at_most(f"null, {what}: signs, false positives at p = 0.001", 100 * rate, "%", 0.2, reference=reference)
    rate = float(np.mean([log10_p_subgaussian(t) <= -3 for t in drawn[normals]]))
    reference = f"{keys:,} keys; deviation {np.std(drawn[normals]):.3f}"
    report.at_most(f"null, {what}: normal numbers, the same", 100 * rate, "%", 0.2, reference=reference)
    from scipy.stats import kstest

    fit = float(kstest(drawn[normals], "norm").pvalue)
    report.at_least(f"null, {what}: Kolmogorov-Smirnov p of T", fit, "p", 0.01, reference=f"{keys:,} keys, normal")
