"""A service is asked within its limits, its answers are recognised, and what it does about it is seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.errors import InconclusiveError, KeysError
from palladion.redteam.audit.accounts import EndedError, ReactedError
from palladion.redteam.audit.remote import (
    CONTROL_QUERIES,
    CONTROLS,
    FIRST_ROWS,
    FIRST_STAGE,
    TRIES,
)
from palladion.transit.web import InterruptedTransferError
from tests.redteam.audit.services import LABELS, ROWS, Asked, Reply, Service, labels, probabilities, scores

MET = FIRST_ROWS + CONTROLS


def _after(queries: int, then: Any) -> Any:
    """Scores at first, and something else once so many rows were asked."""
    seen = [0]

    def answer(asked: Asked) -> Any:
        seen[0] += len(asked.rows)
        return scores(asked) if seen[0] <= queries else then(asked) if callable(then) else then

    return answer


def test_scores_are_preferred_to_labels_and_are_what_is_answered(tmp_path: Path) -> None:
    with Service(scores).remote(tmp_path) as remote:
        assert str(remote.meet(ROWS, LABELS)) == "probabilities"
        assert remote.ask(ROWS[:100]) == pytest.approx(probabilities(ROWS[:100]), abs=1e-5)


def test_labels_are_taken_where_they_are_all(tmp_path: Path) -> None:
    with Service(labels).remote(tmp_path) as remote:
        assert str(remote.meet(ROWS, LABELS)) == "labels"
        assert (remote.ask(ROWS) == np.eye(2)[LABELS]).all()


def test_words_are_labels_where_they_are_known_and_else_a_wrong_wrapper(tmp_path: Path) -> None:
    def words(asked: Asked) -> Any:
        return {"outputs": {"label": [("no", "yes")[int(row[0] > 0)] for row in asked.rows]}}

    with pytest.raises(InconclusiveError, match="the word '"), Service(words).remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
    (tmp_path / "known").mkdir()
    with Service(words).remote(tmp_path / "known", labels=("no", "yes")) as remote:
        remote.meet(ROWS, None)
        assert (remote.ask(ROWS) == np.eye(2)[LABELS]).all()


@pytest.mark.parametrize(
    "answer",
    [
        lambda asked: {"outputs": {"label": [1] * len(asked.rows)}},
        lambda asked: {"outputs": {"scores": (probabilities(asked.rows) * 1.7).tolist()}},
        lambda asked: {"outputs": {"label": [int(row[0] * 100) for row in asked.rows]}},
    ],
    ids=["always the same", "sums to 1.7", "classes that do not exist"],
)
def test_a_wrong_wrapper_is_inconclusive(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(InconclusiveError), Service(answer).remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)


def test_nothing_is_asked_twice_neither_in_one_run_nor_in_the_next(tmp_path: Path) -> None:
    service = Service(scores)
    for _ in range(2):
        with service.remote(tmp_path) as remote:
            remote.meet(ROWS, LABELS)
            first = remote.ask(ROWS[:180])
            assert (remote.ask(ROWS[:180]) == first).all()
            assert remote.journal.sent() == service.rows == 180 + CONTROLS


def test_every_query_is_counted_for_its_stage_failed_ones_too(tmp_path: Path) -> None:
    later = iter([Reply(status=503, headers={"retry-after": "7"}), InterruptedTransferError("it broke off")])
    service = Service(_after(MET, lambda asked: next(later, None) or scores(asked)))
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        remote.begin("extraction")
        remote.ask(ROWS[FIRST_ROWS : FIRST_ROWS + 10])
        assert (remote.journal.sent(FIRST_STAGE), remote.journal.sent("extraction")) == (MET, 30)
        assert (remote.journal.failed, remote.waits, remote.reaction) == (20, 1, None)
    assert 7.0 in service.waited


def test_it_asks_no_faster_than_it_may_and_slower_when_told_so(tmp_path: Path) -> None:
    later = iter([Reply(status=429, headers={"retry-after": "9"})])
    service = Service(_after(MET, lambda asked: next(later, None) or scores(asked)))
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        assert service.waited == [0.2] * (len(service.asked) - 1)
        remote.ask(ROWS[FIRST_ROWS : FIRST_ROWS + 10])
    assert service.waited[-2:] == [9.0, pytest.approx(0.3)]


def test_it_never_sends_more_than_the_budget(tmp_path: Path) -> None:
    service = Service(scores)
    with service.remote(tmp_path, budget=MET + 60) as remote:
        remote.meet(ROWS, LABELS)
        with pytest.raises(EndedError, match="budget"):
            remote.ask(ROWS)
    with service.remote(tmp_path, budget=MET + 60) as remote:
        remote.meet(ROWS, LABELS)
        with pytest.raises(EndedError, match="budget"):
            remote.ask(ROWS)
    assert service.rows <= MET + 60


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (Reply(status=403), "refuses us"),
        (Reply(status=429, headers={"retry-after": "86400"}), "refuses us"),
        (Reply(status=429), "refuses us"),
        (labels, "labels alone"),
    ],
    ids=["suspended", "put off for a day", "put off again and again", "labels alone"],
)
def test_a_reaction_ends_it_and_says_after_how_many_queries(tmp_path: Path, then: Any, words: str) -> None:
    service = Service(_after(150, then))
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        with pytest.raises(ReactedError, match=words):
            remote.ask(ROWS)
        assert remote.reaction is not None
        assert remote.reaction.queries == remote.journal.sent() == service.rows
        assert remote.reaction.queries > 100
    asked = len(service.asked)
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        with pytest.raises(ReactedError):
            remote.ask(ROWS)
    assert len(service.asked) == asked


def _rounded(asked: Asked) -> Any:
    return {"outputs": {"label": [0] * len(asked.rows), "probabilities": probabilities(asked.rows).round(1).tolist()}}


def test_what_says_less_to_the_same_rows_has_reacted(tmp_path: Path) -> None:
    service = Service(_after(150, _rounded))
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        with pytest.raises(ReactedError, match="the same rows"):
            remote.ask(ROWS)
        assert remote.reaction is not None
        assert remote.reaction.queries <= MET + CONTROL_QUERIES + 50 + CONTROLS


def _coarse(asked: Asked) -> Any:
    found = probabilities(asked.rows)
    return {"outputs": {"label": [0] * len(found), "probabilities": (0.9 * found).round(2).tolist()}}


def test_scores_that_do_not_add_up_any_more_are_a_reaction_at_once(tmp_path: Path) -> None:
    service = Service(_after(MET + 50, _coarse))
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        with pytest.raises(ReactedError, match="the same rows"):
            remote.ask(ROWS)
        assert remote.reaction is not None
        assert remote.reaction.queries == MET + 50 + 50 + CONTROLS
    # what was answered before is still of the first form
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        known = FIRST_ROWS + 50
        assert remote.ask(ROWS[:known]) == pytest.approx(probabilities(ROWS[:known]), abs=1e-5)
        with pytest.raises(ReactedError):
            remote.ask(ROWS)


def test_rows_of_a_strange_form_are_a_wrong_wrapper_where_the_first_ones_are_answered_as_before(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Any:
        strange = {"outputs": {"probabilities": [[0.3, 0.3]] * len(asked.rows)}}
        return strange if (asked.rows > 50).any() else scores(asked)

    with Service(answer).remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        with pytest.raises(InconclusiveError, match="another form"):
            remote.ask(np.full((3, 3), 99.0))
        assert remote.reaction is None


def test_what_never_answers_alike_has_not_reacted(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)

    def noisy(asked: Asked) -> Any:
        found = probabilities(asked.rows + 0.05 * generator.standard_normal(asked.rows.shape))
        return {"outputs": {"probabilities": found.tolist()}}

    with Service(noisy).remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        remote.ask(ROWS)
        assert remote.reaction is None


def test_a_row_of_a_thief_that_is_not_taken_teaches_nothing(tmp_path: Path) -> None:
    with Service(lambda asked: Reply(status=422) if (asked.rows > 50).any() else scores(asked)).remote(
        tmp_path
    ) as remote:
        remote.meet(ROWS, LABELS)
        assert (remote.ask(np.full((3, 3), 99.0)) == 0.5).all()
        assert remote.reaction is None


def test_rows_of_the_owner_that_are_not_taken_are_a_wrong_wrapper(tmp_path: Path) -> None:
    service = Service(_after(MET, Reply(status=422)))
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
        with pytest.raises(InconclusiveError, match="rows of its owner"):
            remote.ask(ROWS)
        assert remote.reaction is None


@pytest.mark.parametrize(("status", "kind"), [(401, KeysError), (404, InconclusiveError), (302, InconclusiveError)])
def test_a_refusal_of_the_first_rows_is_no_reaction(tmp_path: Path, status: int, kind: type[Exception]) -> None:
    service = Service(lambda asked: Reply(status=status))
    with service.remote(tmp_path) as remote:
        with pytest.raises(kind):
            remote.meet(ROWS, LABELS)
        assert remote.reaction is None


def test_who_breaks_off_again_and_again_is_left_alone(tmp_path: Path) -> None:
    service = Service(lambda asked: InterruptedTransferError("it broke off"))
    with pytest.raises(InterruptedTransferError), service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
    assert len(service.asked) == TRIES


def test_the_key_is_sent_where_it_belongs_and_is_in_no_file(tmp_path: Path) -> None:
    service = Service(scores)
    with service.remote(tmp_path) as remote:
        remote.meet(ROWS, LABELS)
    assert service.asked[0].headers["authorization"] == "Bearer palladion-test-key"
    for path in tmp_path.iterdir():
        assert b"palladion-test-key" not in path.read_bytes()
