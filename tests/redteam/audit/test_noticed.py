"""Whether a service reacted: a figure where it did, an observation where it did not."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import KeysError
from palladion.redteam.audit.accounts import ReactedError
from palladion.redteam.audit.noticed import NOTICED
from palladion.redteam.audit.remote_subject import remote_subject
from palladion.redteam.audit.stage import Allowance, Plan
from tests.redteam.audit.services import KEY, LABELS, ROWS, Asked, Reply, Service, scores
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


def test_accounts_share_a_harvest_and_the_report_says_what_became_of_each(tmp_path: Path) -> None:
    """The service forgets nobody: an account is refused after 120 rows of its own."""
    rows: Counter[str] = Counter()

    def answer(asked: Asked) -> object:
        key = asked.headers["authorization"]
        rows[key] += len(asked.rows)
        return scores(asked) if rows[key] <= 120 else Reply(status=403)

    service = Service(answer)
    with service.remote(tmp_path, more_keys=["key-2", "key-3"], per_request=10) as remote:
        attacked = remote_subject(remote, ROWS, LABELS)
        with pytest.raises(ReactedError):
            remote.ask(ROWS)
        found = NOTICED.run(attacked, Plan(), ALLOWED)
        values = {item.key: item.value for item in found.figures}
        sent = remote.journal.sent()
    assert set(rows) == {f"Bearer {key}" for key in (KEY, "key-2", "key-3")}
    # the request that is refused counts too
    owned = [rows[f"Bearer {key}"] for key in (KEY, "key-2", "key-3")]
    assert [values[f"noticed.account.{number}.deployed"] for number in (1, 2, 3)] == owned
    assert max(rows.values()) - min(rows.values()) <= 10
    assert values["noticed.all.deployed"] == sent == sum(rows.values())
    assert values["noticed.queries.deployed"] < sent
    assert "3 accounts took turns: each sent a request in 0.6 s" in found.reasons
    assert [item["reaction"] for item in found.details["accounts"]] == owned


def test_accounts_that_are_left_go_on_and_nothing_is_lost(tmp_path: Path) -> None:
    service = Service(
        lambda asked: Reply(status=403) if asked.headers["authorization"] == "Bearer bad" else scores(asked)
    )
    with service.remote(tmp_path, more_keys=["bad"], per_request=10) as remote:
        # the first rows are for whoever may ask: the other account is refused after them
        with service_of(service, scores):
            attacked = remote_subject(remote, ROWS, LABELS)
        assert remote.ask(ROWS).shape == (400, 2)
        found = NOTICED.run(attacked, Plan(), ALLOWED)
    keys = [item.key for item in found.figures]
    assert keys == ["noticed.queries.deployed", "noticed.account.2.deployed"]
    assert "1 of 2 accounts could have gone on" in found.reasons


def test_a_key_that_was_never_taken_is_a_mistake_and_no_reaction(tmp_path: Path) -> None:
    service = Service(
        lambda asked: Reply(status=401) if asked.headers["authorization"] == "Bearer bad" else scores(asked)
    )
    with (
        service.remote(tmp_path, more_keys=["bad"], per_request=10) as remote,
        pytest.raises(KeysError, match="refuses account 2: 401"),
    ):
        remote_subject(remote, ROWS, LABELS)


@contextmanager
def service_of(service: Service, answer: Callable[[Asked], Any]) -> Iterator[None]:
    before, service.answer = service.answer, answer
    yield
    service.answer = before
