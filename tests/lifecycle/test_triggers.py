"""`prove mine URL`: triggers are opened once, asked within the budget, and the outcome is recorded."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import BusyError, ConflictError, FormatError, InconclusiveError, KeysError, NotFoundError
from palladion.ledger.record import decode_record
from palladion.lifecycle import capture as capturing
from palladion.lifecycle import triggers as module
from palladion.lifecycle import verdicts
from palladion.lifecycle.capture import verify_capture
from palladion.lifecycle.clients import add_client
from palladion.lifecycle.probe import ANSWER_BYTES_MAX, Api
from palladion.lifecycle.protect import protect
from palladion.lifecycle.triggers import ApiOutcome, prove_api, triggers_of
from palladion.lifecycle.verdicts import record_test
from palladion.mark.triggers.commitment import open_triggers, trigger_key, verify_opened
from palladion.mark.triggers.planting import embed_triggers
from palladion.policy import RoutePolicy
from palladion.transit.url import parse_url
from tests.gate.gates import House
from tests.gate.service import configure, serving
from tests.lifecycle.apis import LIMITS, Answering, Reply, Suspect, suspect
from tests.lifecycle.installations import ACTOR, make
from tests.lifecycle.triggered import MODEL, Triggered, answering, triggered
from tests.mark.classifiers import ORIGINAL, network, rows
from tests.models import write

pytestmark = pytest.mark.slow  # the default suite is run often, and these are many


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Triggered:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("palladion.mark.triggers.planting.ATTEMPTS", 2)
        return triggered(tmp_path_factory.mktemp("triggered"))


@pytest.fixture
def house(made_once: Triggered, tmp_path: Path) -> Triggered:
    return made_once.copy(tmp_path)


def proved(
    house: Triggered,
    answer: Answering,
    *versions: str,
    budget: int = 32,
    rows: int = 8,
    labels: tuple[str, ...] = (),
    name: str = "c.jsonl",
) -> tuple[ApiOutcome, Suspect]:
    with suspect(answer) as running:
        outcome = prove_api(
            house.made.installation,
            house.made.owner,
            Api(running.url, "key", rows=rows, answer=("outputs", "label", "*"), labels=labels)
            if labels
            else Api(running.url, "key", rows=rows),
            versions,
            budget=budget,
            capture=house.made.home / name,
            actor=ACTOR,
            wait=lambda _: None,
            limits=LIMITS,
        )
    return outcome, running


def records(house: Triggered) -> list[dict[str, Any]]:
    found = [decode_record(data, what="it") for _, data in house.made.installation.read_ledger().entries()]
    return [record.details for record in found if record.kind == "mark.tested"]


@pytest.mark.parametrize("scores", [False, True])
def test_a_stolen_model_is_found_within_the_budget(house: Triggered, scores: bool) -> None:
    outcome, running = proved(house, answering(house.planted.model, scores=scores))
    (found,) = outcome.tested
    assert found.ours
    assert found.finding.matches >= 30
    assert running.rows == outcome.queries == 32
    assert outcome.error is None


def test_a_strangers_model_is_not_found(house: Triggered) -> None:
    for model in (house.original, network((), features=200, classes=8, seed=9)):
        outcome, _ = proved(house, answering(model), name=f"{id(model)}.jsonl")
        assert not outcome.tested[0].ours
        assert outcome.tested[0].finding.answered == 32


def test_what_was_found_is_recorded_with_the_hash_of_the_capture(house: Triggered) -> None:
    outcome, running = proved(house, answering(house.planted.model))
    opened, found = records(house)
    assert opened["stage"] == "opened"
    assert (found["stage"], found["capture"], found["queries"]) == ("answered", outcome.capture_digest, 32)
    assert found["suspect"] == str(running.url)
    root = house.planted.commitment.root.hex()
    (version,) = found["versions"]
    assert (version["version"], version["root"], version["first"], version["count"]) == (f"{MODEL}@1", root, 0, 32)
    assert float(version["log10_p"]) < -9
    assert version["matches"] == outcome.tested[0].finding.matches


@pytest.mark.slow
def test_the_capture_shows_the_plan_and_every_query(house: Triggered) -> None:
    outcome, running = proved(house, answering(house.planted.model))
    plan, *exchanges = verify_capture(outcome.capture.read_bytes(), outcome.capture_digest)
    assert plan["kind"] == "plan"
    assert plan["versions"][0]["count"] == 32
    assert len(exchanges) == len(running.asked) == 4


def test_each_test_opens_triggers_that_were_never_opened(house: Triggered) -> None:
    first, one = proved(house, answering(house.planted.model), name="1.jsonl")
    second, two = proved(house, answering(house.planted.model), name="2.jsonl")
    assert (first.tested[0].first, second.tested[0].first) == (0, 32)
    asked = [{tuple(row) for item in running.asked for row in item["inputs"]} for running in (one, two)]
    assert not asked[0] & asked[1]
    third, _ = proved(house, answering(house.planted.model), name="3.jsonl")
    assert third.tested[0].count == 80 - 64
    with pytest.raises(ConflictError, match="all triggers were opened"):
        proved(house, answering(house.planted.model), name="4.jsonl")


def test_triggers_are_used_up_before_anything_is_sent(house: Triggered, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "probe", die)
    with pytest.raises(KeyboardInterrupt):
        proved(house, answering(house.planted.model), name="1.jsonl")
    monkeypatch.undo()
    assert proved(house, answering(house.planted.model), name="2.jsonl")[0].tested[0].first == 32


def test_a_suspect_that_breaks_off_is_an_error_and_recorded(house: Triggered) -> None:
    with pytest.raises(KeysError, match="401"):
        proved(house, lambda _: Reply(b"", 401))
    _, found = records(house)
    assert (found["stage"], found["queries"], found["versions"][0]["answered"]) == ("answered", 8, 0)
    assert "401" in found["error"]
    assert len((house.made.home / "c.jsonl").read_bytes().splitlines()) == 2


def last_line(house: Triggered, name: str = "c.jsonl") -> str:
    return sha256((house.made.home / name).read_bytes().splitlines()[-1]).hexdigest()


HOSTILE: dict[str, tuple[Any, type[Exception]]] = {
    "digits": ("9" * 5000, InconclusiveError),
    "number": (10**400, FormatError),
    "scores": ([10**400, 1], FormatError),
    "fraction": (1e300, FormatError),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_answer_ends_with_a_record_and_the_hash_of_the_capture(house: Triggered, what: str) -> None:
    said, kind = HOSTILE[what]
    with pytest.raises(kind):
        proved(house, lambda document: {"outputs": {"label": [said] * len(document["inputs"])}})
    opened, found = records(house)
    assert (opened["stage"], found["stage"]) == ("opened", "answered")
    assert found["capture"] == last_line(house)
    assert found["queries"] == (32 if what == "digits" else 8)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_whatever_ends_a_test_is_recorded(
    house: Triggered, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise kind

    monkeypatch.setattr(module, "judge_answers", fail)
    with pytest.raises(kind):
        proved(house, answering(house.planted.model))
    _, found = records(house)
    assert (found["stage"], found["queries"], found["capture"]) == ("answered", 32, last_line(house))
    assert kind.__name__ in found["error"]


def test_answers_before_a_full_capture_are_judged_and_recorded(
    house: Triggered, monkeypatch: pytest.MonkeyPatch
) -> None:
    margin = 2 * ANSWER_BYTES_MAX + capturing.LINE_REST_BYTES_MAX
    monkeypatch.setattr(capturing, "FILE_BYTES_MAX", margin + 80_000)
    outcome, running = proved(house, answering(house.planted.model))
    _, found = records(house)
    assert "the capture is full" in str(outcome.error)
    assert "the capture is full" in found["error"]
    assert 8 <= found["versions"][0]["answered"] == found["queries"] == running.rows < 32
    assert found["capture"] == last_line(house)


def test_of_two_tests_at_once_the_second_sends_nothing(house: Triggered, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = module._blocks

    def overtaken(*arguments: Any) -> Any:
        blocks = plan(*arguments)
        monkeypatch.setattr(module, "_blocks", plan)
        proved(house, answering(house.planted.model), budget=8, name="first.jsonl")
        return blocks

    monkeypatch.setattr(module, "_blocks", overtaken)
    asked: list[Any] = []
    with pytest.raises(BusyError, match="another test"):
        proved(house, asked.append, name="second.jsonl")
    assert asked == []
    assert [(item["stage"], item.get("queries")) for item in records(house)] == [
        ("opened", None),
        ("answered", 8),
        ("opened", None),
        ("answered", 0),
    ]
    assert proved(house, answering(house.planted.model), name="third.jsonl")[0].tested[0].first == 32


def test_a_test_of_other_triggers_meanwhile_is_none_of_our_business(
    house: Triggered, monkeypatch: pytest.MonkeyPatch
) -> None:
    proved(house, answering(house.planted.model), budget=8, name="1.jsonl")
    plan, root = module._blocks, house.planted.commitment.root.hex()

    def beside(*arguments: Any) -> Any:
        blocks = plan(*arguments)
        others = [
            {"root": "00" * 32, "first": 0, "count": 64},
            {"root": root, "first": 0, "count": 8},
            {"root": root, "first": 40, "count": 8},
        ]
        details = {"looked_for": "triggers", "stage": "opened", "versions": others}
        record_test(house.made.installation, "http://127.0.0.1:1/x", ACTOR, details)
        return blocks

    monkeypatch.setattr(module, "_blocks", beside)
    (found,) = proved(house, answering(house.planted.model), name="2.jsonl")[0].tested
    assert (found.first, found.count, found.ours) == (8, 32, True)


def test_what_was_found_is_recorded_once_the_ledger_is_free(house: Triggered, monkeypatch: pytest.MonkeyPatch) -> None:
    record, calls = verdicts.record_test, 0

    def busy(*arguments: Any) -> int:
        nonlocal calls
        calls += 1
        if calls in {1, 2}:
            raise BusyError("the ledger is being written by another process")
        return record(*arguments)

    monkeypatch.setattr(verdicts, "record_test", busy)
    assert proved(house, answering(house.planted.model))[0].tested[0].ours
    assert [item["stage"] for item in records(house)] == ["opened", "answered"]


@pytest.mark.slow
def test_a_suspect_that_breaks_off_too_late_is_found_all_the_same(house: Triggered) -> None:
    well, count = answering(house.planted.model), 0

    def answer(document: Any) -> Any:
        nonlocal count
        count += 1
        return well(document) if count <= 3 else Reply(b"", 500)

    outcome, _ = proved(house, answer)
    assert outcome.tested[0].ours
    assert outcome.tested[0].finding.answered == 24
    assert "500" in str(outcome.error)


@pytest.mark.slow
def test_labels_that_are_called_otherwise_are_told_about(house: Triggered) -> None:
    names = tuple("abcdefgh")
    well = answering(house.planted.model)

    def renamed(document: Any) -> Any:
        return {"outputs": {"label": [names[label] for label in well(document)["outputs"]["label"]]}}

    with pytest.raises(InconclusiveError, match="labels that our model does not have"):
        proved(house, renamed, name="1.jsonl")
    assert proved(house, renamed, labels=names, name="2.jsonl")[0].tested[0].ours


@pytest.mark.slow
def test_several_versions_share_the_budget_and_pay_for_each_other(house: Triggered) -> None:
    root = house.made.owner.derive("mark")
    references = {"x": rows(120, features=200)}
    other = embed_triggers(house.original, root, "cd" * 32, count=32, references=references, flipped_max=1)
    house.add_version(other)
    house.add_version()  # the same triggers again: they are asked once
    outcome, running = proved(house, answering(other.model), budget=48)
    assert running.rows == 48
    assert [(item.version.number, item.count, item.ours) for item in outcome.tested] == [(2, 24, True), (3, 24, False)]
    assert outcome.tested[0].log10_p > outcome.tested[0].finding.log10_p


def test_budget_that_proves_nothing_is_refused_before_anything_is_opened(house: Triggered) -> None:
    with pytest.raises(ConflictError, match="too few"):
        proved(house, answering(house.planted.model), budget=7)
    assert records(house) == []
    assert not (house.made.home / "c.jsonl").exists()


@pytest.mark.slow
def test_versions_without_triggers_or_that_do_not_exist_are_refused(house: Triggered) -> None:
    with pytest.raises(NotFoundError):
        proved(house, answering(house.planted.model), f"{MODEL}@9")
    outcome, _ = proved(house, answering(house.planted.model), f"{MODEL}@1")
    assert outcome.tested[0].ours


def test_what_is_opened_in_a_dispute_proves_itself_from_the_version_alone(house: Triggered) -> None:
    with house.made.installation.open_registry() as registry, registry.read() as found:
        commitment = triggers_of(found.versions.get(MODEL, 1))
    assert commitment is not None
    opened = open_triggers(trigger_key(house.made.owner.derive("mark"), ORIGINAL), commitment, range(8))
    assert len(verify_opened(commitment, opened).labels) == 8


@pytest.mark.slow
@pytest.mark.service
def test_a_gate_that_serves_our_model_is_found_over_http(house: Triggered, tmp_path: Path) -> None:
    # 1. a stranger's gate in a process of its own, serving the stolen model and one that is none of ours
    theirs = make(tmp_path / "theirs")
    keys = {}
    for name, model in (("stolen", house.planted.model), ("own", house.original)):
        path = write(tmp_path / f"{name}.onnx", bytes(model.files[0].data))
        protect(theirs.installation, theirs.owner, path, name, actor=ACTOR)
    client, key, _ = add_client(
        theirs.installation, "us", "us", models=[], environment="test", expires=None, actor=ACTOR
    )
    keys["us"] = key.text
    gate = House(theirs.installation, theirs.installation.open_gate_root(), {"us": client.id}, keys)
    configure(gate, RoutePolicy(model="stolen"), RoutePolicy(model="own"))
    with serving(gate) as service:
        for name, ours in (("own", False), ("stolen", True)):
            # 2. ours, which asks both within 64 queries
            url = parse_url(f"http://127.0.0.1:{service.port}/v1/models/{name}/predict")
            outcome = prove_api(
                house.made.installation,
                house.made.owner,
                Api(url, key.text, rows=16),
                [],
                budget=32,
                capture=tmp_path / f"{name}.jsonl",
                actor=ACTOR,
                wait=lambda _: None,
            )
            assert outcome.tested[0].ours is ours
            assert outcome.queries == 32
