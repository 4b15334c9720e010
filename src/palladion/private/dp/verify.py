"""Holds a statement against its own figures: the ε that noise, sampling and steps give, beside the ε that it states."""

from dataclasses import dataclass

from palladion.errors import FormatError, MissingExtraError
from palladion.private.dp.accounting import epsilon_of
from palladion.private.dp.statement import PrivacyStatement

SLACK_SHARE = 0.02  # accountants of the same mechanism differ by how they round
SLACK = 0.01  # by so much in ε is Opacus's PRV allowed to err; at most all of what is stated


@dataclass(frozen=True)
class Checked:
    """A statement whose arithmetic holds: `recomputed` is its ε by our accountant, None where that is not installed."""

    statement: PrivacyStatement
    recomputed: float | None


def verify_statement(statement: PrivacyStatement) -> Checked:
    """The statement, if its figures cost no more than it states, at a δ of at most one in its rows. Raises FormatError.

    That says nothing on whether the training was as stated.
    """
    stated, delta = float(statement.epsilon), float(statement.delta)
    if delta > 1 / statement.rows:
        raise FormatError(
            f"the statement has δ = {delta:g} for {statement.rows:,} rows: a training that publishes one of them whole "
            "would keep that",
            "state ε at a δ below one in the rows",
        )
    noise, rate = float(statement.noise_multiplier), float(statement.sampling_rate)
    try:
        spent = epsilon_of(noise, rate, statement.steps, delta)
    except MissingExtraError:
        return Checked(statement, None)
    slack = SLACK_SHARE * stated + (min(SLACK, stated) if statement.accountant == "prv" else 0.0)
    if spent.epsilon > stated + slack:
        raise FormatError(
            f"the statement says ε = {stated:g}, and its own figures (noise {noise:g}, sampling {rate:g}, "
            f"{statement.steps} steps) come to {spent.epsilon:.4g} at δ = {delta:g}",
            "train with more noise or fewer steps, or state what was spent",
        )
    return Checked(statement, spent.epsilon)
