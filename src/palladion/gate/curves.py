"""Learning curves as the gate needs them: of which model there is one, and whether `watch.fidelity_max` can be kept."""

from palladion.errors import PolicyError, TamperError
from palladion.policy import Policy, WatchPolicy
from palladion.registry import CalibrationRow, Registry
from palladion.watch.learning_curve import LearningCurve, decode_curve


def load_curve(row: CalibrationRow | None) -> LearningCurve | None:
    """The curve that is registered beside a calibration. Raises TamperError for one of other buckets, FormatError."""
    if row is None or row.curve is None:
        return None
    curve = decode_curve(row.curve, what=f"the learning curve of {row.path}")
    if curve.calibration != row.digest:
        raise TamperError(
            f"the learning curve of {row.path} was measured in other buckets",
            f"measure it again: palladion watch budget {row.model}@{row.number} --measure FILE",
        )
    return curve


def require_curve(policy: WatchPolicy, subject: str, row: CalibrationRow | None) -> None:
    """Raise PolicyError where a copy of `watch.fidelity_max` is refused, and nobody knows when there is one."""
    if not policy.fidelity_max:
        return
    if row is None:
        raise PolicyError(
            f"watch.fidelity_max needs a learning curve, and {subject} has no calibration",
            f"palladion watch calibrate {subject} --validation FILE, or watch.fidelity_max = 0",
        )
    curve = load_curve(row)
    if curve is None:
        raise PolicyError(
            f"watch.fidelity_max needs a learning curve, and {subject} has none",
            f"palladion watch budget {subject} --measure FILE, or watch.fidelity_max = 0",
        )
    if not curve.budget(policy.fidelity_max):
        raise PolicyError(
            f"watch.fidelity_max is {policy.fidelity_max:g}, and whoever asks nothing has a copy of {subject} of "
            f"{curve.base:.0%}: no client could be answered",
            f"allow more than {curve.at_most(1):.4f}",
        )


def check_curves(policy: Policy, registry: Registry) -> None:
    """`require_curve` of all models that are served in numbers, as the registry knows them. Raises PolicyError."""
    if not policy.watch.fidelity_max:
        return
    with registry.read() as records:
        for model in dict.fromkeys(route.model for route in policy.route if route.protocol != "openai"):
            version = records.promotions.current(model)
            subject = model if version is None else f"{model}@{version.number}"
            row = None if version is None else records.calibrations.newest(model, version.number)
            require_curve(policy.watch, subject, row)
