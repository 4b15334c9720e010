"""A whole case for tests: a marked model, an account that takes too much, a leaked copy in custody, tests of it."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from palladion.access.pseudonyms import pseudonym
from palladion.incident.cases import act, opened_record, suspend_case
from palladion.incident.custody import Handling, record_custody
from palladion.incident.links import links_of
from palladion.incident.measures import end_measure, record_measure
from palladion.ledger.record import Record
from palladion.lifecycle.clients import add_client, set_standing
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.protect import protect
from palladion.lifecycle.prove import prove
from palladion.lifecycle.recipients import add_recipient
from palladion.model.read import read_weights
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from palladion.watch.why import Why
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import safetensors_bytes, write

FEATURES = (("contrast", "+4.1"), ("repeats", "-2.5"))
HOSTILE = '#panic("x") */ $a$ "quoted" <script> \\n 😀 @ref = head'
TURNING = 'suspect\u202e\x1b[2J\x00 #eval("1")'  # what the registry lets nobody type, and a file can be called
PARTNER = FileIdentity(b"\x33" * 32)


@dataclass(frozen=True)
class Story:
    """What was made: the installation, the case's id, the suspect's file, and the accounts by pseudonym."""

    made: Made
    case: str
    suspect: Path
    accounts: tuple[str, str]


def tell(folder: Path, *, answers: int = 40) -> Story:
    """The whole case, an hour of the manual clock between steps that matter."""
    made = make(folder)
    installation, clock = made.installation, made.clock

    def later(hours: float = 1) -> None:
        clock.advance(timedelta(hours=hours))

    measure, _ = record_measure(
        installation,
        "confidentiality agreement with everybody who sees weights",
        category="agreement",
        owner="legal department",
        evidence="folder 12, 34 signed copies",
        since=date(2026, 1, 1),
        expires=date(2027, 1, 1),
        file=None,
        actor=ACTOR,
    )
    later()
    for seed in (1, 2):
        path = write(folder / f"{seed}.safetensors", safetensors_bytes(seed))
        protect(installation, made.owner, path, "house", actor=ACTOR)
        later()
    add_recipient(installation, "partner", str(PARTNER.recipient), note="", actor=ACTOR)
    deliver(installation, made.owner, "house@1", "partner", folder / "partner.sealed", actor=ACTOR)
    later()
    clients = [
        add_client(installation, "acme", name, models=["house"], environment="live", expires=None, actor=ACTOR)[0]
        for name in ("scoring", "batch")
    ]
    gate = installation.open_gate_root()
    names = [pseudonym(gate.derive("pseudonyms"), client.id) for client in clients]
    later()
    _serve(made, names, answers)
    later()
    set_standing(installation, "acme", "scoring", "watched", reason=f"asks like a thief {HOSTILE}", actor=ACTOR)
    later()
    with installation.recording(gate) as (ledger, records):
        case = suspend_case(records, [client.id for client in clients], reason="campaign", actor="gate")[0]
        links = links_of({"payment:card-7": 2, "address:203.0.113.7": 2}, gate.derive("pseudonyms"))
        ledger.append([opened_record(case, why=Why("campaign", "group", "numbers", FEATURES), links=links)])
    later()
    act(installation, case.id, "acknowledge", "", actor=ACTOR)
    act(installation, case.id, "note", f"the copy was offered on a forum {HOSTILE}", actor=ACTOR)
    act(installation, case.id, "note", "acme/scoring answered our letter. acme denies it.", actor=ACTOR)
    suspect = write(folder / "leaked.safetensors", _leaked(made))
    handling = Handling("acquired", "J. Roe", "laboratory 2", clock.now(), f"from a forum {HOSTILE}")
    record_custody(installation, case.id, [str(suspect)], handling, keep=None, actor=ACTOR)
    later()
    model = read_weights(suspect)
    prove(installation, made.owner, model, ["house@1"], copies=False, actor=ACTOR)
    prove(installation, made.owner, model, ["house@1"], copies=True, actor=ACTOR)
    with installation.open_ledger(gate) as ledger:
        ledger.append([Record("mark.tested", clock.now(), ACTOR, TURNING, {"looked_for": "mine", "tested": 1})])
    later()
    end_measure(installation, measure, "replaced by a better one", actor=ACTOR)
    later()
    act(installation, case.id, "close", "a copy of version 1, taken from the partner", actor=ACTOR)
    return Story(made, case.id, suspect, (names[0], names[1]))


def _serve(made: Made, names: list[str], answers: int) -> None:
    """The gate's records, as it writes them."""
    clock, folder = made.clock, made.home.name
    route = {"route": "/v1/house", "model": "house", "version": "house@1", "mode": "enforce"}
    lines = [Record("gate.started", clock.now(), "gate", folder, {"policy": "ab" * 32, "routes": [route]})]
    for number in range(answers):
        clock.advance(timedelta(seconds=1))
        details = {"request": f"{number:032x}", "route": "/v1/house", "queries": 8, "request_digest": "cd" * 32}
        lines.append(Record("answer.given", clock.now(), names[number % 2], "house@1", details))
    refusal = {"reason": "rate", "requests": 7}
    lines.append(Record("answer.refused", clock.now(), "gate", names[0], refusal))
    with made.installation.open_ledger(made.installation.open_gate_root()) as ledger:
        ledger.append(lines)


def _leaked(made: Made) -> bytes:
    """What the partner holds, in plaintext."""
    path = made.home.parent / "partner.sealed"
    with open_sealed(path, [PARTNER], made.installation.publishers()) as opened:
        (data,) = opened.files.values()
        return bytes(data)
