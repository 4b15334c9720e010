"""Membership: what do attacks get from models that memorised noisy digits, beside the plain threshold, and how fast?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, main
from palladion.redteam.membership.answers import softmax
from palladion.redteam.membership.attack import attack_membership
from palladion.redteam.membership.attributes import Records, infer_attribute
from palladion.redteam.membership.figures import Estimate, Figures
from palladion.redteam.membership.plan import AttackPlan, Target
from palladion.redteam.membership.report import MembershipReport
from palladion.redteam.membership.shadows import Recipe, Scorer, member_masks, train_networks

Array = NDArray[Any]

ROWS, CLASSES, NOISE = 1400, 10, 0.1
TARGETS, REFERENCES = 16, 16
RECIPE = Recipe((64, 64), epochs=60, standardise=False)  # grey levels from 0 to 1 need no scaling
PUBLISHED = "LiRA online, fixed variance"
BASELINE = "global threshold"
CPU_SECONDS_MAX = 180


@dataclass(frozen=True, eq=False)
class _Subject:
    """Digits with labels, a tenth of them drawn at random, and which rows each target learns from."""

    rows: Array
    labels: Array
    member: Array


def measure(report: Report) -> None:
    """Fill the report."""
    subject = _noisy_digits()
    plan = AttackPlan(references=REFERENCES, recipe=RECIPE, seed=SEED, resamples=200 if report.quick else 2000)
    started, cpu_started = time.perf_counter(), time.process_time()
    seeds = [plan.seed_of(9, index) for index in range(TARGETS)]
    networks = train_networks(
        subject.rows, subject.labels, subject.member, classes=CLASSES, recipe=RECIPE, seeds=seeds
    )  # fmt: skip
    found = _attacked(subject, networks, plan)
    _bars(report, found, cpu_s=time.process_time() - cpu_started, wall_s=time.perf_counter() - started)
    _speed(report, subject, repeats=4 if report.quick else TARGETS)
    if report.quick:
        return
    plan = replace(plan, resamples=500)  # where no bar is
    _defences(report, subject, networks, plan)
    for references in (2, 4, 8, 32, 64):
        many = _attacked(subject, networks, replace(plan, references=references, probed_rows=0))
        for name in (PUBLISHED, "LiRA online, pooled variance", "RMIA offline"):
            if name in many.attacks:
                _row(report, f"{references} references, {name}", many.attacks[name])
    _trees(report, subject, plan)
    _attributes(report)


def _bars(report: Report, found: MembershipReport, *, cpu_s: float, wall_s: float) -> None:
    best, baseline = found.attacks[PUBLISHED], found.attacks[BASELINE]
    hit, plain = _rate(best), _rate(baseline)
    report.at_least(f"{PUBLISHED}: AUC", best.auc.value, "AUC", 0.65, reference=_around(best.auc))
    report.at_least(f"{PUBLISHED}: true positives at 0.1 %", hit.value, "TPR", 0.04, reference=_around(hit))
    # a threshold that finds nobody is taken to find what one more false alarm would allow
    least = max(plain.value, 1 / baseline.non_members)
    reference = f"{BASELINE} finds {plain.value:.2g}"
    report.at_least(f"{PUBLISHED}: beside the {BASELINE}", hit.value / least, "times", 20, reference=reference)
    # of one core: on two that nothing else uses it takes no longer
    reference = f"{TARGETS} targets, {REFERENCES} references, {found.queries} queries; {wall_s:.0f} s on a clock"
    report.at_most("train, attack and measure", cpu_s, "CPU s", CPU_SECONDS_MAX, reference=reference)
    for name, figures in found.attacks.items():
        if name != PUBLISHED:
            _row(report, name, figures)


def _row(report: Report, name: str, figures: Figures) -> None:
    low = figures.tpr_at_1_percent, figures.tpr_at_01_percent
    told = "; ".join(
        f"at {share} % {rate.value:.4f} ({_around(rate)})" for share, rate in zip((1, 0.1), low, strict=True) if rate
    )
    report.add(f"{name}: AUC", figures.auc.value, "AUC", reference=f"{_around(figures.auc)}; {told}")


def _speed(report: Report, subject: _Subject, repeats: int) -> None:
    """Networks in one stack, beside the same one after another."""
    masks, seeds = subject.member[:repeats], range(repeats)

    def train(masks: Array, seeds: Sequence[int]) -> None:
        train_networks(subject.rows, subject.labels, masks, classes=CLASSES, recipe=RECIPE, seeds=seeds)

    started = time.process_time()
    train(masks, seeds)
    stacked = time.process_time() - started
    started = time.process_time()
    for index in seeds:
        train(masks[index, None], [index])
    single = time.process_time() - started
    reference = f"{single / stacked:.2g}x as long one after another"
    report.add(f"one of {repeats} networks in a stack", stacked / repeats, "CPU s", reference=reference)


def _defences(report: Report, subject: _Subject, networks: Sequence[Scorer], plan: AttackPlan) -> None:
    """What coarser answers leave, to an attacker whose references answer as coarsely."""
    shown: dict[str, Callable[[Array], Array]] = {
        "rounded to 2 decimals": lambda whole: np.round(whole, 2),
        "rounded to 1 decimal": lambda whole: np.round(whole, 1),
        "labels alone": lambda whole: whole.argmax(axis=1),
    }
    for name, show in shown.items():
        found = _attacked(subject, networks, plan, show)
        best = found.strongest
        if best is not None:
            _row(report, f"{name}, {best}", found.attacks[best])


def _trees(report: Report, subject: _Subject, plan: AttackPlan) -> None:
    from sklearn.ensemble import RandomForestClassifier

    def trainer(rows: Array, labels: Array, member: Array) -> Scorer:
        # leaves of four rows: with fewer, a forest names every row that it was trained on
        forest = RandomForestClassifier(50, min_samples_leaf=4, random_state=int(np.flatnonzero(member).sum()))
        answer: Scorer = forest.fit(rows[member], labels[member]).predict_proba
        return answer

    targets = [trainer(subject.rows, subject.labels, mask) for mask in subject.member[:4]]
    asked = [
        Target(f"forest {index}", ask, mask)
        for index, (ask, mask) in enumerate(zip(targets, subject.member, strict=False))
    ]
    few = replace(plan, probed_rows=0)
    found = attack_membership(subject.rows, subject.labels, asked, few, trainer=trainer)
    for name in (PUBLISHED, BASELINE, "gap"):
        if name in found.attacks:
            _row(report, f"random forests, {name}", found.attacks[name])


def _attributes(report: Report) -> None:
    """A secret column that the label hardly depends on, of a target that overfits, and of one that does not."""
    generator = np.random.default_rng(SEED)

    def people(count: int) -> tuple[Array, Array]:
        rows = generator.standard_normal((count, 9))
        rows[:, 8] = generator.random(count) < 1 / (1 + np.exp(-rows[:, 0]))
        return rows, (rows[:, 1] + rows[:, 8] / 2 + 0.5 * generator.standard_normal(count) > 0.25).astype(np.int64)

    (rows, labels), auxiliary = people(2000), people(1000)
    member = np.arange(len(rows)) < len(rows) // 2
    for epochs in (5, 200):
        recipe = Recipe(epochs=epochs)
        network = train_networks(rows, labels, member[None], classes=2, recipe=recipe, seeds=[1])[0]
        found = infer_attribute(network, Records(rows, labels, member, 8), auxiliary, seed=SEED)
        name = "answers and what is known"
        inside, outside = found.attacks[name], found.others[name]
        report.add(
            f"secret column, {epochs} epochs: found beyond the imputer", 100 * inside.advantage.value, "points",
            reference=f"{100 * inside.advantage.low:.1f} to {100 * inside.advantage.high:.1f}; imputer "
            f"{100 * inside.imputer.value:.1f} %; of others {100 * outside.advantage.value:.1f}",
        )  # fmt: skip


def _attacked(
    subject: _Subject, networks: Sequence[Scorer], plan: AttackPlan, show: Callable[[Array], Array] = np.asarray
) -> MembershipReport:
    targets = [
        Target(f"network {index}", lambda rows, network=network: show(softmax(network(rows))), mask)  # type: ignore[misc]
        for index, (network, mask) in enumerate(zip(networks, subject.member, strict=True))
    ]
    return attack_membership(subject.rows, subject.labels, targets, plan)


def _rate(figures: Figures) -> Estimate:
    found = figures.tpr_at_01_percent
    if found is None:
        raise ValueError(f"{figures.non_members} non-members show no rate at 0.1 %")
    return found


def _around(estimate: Estimate) -> str:
    return f"{estimate.low:.3g} to {estimate.high:.3g}"


def _noisy_digits() -> _Subject:
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    generator = np.random.default_rng(SEED)
    order = generator.permutation(len(rows))[:ROWS]
    rows, labels = (rows[order] / 16).astype(np.float32), labels[order].astype(np.int64)
    noisy = generator.random(ROWS) < NOISE
    labels = np.where(noisy, generator.integers(0, CLASSES, ROWS), labels)
    return _Subject(rows, labels, member_masks(TARGETS, ROWS, generator))


if __name__ == "__main__":
    main("membership", __doc__ or "", measure)
