"""Alerts of a real `palladion serve`: sent while it runs, and what was recorded while it was dead, when it is back."""

from pathlib import Path

import pytest

from palladion.clock import SystemClock
from palladion.incident.cases import opened_record
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from tests.incident.alerts.receivers import KEY_TEXT, Got, Receiver, receiver, require_signed

from .gates import MODEL, House
from .service import configure, serving, wait_until

pytestmark = pytest.mark.service


def _open_case(house: House, client: str) -> str:
    """A case as the gate opens one, recorded by the process that serves, or by this one where none does."""
    installation = Installation.find(house.installation.paths.home, SystemClock(), exact=True)
    with installation.recording(house.root) as (ledger, records):
        case = records.incidents.open(f"suspended: {client}", actor="watch", clients=[house.ids[client]])
        ledger.append([opened_record(case)])
        return case.id


def _told(there: Receiver) -> dict[str, Got]:
    """What came, each message once."""
    return {got.headers["webhook-id"]: got for got in there.got}


def test_a_case_is_told_by_a_gate_that_runs_and_after_it_was_killed(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    secret = mine.installation.paths.home / "hook"
    secret.write_text(KEY_TEXT)
    secret.chmod(0o600)
    configure(mine, RoutePolicy(model=MODEL))
    with receiver() as there:
        with mine.installation.paths.policy.open("a") as policy:
            policy.write(f'\n[[alert]]\nname = "chat"\nurl = "{there.url}"\nsecret = "hook"\nnames = true\n')
        with serving(mine) as service:
            first = _open_case(mine, "acme")
            wait_until(lambda: len(there.got) == 1)
            service.kill()
        second = _open_case(mine, "globex")
        with serving(mine) as service:
            # one that was told as the gate was killed may be told again, by the id that it had
            wait_until(lambda: len(_told(there)) == 2)
            assert service.terminate() == 0
            assert KEY_TEXT not in service.complaints
        for got in there.got:
            require_signed(got)
        told = [got.json["data"] for got in _told(there).values()]
        assert [item["case"] for item in told] == [first, second]
        assert [item["subject"] for item in told] == ["acme/acme", "globex/globex"]
