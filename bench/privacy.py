"""Privacy: what private training and private answers cost, what attacks get of them, and which faults canaries find."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, interleaved, main
from palladion.private.dp.accounting import epsilon_of, gaussian_epsilon, noise_for
from palladion.private.dp.linear import Descent, LinearModel, descend, train_linear_dp
from palladion.private.dp.plan import accuracies
from palladion.private.dp.randomness import Seeded
from palladion.redteam.membership.answers import softmax
from palladion.redteam.membership.canaries import DELTA as CANARY_DELTA
from palladion.redteam.membership.canaries import audit_linear, check_rates
from palladion.redteam.membership.lira import lira

Array = NDArray[Any]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
DELTA, CLASSES, TESTED, SEEDS = 1e-4, 10, 360, 3
OFFSET = 5.0  # grey levels of digits go from 0 to 16: a public guess of their middle
BARS = {1.0: 0.90, 4.0: 0.92}
MNIST_EPSILON, MNIST_DELTA, MNIST_BAR = 3.0, 1e-5, 0.96
# chosen on 2,000 of the 20,000 training rows, beside seven others; never on the test rows
MNIST = Descent(steps=400, rate=400.0, clipping=0.05, momentum=0.9, bias=0.0, average=0.3)
ORIENTATIONS, CELL = 8, 4
MODELS, TARGETS = 48, 16
STOLEN = 1000  # answers that a thief gets
MECHANISMS: tuple[Literal["noisy-max", "laplace", "gaussian"], ...] = ("noisy-max", "laplace", "gaussian")


def measure(report: Report) -> None:
    """Fill the report."""
    rows, labels = _digits()
    descents = _digits_accuracy(report, rows, labels)
    _attacks(report, rows[TESTED:], labels[TESTED:], descents[1.0])
    # some rows beside the canaries: more of them hide nothing
    _canaries(report, rows[TESTED : TESTED + 300], labels[TESTED : TESTED + 300], descents[1.0])
    _accountants(report)
    _answers(report, rows, labels)
    if report.quick:
        return
    _mnist(report)


def _digits() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(rows))
    return rows[order], labels[order].astype(np.int64)


def _digits_accuracy(report: Report, rows: Array, labels: Array) -> dict[float, Descent]:
    """Settings are chosen by cross-validation of the training rows, and the models judged on the others."""
    epsilons = (1.0, 4.0) if report.quick else (0.5, 1.0, 2.0, 4.0, 8.0)
    chosen = accuracies(
        rows[TESTED:], labels[TESTED:], classes=CLASSES, epsilons=epsilons, delta=DELTA, offset=OFFSET, seed=SEED
    )
    plain = 0.0
    found: dict[float, Descent] = {}
    for item in reversed(chosen):
        reached = [_right(rows, labels, item.descent, item.epsilon, seed) for seed in range(SEEDS)]
        mean, spread = float(np.mean(reached)), float(np.std(reached))
        if item.epsilon is None:
            plain = mean
            report.add("digits, linear, without noise", mean, "accuracy", reference=f"{len(rows) - TESTED} rows")
            continue
        found[item.epsilon] = item.descent
        name, reference = f"digits, linear, ε = {item.epsilon:g}", f"± {spread:.3f}; {plain:.3f} without noise"
        if item.epsilon in BARS:
            report.at_least(name, mean, "accuracy", BARS[item.epsilon], reference=reference)
        else:
            report.add(name, mean, "accuracy", reference=reference)
    return found


def _right(rows: Array, labels: Array, descent: Descent, epsilon: float | None, seed: int) -> float:
    model = _model(rows[TESTED:], labels[TESTED:], descent, epsilon, seed)
    return float((model.predict(rows[:TESTED]) == labels[:TESTED]).mean())


def _model(
    rows: Array, labels: Array, descent: Descent, epsilon: float | None, seed: int, share: float = 1.0
) -> LinearModel:
    """A model with a `share` of the noise that ε takes; None has none."""
    noise = 0.0 if epsilon is None else share * noise_for(epsilon, DELTA, 1.0, descent.steps)
    randomness = Seeded(np.random.default_rng([SEED, seed]))
    weights = descend(
        rows, labels, classes=CLASSES, kind="classes", descent=descent, noise_multiplier=noise, randomness=randomness
    )
    return LinearModel(weights, "classes", descent)


def _attacks(report: Report, rows: Array, labels: Array, descent: Descent) -> None:
    """LiRA with references of the same training, on rows whose labels are drawn: what is learnt of them is by heart."""
    generator = np.random.default_rng(SEED)
    models, targets = (16, 8) if report.quick else (MODELS, TARGETS)
    some = rows[:400]
    drawn = generator.integers(0, CLASSES, len(some))
    member = generator.random((models + targets, len(some))) < 0.5
    for name, epsilon in (("ε = 1", 1.0), ("ε = 4", 4.0), ("no noise", None)):
        made = [_model(some[mask], drawn[mask], descent, epsilon, index) for index, mask in enumerate(member)]
        confidences = np.array([_confidence(model, some, drawn) for model in made])
        scores = lira(confidences[:models], member[:models], confidences[models:])
        found = check_rates(scores, member[models:], epsilon=epsilon or 0.0, delta=DELTA, rate=0.01)
        reference = f"at {found.false_positive_rate:.3f} false alarms; ε is at least {found.bound.epsilon:.2f}"
        title = f"LiRA on labels by chance, {name}"
        if epsilon is None:
            report.add(title, found.true_positive_rate, "TPR", reference=reference)
        else:
            report.at_most(title, found.true_positive_rate, "TPR", found.allowed, reference=reference)


def _confidence(model: LinearModel, rows: Array, labels: Array) -> Array:
    own = np.clip(softmax(model.scores(rows))[np.arange(len(rows)), labels], 1e-12, 1 - 1e-12)
    return np.asarray(np.log(own / (1 - own)))


def _canaries(report: Report, rows: Array, labels: Array, descent: Descent) -> None:
    count = 1000 if report.quick else 4000
    for epsilon in (1.0, 4.0):
        mu = math.sqrt(descent.steps) / noise_for(epsilon, DELTA, 1.0, descent.steps)
        stated = gaussian_epsilon(mu, CANARY_DELTA)
        for share in (1.0, 0.8, 0.5, 0.3, 0.1):
            found = audit_linear(
                _training(descent, epsilon, share),
                rows,
                labels,
                classes=CLASSES,
                epsilon=stated,
                canaries=count,
                blank=OFFSET,
                mu=mu,
                generator=np.random.default_rng([SEED, 5]),
            )
            name = f"canaries, ε = {epsilon:g}" + ("" if share == 1 else f", {share:g} of its noise")
            reference = f"stated {stated:.2f} at δ = {CANARY_DELTA:g}; p = {found.p_value:.2g}"
            if found.separation is not None:
                told = found.separation
                reference += f"; AUC {told.auc:.3f} of {told.allowed:.3f} allowed, p = {told.p_value:.2g}"
            reference += ", a fault" if found.breaks else ", no fault"
            if share == 1:
                report.at_most(name, found.bound.epsilon, "ε at least", stated, reference=reference)
            else:
                report.add(name, found.bound.epsilon, "ε at least", reference=reference)


def _training(descent: Descent, epsilon: float, share: float) -> Callable[[Array, Array], Array]:
    return lambda rows, labels: _model(rows, labels, descent, epsilon, 7, share).weights


def _accountants(report: Report) -> None:
    try:
        spent = epsilon_of(1.5, 0.1, 300, 1e-5)
    except ImportError:
        report.skip("dp-accounting is not installed: pip install 'palladion[dp]'")
        return
    reference = f"Rényi accounting {spent.epsilon_rdp:.3f}; σ = 1.5, q = 0.1, 300 steps, δ = 1e-5"
    report.add("ε of sampled training, by distributions", spent.epsilon, "ε", reference=reference)


def _answers(report: Report, rows: Array, labels: Array) -> None:
    """How long noise takes, and what a thief and an honest client have of labels under it."""
    from palladion.errors import MissingExtraError
    from palladion.gate.disclosure.mechanisms import Noise
    from palladion.gate.disclosure.privacy import answers_within
    from palladion.policy.privacy import PrivacyPolicy

    model = _model(rows[TESTED:], labels[TESTED:], Descent(steps=400, rate=40.0, momentum=0.5, offset=OFFSET), None, 1)
    scores = softmax(model.scores(rows))
    try:
        policies = [PrivacyPolicy(mechanism=name, epsilon=1.0) for name in MECHANISMS]
        made = {policy.mechanism: Noise(policy, CLASSES) for policy in policies}
        for noise in made.values():
            noise.prepare()
    except MissingExtraError as error:
        report.skip(f"{error.message}: {error.hints[0]}")
        return
    runs: dict[str, Callable[[], object]] = {name: _answering(noise, scores[:100]) for name, noise in made.items()}
    plain = interleaved({"argmax": lambda: scores[:100].argmax(axis=1), **runs}, repeats=5)
    for name in made:
        reference = f"{plain['argmax'].median * 1e4:.2g} µs without noise; {plain[name].noise}"
        report.add(f"a row of ten scores, {name}", plain[name].median * 1e4, "CPU µs", reference=reference)
    for epsilon in (0.1, 1.0, 8.0, 32.0):
        noise = Noise(PrivacyPolicy(mechanism="noisy-max", epsilon=epsilon), CLASSES)
        told = noise.disclose(scores[TESTED : TESTED + STOLEN]).argmax(axis=1)
        honest = float((told == scores[TESTED : TESTED + STOLEN].argmax(axis=1)).mean())
        stolen = _student(rows[TESTED : TESTED + STOLEN], told, rows[:TESTED], scores[:TESTED].argmax(axis=1))
        bought = answers_within(epsilon, noise.cost.rho, 64.0, 1e-6)
        reference = f"{honest:.3f} of its own answers are the model's; ε = 64 in all pays for {bought:,}"
        report.add(f"student of {STOLEN:,} labels at ε = {epsilon:g} each", stolen, "agreement", reference=reference)


def _answering(noise: Any, scores: Array) -> Callable[[], object]:
    return lambda: noise.disclose(scores)


def _student(rows: Array, labels: Array, judged: Array, right: Array) -> float:
    from sklearn.linear_model import LogisticRegression

    if len(np.unique(labels)) < 2:
        return 0.0
    student = LogisticRegression(max_iter=500, C=0.05).fit(rows / 16, labels)
    return float((student.predict(judged / 16) == right).mean())


def _mnist(report: Report) -> None:
    """A third of MNIST: edges in eight directions, which no row is measured for, and a linear model of them."""
    train, test = DATA / "mnist_train_20k.npz", DATA / "mnist_test_4k.npz"
    if not train.exists():
        report.skip(f"{train.name} is not here: the rows of MNIST")
        return
    (rows, labels), (judged, right) = (_pictures(path) for path in (train, test))
    reached = {}
    for name, epsilon in (("without noise", None), (f"ε = {MNIST_EPSILON:g}", MNIST_EPSILON)):
        started = time.process_time()
        if epsilon is None:
            model = _model(rows, labels, MNIST, None, 1)
        else:
            generator = np.random.default_rng(SEED)
            model, _ = train_linear_dp(
                rows,
                labels,
                classes=CLASSES,
                epsilon=epsilon,
                delta=MNIST_DELTA,
                descent=MNIST,
                generator=generator,
            )
        reached[name] = float((model.predict(judged) == right).mean()), time.process_time() - started
    plain, (private, seconds) = reached["without noise"][0], reached[f"ε = {MNIST_EPSILON:g}"]
    told = f"{plain:.3f} without noise; {len(rows):,} of 60,000 rows, {len(judged):,} judged; {seconds:.0f} CPU s"
    name = f"MNIST, edges and a linear model, ε = {MNIST_EPSILON:g}, δ = {MNIST_DELTA:g}"
    report.at_least(name, private, "accuracy", MNIST_BAR, reference=told)
    _mnist_torch(report, rows, labels, judged, right)


def _mnist_torch(report: Report, rows: Array, labels: Array, judged: Array, right: Array) -> None:
    """The same by sampled steps, in torch: what `train_dp` reaches where each step sees a fifth of the rows."""
    try:
        import torch

        from palladion.private.dp.modules import Training, train_dp
    except ImportError:
        report.skip("torch or Opacus is not installed: pip install 'palladion[dp,torch]'")
        return
    units = [
        torch.tensor(side / np.linalg.norm(side, axis=1, keepdims=True), dtype=torch.float32) for side in (rows, judged)
    ]
    head = torch.nn.Linear(rows.shape[1], CLASSES)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    started = time.process_time()
    training = Training(steps=400, batch_rows=4096, rate=40.0, clipping=0.1, momentum=0.9, ema=0.98)
    made, statement = train_dp(
        head, (units[0], torch.tensor(labels)), epsilon=MNIST_EPSILON, delta=MNIST_DELTA, training=training,
        generator=np.random.default_rng(SEED),
    )  # fmt: skip
    reached = float((made(units[1]).argmax(dim=1).numpy() == right).mean())
    told = f"Rényi accounting says {statement.epsilon_rdp}; {time.process_time() - started:.0f} CPU s"
    report.at_least(
        f"MNIST, the same by DP-SGD in torch, ε = {statement.epsilon}", reached, "accuracy", MNIST_BAR, reference=told
    )


def _pictures(path: Path) -> tuple[Array, Array]:
    with np.load(path) as arrays:
        return _edges(arrays["x"].astype(np.float32) / 255), arrays["y"].astype(np.int64)


def _edges(pictures: Array) -> Array:
    """How strong edges are in each direction (rows, directions · places), less their mean at each place.

    Sobel's filters, each picture by itself: nothing of it depends on other rows.
    """
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)))
    across = sum(
        weight * (padded[:, 2:, column : column + 28] - padded[:, :-2, column : column + 28])
        for column, weight in enumerate((0.25, 0.5, 0.25))
    )
    along = sum(
        weight * (padded[:, row : row + 28, 2:] - padded[:, row : row + 28, :-2])
        for row, weight in enumerate((0.25, 0.5, 0.25))
    )
    angles = np.arange(ORIENTATIONS) * 2 * np.pi / ORIENTATIONS
    found = np.stack([np.maximum(0, np.cos(a) * along + np.sin(a) * across) for a in angles], axis=1)
    padded = np.pad(found, ((0, 0), (0, 0), (CELL // 2, CELL // 2), (CELL // 2, CELL // 2)))
    places = range(0, 28, CELL)
    pooled = np.stack(
        [
            padded[:, :, row : row + 2 * CELL, column : column + 2 * CELL].mean(axis=(2, 3))
            for row in places
            for column in places
        ],
        axis=2,
    )
    strength = np.sqrt(pooled + 1e-4)
    return np.asarray((strength - strength.mean(axis=1, keepdims=True)).reshape(len(pictures), -1), np.float64)


if __name__ == "__main__":
    main("privacy", __doc__ or "", measure)
