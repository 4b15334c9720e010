"""Which account the model behind an API was trained with: budget, order, and what a suspect can do to the test."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import BusyError, ConflictError, InconclusiveError, KeysError, NotFoundError, PalladionError
from palladion.ledger.bodies import FOLDER, BodyWriter, body_path
from palladion.ledger.record import decode_record
from palladion.lifecycle import student_api as module
from palladion.lifecycle.capture import verify_capture
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.probe import WAITS_MAX, Api
from palladion.lifecycle.prove import LOG10_P_MAX
from palladion.lifecycle.student import prove_student
from palladion.lifecycle.student_api import COLUMNS_MAX, SHARE_MIN, StudentOutcome, prove_student_api

from .apis import LIMITS, Answering, Reply, Suspect, suspect
from .installations import ACTOR, Made, make
from .students import MODEL, QUERIES, ROWS, SHORT, answered, bodies, client_id, learned, marked, recalled, unmarked

pytestmark = pytest.mark.slow  # a real server, asked hundreds of times

KEY = "palladion-test-key"
BATCH = 40
PATIENT = replace(LIMITS, idle_seconds=20.0)  # on a busy machine
TARGETS = [("acme", f"{MODEL}@1"), ("beta", f"{MODEL}@1"), ("beta", f"{MODEL}@2")]
WORDS = ("cat", "dog", "fox", "owl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return answered(tmp_path_factory.mktemp("student"))


def student_of(made: Made, name: str, say: Callable[[int], Any] = int) -> Answering:
    """What learned by heart what this client was told, and says it in its way."""
    known = recalled(marked(made, client_id(made, name), unmarked()))
    return lambda document: {"outputs": {"label": [say(known(row)) for row in document["inputs"]]}}


def in_words(label: int) -> str:
    return WORDS[label]


def proved(
    made: Made, folder: Path, answer: Answering, *, rows: int = BATCH, labels: tuple[str, ...] = (), **options: Any
) -> tuple[StudentOutcome, Suspect]:
    with suspect(answer) as running:
        api = Api(running.url, KEY, rows=rows)
        if labels:
            api = Api(running.url, KEY, answer=("outputs", "label", "*"), rows=rows, labels=labels)
        outcome = prove_student_api(
            made.installation,
            api,
            capture=folder / "c.jsonl",
            actor=ACTOR,
            wait=lambda _: None,
            **{"limits": PATIENT} | options,
        )
    return outcome, running


def records(made: Made) -> list[dict[str, Any]]:
    found = [decode_record(data, what="it") for _, data in made.installation.read_ledger().entries()]
    return [record.details for record in found if record.kind == "mark.tested"]


def last_line(folder: Path) -> str:
    return sha256((folder / "c.jsonl").read_bytes().splitlines()[-1]).hexdigest()


def named(outcome: StudentOutcome) -> list[tuple[str, str]]:
    return [(item.client.name, item.version) for item in outcome.tests if item.named]


SAYING: dict[str, tuple[Callable[[int], Any], tuple[str, ...]]] = {
    "numbers": (int, ()),
    "scores": (lambda label: [0.9 if column == label else 0.05 for column in range(4)], ()),
    "scores of many classes": (lambda label: [int(column == label) for column in range(COLUMNS_MAX + 1)], ()),
    "words of its own": (in_words, ()),
    "words that we were told": (in_words, WORDS),
    "numbers that we were told": (lambda label: 7 + label, ("7", "8", "9", "10")),
    "long words": (lambda label: WORDS[label] * 1000, ()),
}


@pytest.mark.parametrize("how", SAYING)
def test_the_account_that_trained_it_is_named_and_no_other(made: Made, tmp_path: Path, how: str) -> None:
    say, labels = SAYING[how]
    outcome, running = proved(made, tmp_path, student_of(made, "acme", say), labels=labels, rows=100)
    assert named(outcome) == [("acme", f"{MODEL}@1")]
    assert outcome.error is None
    assert running.rows == outcome.queries <= 2000
    # three tests are paid for
    strongest = outcome.tests[0]
    assert strongest.traced is not None
    assert strongest.log10_p == pytest.approx(strongest.traced.log10_p + np.log10(6))


def test_an_innocent_model_names_nobody(made: Made, tmp_path: Path) -> None:
    known = recalled(unmarked().argmax(axis=1))
    outcome, _ = proved(made, tmp_path, lambda asked: {"outputs": {"y": [int(known(row)) for row in asked["inputs"]]}})
    assert all(item.comparable and item.log10_p > LOG10_P_MAX for item in outcome.tests)
    assert outcome.error is None


def test_the_budget_is_shared_and_each_is_asked_the_earliest_in_order(made: Made, tmp_path: Path) -> None:
    outcome, running = proved(made, tmp_path, student_of(made, "acme"), budget=700, rows=20)
    assert running.rows == outcome.queries == 233 + 233 + SHORT
    asked = np.concatenate([np.array(document["inputs"], np.float32) for document in running.asked])
    assert np.array_equal(asked, np.concatenate([ROWS[:233], ROWS[:233], ROWS[:SHORT]]))
    assert {(item.client.name, item.version): item.queries for item in outcome.tests} == dict(
        zip(TARGETS, (233, 233, SHORT), strict=True)
    )


def test_what_one_does_not_need_goes_to_those_after_it(made: Made, tmp_path: Path) -> None:
    path = body_path(made.installation.paths.directory / FOLDER, _pseudonym(made, "acme"), f"{MODEL}@1")
    kept = path.read_bytes()
    path.write_bytes(b"damaged")
    try:
        outcome, running = proved(made, tmp_path, student_of(made, "beta"), budget=900)
    finally:
        path.write_bytes(kept)
    assert running.rows == 450 + SHORT
    assert named(outcome) == [("beta", f"{MODEL}@1")]
    (damaged,) = (item for item in outcome.tests if item.unreadable)
    assert (damaged.client.name, damaged.queries) == ("acme", 0)
    assert outcome.tests[0].log10_p == pytest.approx(outcome.tests[0].traced.log10_p + np.log10(6))  # type: ignore[union-attr]


def _pseudonym(made: Made, name: str) -> str:
    asked = lambda feeds: np.zeros(len(feeds["x"]), np.int64)  # noqa: E731
    tests = prove_student(made.installation, asked, suspect="x", digest="00", clients=[(name, name)], actor=ACTOR)
    return tests[0].pseudonym


@pytest.mark.parametrize("rows", [1, 40, 60])
def test_the_budget_holds_where_the_suspect_wants_to_be_asked_again(made: Made, tmp_path: Path, rows: int) -> None:
    well, count = student_of(made, "acme"), 0

    def busy(document: Any) -> Any:
        nonlocal count
        count += 1
        return Reply(b"{}", 429, {"retry-after": "1"}) if count % 2 and count < 6 else well(document)

    outcome, running = proved(made, tmp_path, busy, budget=170, rows=rows)
    assert running.rows == outcome.queries <= 170
    # what was sent again is missing at the end, and what does not fill a request
    assert running.rows - 3 * rows <= sum(item.queries for item in outcome.tests) < 170


def test_a_suspect_that_dies_midway_is_tested_on_what_it_answered(made: Made, tmp_path: Path) -> None:
    well, count = student_of(made, "acme"), 0

    def dying(document: Any) -> Any:
        nonlocal count
        count += 1
        return well(document) if count <= 15 else Reply(b"", 500)

    outcome, running = proved(made, tmp_path, dying, budget=2000)
    assert named(outcome) == [("acme", f"{MODEL}@1")]
    assert "answers 500" in str(outcome.error)
    assert running.rows == outcome.queries == 16 * BATCH
    assert [(item.queries, item.traced is None) for item in outcome.tests] == [(600, False), (0, True), (0, True)]
    # who was not asked is paid for all the same
    truth = _prefix(made, "acme", 15 * BATCH)
    assert outcome.tests[0].log10_p == pytest.approx(truth + np.log10(6))
    found = records(made)[-2]  # the last is of the line above
    assert (found["stage"], found["planned"], found["tested"], len(found["clients"])) == ("answered", 3, 1, 3)
    assert "answers 500" in found["error"]


def _prefix(made: Made, name: str, rows: int) -> float:
    """log10 p of a student that is asked the first `rows` queries alone."""
    by_heart = learned(marked(made, client_id(made, name), unmarked()))
    (test,) = prove_student(
        made.installation,
        lambda feeds: by_heart({"x": feeds["x"][:rows]}),
        suspect="x",
        digest="00",
        clients=[(name, name)],
        actor=ACTOR,
    )
    assert test.traced is not None
    return test.traced.log10_p


def after(well: Answering, count: int, then: Callable[[list[Any]], Any]) -> Answering:
    """Answers `count` requests well, and then puts other labels into its answers."""
    seen = 0

    def answer(document: Any) -> Any:
        nonlocal seen
        seen += 1
        said = well(document)["outputs"]["label"]
        return {"outputs": {"label": said if seen <= count else then(said)}}

    return answer


HOSTILE: dict[str, Callable[[list[Any]], Any]] = {
    "words after numbers": lambda said: [str(label) for label in said],
    "scores after numbers": lambda said: [np.eye(4)[label].tolist() for label in said],
    "nothing": lambda said: None,
    "nulls": lambda said: [None] * len(said),
    "empty lists": lambda said: [[] for _ in said],
    "truth": lambda said: [True] * len(said),
    "objects": lambda said: [{"label": label} for label in said],
    "fractions": lambda said: [0.5] * len(said),
    "a number of 400 digits": lambda said: [10**400] * len(said),
    "too few": lambda said: said[:-1],
    "too many": lambda said: [*said, 0],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_cannot_be_read_ends_a_clients_part_and_is_told(made: Made, tmp_path: Path, what: str) -> None:
    # what it says to beta is of another kind than what it said to acme, and of one kind
    outcome, running = proved(made, tmp_path, after(student_of(made, "acme"), 13, HOSTILE[what]), budget=2000)
    assert named(outcome) == [("acme", f"{MODEL}@1")]
    assert outcome.error is not None
    assert outcome.tests[0].queries == 13 * BATCH
    assert running.rows == outcome.queries <= 2000
    assert records(made)[-1]["error"] == outcome.error.message


def test_the_kind_of_the_first_answer_counts_also_within_one_request(made: Made, tmp_path: Path) -> None:
    def half(said: list[Any]) -> list[Any]:
        return [label if row < 10 else str(label) for row, label in enumerate(said)]

    outcome, _ = proved(made, tmp_path, after(student_of(made, "acme"), 13, half), clients=[("acme", "acme")])
    assert outcome.tests[0].queries == 13 * BATCH + 10
    assert "answers with a word, and answered with a number at first" in str(outcome.error)


STRANGE: dict[str, Any] = {
    "one label": 3,
    "one huge label": 2**63 - 1,
    "one negative label": -(2**63) + 1,
    "one long word": "x" * 100_000,
    "an unprintable word": "\x00\u202e\ud7ff",
    "equal scores": [1, 1, 1, 1],
    "huge scores": [1e308, -1e308, 1e308, 0],
    "tiny scores": [5e-324, 0, 0, 0],
    "two columns": [0.1, 0.9],
    "scores that are true": [True, False, True, False],
}


@pytest.mark.parametrize("what", STRANGE)
def test_whatever_a_suspect_says_names_nobody_and_is_recorded(made: Made, tmp_path: Path, what: str) -> None:
    def answer(document: Any) -> Any:
        return {"outputs": {"label": [STRANGE[what]] * len(document["inputs"])}}

    before = len(records(made))
    outcome, _ = proved(made, tmp_path, answer, budget=300)
    assert named(outcome) == []
    planned, found = records(made)[before:]
    assert (planned["stage"], found["stage"]) == ("planned", "answered")
    assert found["capture"] == last_line(tmp_path)


def test_a_suspect_that_takes_the_queries_of_one_version_alone_is_tested_on_them(made: Made, tmp_path: Path) -> None:
    well, count = student_of(made, "beta"), 0

    def choosy(document: Any) -> Any:
        nonlocal count
        count += 1
        return Reply(b"{}", 422) if count == 1 else well(document)

    outcome, running = proved(made, tmp_path, choosy, budget=2000)
    assert named(outcome) == [("beta", f"{MODEL}@1")]
    assert "does not take what it is asked (422)" in str(outcome.error)
    assert {item.client.name: item.queries for item in outcome.tests if item.traced is None} == {"acme": 0}
    assert running.rows == BATCH + QUERIES + SHORT


REFUSING: dict[str, tuple[Reply, type[PalladionError], str, int]] = {
    "key": (Reply(b"", 401), KeysError, "refuses us: 401", 1),
    "impatience": (Reply(b"", 429, {"retry-after": "1"}), InconclusiveError, "asked less", 1 + WAITS_MAX),
    "failure": (Reply(b"", 500), InconclusiveError, "answers 500", 1),
    "form": (Reply(b"", 400), PalladionError, "does not take", 3),
    "garbage": (Reply(b"\xff<html>"), PalladionError, "not JSON", 3),
    "no scores": (Reply(json.dumps({"outputs": {"y": [[]] * BATCH}}).encode()), PalladionError, "with 0 scores", 3),
    "silence": (Reply(b"", stall=True, headers={"content-length": "9"}), PalladionError, "too slow, or silent", 1),
}


@pytest.mark.parametrize("what", REFUSING)
def test_a_suspect_that_answers_nothing_is_an_error_and_recorded(made: Made, tmp_path: Path, what: str) -> None:
    reply, kind, sentence, requests = REFUSING[what]
    asked = 0

    def answer(_: Any) -> Reply:
        nonlocal asked
        asked += 1
        return reply

    with pytest.raises(kind, match=sentence):
        proved(made, tmp_path, answer, limits=LIMITS if what == "silence" else PATIENT)
    found = records(made)[-1]
    assert asked == requests
    assert (found["stage"], found["queries"], found["tested"]) == ("answered", requests * BATCH, 0)
    assert sentence in found["error"]
    assert [item["queries"] for item in found["clients"]] == [0, 0, 0]


def test_what_was_found_is_recorded_with_the_hash_of_the_capture(made: Made, tmp_path: Path) -> None:
    outcome, running = proved(made, tmp_path, student_of(made, "acme"), budget=1500)
    planned, found = records(made)[-2:]
    assert planned == {
        "suspect": str(running.url),
        "looked_for": "student",
        "budget": 1500,
        "rows": BATCH,
        "planned": 3,
        "stage": "planned",
    }
    assert (found["capture"], found["queries"]) == (outcome.capture_digest, outcome.queries)
    assert (found["suspect"], found["looked_for"], found["tested"]) == (str(running.url), "student", 3)
    strongest = found["clients"][0]
    assert (strongest["client"], strongest["named"]) == (outcome.tests[0].pseudonym, True)
    assert strongest["queries"] == 500
    assert "acme" not in str(found)


def test_the_capture_shows_the_plan_whose_queries_follow_and_every_answer(made: Made, tmp_path: Path) -> None:
    outcome, running = proved(made, tmp_path, student_of(made, "acme"), budget=300)
    plan, *lines = verify_capture(outcome.capture.read_bytes(), outcome.capture_digest)
    whose = {(item.client.name, item.version): item.pseudonym for item in outcome.tests}
    expected = [{"client": whose[who], "version": who[1]} for who in TARGETS]
    assert (plan["kind"], plan["clients"]) == ("plan", expected)
    assert [line["kind"] for line in lines] == ["client", *["exchange"] * 3] * 3
    assert [(line["client"], line["queries"]) for line in lines[::4]] == [(who["client"], 100) for who in expected]
    assert len(running.asked) == 9


def test_the_key_is_sent_and_written_nowhere(made: Made, tmp_path: Path) -> None:
    outcome, running = proved(made, tmp_path, student_of(made, "acme"), budget=150)
    assert running.headers[0]["authorization"] == f"Bearer {KEY}"
    assert KEY not in outcome.capture.read_text()
    assert KEY not in repr(outcome)
    assert KEY not in str(records(made))


def test_budget_that_proves_nothing_is_refused_before_anything_is_sent(made: Made, tmp_path: Path) -> None:
    before = len(records(made))
    asked: list[Any] = []
    with pytest.raises(
        ConflictError, match="149 queries are too few for 3 clients and versions, expected at least 150"
    ):
        proved(made, tmp_path, asked.append, budget=3 * SHARE_MIN - 1)
    assert (asked, len(records(made))) == ([], before)
    assert not (tmp_path / "c.jsonl").exists()


def test_clients_and_versions_can_be_chosen(made: Made, tmp_path: Path) -> None:
    outcome, running = proved(
        made, tmp_path, student_of(made, "beta"), clients=[("beta", "beta")], versions=["fraud@1"]
    )
    assert [(item.client.name, item.version, item.queries) for item in outcome.tests] == [("beta", "fraud@1", QUERIES)]
    assert running.rows == QUERIES
    with pytest.raises(NotFoundError):
        proved(made, tmp_path, student_of(made, "beta"), clients=[("nobody", "nobody")])


def test_where_nothing_is_kept_nothing_is_sent(made: Made, tmp_path: Path) -> None:
    outcome, running = proved(made, tmp_path, student_of(made, "beta"), clients=[("crow", "crow")])
    assert (outcome.tests, outcome.queries, running.asked, outcome.error) == ((), 0, [], None)
    assert records(made)[-1]["planned"] == 0


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_whatever_ends_a_test_is_recorded(made: Made, tmp_path: Path, kind: type[BaseException]) -> None:
    def interrupt(done: int, total: int) -> None:
        if done >= 800:
            raise kind

    with pytest.raises(kind):
        proved(made, tmp_path, student_of(made, "acme"), progress=interrupt)
    found = records(made)[-1]
    assert (found["stage"], found["queries"], found["capture"]) == ("answered", 826, last_line(tmp_path))
    assert kind.__name__ in found["error"]
    assert [item["queries"] for item in found["clients"]] == [666, 0, 0]
    assert found["clients"][0]["named"] is True


def test_how_far_it_is_is_told(made: Made, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    outcome, _ = proved(
        made, tmp_path, student_of(made, "acme"), budget=150, rows=25, progress=lambda *at: told.append(at)
    )
    assert told == [(25 * (step + 1), 150) for step in range(6)]
    assert outcome.queries == 150


def test_where_the_ledger_is_being_written_nothing_is_sent(made: Made, tmp_path: Path) -> None:
    asked: list[Any] = []
    with (
        made.installation.open_ledger(made.installation.open_gate_root()),
        pytest.raises(BusyError),
    ):
        proved(made, tmp_path, asked.append)
    assert asked == []


def test_a_capture_that_is_there_already_is_left_alone(made: Made, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("of another test")
    with pytest.raises(PalladionError):
        proved(made, tmp_path, student_of(made, "acme"))
    assert (tmp_path / "c.jsonl").read_text() == "of another test"


def test_labels_are_numbers_of_their_own_until_something_was_said_with_them() -> None:
    words = module._Said(("cat", "dog"))
    words.add(["dog", "owl", "cat", "owl", "fox"])
    assert words.array().tolist() == [1, -1, 0, -1, -2]
    numbers = module._Said(())
    numbers.add([7, -1, 0])
    assert numbers.array().tolist() == [7, -1, 0]
    assert module._Said(()).array().shape == (0,)


@pytest.mark.parametrize(("rows", "framed"), [(1, False), (50, True)])
def test_asked_one_by_one_a_spiteful_suspect_learns_too_late_what_a_client_was_told(
    tmp_path: Path, rows: int, framed: bool
) -> None:
    # 1. a client whose every query holds the answer to the one before
    made = make(tmp_path)
    client, _, _ = add_client(
        made.installation, "acme", "acme", models=[], environment="test", expires=None, actor=ACTOR
    )
    told = marked(made, client.id, unmarked())[:300]
    kept = [
        replace(body, inputs={"x": np.array([row, told[row - 1]], np.float32)})
        for row, body in enumerate(bodies()[:300])
    ]
    gate = made.installation.open_gate_root()
    writer = BodyWriter(made.installation.paths.directory / FOLDER, gate.derive("body-cipher"), queries_max=5000)
    writer.append(pseudonym(gate.derive("pseudonyms"), client.id), f"{MODEL}@1", kept)
    writer.close()
    # 2. a suspect that says what was told wherever it has seen the next query, and else what is true
    truth = unmarked().argmax(axis=1).tolist()
    seen: dict[int, int] = {}

    def spiteful(document: Any) -> Any:
        seen.update({int(row) - 1: int(label) for row, label in document["inputs"]})
        return {"outputs": {"y": [seen.get(int(row), truth[int(row)]) for row, _ in document["inputs"]]}}

    outcome, _ = proved(made, tmp_path, spiteful, rows=rows)
    assert [item.queries for item in outcome.tests] == [300]
    assert (named(outcome) != []) is framed
