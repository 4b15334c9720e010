"""Units for systemd: what runs, what it may write, and names that would be more than names."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import PolicyError
from palladion.redteam.audit.schedule import timer, unit

PLACES: dict[str, Any] = {
    "home": Path("/srv/palladion"),
    "directory": Path("/srv/palladion/.palladion"),
    "out": Path("/srv/palladion/.palladion/audit-fraud"),
    "program": "/usr/bin/palladion",
    "user": "palladion",
}


def test_it_runs_the_audit_anew_and_writes_to_the_installation_alone() -> None:
    lines = unit(["fraud", "--rows", "/srv/rows.npz"], **PLACES).splitlines()
    (command,) = (line for line in lines if line.startswith("ExecStart="))
    assert command == (
        'ExecStart="/usr/bin/palladion" "--home" "/srv/palladion" "redteam" "run" "fraud" "--rows" "/srv/rows.npz" '
        '"--out" "/srv/palladion/.palladion/audit-fraud" "--anew"'
    )
    assert [line for line in lines if line.startswith("ReadWrite")] == ['ReadWritePaths="/srv/palladion/.palladion"']
    assert "ProtectSystem=strict" in lines


@pytest.mark.parametrize("name", ["a\nExecStart=/bin/sh", 'a"b', "%h", "$HOME"])
def test_a_name_that_is_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(PolicyError):
        unit([name], **PLACES)
    with pytest.raises(PolicyError):
        unit(["fraud"], **PLACES | {"user": name})
    with pytest.raises(PolicyError):
        timer(name)


def test_the_timer_makes_up_for_what_it_slept_through() -> None:
    lines = timer("monthly").splitlines()
    assert {"OnCalendar=monthly", "Persistent=true", "WantedBy=timers.target"} <= set(lines)
