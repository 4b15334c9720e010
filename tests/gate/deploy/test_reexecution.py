"""Units for systemd that compute answers again: what runs, what it may write, and names that are more than names."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import PolicyError
from palladion.gate.deploy.reexecution import names, timer, unit

PLACES: dict[str, Any] = {
    "home": Path("/srv/palladion"),
    "directory": Path("/srv/palladion/.palladion"),
    "program": "/usr/bin/palladion",
    "user": "palladion",
}


def test_it_computes_answers_again_and_writes_to_the_installation_alone() -> None:
    lines = unit(["fraud", "--sample", "300"], **PLACES).splitlines()
    assert (
        'ExecStart="/usr/bin/palladion" "--home" "/srv/palladion" "watch" "reexecute" "fraud" "--sample" "300"' in lines
    )
    assert [line for line in lines if line.startswith("ReadWrite")] == ['ReadWritePaths="/srv/palladion/.palladion"']
    assert {"ProtectSystem=strict", "RestrictAddressFamilies=AF_UNIX", "User=palladion"} <= set(lines)


@pytest.mark.parametrize("name", ["a\nExecStart=/bin/sh", 'a"b', "%h", "$HOME"])
def test_a_name_that_is_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(PolicyError):
        unit([name], **PLACES)
    for place in ("user", "program"):
        with pytest.raises(PolicyError):
            unit(["fraud"], **PLACES | {place: name})
    with pytest.raises(PolicyError):
        timer(name)


def test_the_timer_makes_up_for_what_it_slept_through() -> None:
    assert {"OnCalendar=daily", "Persistent=true", "WantedBy=timers.target"} <= set(timer("daily").splitlines())


def test_each_model_has_units_of_its_own() -> None:
    assert names("fraud") == ("palladion-reexecute-fraud.service", "palladion-reexecute-fraud.timer")
    assert names("fraud")[0] != names("scores")[0]
