"""The catalogue: every control is judged, once, and its names elsewhere are such as there are."""

import re

from palladion.incident.posture.assess import CHECKS
from palladion.incident.posture.catalogue import CLAIM, CONTROLS
from palladion.watch.taxonomy import shipped

_IDS = re.compile(
    r"AML\.[TM][0-9]{4}(\.[0-9]{3})?|(ML[0-9]{2}:2023|LLM[0-9]{2}:2025)|CSF:(GV|ID|PR|DE|RS|RC)\.[A-Z]{2}-[0-9]{2}"
    r"|RMF:(GOVERN|MAP|MEASURE|MANAGE) [1-4]\.[0-9]{1,2}|EU AI Act [0-9]{1,3}|ISO 42001 A\.[0-9](\.[0-9]){1,2}"
)


def test_every_control_has_a_check_and_every_check_a_control() -> None:
    ids = [control.id for control in CONTROLS]
    assert len(set(ids)) == len(ids)
    assert set(ids) == set(CHECKS)


def test_ids_are_formed_as_their_frameworks_form_them() -> None:
    wrong = [name for control in CONTROLS for name in control.ids if not _IDS.fullmatch(name)]
    assert wrong == []
    assert all(control.ids for control in CONTROLS)


def test_names_of_attacks_are_those_that_detections_have() -> None:
    table = shipped()
    known = {*table.techniques, *table.owasp}
    # who finds out the family or the limits of a model is no detection of ours, and is named by the red team alone
    used = {name for control in CONTROLS for name in control.ids if name.startswith(("AML.T", "ML", "LLM"))}
    assert used - known == {"AML.T0014", "AML.T0063"}


def test_no_higher_security_level_is_claimed() -> None:
    assert "levels 1 and 2, and with parts of 3" in CLAIM
    assert "nothing of 4 and 5" in CLAIM
