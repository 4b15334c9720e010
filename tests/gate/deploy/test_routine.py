"""Units for work that is done again and again: what they may do, and names that would be more than names."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import PalladionError, PolicyError
from palladion.gate.deploy.routine import names, routine, routine_timer

GIVEN: dict[str, Any] = {
    "description": "Something",
    "directory": Path("/srv/a b"),
    "user": "palladion",
    "seconds_max": 60,
}


def test_it_runs_the_command_shut_in_and_for_no_longer_than_it_may() -> None:
    lines = routine(["/usr/bin/x", "--on", "a b"], **GIVEN).splitlines()
    assert 'ExecStart="/usr/bin/x" "--on" "a b"' in lines
    assert [line for line in lines if line.startswith("ReadWrite")] == ['ReadWritePaths="/srv/a b"']
    assert {"Type=oneshot", "TimeoutStartSec=60", "Nice=19", "RestrictAddressFamilies=AF_UNIX"} <= set(lines)
    assert {"User=palladion", "NoNewPrivileges=true", "CapabilityBoundingSet=", "UMask=0077"} <= set(lines)


@pytest.mark.parametrize("name", ["a\nExecStart=/bin/sh", 'a"b', "%h", "$HOME"])
def test_a_name_that_is_more_than_a_name_is_refused(name: str) -> None:
    for place in ("description", "user", "directory"):
        with pytest.raises(PolicyError):
            routine(["/usr/bin/x"], **GIVEN | {place: name})
    with pytest.raises(PolicyError):
        routine([name], **GIVEN)
    with pytest.raises(PolicyError):
        routine_timer("Something", name)


def test_the_timer_makes_up_for_what_it_slept_through() -> None:
    assert {"OnCalendar=daily", "Persistent=true", "RandomizedDelaySec=1h"} <= set(
        routine_timer("Something", "daily").splitlines()
    )


def test_each_model_and_each_work_has_units_of_its_own() -> None:
    assert names("redteam", "fraud") == ("palladion-redteam-fraud.service", "palladion-redteam-fraud.timer")
    asked = [(work, model) for work in ("redteam", "reexecute") for model in ("fraud", "fraud@3", "fraud-3", "fraud.3")]
    assert len({names(*each) for each in asked}) == len(asked)


@pytest.mark.parametrize("model", ["../x", "a/b", "a b", "%h", "a\nb", "@3", "", "https://models.example/x"])
def test_what_is_no_name_of_a_model_names_no_unit(model: str) -> None:
    with pytest.raises(PalladionError):
        names("redteam", model)


def test_the_name_of_a_unit_is_no_template() -> None:
    assert "@" not in names("redteam", "fraud@3")[0]
