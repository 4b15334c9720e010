"""Whether a service reacted: a figure where it did, an observation where it did not."""

from dataclasses import replace
from pathlib import Path

import pytest

from palladion.redteam.audit.noticed import NOTICED
from palladion.redteam.audit.remote import ReactedError
from palladion.redteam.audit.remote_subject import remote_subject
from palladion.redteam.audit.stage import Allowance, Plan
from tests.redteam.audit.services import LABELS, ROWS, Asked, Reply, Service, scores
from tests.redteam.audit.subjects import subject

ALLOWED = Allowance(0, None, lambda done, total, stage="": None, lambda: 0.0)


def test_a_model_in_this_process_does_not_react() -> None:
    assert NOTICED.missing(subject()) is not None


def test_a_reaction_is_a_figure(tmp_path: Path) -> None:
    service = Service(scores)
    with service.remote(tmp_path) as remote:
        attacked = remote_subject(remote, ROWS, LABELS)
        service.answer = lambda asked: Reply(status=403)
        with pytest.raises(ReactedError):
            remote.ask(ROWS)
        found = NOTICED.run(attacked, Plan(), ALLOWED)
        (figure,) = found.figures
        assert (figure.key, figure.value) == ("noticed.queries.deployed", remote.journal.sent())
        assert "403" in found.reasons[-1]
        assert not found.observations


def test_that_nothing_happened_is_observed(tmp_path: Path) -> None:
    waits = iter([Reply(status=429, headers={"retry-after": "1"})])

    def answer(asked: Asked) -> object:
        return next(waits, None) or scores(asked)

    with Service(answer).remote(tmp_path) as remote:
        attacked = remote_subject(remote, ROWS, LABELS)
        found = NOTICED.run(replace(attacked), Plan(), ALLOWED)
        assert [(seen.rule, seen.level) for seen in found.observations] == [("not-noticed", "warning")]
        assert not found.figures
        assert found.details["waits"] == 1
        assert "1 times, first after 50" in found.reasons[0]
