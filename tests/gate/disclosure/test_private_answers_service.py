"""A real gate that answers privately: what was spent outlives it, however it ends."""

import http.client
import threading
from pathlib import Path

import pytest

from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from palladion.policy.privacy import PrivacyPolicy
from tests.gate.gates import MODEL, House
from tests.gate.service import Answered, configure, serving
from tests.lifecycle.installations import kinds

pytest.importorskip("opendp.prelude", reason="OpenDP is not installed: pip install 'palladion[dp]'")
pytestmark = pytest.mark.service

PRIVATE = PrivacyPolicy(mechanism="noisy-max", epsilon=0.5, epsilon_per_client=2.0, epsilon_total=3.0)


def _spent(installation: Installation) -> int:
    with installation.open_registry() as registry, registry.read() as records:
        return records.privacy.spent(MODEL).answers


def test_a_gate_that_is_killed_never_forgets_what_it_spent(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    configure(mine, RoutePolicy(model=MODEL, mode="enforce", privacy=PRIVATE))
    given = 0
    with serving(mine) as service:
        assert any("private answers: noisy-max, ε 0.5 an answer" in line for line in service.said)
        first = service.ask()
        assert list(first.document["outputs"]) == ["label"]
        given += 1
        # killed while others ask: whatever of them was answered is paid
        answered: list[int] = []

        def ask() -> None:
            try:
                answered.append(service.ask().status)
            except (OSError, http.client.HTTPException):
                answered.append(0)

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        service.kill()
        for asker in askers:
            asker.join()
        given += answered.count(200)
    after = _spent(mine.installation)
    assert given <= after <= 3
    assert kinds(mine.installation).count("answer.given") <= after
    with serving(mine) as service:
        refused: list[Answered] = []
        while not refused:
            found = service.ask()
            if found.status == 200:
                given += 1
            else:
                refused.append(found)
        assert (refused[0].status, refused[0].problem) == (403, "privacy-spent")
    assert given <= _spent(mine.installation) == 4
