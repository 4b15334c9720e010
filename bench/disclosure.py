"""What does each step of disclosure cost an honest user, a thief, and the gate?

Digits (scikit-learn): a network trained on 600 of the 1,797 pictures is asked with rows of the other 1,197, and 359 of
them are held out. Students learn from answers as they are, from labels, and from averages; the best of these counts.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, interleaved, main
from palladion.demo.story import train_model
from palladion.gate.contract import Contract, make_contract
from palladion.gate.disclosure import Level, Terms, disclose, disclose_to
from palladion.gate.disclosure.perturbation import Method
from palladion.model.read import read_file
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.redteam.disclosed import Measurement, Plan, StepMeasured, Theft, measure
from palladion.redteam.victim import Victim, meet

BUDGET = 0.3  # of an answer's probability that a perturbation may move
BAR_US = 12.0  # of CPU for one answer with ten classes
_TIMES, _REPEATS = 2000, 9
_LEVELS: tuple[tuple[str, Level], ...] = (("trusted", "contract"), ("throttled", "reduced"), ("degraded", "label"))


def evaluate(report: Report) -> None:
    """Fill the report."""
    _cost(report)
    victim = _victim()
    methods: tuple[Method, ...] = () if report.quick else ("reverse-sigmoid", "modelguard-w")
    for queries in (100,) if report.quick else (100, 800):
        plan = Plan(queries, 2 if report.quick else 10, minutes=60)
        _steps(report, _measured(victim, plan), plain=True)
        for method in methods:
            _steps(report, _measured(victim, plan, perturbation=method, perturbation_max=BUDGET), plain=False)


def _measured(victim: Victim, plan: Plan, **settings: Any) -> Measurement:
    route = RoutePolicy(model="digits", **settings)
    return measure(victim, route, plan, progress=_silent, cpu_seconds=time.process_time)


def _steps(report: Report, found: Measurement, *, plain: bool) -> None:
    budget = f"{found.queries} queries"
    if plain:
        best = found.undefended.ways[found.undefended.best].mean
        report.add(f"undefended, {budget}", best, "fidelity", reference=_reference(found.undefended))
    loss = found.steps[0].honest["log_loss"]
    for step in found.steps:
        # labels are the same with and without perturbation, and so is what trusted clients get
        if not plain and (step.terms.perturbation is None or step.terms.level == "label"):
            continue
        best = step.theft.ways[step.theft.best].mean
        report.add(f"{_name(step)}, {budget}", best, "fidelity", reference=_reference(step.theft))
        if found.queries == 100 and step.honest["log_loss"] is not None:
            name = f"{_name(step)}: honest log loss"
            report.add(name, step.honest["log_loss"], "nats", reference=f"{loss:.3g} for trusted clients")


def _name(step: StepMeasured) -> str:
    return step.standing + (f", {step.terms.perturbation}" if step.terms.perturbation else "")


def _reference(theft: Theft) -> str:
    ways = "; ".join(f"{way} {item.mean:.3f}" for way, item in theft.ways.items())
    best = theft.ways[theft.best]
    return ways if best.low is None else f"{best.low:.3f} to {best.high:.3f}; {ways}"


def _victim() -> Victim:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    rows, labels = digits.data.astype(np.float32)[order], digits.target.astype(np.int64)[order]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "digits.onnx"
        train_model(path, (rows[:600], labels[:600]), seed=SEED)
        session = open_session(read_file(path))
    contract = make_contract(RoutePolicy(model="digits"), session.outputs)
    return meet(session, contract, {session.inputs[0].name: rows[600:]}, labels[600:])


def _cost(report: Report) -> None:
    scores: NDArray[Any] = np.random.default_rng(SEED).dirichlet(np.full(10, 0.3), 1).astype(np.float32)
    contract = Contract("p", None, "classes", "scores", 4, 5)
    runs = {f"disclose, {standing}": _repeat(scores, Terms(contract, level)) for standing, level in _LEVELS}
    methods: tuple[Method, ...] = ("reverse-sigmoid", "modelguard-w")
    perturbed = {
        f"disclose, watched, {m}": _repeat(scores, Terms(contract, "contract", m, BUDGET), 50) for m in methods
    }
    runs["the answer in JSON"] = _encode(scores)
    timings = interleaved({**runs, **perturbed}, repeats=_REPEATS)
    reference = timings["the answer in JSON"]
    for name, timing in timings.items():
        count = 50 if name in perturbed else _TIMES
        microseconds = timing.median / count * 1e6
        beside = f"{microseconds / (reference.median / _TIMES * 1e6):.2g}x the answer in JSON; {timing.noise}"
        if name in perturbed or name == "the answer in JSON":
            report.add(name, microseconds, "us of CPU", reference=beside)
        else:
            report.at_most(name, microseconds, "us of CPU", BAR_US, reference=beside)


def _repeat(scores: NDArray[Any], terms: Terms, times: int = _TIMES) -> Any:
    outputs = {"p": scores}

    def run() -> None:
        for _ in range(times):
            disclose_to(terms, outputs)

    return run


def _encode(scores: NDArray[Any]) -> Any:
    import msgspec

    shown = disclose({"p": scores}, Contract("p", None, "classes", "scores", 4, 5), "contract")

    def run() -> None:
        for _ in range(_TIMES):
            msgspec.json.encode({name: values.tolist() for name, values in shown.items()})

    return run


def _silent(done: int, total: int, stage: str = "") -> None:
    """Nobody looks at it."""


if __name__ == "__main__":
    main("disclosure", (__doc__ or "").splitlines()[0], evaluate)
