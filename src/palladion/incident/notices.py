"""What a client is told of a case about it, and what it says to that: letters that give no detector away.

A notice says what happened to the client's access, since when, what that means, how to appeal, and to which case it
belongs. It says nothing of what was looked at, how far from what, by which measure, of decoys, or of others in the
case: a thief reads it too. Whether a letter goes out is a person's decision; a standing that a client cannot notice is
not written about at all.
"""

import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from palladion import files
from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.incident.cases import acted_record, find_case, label, require_text, shortened
from palladion.incident.response import chosen_clients
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Client, Incident, Records, StandingChange, names
from palladion.registry.rows import Standing
from palladion.watch.response import rank

Format = Literal["text", "json"]

LINE_CHARACTERS = 72
# What the client sees anyway, and no more.
_MEANING: dict[Standing, str] = {
    "throttled": "Requests are answered, but fewer of them in the same time, and answers may have less detail.",
    "degraded": "Requests are answered, but fewer of them in the same time, and answers may hold the result alone.",
    "suspended": "Requests are refused until a person has decided.",
}
_HAPPENED: dict[Standing, str] = {
    "throttled": "Access was limited.",
    "degraded": "Access was limited strongly.",
    "suspended": "Access was suspended.",
}
_RESTORED = ("Access was restored.", "Requests are answered as before.")
_WHY = (
    "How the service was used under this account looked different from what it is meant for. Whether it was is what "
    "the case is to find out; this is no accusation."
)


@dataclass(frozen=True)
class Notice:
    """A letter to one client, whose own name is `client`. `at` and `since` are times to the minute, in UTC."""

    reference: str
    client: str
    at: str
    happened: str
    since: str
    means: str
    why: str
    appeal: str
    note: str

    def text(self) -> str:
        """The letter as plain text, in lines of `LINE_CHARACTERS`."""
        parts = [
            f"Case {self.reference}\nAccount {self.client}\nDate {self.at}",
            f"{self.happened} Since {self.since}.",
            self.means,
            self.why,
            self.note,
            self.appeal,
        ]
        return "\n\n".join(_wrapped(part) for part in parts if part) + "\n"

    def encode(self, form: Format) -> bytes:
        """The bytes of the letter, as text or as a JSON object."""
        if form == "text":
            return self.text().encode()
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class Sent:
    """A notice that was written: its case, its bytes' SHA-256, and its receipt."""

    case: Incident
    notice: Notice
    digest: str
    receipt: Receipt


def make_notice(
    case: Incident,
    client: Client,
    history: Sequence[StandingChange],
    *,
    contact: str,
    note: str,
    now: datetime,
    enforced: bool = True,
) -> Notice:
    """The letter that fits how a client stands; `history` are its standings, oldest first.

    Where no route is `enforced`, only a suspension is noticed. Raises ConflictError where there is nothing that the
    client could have noticed: a letter would tell it that it is watched.
    """
    last = history[-1]
    noticeable = rank("throttled" if enforced else "suspended")
    if rank(last.standing) >= noticeable:
        began = _began(history)
        happened, means, why = _HAPPENED[last.standing], _MEANING[last.standing], _WHY
        appeal = f"If this is wrong, answer to {contact}, name the case, and say what the account is used for. "
        appeal += "A person will read it and decide."
    elif any(rank(item.standing) >= noticeable for item in history):
        began = _risen(history, noticeable)
        (happened, means), why = _RESTORED, ""
        appeal = f"Questions go to {contact}; name the case."
    else:
        raise ConflictError(
            f"{label(client)} is answered as before, and was: there is nothing to tell it",
            "a letter would say that it is being watched",
        )
    return Notice(case.id, label(client), _minute(now), happened, _minute(began), means, why, appeal, note)


def write_notice(
    installation: Installation,
    incident: str,
    client: str,
    out: Path,
    *,
    contact: str,
    note: str = "",
    form: Format,
    actor: str,
) -> Sent:
    """Write a client's letter to the new private file `out`; it is on record, by its SHA-256, before it is there.

    Raises NotFoundError; ConflictError if `out` exists, the case is closed, or there is nothing to tell.
    """
    names.label(contact, what="the contact for appeals")
    names.note(note, what="the note")
    if os.path.lexists(out):
        raise ConflictError(f"{out} is there already", "name another file with --out")
    gate = installation.open_gate_root()
    with files.atomic_writer(out, replace=False) as stream, installation.recording(gate) as (ledger, records):
        case, found = _of_case(records, incident, client)
        whose = (found.organisation, found.name)
        own = next((item.mode for item in installation.policy.contract if item.organisation_and_name == whose), "")
        enforced = own == "enforce" or (not own and any(route.mode == "enforce" for route in installation.policy.route))
        now = installation.clock.now()
        history = records.standings.history(found.id)
        notice = make_notice(case, found, history, contact=contact, note=note.strip(), now=now, enforced=enforced)
        data = notice.encode(form)
        stream.write(data)
        digest = sha256(data).hexdigest()
        said = f"notice to {label(found)}: {notice.happened} (SHA-256 {digest})"
        records.incidents.record(case.id, "acted", shortened(said, names.NOTE_CHARACTERS_MAX), actor=actor)
        account = pseudonym(gate.derive("pseudonyms"), found.id)
        record = acted_record(case, "notice", [account], actor=actor, now=now, text=notice.happened, sha256=digest)
        return Sent(case, notice, digest, ledger.append([record])[0])


def record_appeal(
    installation: Installation, incident: str, client: str, text: str, *, actor: str
) -> tuple[Incident, Receipt]:
    """Keep what a client says against what was done. The case has its words, the ledger their SHA-256 alone.

    What somebody else wrote may name people, and the ledger forgets nothing. Raises NotFoundError, ConflictError.
    """
    require_text(text)
    names.note(text, what="the appeal")
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        case, found = _of_case(records, incident, client)
        said = f"{label(found)} appeals: {text}"
        records.incidents.record(case.id, "noted", shortened(said, names.NOTE_CHARACTERS_MAX), actor=actor)
        account = pseudonym(gate.derive("pseudonyms"), found.id)
        details = {"text": "", "change": "appeal", "clients": [account], "sha256": sha256(text.encode()).hexdigest()}
        now = installation.clock.now()
        return case, ledger.append([Record("incident.noted", now, actor, f"incident:{case.id}", details)])[0]


def _of_case(records: Records, incident: str, client: str) -> tuple[Incident, Client]:
    case = find_case(records, incident)
    return case, chosen_clients(records, case, [client] if client else [], every=False)[0]


def _began(history: Sequence[StandingChange]) -> datetime:
    """Since when the standing at the end holds."""
    began = history[-1].at
    for change in reversed(history):
        if change.standing != history[-1].standing:
            break
        began = change.at
    return began


def _risen(history: Sequence[StandingChange], noticeable: int) -> datetime:
    """When the client was last raised to where it notices nothing."""
    risen = history[-1].at
    for change in reversed(history):
        if rank(change.standing) >= noticeable:
            break
        risen = change.at
    return risen


def _minute(moment: datetime) -> str:
    # no closer: which request it was that brought it about is nobody's business
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _wrapped(part: str) -> str:
    return "\n".join(textwrap.fill(line, LINE_CHARACTERS, break_on_hyphens=False) for line in part.split("\n"))
