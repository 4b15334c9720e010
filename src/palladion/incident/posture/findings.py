"""What a check says of a control."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from palladion.incident.measures import Measure

State = Literal["on", "partly", "off", "expired", "needs a person"]
STATES: tuple[State, ...] = ("on", "partly", "needs a person", "expired", "off")


@dataclass(frozen=True)
class Finding:
    """How a control stands: what shows it, what remains open in words, and what would close that.

    `on` leaves nothing open that software could see; `partly` is on with a gap; `expired` was on, and what showed it is
    too old; `needs a person` cannot be seen by software, and nobody has recorded it.
    """

    state: State
    evidence: tuple[str, ...] = ()
    open: str = ""
    close: str = ""


def judged(parts: Sequence[tuple[bool, str, str, str]]) -> Finding:
    """A finding of several parts, each whether it holds, its evidence, and else what is open and what closes it.

    All that hold are `on`, some are `partly`, none is `off`; the first gap is the one that is named first.
    """
    held = tuple(shown for holds, shown, _, _ in parts if holds)
    gaps = [(gap, close) for holds, _, gap, close in parts if not holds]
    state: State = "on" if not gaps else "partly" if held else "off"
    return Finding(state, held, "; ".join(gap for gap, _ in gaps), gaps[0][1] if gaps else "")


def of_people(measures: Sequence[Measure]) -> str:
    """Measures that people recorded, as evidence is written down."""
    return "; ".join(f"{item.control} (measure {item.id}, {item.owner})" for item in measures)


def to_record(category: str) -> str:
    """The command that records a measure."""
    return f"palladion incident measure add TEXT --category {category} --owner NAME --evidence TEXT"
