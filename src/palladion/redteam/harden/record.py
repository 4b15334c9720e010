"""That a model was hardened, or that it was tried for nothing, in the ledger: what came of it, and what was made."""

from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.audits import AUDITED
from palladion.lifecycle.installation import Installation
from palladion.model.digest import model_digest
from palladion.redteam.harden.harden import Hardened, Lesson
from palladion.registry import names

STAGE = "harden"


def record_hardening(installation: Installation, name: str, lesson: Lesson, made: Hardened, *, actor: str) -> Receipt:
    """Write it down for the model `name`. `hardened` is the content digest that a version of it will state.

    `protect` states that digest itself, or in its marks as what they were put into. Raises PalladionError on a name
    that cannot be one.
    """
    names.slug(name, what="the name of a model")
    # without a verdict: it is no audit, and none becomes less overdue by it
    details = {
        "stage": STAGE,
        "content": model_digest(lesson.model).hex(),
        "hardened": model_digest(made.model).hex(),
        "method": made.method,
        "strength": f"{made.strength:g}",
        "outcome": made.outcome,
        "honest_points_lost": f"{100 * made.honest.lost.mean:.2f}",
        "students": {str(item.before.queries): item.verdict for item in made.leftovers},
    }
    record = Record(AUDITED, installation.clock.now(), actor, name, details)
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        return ledger.append([record])[0]
