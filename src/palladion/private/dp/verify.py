"""Holds a statement against its own figures: the ε that noise, sampling and steps give, beside the ε that it states."""

from dataclasses import dataclass

from palladion.errors import FormatError, MissingExtraError
from palladion.private.dp.accounting import epsilon_of
from palladion.private.dp.statement import PrivacyStatement

# Another accountant of the same mechanism may be tighter by as much as Opacus's PRV is allowed to err.
SLACK_SHARE, SLACK = 0.02, 0.01


@dataclass(frozen=True)
class Checked:
    """A statement whose arithmetic holds: `recomputed` is its ε by our accountant, None where that is not installed."""

    statement: PrivacyStatement
    recomputed: float | None


def verify_statement(statement: PrivacyStatement) -> Checked:
    """The statement, if its figures cost no more than it states. Raises FormatError.

    That says nothing on whether the training was as stated.
    """
    stated = float(statement.epsilon)
    noise, rate = float(statement.noise_multiplier), float(statement.sampling_rate)
    try:
        spent = epsilon_of(noise, rate, statement.steps, float(statement.delta))
    except MissingExtraError:
        return Checked(statement, None)
    if spent.epsilon > stated * (1 + SLACK_SHARE) + SLACK:
        raise FormatError(
            f"the statement says ε = {stated:g}, and its own figures (noise {noise:g}, sampling {rate:g}, "
            f"{statement.steps} steps) come to {spent.epsilon:.4g} at δ = {float(statement.delta):g}",
            "train with more noise or fewer steps, or state what was spent",
        )
    return Checked(statement, spent.epsilon)
